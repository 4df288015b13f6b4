//! Packet workers: read in a batch, find the flow, take the room's hop, rewrite, queue by leg, write in a batch.
//!
//! A session has a home worker for life, which alone writes its state: no locks, no await, no allocation per packet.

mod arrival;
mod awake;
mod client_ingress;
mod command;
mod early;
mod egress;
mod feedback;
mod gather;
mod isolation;
mod limiter;
mod measurements;
mod node_ingress;
mod obeying;
mod packet_path;
mod ports;
mod recoveries;
mod session;
mod sessions;
mod source;
mod stats;
mod summaries;
mod tags;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Board, NodeId, SessionId};
use rustix::event::epoll;
use tokio::sync::mpsc;

pub use command::{Client, Command, Install, Leg, NodePort, Report, Summary};
pub use command::{Dscp, ShedRun, Totals};
pub use early::Patience;
pub use egress::BUNDLE_SIZES;
use egress::{Port, Side, Trunk, Ways};
pub use gather::{Before, Gather};
use isolation::Panics;
pub use packet_path::Lane;
pub use ports::Ports;
pub use recoveries::Distribution;
use session::Loan;
use sessions::Sessions;
pub use source::Bell;
use source::{Source, watch};
pub use stats::{Stamps, Way};
use summaries::Sweep;
pub use tags::tag;

use crate::flows::Flows;
use crate::mmsg::Inbox;
use crate::{panics, ring};

/// Commands that may wait: several for every session a worker could hold. Control waits when it is full.
pub const COMMANDS_MAX: usize = 65_536;

/// Descriptors that are told of at a time: sessions' ports become ready one by one.
const EVENTS_MAX: usize = 256;

/// What one worker is made of.
pub struct Parts {
    pub number: u16,
    pub listeners: Vec<ListenerParts>,
    /// One connected socket per node with trunk legs.
    pub trunks: Vec<Option<UdpSocket>>,
    pub from_quic: Option<ring::Receiver>,
    pub to_quic: Option<ring::Sender>,
    pub from_workers: Vec<ring::Receiver>,
    pub to_workers: Vec<Option<ring::Sender>>,
    pub commands: crossbeam_channel::Receiver<Command>,
    pub bell: Arc<Bell>,
    pub reports: mpsc::Sender<Report>,
    pub stamps: Arc<Stamps>,
    pub flows: Arc<Flows>,
    pub board: Arc<Board>,
    pub patience: Patience,
    /// Look-ups of unknown sources per second and prefix.
    pub misses_per_prefix: u32,
    /// How long packets that keep coming gather.
    pub gather: Duration,
}

/// A listener's sockets at one worker.
pub struct ListenerParts {
    pub rtp: UdpSocket,
    pub rtcp: Option<UdpSocket>,
    /// Whether packets of unknown sources may open sessions.
    pub open: bool,
}

pub struct Worker {
    number: u16,
    epoll: std::os::fd::OwnedFd,
    inbox: Inbox,
    ways: Ways,
    ingress: client_ingress::Ingress,
    sessions: Sessions,
    from_quic: Option<ring::Receiver>,
    from_workers: Vec<ring::Receiver>,
    commands: crossbeam_channel::Receiver<Command>,
    bell: Arc<Bell>,
    flows: Arc<Flows>,
    board: Arc<Board>,
    /// What was not read to its end, and does not wake us by itself.
    again: Vec<Source>,
    /// What is being read, or was last; and of a trunk's datagram, how many packets were handed on.
    reading: Source,
    handed_on: usize,
    gather: Gather,
    /// Packets read in this pass, and whether something that was not read in it wakes us by itself.
    read: usize,
    more_ready: bool,
    sweep: Sweep,
    /// Of a share that is being summed up.
    summaries: Vec<Summary>,
    panics: Panics,
    /// Sessions dropped for a panic, until control took the word: it is said once.
    untold: Vec<SessionId>,
    stopped: bool,
}

impl Worker {
    /// A worker ready to run, its sockets registered.
    ///
    /// # Errors
    /// What epoll or a socket says.
    pub fn new(parts: Parts, now: Instant) -> io::Result<Worker> {
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
        watch(&epoll, &parts.bell, Source::Commands)?;
        ways.to_quic = parts.to_quic;
        ways.to_workers = parts.to_workers;
        Ok(Worker {
            number: parts.number,
            epoll,
            inbox: Inbox::new(),
            ways,
            ingress: client_ingress::Ingress::new(
                Arc::clone(&parts.flows),
                open,
                parts.misses_per_prefix,
                now,
            ),
            sessions: Sessions::default(),
            from_quic: parts.from_quic,
            from_workers: parts.from_workers,
            commands: parts.commands,
            bell: parts.bell,
            flows: parts.flows,
            board: parts.board,
            again: Vec::new(),
            reading: Source::Commands,
            handed_on: 0,
            gather: Gather::new(parts.gather),
            read: 0,
            more_ready: false,
            sweep: Sweep::new(now),
            summaries: Vec::new(),
            panics: Panics::default(),
            untold: Vec::new(),
            stopped: false,
        })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What epoll says; nothing else ends it.
    pub fn run(mut self) -> io::Result<()> {
        Gather::keep_time();
        panics::are_caught_here();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let (mut gathered, mut ended) = (false, Instant::now());
        while !self.stopped {
            let wait = if gathered || !self.again.is_empty() {
                Duration::ZERO
            } else {
                self.sweep.due(self.ways.awake.len()).saturating_duration_since(ended)
            };
            self.wait(&mut events, wait)?;
            let began = Instant::now();
            let before = match gathered {
                true => Before::Gathered,
                false => Before::Waited(began.saturating_duration_since(ended)),
            };
            self.pass_or_outlive(&events, began);
            ended = Instant::now();
            self.ways.stamps.pass_ends(ended);
            let pause = self.gather.pause(before, self.read);
            gathered = pause.is_some();
            if let Some(pause) = pause.filter(|_| !self.left_some()) {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, at_most: Duration) -> io::Result<()> {
        events.clear();
        let timeout = rustix::event::Timespec::try_from(at_most)
            .expect("the next share is seconds away at most");
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Once for all packets of a pass: what it costs is not theirs to pay.
    fn pass_or_outlive(&mut self, events: &[epoll::Event], now: Instant) {
        let pass = AssertUnwindSafe(|| self.pass(events, now));
        if let Err(panic) = catch_unwind(pass) {
            self.outlive(panic, events, now);
        }
    }

    /// Reads what is there, does what is due, and lets everything that is queued leave.
    fn pass(&mut self, events: &[epoll::Event], now: Instant) {
        self.read = 0;
        // Others may be ready too.
        self.more_ready = events.len() == EVENTS_MAX;
        self.ways.stamps.pass_begins(now);
        self.read_again(now);
        for event in events {
            self.ready(Source::from_token(event.data.u64()), event.flags, now);
        }
        self.summarise(now);
        if !self.ways.early.is_empty() {
            self.serve_early(now);
        }
        self.flush(now);
        if !self.untold.is_empty() {
            self.tell_untold();
        }
    }

    /// Control hears of sessions that were dropped for a panic, as soon as it takes the word.
    #[cold]
    fn tell_untold(&mut self) {
        let ways = &self.ways;
        self.untold.retain(|&session| !ways.tells(Report::Panicked { session }));
    }

    /// Whether the last pass left something unread.
    fn left_some(&self) -> bool {
        self.more_ready || !self.again.is_empty()
    }

    fn ready(&mut self, source: Source, flags: epoll::EventFlags, now: Instant) {
        self.reading = source;
        match source {
            Source::Commands => self.hear_commands(now),
            Source::Listener(listener, side) => self.read_listener(listener, side, now),
            Source::Trunk(node) => self.read_trunk(node, now),
            Source::Port(slot, side) => self.read_port(slot, side, flags, now),
            Source::Worker(number) => self.read_worker(number, now),
            Source::Quic => self.read_quic(now),
        }
    }

    /// The next pass reads on there, unasked.
    fn go_on_with(&mut self, source: Source) {
        if !self.again.contains(&source) {
            self.again.push(source);
        }
    }

    /// What was left of the last pass comes first.
    fn read_again(&mut self, now: Instant) {
        for _ in 0..self.again.len() {
            let source = self.again.remove(0);
            self.ready(source, epoll::EventFlags::empty(), now);
        }
    }

    /// The end of a pass: everything that is queued leaves.
    fn flush(&mut self, now: Instant) {
        while let Some(home) = self.ways.ports.pop() {
            self.sessions.lend(home, |session| {
                if let Some(ports) = &mut session.ports {
                    ports.flush(&self.ways.stamps, now);
                }
            });
        }
        self.ways.flush(now);
    }

    /// Sums up the sessions whose turn it is.
    fn summarise(&mut self, now: Instant) {
        let Worker { sessions, sweep, summaries, ways, board, ingress, .. } = self;
        ingress.forget(now);
        let share = sweep.take(ways.awake.len(), now);
        if share.as_ref().is_some_and(|share| share.start == 0) {
            ways.stamps.sums_up_every(summaries::every(ways.awake.len()));
        }
        // From its end, as the last of all takes the place of one that rests.
        for place in share.unwrap_or_default().rev() {
            let home = ways.awake.at(place);
            let rests = sessions.lend(home, |session| {
                session.tick(&mut Loan { ways, board, now });
                summaries.extend(session.summary(now));
                session.rests(now)
            });
            if rests.unwrap_or(true) {
                ways.awake.remove(place);
            }
        }
        if !summaries.is_empty() {
            ways.report(Report::Summaries(std::mem::take(summaries)));
        }
    }
}

/// Where a client's packet is looked for.
type From = (u8, SocketAddr);

#[cfg(test)]
mod tests;
