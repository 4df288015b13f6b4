//! Packet workers: read in a batch, find the flow, take the room's hop, rewrite, queue by leg, write in a batch.
//!
//! A session has a home worker for life, which alone writes its state: no locks, no await, no allocation per packet.

mod arrival;
mod command;
mod early;
mod feedback;
mod ingress;
mod limiter;
mod measure;
mod ports;
mod session;
mod stamps;
mod ways;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::forward::Reason;
use evenkeel_core::{Board, Hop, NodeId};
use evenkeel_media::trunk::Tag;
use evenkeel_media::{demux, trunk};
use rustix::event::epoll;
use tokio::sync::mpsc;

pub(crate) use command::{Client, Command, Install, Leg, Report};
pub use command::{Dscp, ShedRun, Totals};
pub(crate) use early::Patience;
pub(crate) use ports::Ports;
use session::{Loan, Session};
pub use stamps::{Stamps, Way};
use ways::{Port, Side, Trunk, Ways};

use crate::flows::{Flows, Home};
use crate::mmsg::{BATCH, Inbox, drain_errors};
use crate::ring;

/// Between two summaries of the sessions here.
const SUMMARY_EVERY: Duration = Duration::from_millis(100);

/// Batches read from one socket before others get their turn.
const BATCHES_PER_TURN: usize = 4;

/// Commands that may wait: several for every session a worker could hold. Control waits when it is full.
pub(crate) const COMMANDS_MAX: usize = 65_536;

/// What one worker is made of.
pub(crate) struct Parts {
    pub(crate) number: u16,
    pub(crate) listeners: Vec<ListenerParts>,
    /// One connected socket per node with trunk legs.
    pub(crate) trunks: Vec<Option<UdpSocket>>,
    pub(crate) from_quic: Option<ring::Receiver>,
    pub(crate) to_quic: Option<ring::Sender>,
    pub(crate) from_workers: Vec<ring::Receiver>,
    pub(crate) to_workers: Vec<Option<ring::Sender>>,
    pub(crate) commands: crossbeam_channel::Receiver<Command>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) stamps: Arc<Stamps>,
    pub(crate) flows: Arc<Flows>,
    pub(crate) board: Arc<Board>,
    pub(crate) patience: Patience,
    /// Look-ups of unknown sources per second and prefix.
    pub(crate) misses_per_prefix: u32,
}

/// A listener's sockets at one worker.
pub(crate) struct ListenerParts {
    pub(crate) rtp: UdpSocket,
    pub(crate) rtcp: Option<UdpSocket>,
    /// Whether packets of unknown sources may open sessions.
    pub(crate) open: bool,
}

/// Wakes a worker to its commands.
#[derive(Debug)]
pub(crate) struct Bell(std::os::fd::OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        Ok(Bell(rustix::event::eventfd(0, flags)?))
    }

    pub(crate) fn ring(&self) {
        // Full means that it is ringing already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn quiet(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// What a ready descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Listener(u8, Side),
    Trunk(NodeId),
    Port(u32, Side),
    Worker(u16),
    Quic,
    Commands,
}

impl Source {
    fn token(self) -> u64 {
        let (kind, number) = match self {
            Source::Listener(number, Side::Rtp) => (0, u32::from(number)),
            Source::Listener(number, Side::Rtcp) => (1, u32::from(number)),
            Source::Trunk(node) => (2, node.0),
            Source::Port(slot, Side::Rtp) => (3, slot),
            Source::Port(slot, Side::Rtcp) => (4, slot),
            Source::Worker(number) => (5, u32::from(number)),
            Source::Quic => (6, 0),
            Source::Commands => (7, 0),
        };
        kind << 32 | u64::from(number)
    }

    fn from_token(token: u64) -> Source {
        let number = token as u32;
        match token >> 32 {
            0 => Source::Listener(number as u8, Side::Rtp),
            1 => Source::Listener(number as u8, Side::Rtcp),
            2 => Source::Trunk(NodeId(number)),
            3 => Source::Port(number, Side::Rtp),
            4 => Source::Port(number, Side::Rtcp),
            5 => Source::Worker(number as u16),
            6 => Source::Quic,
            _ => Source::Commands,
        }
    }
}

pub(crate) struct Worker {
    number: u16,
    epoll: std::os::fd::OwnedFd,
    inbox: Inbox,
    ways: Ways,
    ingress: ingress::Ingress,
    sessions: Vec<Option<Box<Session>>>,
    /// Whose packet a trunk's tag is of, and at which hop.
    tags: HashMap<Tag, (u32, Hop)>,
    from_quic: Option<ring::Receiver>,
    from_workers: Vec<ring::Receiver>,
    commands: crossbeam_channel::Receiver<Command>,
    bell: Arc<Bell>,
    flows: Arc<Flows>,
    board: Arc<Board>,
    next_summary: Instant,
    stopped: bool,
}

impl Worker {
    /// A worker ready to run, its sockets registered.
    ///
    /// # Errors
    /// What epoll or a socket says.
    pub(crate) fn new(parts: Parts, now: Instant) -> io::Result<Worker> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut ways = Ways::new(parts.reports, parts.stamps, parts.patience);
        let open = parts.listeners.iter().map(|listener| listener.open).collect();
        for (number, listener) in (0..).zip(parts.listeners) {
            watch(&epoll, &listener.rtp, Source::Listener(number, Side::Rtp))?;
            if let Some(rtcp) = &listener.rtcp {
                watch(&epoll, rtcp, Source::Listener(number, Side::Rtcp))?;
            }
            let rtcp = listener.rtcp.map(Port::new).transpose()?;
            ways.listeners.push((Port::new(listener.rtp)?, rtcp));
        }
        for (number, socket) in (0..).zip(parts.trunks) {
            if let Some(socket) = &socket {
                watch(&epoll, socket, Source::Trunk(NodeId(number)))?;
            }
            ways.trunks.push(socket.map(Trunk::new));
        }
        for (number, ring) in (0..).zip(&parts.from_workers) {
            watch(&epoll, ring, Source::Worker(number))?;
        }
        if let Some(ring) = &parts.from_quic {
            watch(&epoll, ring, Source::Quic)?;
        }
        watch(&epoll, &parts.bell.0, Source::Commands)?;
        ways.to_quic = parts.to_quic;
        ways.to_workers = parts.to_workers;
        Ok(Worker {
            number: parts.number,
            epoll,
            inbox: Inbox::new(),
            ways,
            ingress: ingress::Ingress::new(
                Arc::clone(&parts.flows),
                open,
                parts.misses_per_prefix,
                now,
            ),
            sessions: Vec::new(),
            tags: HashMap::new(),
            from_quic: parts.from_quic,
            from_workers: parts.from_workers,
            commands: parts.commands,
            bell: parts.bell,
            flows: parts.flows,
            board: parts.board,
            next_summary: now + SUMMARY_EVERY,
            stopped: false,
        })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What epoll says; nothing else ends it.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(BATCH);
        while !self.stopped {
            events.clear();
            let wait = self.next_summary.saturating_duration_since(Instant::now());
            let timeout =
                rustix::event::Timespec::try_from(wait).expect("a summary is at most 100 ms away");
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            for event in &events {
                let event: &epoll::Event = event;
                self.ready(Source::from_token(event.data.u64()), event.flags, now);
            }
            if now >= self.next_summary {
                self.next_summary = now + SUMMARY_EVERY;
                self.summarise(now);
            }
            if !self.ways.early.is_empty() {
                self.serve_early(now);
            }
            self.ways.flush(now);
            self.ways.stamps.pass_took(now.elapsed());
        }
        Ok(())
    }

    fn ready(&mut self, source: Source, flags: epoll::EventFlags, now: Instant) {
        match source {
            Source::Commands => {
                self.bell.quiet();
                self.take_commands(now);
            }
            Source::Listener(listener, side) => self.read_listener(listener, side, now),
            Source::Trunk(node) => self.read_trunk(node, now),
            Source::Port(slot, side) => self.read_port(slot, side, flags, now),
            Source::Worker(number) => self.read_worker(number, now),
            Source::Quic => self.read_quic(now),
        }
    }

    fn take_commands(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command, now);
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Install(install) => self.install(*install, now),
            Command::Attach { home, hop, leg } => {
                if let Some(session) = session(&mut self.sessions, home) {
                    session.attach(hop, leg);
                    if let Leg::Trunk(tag) = leg {
                        self.tags.insert(tag, (home.slot, hop));
                    }
                }
            }
            Command::Detach { home, hop } => {
                let leg = session(&mut self.sessions, home).and_then(|session| session.detach(hop));
                if let Some(Leg::Trunk(tag)) = leg {
                    self.tags.remove(&tag);
                }
            }
            Command::Plan { home, plan } => {
                self.with(home, now, |session, loan| session.set_plan(plan, loan));
            }
            Command::KeyFrame { home } => self.with(home, now, Session::ask_key_frame),
            Command::Remove { home } => self.remove(home),
            Command::Sign { node, message } => self.ways.sign(node, &message),
            Command::Stop => self.stopped = true,
        }
    }

    fn with(&mut self, home: Home, now: Instant, act: impl FnOnce(&mut Session, &mut Loan<'_>)) {
        if let Some(session) = session(&mut self.sessions, home) {
            act(session, &mut Loan { ways: &mut self.ways, board: &self.board, now });
        }
    }

    fn install(&mut self, install: Install, now: Instant) {
        let slot = install.home.slot;
        for side in [Side::Rtp, Side::Rtcp] {
            let fd = install.ports.as_ref().and_then(|ports| ports.fd(side));
            if let Some(fd) = fd
                && let Err(error) = watch(&self.epoll, fd, Source::Port(slot, side))
            {
                tracing::warn!(%error, session = %install.session, "a session's port cannot be watched");
            }
        }
        let place = slot as usize;
        if self.sessions.len() <= place {
            self.sessions.resize_with(place + 1, || None);
        }
        self.sessions[place] = Some(Box::new(Session::new(install, now)));
    }

    fn remove(&mut self, home: Home) {
        if session(&mut self.sessions, home).is_none() {
            return;
        }
        let Some(mut session) = self.sessions[home.slot as usize].take() else {
            return;
        };
        for (_, leg) in session.legs() {
            if let Leg::Trunk(tag) = leg {
                self.tags.remove(tag);
            }
        }
        for &(listener, address) in session.learned() {
            self.flows.remove(&crate::flows::Key::Udp { listener, address }, home);
        }
        session.tell_shed(&self.ways);
        self.ways.report(Report::Removed { session: session.id, totals: session.final_totals() });
    }

    fn read_listener(&mut self, listener: u8, side: Side, now: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let (rtp, rtcp) = &self.ways.listeners[usize::from(listener)];
            let port = match side {
                Side::Rtp => rtp,
                Side::Rtcp => rtcp.as_ref().unwrap_or(rtp),
            };
            let Ok(count) = self.inbox.receive(port.socket.as_fd()) else {
                return;
            };
            for place in 0..count {
                let Some((datagram, source)) = self.inbox.datagram(place) else {
                    self.ways.drop(Reason::Oversize);
                    continue;
                };
                let from = (listener, source);
                let Some((home, kind)) = self.ingress.judge(from, datagram, &mut self.ways, now)
                else {
                    continue;
                };
                let arrival = arrival::Arrival { listener, source, kind };
                if home.worker != self.number {
                    self.ways.carry(home, arrival, datagram);
                    continue;
                }
                self.deliver(home, arrival, place, now);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Hands a datagram of the inbox to its session at home here.
    fn deliver(&mut self, home: Home, arrival: arrival::Arrival, place: usize, now: Instant) {
        if session(&mut self.sessions, home).is_none() {
            // Its client was told of it before we were: control's word is waiting.
            self.take_commands(now);
        }
        let Worker { inbox, sessions, ways, board, ingress, .. } = self;
        let Some((datagram, _)) = inbox.datagram(place) else {
            return;
        };
        match session(sessions, home) {
            Some(session) => {
                ingress.deliver(session, arrival, datagram, &mut Loan { ways, board, now });
            }
            None => {
                ingress.forget_source((arrival.listener, arrival.source));
                ways.drop(Reason::UnknownSource);
            }
        }
    }

    fn read_worker(&mut self, number: u16, now: Instant) {
        // As above: what is in the ring may be of a session that control's word is waiting of.
        self.take_commands(now);
        let Worker { from_workers, sessions, ways, board, ingress, .. } = self;
        let Some(ring) = from_workers.get_mut(usize::from(number)) else {
            return;
        };
        drain(ring, |meta, bytes| {
            let Some((arrival, datagram)) = arrival::Arrival::read(bytes) else {
                return;
            };
            match session(sessions, meta.home) {
                Some(session) => {
                    ingress.deliver(session, arrival, datagram, &mut Loan { ways, board, now });
                }
                None => ways.drop(Reason::UnknownSource),
            }
        });
    }

    fn read_quic(&mut self, now: Instant) {
        self.take_commands(now);
        let Worker { from_quic, sessions, ways, board, .. } = self;
        let Some(ring) = from_quic else {
            return;
        };
        drain(ring, |meta, packet| {
            let Some(session) = session(sessions, meta.home) else {
                return ways.drop(Reason::UnknownFlow);
            };
            match meta.kind {
                ring::Kind::Media => {
                    session.handle_client_packet(packet, &mut Loan { ways, board, now });
                }
                ring::Kind::Feedback { rtt_us, lost, sent } => {
                    session.measure.quic_path(rtt_us, lost, sent);
                }
                ring::Kind::Attached => session.measure.heard(now),
                // Another connection may come; silence ends the session if none does.
                ring::Kind::Detached => {}
            }
        });
    }

    fn read_trunk(&mut self, node: NodeId, now: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let Some(Some(trunk)) = self.ways.trunks.get(node.0 as usize) else {
                return;
            };
            let count = match self.inbox.receive(trunk.socket.as_fd()) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        self.ways.trunk_refused(node);
                    }
                    return;
                }
            };
            let mut packets = 0;
            for place in 0..count {
                packets += self.take_trunk_datagram(node, place, now);
            }
            if packets > 0 {
                self.ways.stamps.received(node, packets, now);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// How many packets were in it.
    fn take_trunk_datagram(&mut self, node: NodeId, place: usize, now: Instant) -> u64 {
        let Worker { inbox, sessions, tags, ways, board, .. } = self;
        let Some((datagram, _)) = inbox.datagram(place) else {
            ways.drop(Reason::Oversize);
            return 0;
        };
        match demux::classify(datagram) {
            demux::Kind::Bundle => {}
            demux::Kind::Signed => {
                ways.report(Report::Signed { node, message: Box::from(&*datagram) });
                return 0;
            }
            _ => {
                ways.drop(Reason::Malformed);
                return 0;
            }
        }
        let mut packets = 0;
        for entry in trunk::entries(datagram) {
            let Ok((tag, packet)) = entry else {
                ways.drop(Reason::Malformed);
                break;
            };
            packets += 1;
            hand_on(tags, sessions, node, tag, packet, &mut Loan { ways, board, now });
        }
        packets
    }

    fn take_trunk_packet(&mut self, node: NodeId, tag: Tag, packet: &[u8], now: Instant) {
        let Worker { sessions, tags, ways, board, .. } = self;
        hand_on(tags, sessions, node, tag, packet, &mut Loan { ways, board, now });
    }

    fn read_port(&mut self, slot: u32, side: Side, flags: epoll::EventFlags, now: Instant) {
        let Worker { inbox, sessions, ways, board, .. } = self;
        let Some(session) = sessions.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        if flags.contains(epoll::EventFlags::ERR)
            && let Some(fd) = session.ports.as_ref().and_then(|ports| ports.fd(side))
        {
            let mut accused = Vec::new();
            drain_errors(fd, |address, _| accused.push(address));
            accused.into_iter().for_each(|address| session.accused(address, ways));
        }
        let Some(fd) = session.ports.as_ref().and_then(|ports| ports.fd(side)) else {
            return;
        };
        let Ok(count) = inbox.receive(fd) else {
            return;
        };
        for place in 0..count {
            let Some((datagram, source)) = inbox.datagram(place) else {
                ways.drop(Reason::Oversize);
                continue;
            };
            let Some(hop) = session.hop_at(source) else {
                ways.drop(Reason::UnknownSource);
                continue;
            };
            ways.stamps.received(hop.node, 1, now);
            session.handle_node_packet(hop, datagram, &mut Loan { ways, board, now });
        }
    }

    /// What came before its way was there: by now control may have told of it.
    fn serve_early(&mut self, now: Instant) {
        self.take_commands(now);
        for packet in self.ways.early.take_inbound() {
            self.take_trunk_packet(packet.node, packet.tag, &packet.packet, now);
        }
        // Those with a tag that is still unknown came back; they do not get a third look.
        for _ in self.ways.early.take_inbound() {
            self.ways.drop(Reason::UnknownTag);
        }
        let Worker { sessions, ways, board, .. } = self;
        let has_leg =
            |home, hop| session(sessions, home).is_some_and(|session| session.has_leg(hop));
        let (ready, late) = ways.early.take_outbound(now, has_leg);
        for waiting in ready {
            if let Some(session) = session(sessions, waiting.home) {
                session.send_early(&waiting, &mut Loan { ways, board, now });
            }
        }
        for _ in 0..late {
            ways.drop(Reason::NotOpened);
        }
    }

    fn summarise(&mut self, now: Instant) {
        let Worker { sessions, ways, board, ingress, .. } = self;
        ingress.forget();
        let mut summaries = Vec::new();
        for session in sessions.iter_mut().flatten() {
            session.tick(&mut Loan { ways, board, now });
            summaries.push(session.summary(now));
        }
        if !summaries.is_empty() {
            ways.report(Report::Summaries(summaries));
        }
    }
}

/// Hands a node's packet to the session with its tag.
fn hand_on(
    tags: &HashMap<Tag, (u32, Hop)>,
    sessions: &mut [Option<Box<Session>>],
    node: NodeId,
    tag: Tag,
    packet: &[u8],
    loan: &mut Loan<'_>,
) {
    let known = tags.get(&tag).filter(|(_, hop)| hop.node == node);
    let session =
        known.and_then(|&(slot, hop)| Some((sessions.get_mut(slot as usize)?.as_mut()?, hop)));
    match session {
        Some((session, hop)) => session.handle_node_packet(hop, packet, loan),
        None if loan.ways.early.keep_inbound(node, tag, packet) => {}
        None => loan.ways.drop(Reason::UnknownTag),
    }
}

/// The session at home here, if it is still the same.
fn session(sessions: &mut [Option<Box<Session>>], home: Home) -> Option<&mut Session> {
    let session = sessions.get_mut(home.slot as usize)?.as_mut()?;
    (session.home == home).then_some(session)
}

/// Takes everything out of a ring: only an empty one wakes us again.
fn drain(ring: &mut ring::Receiver, mut take: impl FnMut(&ring::Meta, &[u8])) {
    while ring.pop_batch(BATCH, &mut take) == BATCH {}
}

fn watch(epoll: impl AsFd, fd: impl AsFd, source: Source) -> io::Result<()> {
    let data = epoll::EventData::new_u64(source.token());
    Ok(epoll::add(epoll, fd, data, epoll::EventFlags::IN)?)
}

/// Where a client's packet is looked for.
type From = (u8, SocketAddr);
