//! The agent's state machine. It handles datagrams and events of the media server, without sockets or clocks.

mod faults;
mod io;
mod refusals;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::{
    NodeFault, NodeLoad, NodeSecret, OpenStatus, OrderOutcome, Replays, ServingState, TrunkAnswer,
    TrunkQuestion,
};
use evenkeel_media::trunk::seal::{self, SealError};
use evenkeel_media::trunk::{Ballots, Bundles, ReceivedDatagram, ReceivedPackets, Tag};
use faults::Faults;
pub(crate) use io::{BatchTime, Io, MediaPacket, OpeningState};
use refusals::RefusedMessages;

use crate::AgentCounters;
use crate::check::PortState;
use crate::notices::DeathNotices;
use crate::sessions::{SessionSlot, TrunkSession, TrunkSessions};

const LEASES_EVERY: Duration = Duration::from_millis(50);

/// Time for which nonces of orders are remembered. A gateway retransmits for a second, and a signature expires after
/// this time.
const ORDERS_REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// Limit of remembered orders. Orders come only from operators and drills.
const ORDERS_REMEMBERED_MAX: usize = 16;

/// The part of the configuration that the state machine needs.
pub(crate) struct AgentSettings {
    pub(crate) secret: NodeSecret,
    /// Set if trunk legs are encrypted: a random number for their keys.
    pub(crate) salt: Option<u64>,
    /// A random number of this process.
    pub(crate) instance: u32,
    /// True if drills may break the server.
    pub(crate) drills: bool,
    /// Time after which a cut link or stopped process recovers by itself.
    pub(crate) drill_timeout: Duration,
    /// Limit of concurrent sessions; 0 without trunk legs.
    pub(crate) sessions_max: u32,
    pub(crate) has_process: bool,
    pub(crate) has_check: bool,
}

pub(crate) struct AgentMachine {
    settings: AgentSettings,
    /// True if the process is running; always true without `[process]`.
    runs: bool,
    /// State of the media port; `Up` without `[check]`.
    port: PortState,
    draining: bool,
    pub(crate) faults: Faults,
    refusals: RefusedMessages,
    /// The higher of processor load and the server's own load figure, in thousandths.
    pub(crate) measured: u16,
    pub(crate) sessions: TrunkSessions,
    notices: DeathNotices,
    replays: Replays,
    ballots: Ballots,
    bundles: Bundles,
    /// Packets of the last datagram.
    received: ReceivedPackets,
    /// Set if trunk legs are encrypted.
    seal: Option<seal::NodeSeal>,
    /// Recent orders by nonce. A retransmitted order is answered again, but not executed again.
    orders: VecDeque<(u64, TrunkAnswer, Instant)>,
    leases_checked: Instant,
    pub(crate) counters: AgentCounters,
    scratch: Vec<u8>,
}

impl AgentMachine {
    /// Refuses messages that were signed before this time of the wall clock.
    pub(crate) fn refuse_before(&mut self, began_us: u64) {
        self.replays = Replays::since(began_us);
    }

    pub(crate) fn new(settings: AgentSettings, now: Instant) -> AgentMachine {
        let seal = settings.salt.map(|salt| seal::NodeSeal::new(settings.secret.clone(), salt));
        let first_number = settings.instance as u16;
        let bundles = match &seal {
            Some(_) => Bundles::sealed(first_number),
            None => Bundles::new(first_number),
        };
        AgentMachine {
            runs: !settings.has_process,
            port: if settings.has_check { PortState::Silent } else { PortState::Up },
            ballots: Ballots::new(settings.instance),
            settings,
            draining: false,
            faults: Faults::default(),
            refusals: RefusedMessages::default(),
            measured: 0,
            sessions: TrunkSessions::default(),
            notices: DeathNotices::default(),
            replays: Replays::default(),
            bundles,
            received: ReceivedPackets::default(),
            seal,
            orders: VecDeque::new(),
            leases_checked: now,
            counters: AgentCounters::default(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn handle_datagram(
        &mut self,
        bytes: &mut [u8],
        source: SocketAddr,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        match demux::classify(bytes) {
            DatagramKind::Bundle | DatagramKind::TrunkRepair if self.seal.is_some() => {
                self.refusals.unreadable(&mut self.counters, source, now, io);
            }
            DatagramKind::Bundle | DatagramKind::TrunkRepair => {
                let length = bytes.len();
                let datagram =
                    ReceivedDatagram { content: bytes, length, source, is_sealed: false };
                self.handle_media(&datagram, now.instant, io);
            }
            DatagramKind::Signed => self.handle_signed(bytes, source, None, now, io),
            DatagramKind::Sealed => self.handle_sealed(bytes, source, now, io),
            DatagramKind::Rtp
            | DatagramKind::Rtcp
            | DatagramKind::Echo
            | DatagramKind::Stun
            | DatagramKind::Dtls
            | DatagramKind::Quic
            | DatagramKind::Unknown => self.counters.malformed += 1,
        }
    }

    fn handle_sealed(
        &mut self,
        bytes: &mut [u8],
        source: SocketAddr,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        let length = bytes.len();
        let opened = match &mut self.seal {
            Some(seal) => seal.open(bytes, source),
            None => Err(SealError::Forged),
        };
        match opened {
            Ok((content, sender)) => match demux::classify(content) {
                DatagramKind::Signed => self.handle_signed(content, source, Some(sender), now, io),
                DatagramKind::Bundle | DatagramKind::TrunkRepair if sender.is_new() => {
                    self.counters.unknown_source += 1;
                }
                DatagramKind::Bundle | DatagramKind::TrunkRepair => {
                    let datagram = ReceivedDatagram { content, length, source, is_sealed: true };
                    self.handle_media(&datagram, now.instant, io);
                }
                _ => self.counters.malformed += 1,
            },
            Err(SealError::Forged) => self.refusals.unreadable(&mut self.counters, source, now, io),
            Err(SealError::Replayed) => self.counters.refused_replayed += 1,
        }
    }

    /// Handles a bundle, a repair datagram, or a report of losses.
    fn handle_media(&mut self, datagram: &ReceivedDatagram<'_>, now: Instant, io: &mut impl Io) {
        if self.faults.is_link_cut() {
            return;
        }
        let mut received = std::mem::take(&mut self.received);
        let reply_to = |tag: Tag| self.sessions.reply_to(tag);
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, io);
        self.bundles.receive(datagram, reply_to, now, &mut received, send);
        self.counters.bundles_recovered += received.bundles_recovered;
        self.counters.unknown_tag += received.unknown_tag;
        self.counters.unknown_source += received.unknown_source;
        self.counters.malformed += received.malformed;
        for (tag, packet) in received.packets() {
            self.deliver(tag, packet, io);
        }
        self.received = received;
    }

    /// Hands a packet of a session to the server, once that has accepted the session.
    fn deliver(&mut self, tag: Tag, packet: &[u8], io: &mut impl Io) {
        let Some(slot) = self.sessions.slot(tag) else { return };
        let is_open = self.sessions.at(slot).is_some_and(|session| session.awaited.is_none());
        let count = &mut self.counters;
        *match kind(packet) {
            None => &mut count.malformed,
            Some(kind) if is_open && io.forward(slot, kind, packet) => &mut count.packets_to_server,
            Some(_) => &mut count.dropped,
        } += 1;
    }

    /// Handles a packet that the server sent to a session's socket.
    pub(crate) fn handle_from_server(
        &mut self,
        slot: SessionSlot,
        packet: &[u8],
        io: &mut impl Io,
    ) {
        if self.faults.is_link_cut() {
            return;
        }
        let Some(session) = self.sessions.at(slot).filter(|s| s.awaited.is_none()) else { return };
        let (to, tag) = (session.reply_to, session.tag);
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, io);
        if kind(packet).is_none() {
            self.counters.malformed += 1;
        } else if self.bundles.push(to, tag, packet, send) {
            self.counters.packets_to_gateway += 1;
        } else {
            self.counters.dropped += 1;
        }
    }

    pub(crate) fn flush(&mut self, io: &mut impl Io) {
        self.bundles.flush(&mut |to, bundle| send(self.seal.as_mut(), to, bundle, io));
    }

    /// Handles a signed message; `sender` is set if it was encrypted.
    fn handle_signed(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        sender: Option<seal::SealSender>,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        let secret = &self.settings.secret;
        let read = TrunkQuestion::read_once(bytes, secret, now.unix_us, &mut self.replays);
        let asked = match read {
            Ok(asked) => asked,
            Err(refused) => {
                let answers = !self.faults.is_link_cut();
                let message = (bytes, source);
                self.refusals.refuse(refused, message, answers, &mut self.counters, now, io);
                return;
            }
        };
        let sealed = sender.is_some();
        if let Some((seal, sender)) = self.seal.as_mut().zip(sender) {
            seal.learn(sender);
        }
        let nonce = asked.nonce;
        let is_order = matches!(asked.message, TrunkQuestion::Start | TrunkQuestion::Break(_));
        if self.faults.is_link_cut() && !is_order {
            return;
        }
        let owner = asked.owner;
        let served = owner.map_or(Ok(()), |owner| self.ballots.handle_owner(owner, now.instant));
        if let Err(epoch) = served {
            self.refusals.superseded(&mut self.counters, epoch, source, now, io);
            let answer = TrunkAnswer::Superseded { epoch };
            return self.answer(&answer, (source, nonce), sealed, now, io);
        }
        let expires = |lease_s: u16| now.instant + Duration::from_secs(lease_s.into());
        let answer = match asked.message {
            TrunkQuestion::Probe => {
                self.notices.handle_probe(source, nonce, now.instant);
                // The server may still recover: the agent sends no notice, and lets the gateway's probe fail.
                if self.port != PortState::Up && self.state() != ServingState::Gone {
                    return;
                }
                self.counters.probes += 1;
                TrunkAnswer::Probe(self.load())
            }
            TrunkQuestion::Open { tag, .. } if self.seal.is_some() && !sealed => {
                self.refusals.unreadable(&mut self.counters, source, now, io);
                TrunkAnswer::Open { tag, status: OpenStatus::Unencrypted }
            }
            TrunkQuestion::Open { room, session, tag, lease_s, numbered } => {
                self.set_numbered(source, numbered, io);
                let lease = TrunkSession {
                    tag,
                    room,
                    reply_to: source,
                    expires: expires(lease_s),
                    awaited: Some(nonce),
                };
                match self.open(lease, session, io) {
                    Some(status) => TrunkAnswer::Open { tag, status },
                    None => return,
                }
            }
            TrunkQuestion::Close { tag } => TrunkAnswer::Close { tag, status: self.close(tag, io) },
            TrunkQuestion::Keep { lease_s, numbered, tags } => {
                self.set_numbered(source, numbered, io);
                let expires = expires(lease_s);
                let unknown = tags.iter().filter(|&&tag| !self.renew(tag, source, expires));
                TrunkAnswer::Keep { unknown: unknown.copied().collect() }
            }
            TrunkQuestion::Drain => {
                self.handle_drain(true, now, io);
                TrunkAnswer::Drain(self.load())
            }
            TrunkQuestion::Noted { number } => {
                self.counters.noted += u64::from(self.notices.handle_ack(source, number));
                return;
            }
            TrunkQuestion::Start => {
                self.order((nonce, now.instant), |agent| TrunkAnswer::Start(agent.start(now, io)))
            }
            TrunkQuestion::Break(how) => self.order((nonce, now.instant), |agent| {
                TrunkAnswer::Break(agent.inject_fault(how, now.instant, io))
            }),
            TrunkQuestion::Path { bundle_max, padding } => {
                self.bundles.limit(source, bundle_max.into());
                TrunkAnswer::Path { padding }
            }
            TrunkQuestion::Vote { group, vote } => {
                match self.ballots.handle_vote(group, vote, now.instant) {
                    Some(voted) => TrunkAnswer::Vote(voted),
                    None => return,
                }
            }
            TrunkQuestion::Process => match io.process_report() {
                Some(report) => TrunkAnswer::Process(report),
                None => return,
            },
        };
        self.answer(&answer, (source, nonce), sealed, now, io);
    }

    fn set_numbered(&mut self, to: SocketAddr, numbered: bool, io: &mut impl Io) {
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, io);
        self.bundles.set_numbered(to, numbered, send);
    }

    /// Sends an answer, encrypted as its question was.
    fn answer(
        &mut self,
        answer: &TrunkAnswer,
        (to, nonce): (SocketAddr, u64),
        sealed: bool,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        self.scratch.clear();
        answer.write(&self.settings.secret, nonce, now.unix_us, &mut self.scratch);
        send(self.seal.as_mut().filter(|_| sealed), to, &self.scratch, io);
    }

    /// Executes an order once, even if it is retransmitted.
    fn order(
        &mut self,
        (nonce, now): (u64, Instant),
        execute: impl FnOnce(&mut AgentMachine) -> TrunkAnswer,
    ) -> TrunkAnswer {
        self.orders.retain(|(.., at)| now.duration_since(*at) < ORDERS_REMEMBERED_FOR);
        if let Some((_, answer, _)) = self.orders.iter().find(|(done, ..)| *done == nonce) {
            return answer.clone();
        }
        let answer = execute(self);
        if self.orders.len() == ORDERS_REMEMBERED_MAX {
            self.orders.pop_front();
        }
        self.orders.push_back((nonce, answer.clone(), now));
        answer
    }

    fn start(&mut self, now: BatchTime, io: &mut impl Io) -> OrderOutcome {
        let runs = self.settings.has_process && self.runs;
        if runs || io.start(now.instant) { OrderOutcome::Done } else { OrderOutcome::Unable }
    }

    /// Opens or renews a session. Returns `None` while the server has not accepted it yet.
    fn open(&mut self, lease: TrunkSession, session: u64, io: &mut impl Io) -> Option<OpenStatus> {
        let existing = self.sessions.slot(lease.tag);
        if let Some(existing) = existing.and_then(|slot| self.sessions.at(slot))
            && existing.room == lease.room
        {
            (existing.expires, existing.reply_to) = (lease.expires, lease.reply_to);
            return match existing.awaited {
                Some(_) => {
                    existing.awaited = lease.awaited;
                    None
                }
                None => Some(OpenStatus::Ok),
            };
        }
        // The tag was reused in another room, so the earlier session ends.
        if let Some(slot) = existing {
            self.end(slot, io);
        }
        let refused = match self.state() {
            ServingState::Draining => Some(OpenStatus::Draining),
            ServingState::Gone => Some(OpenStatus::Failed),
            ServingState::Serving if self.settings.sessions_max == 0 => Some(OpenStatus::Failed),
            ServingState::Serving if self.sessions.len() >= self.settings.sessions_max as usize => {
                Some(OpenStatus::Full)
            }
            ServingState::Serving => None,
        };
        if let Some(status) = refused {
            self.counters.turned_away += 1;
            return Some(status);
        }
        let room = lease.room;
        let slot = self.sessions.begin(lease);
        match io.open(slot, room, session) {
            OpeningState::Open => {
                self.counters.opened += 1;
                self.sessions.at(slot)?.awaited = None;
                Some(OpenStatus::Ok)
            }
            OpeningState::Pending => None,
            OpeningState::Failed => {
                self.end(slot, io);
                self.counters.turned_away += 1;
                Some(OpenStatus::Failed)
            }
        }
    }

    /// Handles the result of opening a session at the server.
    pub(crate) fn handle_opened(
        &mut self,
        slot: SessionSlot,
        is_open: bool,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        let Some(session) = self.sessions.at(slot) else { return };
        let Some(nonce) = session.awaited.take() else { return };
        let (tag, to) = (session.tag, session.reply_to);
        let status = if is_open {
            self.counters.opened += 1;
            OpenStatus::Ok
        } else {
            self.end(slot, io);
            self.counters.turned_away += 1;
            OpenStatus::Failed
        };
        if !self.faults.is_link_cut() {
            let sealed = self.seal.is_some();
            self.answer(&TrunkAnswer::Open { tag, status }, (to, nonce), sealed, now, io);
        }
    }

    fn close(&mut self, tag: Tag, io: &mut impl Io) -> OpenStatus {
        match self.sessions.slot(tag) {
            Some(slot) => {
                self.end(slot, io);
                OpenStatus::Ok
            }
            None => OpenStatus::UnknownTag,
        }
    }

    /// Renews a lease. Returns whether the session exists.
    fn renew(&mut self, tag: Tag, source: SocketAddr, expires: Instant) -> bool {
        let slot = self.sessions.slot(tag);
        let Some(session) = slot.and_then(|slot| self.sessions.at(slot)) else { return false };
        (session.expires, session.reply_to) = (expires, source);
        true
    }

    fn end(&mut self, slot: SessionSlot, io: &mut impl Io) {
        if self.sessions.end(slot).is_some() {
            io.close(slot);
        }
    }

    fn inject_fault(&mut self, how: NodeFault, now: Instant, io: &mut impl Io) -> OrderOutcome {
        let (over, has_legs) = (now + self.settings.drill_timeout, self.settings.sessions_max > 0);
        if !self.settings.drills {
            OrderOutcome::Forbidden
        } else if self.faults.inject(how, over, has_legs, io) {
            OrderOutcome::Done
        } else {
            OrderOutcome::Unable
        }
    }

    pub(crate) fn handle_process(&mut self, runs: bool, now: BatchTime, io: &mut impl Io) {
        if !runs {
            self.faults.stopped = None;
        }
        self.change(now, io, |agent| agent.runs = runs);
    }

    pub(crate) fn handle_port(&mut self, port: PortState, now: BatchTime, io: &mut impl Io) {
        self.change(now, io, |agent| agent.port = port);
    }

    pub(crate) fn handle_drain(&mut self, draining: bool, now: BatchTime, io: &mut impl Io) {
        self.change(now, io, |agent| agent.draining = draining);
    }

    /// Applies a change, and notifies gateways if the state differs afterwards.
    fn change(&mut self, now: BatchTime, io: &mut impl Io, change: impl FnOnce(&mut AgentMachine)) {
        let before = self.state();
        change(self);
        let state = self.state();
        if state == before {
            return;
        }
        if !self.faults.is_link_cut() {
            let load = self.load();
            let (clocks, secret) = ((now.instant, now.unix_us), &self.settings.secret);
            let send = |to, notice: &[u8]| io.send(to, notice);
            self.counters.notices += self.notices.send(load, secret, clocks, send);
        }
        if state == ServingState::Gone {
            // The server's sessions died with it. A gateway that renews one gets the answer that it is unknown.
            let all: Vec<SessionSlot> = self.sessions.all().map(|(slot, _)| slot).collect();
            all.into_iter().for_each(|slot| self.end(slot, io));
        }
    }

    /// With a watched process, a server may bind a closed port again; until then probes are not answered. Without a watched
    /// process, a closed port counts as a dead server.
    fn state(&self) -> ServingState {
        if !self.runs || (self.port == PortState::Closed && !self.settings.has_process) {
            ServingState::Gone
        } else if self.draining {
            ServingState::Draining
        } else {
            ServingState::Serving
        }
    }

    fn load(&self) -> NodeLoad {
        let sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let full = u64::from(self.settings.sessions_max);
        let permille = (u64::from(sessions) * 1_000).checked_div(full).unwrap_or(0);
        let permille = u16::try_from(permille).unwrap_or(u16::MAX).max(self.measured);
        let vouched = self.settings.has_check && self.port == PortState::Up;
        NodeLoad { permille, state: self.state(), sessions, vouched }
    }

    /// Ends expired leases and faults, and retransmits notices that were not acknowledged.
    pub(crate) fn handle_timeout(&mut self, now: BatchTime, io: &mut impl Io) {
        self.faults.end_expired(now.instant, io);
        let send = |to, notice: &[u8]| io.send(to, notice);
        self.counters.notices += self.notices.handle_timeout(now.instant, send);
        if now.instant.duration_since(self.leases_checked) < LEASES_EVERY {
            return;
        }
        self.leases_checked = now.instant;
        if !self.faults.is_link_cut() {
            let send = &mut |to, report: &[u8]| self::send(self.seal.as_mut(), to, report, io);
            self.bundles.handle_timeout(now.instant, send);
        }
        let over = self.sessions.all().filter(|(_, session)| session.expires <= now.instant);
        let over: Vec<SessionSlot> = over.map(|(slot, _)| slot).collect();
        for slot in over {
            self.counters.expired += 1;
            self.end(slot, io);
        }
        let known: BTreeSet<_> = self.sessions.all().map(|(_, session)| session.reply_to).collect();
        self.bundles.keep(|address| known.contains(&address));
        if let Some(seal) = &mut self.seal {
            seal.keep(|address| known.contains(&address));
        }
    }

    /// Time of the next call of [`handle_timeout`](AgentMachine::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Instant {
        let leases = self.leases_checked + LEASES_EVERY;
        self.notices.poll_timeout().map_or(leases, |notices| notices.min(leases))
    }
}

/// Sends a datagram, encrypted if there is a key. A socket without sessions may be unknown; it gets nothing.
fn send(seal: Option<&mut seal::NodeSeal>, to: SocketAddr, datagram: &[u8], io: &mut impl Io) {
    match seal.map(|seal| seal.seal(to, datagram)) {
        None => io.send(to, datagram),
        Some(Some(sealed)) => io.send(to, sealed),
        Some(None) => {}
    }
}

fn kind(packet: &[u8]) -> Option<MediaPacket> {
    match demux::classify(packet) {
        DatagramKind::Rtp => Some(MediaPacket::Rtp),
        DatagramKind::Rtcp => Some(MediaPacket::Rtcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
