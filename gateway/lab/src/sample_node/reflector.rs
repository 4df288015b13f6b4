//! The decisions of a sample node, without socket and clock.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::{
    ClockRefusal, MessageError, NodeFault, NodeLoad, NodeSecret, OpenStatus, OrderOutcome, Replays,
    ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::seal::{NodeSeal, SealError, SealSender};
use evenkeel_media::trunk::{self, Ballots, Bundles, ReceivedDatagram, ReceivedPackets, Tag};
use evenkeel_media::{rtp, stun};
use fastrand::Rng;

use super::counters::SampleNodeCounters;
use super::options::{NodeBehaviour, PlainRoom, SampleNodeOptions, number_of};
use super::session::{ReflectedRoom, ReflectedSession, SessionLeg, send};
use crate::TestHeader;
use crate::datagrams::{Datagram, DatagramOutbox};

/// Silence after which a port leg expires, as in rtpengine.
const PLAIN_LEASE: Duration = Duration::from_secs(60);
/// A cut ends by itself after this time, in case no message ends it.
const CUT_FOR: Duration = Duration::from_secs(300);
/// Minimum interval of refusals, however many messages are refused.
const REFUSED_EVERY: Duration = Duration::from_millis(100);
const LEASES_EVERY: Duration = Duration::from_millis(50);

/// Monotonic and wall clock, read once per batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchClock {
    pub(super) instant: Instant,
    /// Microseconds since the Unix epoch.
    pub(super) unix_us: u64,
}

/// The node's number of a session.
pub(super) type SessionIndex = u64;

pub(super) struct Reflector {
    pub(super) options: SampleNodeOptions,
    /// The number of the node in test headers, and the SSRC of its own reports.
    pub(super) number: u32,
    rng: Rng,
    draining: bool,
    /// The end of a cut. Before it all packets are dropped, except the message that ends the cut.
    cut: Option<Instant>,
    /// Time of the last refusal.
    refused: Option<Instant>,
    replays: Replays,
    ballots: Ballots,
    pub(super) sessions: BTreeMap<SessionIndex, ReflectedSession>,
    sessions_ever: SessionIndex,
    by_tag: HashMap<Tag, SessionIndex>,
    by_source: HashMap<SocketAddr, SessionIndex>,
    rooms: HashMap<ReflectedRoom, Vec<SessionIndex>>,
    /// The session and incoming SSRC of each outgoing SSRC.
    pub(super) out_ssrcs: HashMap<u32, (SessionIndex, u32)>,
    /// Packets on trunk legs, bundled per destination.
    bundles: Bundles,
    /// Packets of the last datagram.
    received: ReceivedPackets,
    /// Set if trunk legs are encrypted.
    seal: Option<NodeSeal>,
    leases_seen: Option<Instant>,
    pub(super) counters: SampleNodeCounters,
    pub(super) scratch: Vec<u8>,
    receivers: Vec<SessionLeg>,
    pub(super) conduct: Box<dyn NodeBehaviour>,
}

impl Reflector {
    /// Refuses messages that were signed before this time of the wall clock.
    pub(super) fn refuse_before(&mut self, began_us: u64) {
        self.replays = Replays::since(began_us);
    }

    pub(super) fn new(options: SampleNodeOptions, mut rng: Rng) -> Self {
        let seal = options.secret.clone().filter(|_| options.encrypt);
        let seal = seal.map(|secret| NodeSeal::new(secret, rng.u64(..)));
        let ballots = Ballots::new(rng.u32(..));
        let first_number = rng.u16(..);
        let bundles = match &seal {
            Some(_) => Bundles::sealed(first_number),
            None => Bundles::new(first_number),
        };
        Self {
            number: number_of(&options.name),
            options,
            rng,
            draining: false,
            cut: None,
            refused: None,
            replays: Replays::default(),
            ballots,
            sessions: BTreeMap::new(),
            sessions_ever: 0,
            by_tag: HashMap::new(),
            by_source: HashMap::new(),
            rooms: HashMap::new(),
            out_ssrcs: HashMap::new(),
            bundles,
            received: ReceivedPackets::default(),
            seal,
            leases_seen: None,
            counters: SampleNodeCounters::default(),
            scratch: Vec::new(),
            receivers: Vec::new(),
            conduct: Box::new(()),
        }
    }

    pub(super) fn counters(&self) -> SampleNodeCounters {
        SampleNodeCounters { sessions: self.load().sessions, ..self.counters }
    }

    pub(super) fn handle_datagram(
        &mut self,
        datagram: &Datagram<'_>,
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        let (bytes, source) = (datagram.bytes, datagram.source);
        match demux::classify(bytes) {
            DatagramKind::Signed => self.handle_signed(bytes, source, None, now, outbox),
            _ if self.cut.is_some() => self.counters.ignored.cut += 1,
            DatagramKind::Bundle | DatagramKind::TrunkRepair if self.seal.is_some() => {
                self.counters.refused.unreadable += 1;
            }
            DatagramKind::Bundle | DatagramKind::TrunkRepair => {
                let length = bytes.len();
                let datagram =
                    ReceivedDatagram { content: bytes, length, source, is_sealed: false };
                self.handle_media(&datagram, now, outbox);
            }
            DatagramKind::Sealed => self.handle_sealed(bytes, source, now, outbox),
            DatagramKind::Rtp | DatagramKind::Rtcp => {
                if let Some(index) = self.plain_session(source, now) {
                    self.handle_packet(index, bytes, now, outbox);
                }
            }
            DatagramKind::Echo => {
                self.counters.echoes += 1;
                outbox.push(source, bytes);
            }
            DatagramKind::Stun => match stun::BindingRequest::parse(bytes) {
                Ok(request) => {
                    self.counters.stun += 1;
                    self.scratch.clear();
                    stun::write_success(
                        request.message.transaction(),
                        source,
                        None,
                        &mut self.scratch,
                    );
                    outbox.push(source, &self.scratch);
                }
                Err(_) => self.counters.malformed += 1,
            },
            DatagramKind::Dtls | DatagramKind::Quic | DatagramKind::Unknown => {
                self.counters.malformed += 1;
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: BatchClock, outbox: &mut DatagramOutbox) {
        let due =
            self.leases_seen.is_none_or(|seen| now.instant.duration_since(seen) >= LEASES_EVERY);
        if !due {
            return;
        }
        self.leases_seen = Some(now.instant);
        if self.cut.is_none() {
            let send = &mut |to, report: &[u8]| send(self.seal.as_mut(), to, report, outbox);
            self.bundles.handle_timeout(now.instant, send);
        }
        let _mended = self.cut.take_if(|until| *until <= now.instant);
        self.conduct.tick();
        let over = self.sessions.iter().filter(|(_, session)| session.expires <= now.instant);
        let over: Vec<SessionIndex> = over.map(|(&index, _)| index).collect();
        for index in over {
            self.counters.expired += 1;
            self.end(index);
        }
        let known: Vec<SocketAddr> =
            self.sessions.values().filter_map(|s| trunk_of(s.leg)).collect();
        let is_known = |address| known.contains(&address);
        self.bundles.keep(is_known);
        self.seal.iter_mut().for_each(|seal| seal.keep(is_known));
    }

    /// Sends the bundles that have gathered.
    pub(super) fn flush(&mut self, outbox: &mut DatagramOutbox) {
        self.bundles.flush(&mut |to, bundle| send(self.seal.as_mut(), to, bundle, outbox));
    }

    fn handle_sealed(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        let (mut datagram, length) = (bytes.to_vec(), bytes.len());
        let Some(seal) = &mut self.seal else {
            self.counters.refused.unreadable += 1;
            return;
        };
        match seal.open(&mut datagram, source) {
            Ok((content, sender)) => match demux::classify(content) {
                DatagramKind::Signed => {
                    self.handle_signed(content, source, Some(sender), now, outbox);
                }
                DatagramKind::Bundle | DatagramKind::TrunkRepair if sender.is_new() => {
                    self.counters.unknown_source += 1;
                }
                DatagramKind::Bundle | DatagramKind::TrunkRepair => {
                    let datagram = ReceivedDatagram { content, length, source, is_sealed: true };
                    self.handle_media(&datagram, now, outbox);
                }
                _ => self.counters.malformed += 1,
            },
            Err(SealError::Forged) => self.counters.refused.unreadable += 1,
            Err(SealError::Replayed) => self.counters.refused.replayed += 1,
        }
    }

    /// Handles a bundle, a repair datagram, or a report of losses.
    fn handle_media(
        &mut self,
        datagram: &ReceivedDatagram<'_>,
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        let is_bundle = demux::classify(datagram.content) == DatagramKind::Bundle;
        let is_report = !is_bundle && trunk::first_tag(datagram.content).is_some();
        self.counters.bundles_in += u64::from(is_bundle);
        self.counters.repairs_in += u64::from(!is_bundle && !is_report);
        let mut received = std::mem::take(&mut self.received);
        let reply_to = |tag: Tag| trunk_of(self.sessions.get(self.by_tag.get(&tag)?)?.leg);
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
        self.bundles.receive(datagram, reply_to, now.instant, &mut received, send);
        self.counters.bundles_recovered += received.bundles_recovered;
        self.counters.unknown_tag += received.unknown_tag;
        self.counters.unknown_source += received.unknown_source;
        self.counters.malformed += received.malformed;
        for (tag, packet) in received.packets() {
            if let Some(&index) = self.by_tag.get(&tag) {
                self.handle_packet(index, packet, now, outbox);
            }
        }
        self.received = received;
    }

    /// Handles a signed message; `sender` is set if it was encrypted.
    fn handle_signed(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        sender: Option<SealSender>,
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        let now = BatchClock { unix_us: self.conduct.unix_us(now.unix_us), ..now };
        let Some(secret) = self.options.secret.clone() else {
            self.counters.refused.key += 1;
            return;
        };
        let asked = match TrunkQuestion::read_once(bytes, &secret, now.unix_us, &mut self.replays) {
            Ok(asked) => asked,
            Err(refused) => return self.refuse(refused, (bytes, source), now, outbox),
        };
        let sealed = sender.is_some();
        if let (Some(seal), Some(sender)) = (&mut self.seal, sender) {
            seal.learn(sender);
        }
        let newer = asked.owner.map(|owner| self.ballots.handle_owner(owner, now.instant));
        if let (Some(Err(epoch)), None) = (newer, self.cut) {
            let answer = TrunkAnswer::Superseded { epoch };
            return self.answer(&answer, &secret, (source, asked.nonce, sealed), now, outbox);
        }
        let answer = match asked.message {
            TrunkQuestion::Break(how) => TrunkAnswer::Break(self.break_link(how, now.instant)),
            _ if self.cut.is_some() => {
                self.counters.ignored.cut += 1;
                return;
            }
            TrunkQuestion::Probe => {
                self.counters.probes += 1;
                let load = self.load();
                TrunkAnswer::Probe(NodeLoad {
                    permille: self.conduct.load(load.permille, now.instant),
                    ..load
                })
            }
            TrunkQuestion::Open { tag, .. } if self.seal.is_some() && !sealed => {
                TrunkAnswer::Open { tag, status: OpenStatus::Unencrypted }
            }
            TrunkQuestion::Open { room, tag, lease_s, numbered, .. } => {
                self.set_numbered(source, numbered, outbox);
                let expires = now.instant + Duration::from_secs(lease_s.into());
                let leg = SessionLeg::Trunk { tag, reply_to: source };
                TrunkAnswer::Open {
                    tag,
                    status: self
                        .open(tag, ReflectedSession::new(leg, ReflectedRoom::Named(room), expires)),
                }
            }
            TrunkQuestion::Close { tag } => TrunkAnswer::Close { tag, status: self.close(tag) },
            TrunkQuestion::Keep { lease_s, numbered, tags } => {
                self.set_numbered(source, numbered, outbox);
                let expires = now.instant + Duration::from_secs(lease_s.into());
                let unknown = tags.iter().filter(|&&tag| !self.keep(tag, source, expires));
                TrunkAnswer::Keep { unknown: unknown.copied().collect() }
            }
            TrunkQuestion::Drain => {
                self.draining = true;
                TrunkAnswer::Drain(self.load())
            }
            // A sample node sends no notices, and watches no process.
            TrunkQuestion::Noted { .. } | TrunkQuestion::Process => {
                self.counters.ignored.unanswered += 1;
                return;
            }
            TrunkQuestion::Start => TrunkAnswer::Start(OrderOutcome::Done),
            TrunkQuestion::Path { bundle_max, padding } => {
                self.bundles.limit(source, bundle_max.into());
                TrunkAnswer::Path { padding }
            }
            TrunkQuestion::Vote { group, vote } => {
                match self.ballots.handle_vote(group, vote, now.instant) {
                    Some(voted) => TrunkAnswer::Vote(voted),
                    None => {
                        self.counters.ignored.unanswered += 1;
                        return;
                    }
                }
            }
        };
        self.answer(&answer, &secret, (source, asked.nonce, sealed), now, outbox);
    }

    fn set_numbered(&mut self, to: SocketAddr, numbered: bool, outbox: &mut DatagramOutbox) {
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
        self.bundles.set_numbered(to, numbered, send);
    }

    fn answer(
        &mut self,
        answer: &TrunkAnswer,
        secret: &NodeSecret,
        (to, nonce, sealed): (SocketAddr, u64, bool),
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        self.scratch.clear();
        answer.write(secret, nonce, now.unix_us, &mut self.scratch);
        send(self.seal.as_mut().filter(|_| sealed), to, &self.scratch, outbox);
    }

    /// Tells the sender of a refused message whether the secret or the clock is wrong. The rate is limited, because
    /// senders are not authenticated.
    fn refuse(
        &mut self,
        refused: MessageError,
        (bytes, source): (&[u8], SocketAddr),
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        self.counters.refused.count(refused);
        let lately = |at: Instant| now.instant.duration_since(at) < REFUSED_EVERY;
        if self.cut.is_some() || self.refused.is_some_and(lately) {
            return;
        }
        if let Some(refusal) = ClockRefusal::of(bytes, refused, now.unix_us) {
            self.refused = Some(now.instant);
            self.scratch.clear();
            refusal.write(&mut self.scratch);
            outbox.push(source, &self.scratch);
        }
    }

    /// Cuts or restores the link. Breaking the process itself takes an agent beside the node.
    fn break_link(&mut self, how: NodeFault, now: Instant) -> OrderOutcome {
        match how {
            NodeFault::Cut | NodeFault::Heal if !self.options.drills => OrderOutcome::Forbidden,
            NodeFault::Cut | NodeFault::Heal => {
                self.cut = (how == NodeFault::Cut).then_some(now + CUT_FOR);
                OrderOutcome::Done
            }
            NodeFault::Kill | NodeFault::Hang | NodeFault::Wake => OrderOutcome::Unable,
        }
    }

    fn open(&mut self, tag: Tag, session: ReflectedSession) -> OpenStatus {
        if let Some(&index) = self.by_tag.get(&tag)
            && let Some(standing) = self.sessions.get_mut(&index)
            && standing.room == session.room
        {
            standing.expires = session.expires;
            standing.leg = session.leg;
            return OpenStatus::Ok;
        }
        if let Some(status) = self.turns_away() {
            return status;
        }
        // The same tag in another room replaces the earlier session.
        if let Some(&index) = self.by_tag.get(&tag) {
            self.end(index);
        }
        let index = self.begin(session);
        self.by_tag.insert(tag, index);
        OpenStatus::Ok
    }

    /// Renews a lease. Returns true if the session exists.
    fn keep(&mut self, tag: Tag, source: SocketAddr, expires: Instant) -> bool {
        let index = self.by_tag.get(&tag);
        let Some(session) = index.and_then(|index| self.sessions.get_mut(index)) else {
            return false;
        };
        session.expires = expires;
        session.leg = SessionLeg::Trunk { tag, reply_to: source };
        self.counters.kept += 1;
        true
    }

    fn close(&mut self, tag: Tag) -> OpenStatus {
        let Some(&index) = self.by_tag.get(&tag) else { return OpenStatus::UnknownTag };
        self.counters.closed += 1;
        self.end(index);
        OpenStatus::Ok
    }

    fn plain_session(&mut self, source: SocketAddr, now: BatchClock) -> Option<SessionIndex> {
        let expires = now.instant + PLAIN_LEASE;
        if let Some(&index) = self.by_source.get(&source) {
            self.sessions.get_mut(&index)?.expires = expires;
            return Some(index);
        }
        if self.turns_away().is_some() {
            return None;
        }
        let room = match self.options.plain_room {
            PlainRoom::Alone => ReflectedRoom::Alone(source),
            PlainRoom::Shared => ReflectedRoom::Plain,
        };
        let index = self.begin(ReflectedSession::new(SessionLeg::Port { source }, room, expires));
        self.by_source.insert(source, index);
        Some(index)
    }

    fn turns_away(&mut self) -> Option<OpenStatus> {
        let status = if self.draining {
            OpenStatus::Draining
        } else if self.sessions.len() >= self.options.sessions_max as usize {
            OpenStatus::Full
        } else {
            return None;
        };
        self.counters.turned_away += 1;
        Some(status)
    }

    fn begin(&mut self, session: ReflectedSession) -> SessionIndex {
        self.counters.opened += 1;
        self.sessions_ever += 1;
        self.rooms.entry(session.room).or_default().push(self.sessions_ever);
        self.sessions.insert(self.sessions_ever, session);
        self.sessions_ever
    }

    fn end(&mut self, index: SessionIndex) {
        let Some(session) = self.sessions.remove(&index) else { return };
        match session.leg {
            SessionLeg::Trunk { tag, .. } => self.by_tag.remove(&tag),
            SessionLeg::Port { source } => self.by_source.remove(&source),
        };
        for stream in &session.streams {
            self.out_ssrcs.remove(&stream.out_ssrc);
        }
        if let Some(room) = self.rooms.get_mut(&session.room) {
            room.retain(|&other| other != index);
            if room.is_empty() {
                self.rooms.remove(&session.room);
            }
        }
    }

    fn load(&self) -> NodeLoad {
        let sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let permille = u64::from(sessions) * 1_000 / u64::from(self.options.sessions_max.max(1));
        let state = if self.draining { ServingState::Draining } else { ServingState::Serving };
        NodeLoad {
            permille: u16::try_from(permille).unwrap_or(u16::MAX),
            state,
            sessions,
            vouched: true,
        }
    }

    fn handle_packet(
        &mut self,
        index: SessionIndex,
        packet: &[u8],
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        self.counters.packets_in += 1;
        let kind = demux::classify(packet);
        if self.conduct.drops(index, kind) {
            return;
        }
        match kind {
            DatagramKind::Rtp => self.handle_rtp(index, packet, now, outbox),
            DatagramKind::Rtcp => self.handle_rtcp(index, packet, now, outbox),
            _ => self.counters.malformed += 1,
        }
    }

    fn handle_rtp(
        &mut self,
        index: SessionIndex,
        packet: &[u8],
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        // Untouched packets may be SRTP.
        let parsed = match self.options.untouched {
            true => rtp::RtpHeader::parse_opaque(packet),
            false => rtp::RtpHeader::parse(packet),
        };
        let (Ok(header), Some(session)) = (parsed, self.sessions.get_mut(&index)) else {
            self.counters.malformed += 1;
            return;
        };
        let mut reflected = std::mem::take(&mut self.scratch);
        reflected.clear();
        reflected.extend_from_slice(packet);
        if self.options.stamps {
            TestHeader::stamp(
                &mut reflected[header.payload_offset..header.payload_end],
                self.number,
            );
        }
        let (stream, forgotten) = session.stream(&header, now.instant, &mut self.rng);
        stream.heard = now.instant;
        stream.reception.packet(header.sequence);
        if !self.options.untouched {
            stream.rewrite(&header, &mut reflected);
            self.out_ssrcs.insert(stream.out_ssrc, (index, header.ssrc));
            let retransmissions = &self.options.retransmissions[..];
            if retransmissions.contains(&header.payload_type) {
                session.rewrite_original(&header, retransmissions, &mut reflected);
            }
        }
        if let Some(ssrc) = forgotten {
            self.out_ssrcs.remove(&ssrc);
        }
        self.reflect(index, &reflected, outbox);
        self.scratch = reflected;
    }

    /// Sends a packet to all other sessions of the room. A session that is alone gets its own packets back.
    pub(super) fn reflect(
        &mut self,
        index: SessionIndex,
        packet: &[u8],
        outbox: &mut DatagramOutbox,
    ) {
        let mut receivers = std::mem::take(&mut self.receivers);
        receivers.clear();
        receivers.extend(self.others(index).map(|session| session.leg));
        for leg in &receivers {
            self.send(*leg, packet, outbox);
        }
        self.receivers = receivers;
    }

    /// The sessions that exchange packets with this one: the others of its room, or itself if it is alone.
    pub(super) fn others(&self, index: SessionIndex) -> impl Iterator<Item = &ReflectedSession> {
        let room = self.sessions.get(&index).and_then(|session| self.rooms.get(&session.room));
        let room = room.map(Vec::as_slice).unwrap_or_default();
        let others = room.iter().filter(move |&&other| other != index || room.len() == 1);
        others.filter_map(|other| self.sessions.get(other))
    }

    pub(super) fn send(&mut self, leg: SessionLeg, packet: &[u8], outbox: &mut DatagramOutbox) {
        let is_sent = match leg {
            SessionLeg::Port { source } => {
                outbox.push(source, packet);
                true
            }
            SessionLeg::Trunk { tag, reply_to } => {
                let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
                self.bundles.push(reply_to, tag, packet, send)
            }
        };
        if is_sent {
            self.counters.packets_out += 1;
        } else {
            self.counters.oversize += 1;
        }
    }
}

fn trunk_of(leg: SessionLeg) -> Option<SocketAddr> {
    match leg {
        SessionLeg::Trunk { reply_to, .. } => Some(reply_to),
        SessionLeg::Port { .. } => None,
    }
}
