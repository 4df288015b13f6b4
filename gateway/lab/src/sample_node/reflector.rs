//! The decisions of a sample node, without socket and clock.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::demux::{self, Kind};
use evenkeel_media::trunk::message::{
    Answer, Break, Load, Outcome, Question, Refusal, Refused, Replays, Secret, State, Status,
};
use evenkeel_media::trunk::seal::{self, Sender, Unreadable};
use evenkeel_media::trunk::{self, Ballots, Tag};
use evenkeel_media::{rtp, stun};
use fastrand::Rng;

use super::outgoing::{Leg, Outgoing};
use super::session::{Room, Session};
use super::{Conduct, Counters, Numbers, Options, PlainRoom, Stamps, number_of};
use crate::Mark;
use crate::datagrams::{Datagram, Outbox};

/// Silence after which a port leg expires, as in rtpengine.
const PLAIN_LEASE: Duration = Duration::from_secs(60);
/// A cut ends by itself after this time, in case no message ends it.
const CUT_FOR: Duration = Duration::from_secs(300);
/// Minimum interval of refusals, however many messages are refused.
const REFUSED_EVERY: Duration = Duration::from_millis(100);
/// Interval of lease checks.
const LEASES_EVERY: Duration = Duration::from_millis(50);

/// Monotonic and wall clock, read once per batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Microseconds since the Unix epoch.
    pub(super) unix_us: u64,
}

/// The node's number of a session.
pub(super) type Index = u64;

pub(super) struct Reflector {
    options: Options,
    number: u32,
    rng: Rng,
    draining: bool,
    /// The end of a cut. Before it all packets are dropped, except the message that ends the cut.
    cut: Option<Instant>,
    /// Time of the last refusal.
    refused: Option<Instant>,
    replays: Replays,
    ballots: Ballots,
    pub(super) sessions: BTreeMap<Index, Session>,
    sessions_ever: Index,
    by_tag: HashMap<Tag, Index>,
    by_source: HashMap<SocketAddr, Index>,
    rooms: HashMap<Room, Vec<Index>>,
    /// The session and incoming SSRC of each outgoing SSRC.
    pub(super) out_ssrcs: HashMap<u32, (Index, u32)>,
    outgoing: Outgoing,
    leases_seen: Option<Instant>,
    pub(super) counters: Counters,
    pub(super) scratch: Vec<u8>,
    receivers: Vec<Leg>,
    pub(super) conduct: Box<dyn Conduct>,
}

impl Reflector {
    pub(super) fn new(options: Options, mut rng: Rng) -> Self {
        let seal = options.secret.clone().filter(|_| options.encrypt);
        let seal = seal.map(|secret| seal::Node::new(secret, rng.u64(..)));
        let ballots = Ballots::new(rng.u32(..));
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
            outgoing: seal.map(Outgoing::sealed).unwrap_or_default(),
            leases_seen: None,
            counters: Counters::default(),
            scratch: Vec::new(),
            receivers: Vec::new(),
            conduct: Box::new(()),
        }
    }

    pub(super) fn counters(&self) -> Counters {
        Counters { sessions: self.load().sessions, ..self.counters }
    }

    /// The SSRC of the node's own reports: the number of the node in test headers.
    pub(super) fn own_ssrc(&self) -> u32 {
        self.number
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.options.numbers
    }

    pub(super) fn handle_datagram(
        &mut self,
        datagram: &Datagram<'_>,
        now: Now,
        outbox: &mut Outbox,
    ) {
        let (bytes, source) = (datagram.bytes, datagram.source);
        match demux::classify(bytes) {
            Kind::Signed => self.handle_signed(bytes, source, None, now, outbox),
            _ if self.cut.is_some() => {}
            Kind::Bundle if self.outgoing.is_sealed() => self.counters.refused.unreadable += 1,
            Kind::Bundle => self.handle_bundle(bytes, bytes.len(), Some(source), now, outbox),
            Kind::Sealed => self.handle_sealed(bytes, source, now, outbox),
            Kind::Rtp | Kind::Rtcp => {
                if let Some(index) = self.plain_session(source, now) {
                    self.handle_packet(index, bytes, now, outbox);
                }
            }
            Kind::Echo => {
                self.counters.echoes += 1;
                outbox.push(source, bytes);
            }
            Kind::Stun => match stun::Request::parse(bytes) {
                Ok(request) => {
                    self.counters.stun += 1;
                    self.scratch.clear();
                    stun::write_success(request.transaction(), source, None, &mut self.scratch);
                    outbox.push(source, &self.scratch);
                }
                Err(_) => self.counters.malformed += 1,
            },
            Kind::Dtls | Kind::Quic | Kind::Unknown => self.counters.malformed += 1,
        }
    }

    /// Ends expired sessions.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        let due =
            self.leases_seen.is_none_or(|seen| now.instant.duration_since(seen) >= LEASES_EVERY);
        if !due {
            return;
        }
        self.leases_seen = Some(now.instant);
        let _mended = self.cut.take_if(|until| *until <= now.instant);
        self.conduct.tick();
        let over = self.sessions.iter().filter(|(_, session)| session.expires <= now.instant);
        let over: Vec<Index> = over.map(|(&index, _)| index).collect();
        for index in over {
            self.counters.expired += 1;
            self.end(index);
        }
        let known: Vec<SocketAddr> =
            self.sessions.values().filter_map(|s| trunk_of(s.leg)).collect();
        self.outgoing.keep(|address| known.contains(&address));
    }

    /// Sends the bundles that have gathered.
    pub(super) fn flush(&mut self, outbox: &mut Outbox) {
        self.outgoing.flush(outbox);
    }

    fn handle_sealed(&mut self, bytes: &[u8], source: SocketAddr, now: Now, outbox: &mut Outbox) {
        let (mut datagram, length) = (bytes.to_vec(), bytes.len());
        match self.outgoing.open(&mut datagram, source) {
            Ok((content, sender)) => match demux::classify(content) {
                Kind::Signed => self.handle_signed(content, source, Some(sender), now, outbox),
                Kind::Bundle if sender.is_new() => self.counters.unknown_source += 1,
                Kind::Bundle => self.handle_bundle(content, length, None, now, outbox),
                _ => self.counters.malformed += 1,
            },
            Err(Unreadable::Forged) => self.counters.refused.unreadable += 1,
            Err(Unreadable::Replayed) => self.counters.refused.replayed += 1,
        }
    }

    /// Handles a bundle in a datagram of this length. `source` is `None` if encryption proves the sender.
    fn handle_bundle(
        &mut self,
        bytes: &[u8],
        length: usize,
        source: Option<SocketAddr>,
        now: Now,
        outbox: &mut Outbox,
    ) {
        self.counters.bundles_in += 1;
        for entry in trunk::entries(bytes) {
            let Ok((tag, packet)) = entry else {
                self.counters.malformed += 1;
                return;
            };
            let Some(&index) = self.by_tag.get(&tag) else {
                self.counters.unknown_tag += 1;
                continue;
            };
            let session = self.sessions.get(&index);
            let Some(gateway) = session.and_then(|session| trunk_of(session.leg)) else { continue };
            // Bundles are not signed: they come from the source of the last signed message.
            if source.is_some_and(|source| source != gateway) {
                self.counters.unknown_source += 1;
                continue;
            }
            self.outgoing.came(gateway, length, outbox);
            self.handle_packet(index, packet, now, outbox);
        }
    }

    /// Handles a signed message; `sender` is set if it was encrypted.
    fn handle_signed(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        sender: Option<Sender>,
        now: Now,
        outbox: &mut Outbox,
    ) {
        let now = Now { unix_us: self.conduct.unix_us(now.unix_us), ..now };
        let Some(secret) = self.options.secret.clone() else {
            self.counters.refused.key += 1;
            return;
        };
        let asked = match Question::read_once(bytes, &secret, now.unix_us, &mut self.replays) {
            Ok(asked) => asked,
            Err(refused) => return self.refuse(refused, (bytes, source), now, outbox),
        };
        let sealed = sender.is_some();
        sender.into_iter().for_each(|sender| self.outgoing.learn(sender));
        let newer = asked.owner.map(|owner| self.ballots.handle_owner(owner, now.instant));
        if let (Some(Err(epoch)), None) = (newer, self.cut) {
            let answer = Answer::Superseded { epoch };
            return self.answer(&answer, &secret, (source, asked.nonce, sealed), now, outbox);
        }
        let answer = match asked.message {
            Question::Break(how) => Answer::Break(self.break_link(how, now.instant)),
            _ if self.cut.is_some() => return,
            Question::Probe => {
                self.counters.probes += 1;
                let load = self.load();
                Answer::Probe(Load {
                    permille: self.conduct.load(load.permille, now.instant),
                    ..load
                })
            }
            Question::Open { tag, .. } if self.outgoing.is_sealed() && !sealed => {
                Answer::Open { tag, status: Status::Unencrypted }
            }
            Question::Open { room, tag, lease_s, .. } => {
                let expires = now.instant + Duration::from_secs(lease_s.into());
                let leg = Leg::Trunk { tag, reply_to: source };
                Answer::Open {
                    tag,
                    status: self.open(tag, Session::new(leg, Room::Named(room), expires)),
                }
            }
            Question::Close { tag } => Answer::Close { tag, status: self.close(tag) },
            Question::Keep { lease_s, tags } => {
                let expires = now.instant + Duration::from_secs(lease_s.into());
                let unknown = tags.iter().filter(|&&tag| !self.keep(tag, source, expires));
                Answer::Keep { unknown: unknown.copied().collect() }
            }
            Question::Drain => {
                self.draining = true;
                Answer::Drain(self.load())
            }
            // A sample node sends no notices.
            Question::Noted { .. } => return,
            Question::Start => Answer::Start(Outcome::Done),
            Question::Path { bundle_max, padding } => {
                self.outgoing.limit(source, bundle_max);
                Answer::Path { padding }
            }
            Question::Vote { group, vote } => {
                match self.ballots.handle_vote(group, vote, now.instant) {
                    Some(voted) => Answer::Vote(voted),
                    None => return,
                }
            }
        };
        self.answer(&answer, &secret, (source, asked.nonce, sealed), now, outbox);
    }

    fn answer(
        &mut self,
        answer: &Answer,
        secret: &Secret,
        (to, nonce, sealed): (SocketAddr, u64, bool),
        now: Now,
        outbox: &mut Outbox,
    ) {
        self.scratch.clear();
        answer.write(secret, nonce, now.unix_us, &mut self.scratch);
        self.outgoing.answer(to, &self.scratch, sealed, outbox);
    }

    /// Tells the sender of a refused message whether the secret or the clock is wrong. The rate is limited, because
    /// senders are not authenticated.
    fn refuse(
        &mut self,
        refused: Refused,
        (bytes, source): (&[u8], SocketAddr),
        now: Now,
        outbox: &mut Outbox,
    ) {
        self.counters.refused.count(refused);
        let lately = |at: Instant| now.instant.duration_since(at) < REFUSED_EVERY;
        if self.cut.is_some() || self.refused.is_some_and(lately) {
            return;
        }
        if let Some(refusal) = Refusal::of(bytes, refused, now.unix_us) {
            self.refused = Some(now.instant);
            self.scratch.clear();
            refusal.write(&mut self.scratch);
            outbox.push(source, &self.scratch);
        }
    }

    /// Cuts or restores the link. Breaking the process itself takes an agent beside the node.
    fn break_link(&mut self, how: Break, now: Instant) -> Outcome {
        match how {
            Break::Cut | Break::Heal if !self.options.drills => Outcome::Forbidden,
            Break::Cut | Break::Heal => {
                self.cut = (how == Break::Cut).then_some(now + CUT_FOR);
                Outcome::Done
            }
            Break::Kill | Break::Hang | Break::Wake => Outcome::Unable,
        }
    }

    fn open(&mut self, tag: Tag, session: Session) -> Status {
        if let Some(&index) = self.by_tag.get(&tag)
            && let Some(standing) = self.sessions.get_mut(&index)
            && standing.room == session.room
        {
            standing.expires = session.expires;
            standing.leg = session.leg;
            return Status::Ok;
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
        Status::Ok
    }

    /// Renews a lease. Returns true if the session exists.
    fn keep(&mut self, tag: Tag, source: SocketAddr, expires: Instant) -> bool {
        let index = self.by_tag.get(&tag);
        let Some(session) = index.and_then(|index| self.sessions.get_mut(index)) else {
            return false;
        };
        session.expires = expires;
        session.leg = Leg::Trunk { tag, reply_to: source };
        self.counters.kept += 1;
        true
    }

    fn close(&mut self, tag: Tag) -> Status {
        let Some(&index) = self.by_tag.get(&tag) else { return Status::UnknownTag };
        self.counters.closed += 1;
        self.end(index);
        Status::Ok
    }

    fn plain_session(&mut self, source: SocketAddr, now: Now) -> Option<Index> {
        let expires = now.instant + PLAIN_LEASE;
        if let Some(&index) = self.by_source.get(&source) {
            self.sessions.get_mut(&index)?.expires = expires;
            return Some(index);
        }
        if self.turns_away().is_some() {
            return None;
        }
        let room = match self.options.plain_room {
            PlainRoom::Alone => Room::Alone(source),
            PlainRoom::Shared => Room::Plain,
        };
        let index = self.begin(Session::new(Leg::Port { source }, room, expires));
        self.by_source.insert(source, index);
        Some(index)
    }

    fn turns_away(&mut self) -> Option<Status> {
        let status = if self.draining {
            Status::Draining
        } else if self.sessions.len() >= self.options.sessions_max as usize {
            Status::Full
        } else {
            return None;
        };
        self.counters.turned_away += 1;
        Some(status)
    }

    fn begin(&mut self, session: Session) -> Index {
        self.counters.opened += 1;
        self.sessions_ever += 1;
        self.rooms.entry(session.room).or_default().push(self.sessions_ever);
        self.sessions.insert(self.sessions_ever, session);
        self.sessions_ever
    }

    fn end(&mut self, index: Index) {
        let Some(session) = self.sessions.remove(&index) else { return };
        match session.leg {
            Leg::Trunk { tag, .. } => self.by_tag.remove(&tag),
            Leg::Port { source } => self.by_source.remove(&source),
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

    fn load(&self) -> Load {
        let sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let permille = u64::from(sessions) * 1_000 / u64::from(self.options.sessions_max.max(1));
        let state = if self.draining { State::Draining } else { State::Serving };
        Load {
            permille: u16::try_from(permille).unwrap_or(u16::MAX),
            state,
            sessions,
            vouched: true,
        }
    }

    fn handle_packet(&mut self, index: Index, packet: &[u8], now: Now, outbox: &mut Outbox) {
        self.counters.packets_in += 1;
        let kind = demux::classify(packet);
        if self.conduct.drops(index, kind) {
            return;
        }
        match kind {
            Kind::Rtp => self.handle_rtp(index, packet, now, outbox),
            Kind::Rtcp => self.handle_rtcp(index, packet, now, outbox),
            _ => self.counters.malformed += 1,
        }
    }

    fn handle_rtp(&mut self, index: Index, packet: &[u8], now: Now, outbox: &mut Outbox) {
        let (Ok(header), Some(session)) =
            (rtp::Header::parse(packet), self.sessions.get_mut(&index))
        else {
            self.counters.malformed += 1;
            return;
        };
        let mut reflected = std::mem::take(&mut self.scratch);
        reflected.clear();
        reflected.extend_from_slice(packet);
        if self.options.stamps == Stamps::Yes {
            Mark::stamp(&mut reflected[header.payload_offset..header.payload_end], self.number);
        }
        let (stream, forgotten) = session.stream(header.ssrc, now.instant, &mut self.rng);
        stream.heard = now.instant;
        stream.reception.packet(header.sequence);
        if self.options.numbers == Numbers::Rewritten {
            stream.rewrite(&header, &mut reflected);
            self.out_ssrcs.insert(stream.out_ssrc, (index, header.ssrc));
        }
        if let Some(ssrc) = forgotten {
            self.out_ssrcs.remove(&ssrc);
        }
        self.reflect(index, &reflected, outbox);
        self.scratch = reflected;
    }

    /// Sends a packet to all other sessions of the room. A session that is alone gets its own packets back.
    pub(super) fn reflect(&mut self, index: Index, packet: &[u8], outbox: &mut Outbox) {
        let Some(session) = self.sessions.get(&index) else { return };
        let Some(room) = self.rooms.get(&session.room) else { return };
        self.receivers.clear();
        let hears = |&&other: &&Index| other != index || room.len() == 1;
        let legs = room.iter().filter(hears).filter_map(|other| self.sessions.get(other));
        self.receivers.extend(legs.map(|session| session.leg));
        for at in 0..self.receivers.len() {
            self.send(self.receivers[at], packet, outbox);
        }
    }

    pub(super) fn send(&mut self, leg: Leg, packet: &[u8], outbox: &mut Outbox) {
        if self.outgoing.push(leg, packet, outbox) {
            self.counters.packets_out += 1;
        } else {
            self.counters.oversize += 1;
        }
    }
}

fn trunk_of(leg: Leg) -> Option<SocketAddr> {
    match leg {
        Leg::Trunk { reply_to, .. } => Some(reply_to),
        Leg::Port { .. } => None,
    }
}
