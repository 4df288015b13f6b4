//! Packet workers: each pass reads a batch, finds the session, selects the room's hop, rewrites, queues and sends a batch.
//!
//! A session has one home worker for life, and only that worker writes its state: no locks, no await, no allocation per
//! packet.
//!
//! Isolation of panics: a panic caused by one session's packet ends only that session.
//!
//! Input is removed from its queue after it was handled, so the next pass resumes at the packet that caused the panic
//! and finds its session removed. One piece of shared state may be incomplete: a packet queued to that session's client
//! may be sent before its header was rewritten.

mod client_ingress;
mod command;
pub(crate) mod dtls;
mod early;
mod egress;
mod gather;
mod node_ingress;
mod packet_path;
mod report;
mod session;
mod slots;
mod sockets;
mod suspension;

use std::any::Any;
use std::hash::RandomState;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use command::WorkerCommand;
pub use dtls::{HandshakeFlight, HandshakeInput, handshake_channel};
pub use early::EarlyLimits;
pub use egress::{BUNDLE_SIZES, TrunkSocket, TrunkState};
use egress::{Egress, Permit, Trunk, WorkerGrant};
use evenkeel_media::srtp::IndexGrant;
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Board, CloseReason, NodeId, SessionId};
pub(crate) use gather::Gather;
pub use packet_path::PacketPath;
pub use report::{
    Distribution, MediaCounts, MediaDirection, RepairCounts, ShedRun, Summary, Totals,
    WorkerReport, WorkerStats,
};
use report::{Sweep, every};
use rustix::event::epoll;
use session::PacketContext;
pub use session::{
    AnsweredMedia, ClientAddressing, ClientPassword, DscpMarks, Install, NodeLeg, NodePort,
    SessionState, SrtpKeying, SrtpPort,
};
use slots::SessionSlots;
pub use slots::tag;
pub use sockets::SessionPorts;
use sockets::{ClientArrival, ListenerPort, RtpSide};
pub(crate) use sockets::{ClientPath, SourceKey};
pub use suspension::{Copies, Duplicate, HandedOut, SocketDuplicates};
use tokio::sync::mpsc;

use crate::flows::Flows;
use crate::lease::SendLease;
use crate::mmsg::{BATCH, ReceiveBatch};
use crate::{Waker, panics, ring};

/// Limit of queued commands: several for every session that a worker can hold. Control waits when the queue is full.
pub const COMMANDS_MAX: usize = 65_536;

/// Batches read from one socket or ring per pass.
const BATCHES_PER_TURN: usize = 4;

/// Events per `epoll_wait`. Epoll reports sessions' ports one by one.
const EVENTS_MAX: usize = 256;

/// Everything that a worker owns or shares from its start.
pub struct WorkerParts {
    /// Number among the workers, from 0.
    pub number: u16,
    /// By listener number.
    pub listeners: Vec<ListenerParts>,
    /// One connected socket per node with trunk legs.
    pub trunks: Vec<Option<TrunkSocket>>,
    /// Packets of QUIC clients. `None` without a QUIC listener.
    pub from_quic: Option<ring::Receiver>,
    /// Packets to QUIC clients. `None` without a QUIC listener.
    pub to_quic: Option<ring::RingSender>,
    /// Inputs of the thread of DTLS handshakes.
    pub to_handshakes: crossbeam_channel::Sender<HandshakeInput>,
    /// Datagrams that other workers received for sessions of this one.
    pub from_workers: Vec<ring::Receiver>,
    /// Rings by worker number; `None` for this worker.
    pub to_workers: Vec<Option<ring::RingSender>>,
    /// Commands of control. Control wakes the worker after it has sent some.
    pub commands: crossbeam_channel::Receiver<WorkerCommand>,
    /// Wakes this worker.
    pub waker: Arc<Waker>,
    /// Reports to control. A full channel drops them.
    pub reports: mpsc::Sender<WorkerReport>,
    /// Statistics that this worker writes.
    pub stats: Arc<WorkerStats>,
    /// The flow table, shared by all workers.
    pub flows: Arc<Flows>,
    /// The states of nodes, written by control.
    pub board: Arc<Board>,
    /// Limits of packets that wait for a leg.
    pub early_limits: EarlyLimits,
    /// Limit of failed lookups, per second and prefix.
    pub misses_per_prefix: u32,
    /// Random keys of this process for hashes of data from strangers.
    pub hash_keys: RandomState,
    /// Time for which packets gather while they keep arriving.
    pub gather: Duration,
    /// The time until which the worker may send.
    pub lease: Arc<SendLease>,
    /// The indices of SRTP that a standby allows.
    pub grant: Arc<IndexGrant>,
    /// Reads nothing before [`WorkerCommand::Resume`].
    pub suspended: bool,
}

/// A listener's sockets at one worker.
pub struct ListenerParts {
    /// The socket for RTP, and for RTCP if there is no other.
    pub rtp: UdpSocket,
    /// A separate socket for RTCP.
    pub rtcp: Option<UdpSocket>,
    /// True if packets of unknown sources may open sessions.
    pub open: bool,
}

/// Sockets, rings and the waker for commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PacketSource {
    Listener(u8, RtpSide),
    Trunk(NodeId),
    Port(u32, RtpSide),
    Worker(u16),
    Quic,
    Commands,
}

impl PacketSource {
    fn token(self) -> u64 {
        let (kind, number) = match self {
            PacketSource::Listener(number, RtpSide::Rtp) => (0, u32::from(number)),
            PacketSource::Listener(number, RtpSide::Rtcp) => (1, u32::from(number)),
            PacketSource::Trunk(node) => (2, node.0),
            PacketSource::Port(slot, RtpSide::Rtp) => (3, slot),
            PacketSource::Port(slot, RtpSide::Rtcp) => (4, slot),
            PacketSource::Worker(number) => (5, u32::from(number)),
            PacketSource::Quic => (6, 0),
            PacketSource::Commands => (7, 0),
        };
        kind << 32 | u64::from(number)
    }

    fn from_token(token: u64) -> PacketSource {
        let number = token as u32;
        match token >> 32 {
            0 => PacketSource::Listener(number as u8, RtpSide::Rtp),
            1 => PacketSource::Listener(number as u8, RtpSide::Rtcp),
            2 => PacketSource::Trunk(NodeId(number)),
            3 => PacketSource::Port(number, RtpSide::Rtp),
            4 => PacketSource::Port(number, RtpSide::Rtcp),
            5 => PacketSource::Worker(number as u16),
            6 => PacketSource::Quic,
            _ => PacketSource::Commands,
        }
    }
}

/// Registers a descriptor. Ports of sessions are edge-triggered: a worker may have thousands, and `epoll_wait` would
/// report each unread one again.
fn watch(epoll: impl AsFd, fd: impl AsFd, source: PacketSource) -> io::Result<()> {
    let data = epoll::EventData::new_u64(source.token());
    let flags = match source {
        PacketSource::Port(..) => epoll::EventFlags::IN | epoll::EventFlags::ET,
        _ => epoll::EventFlags::IN,
    };
    Ok(epoll::add(epoll, fd, data, flags)?)
}

/// A worker, which runs on a thread of its own.
pub struct PacketWorker {
    number: u16,
    epoll: std::os::fd::OwnedFd,
    inbox: ReceiveBatch,
    egress: Egress,
    ingress: client_ingress::ClientIngress,
    sessions: SessionSlots,
    from_quic: Option<ring::Receiver>,
    from_workers: Vec<ring::Receiver>,
    commands: crossbeam_channel::Receiver<WorkerCommand>,
    waker: Arc<Waker>,
    flows: Arc<Flows>,
    board: Arc<Board>,
    /// Sources that were not read until empty and that epoll does not report again.
    unread: Vec<PacketSource>,
    /// The source that is being read or was read last.
    reading: PacketSource,
    /// Packets of the current bundle that were handled already.
    bundle_done: usize,
    /// True if the current datagram was decrypted in place.
    is_opened: bool,
    gather: Gather,
    /// Packets read in this pass.
    read: usize,
    /// True if epoll may have more events than its last call returned.
    more_ready: bool,
    sweep: Sweep,
    /// Reused buffer for the summaries of one pass.
    summaries: Vec<Summary>,
    /// Sessions that ended here and are not yet reported to control.
    unreported: Vec<(SessionId, CloseReason)>,
    /// Set from [`WorkerCommand::Suspend`] to the end of its pass.
    suspending: Option<mpsc::Sender<HandedOut>>,
    suspended: bool,
    stopped: bool,
}

impl PacketWorker {
    /// Registers the sockets.
    ///
    /// # Errors
    /// Returns the error of epoll or of a socket.
    pub fn new(parts: WorkerParts, now: Instant) -> io::Result<PacketWorker> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut egress = Egress::new(parts.reports, parts.stats, parts.early_limits);
        let open = parts.listeners.iter().map(|listener| listener.open).collect();
        for (number, listener) in (0..).zip(parts.listeners) {
            watch(&epoll, &listener.rtp, PacketSource::Listener(number, RtpSide::Rtp))?;
            if let Some(rtcp) = &listener.rtcp {
                watch(&epoll, rtcp, PacketSource::Listener(number, RtpSide::Rtcp))?;
            }
            let rtcp = listener.rtcp.map(ListenerPort::listen).transpose()?;
            egress.listeners.push((ListenerPort::listen(listener.rtp)?, rtcp));
        }
        for (number, trunk) in (0..).zip(parts.trunks) {
            if let Some(trunk) = &trunk {
                watch(&epoll, &trunk.socket, PacketSource::Trunk(NodeId(number)))?;
            }
            egress.trunks.push(trunk.map(Trunk::new).transpose()?);
        }
        for (number, ring) in (0..).zip(&parts.from_workers) {
            watch(&epoll, ring, PacketSource::Worker(number))?;
        }
        if let Some(ring) = &parts.from_quic {
            watch(&epoll, ring, PacketSource::Quic)?;
        }
        watch(&epoll, &parts.waker, PacketSource::Commands)?;
        egress.to_quic = parts.to_quic;
        egress.to_handshakes = Some(parts.to_handshakes);
        egress.to_workers = parts.to_workers;
        egress.permit = Permit::new(parts.lease);
        egress.indices = WorkerGrant::new(parts.grant, parts.number);
        Ok(PacketWorker {
            number: parts.number,
            epoll,
            inbox: ReceiveBatch::default(),
            egress,
            ingress: client_ingress::ClientIngress::new(
                parts.number,
                Arc::clone(&parts.flows),
                open,
                parts.misses_per_prefix,
                parts.hash_keys,
                now,
            ),
            sessions: SessionSlots::default(),
            from_quic: parts.from_quic,
            from_workers: parts.from_workers,
            commands: parts.commands,
            waker: parts.waker,
            flows: parts.flows,
            board: parts.board,
            unread: Vec::new(),
            reading: PacketSource::Commands,
            bundle_done: 0,
            is_opened: false,
            gather: Gather::new(parts.gather),
            read: 0,
            more_ready: false,
            sweep: Sweep::new(now),
            summaries: Vec::new(),
            unreported: Vec::new(),
            suspending: None,
            suspended: parts.suspended,
            stopped: false,
        })
    }

    /// Runs until [`WorkerCommand::Stop`].
    ///
    /// # Errors
    /// Returns the error of epoll.
    pub fn run(mut self) -> io::Result<()> {
        Gather::keep_time();
        panics::capture_here();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        self.run_suspended()?;
        self.gather.ended = Instant::now();
        self.egress.stats.pass_ends(self.gather.ended);
        while !self.stopped {
            let at_once = self.gather.gathered
                || !self.unread.is_empty()
                || self.egress.permit.held_back.get();
            let wait = if at_once {
                Duration::ZERO
            } else {
                self.sweep
                    .due(self.egress.active.len())
                    .saturating_duration_since(self.gather.ended)
            };
            self.wait(&mut events, wait)?;
            let began = Instant::now();
            if !self.egress.permit.lease.is_held(|| began) {
                self.mark_ready_unread(&events);
                self.run_suspended()?;
                self.gather.ended = Instant::now();
                self.egress.stats.pass_begins(began);
                self.egress.stats.pass_ends(self.gather.ended);
                continue;
            }
            self.guarded_pass(&events, began);
            if self.suspending.is_some() {
                self.run_suspended()?;
                // Packets waited for all that time.
                self.egress.stats.pass_begins(began);
            }
            let ended = Instant::now();
            self.egress.stats.pass_ends(ended);
            if self.gather.ends(began, ended, self.read) && !self.has_unread() {
                std::thread::sleep(self.gather.pause);
            }
        }
        for _ in 0..self.egress.early.clear() {
            self.egress.count_drop(DropReason::NotOpened);
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

    /// Catches panics once per pass, not per packet, to keep the packet path cheap.
    fn guarded_pass(&mut self, events: &[epoll::Event], now: Instant) {
        let pass = AssertUnwindSafe(|| self.pass(events, now));
        if let Err(panic) = catch_unwind(pass) {
            self.isolate_panic(panic, events);
        }
    }

    /// Removes the session that the panic occurred in and continues the pass for the other sessions. Each panic removes
    /// a session, so their number needs no limit. If no session was accessed, the panic is resumed, which ends the
    /// process: the same input would cause it again.
    #[cold]
    fn isolate_panic(&mut self, panic: Box<dyn Any + Send>, events: &[epoll::Event]) {
        let (location, message) = panics::describe(&*panic);
        let Some(culprit) = self.sessions.remove_current() else {
            tracing::error!(panic = message, %location, "panic outside of a session; gateway ends");
            resume_unwind(panic);
        };
        let session = culprit.id;
        tracing::error!(%session, panic = message, %location, "packet caused a panic; session ends");
        culprit.end_dtls(&self.egress);
        for source in culprit.client.learned() {
            self.flows.remove(&source.key(), culprit.home);
        }
        self.unreported.push((session, CloseReason::Panicked));
        self.report_ends();
        // The source being read comes first, because the inbox may hold the rest of its batch.
        self.unread.retain(|source| *source != self.reading);
        self.unread.insert(0, self.reading);
        self.mark_ready_unread(events);
        self.mark_unread(PacketSource::Commands);
    }

    fn pass(&mut self, events: &[epoll::Event], now: Instant) {
        self.read = 0;
        // A full event list may mean that more sources are ready.
        self.more_ready = events.len() == EVENTS_MAX;
        self.egress.stats.pass_begins(now);
        self.egress.permit.held_back.set(false);
        self.read_unread(now);
        for event in events {
            self.ready(PacketSource::from_token(event.data.u64()), event.flags, now);
        }
        if !self.suspended && self.egress.permit.lease.is_held(|| now) {
            self.summarise(now);
        }
        if !self.egress.early.is_empty() {
            self.retry_early(now);
        }
        self.flush(now);
        if !self.unreported.is_empty() {
            self.report_ends();
        }
    }

    /// Returns whether the last pass left input unread.
    fn has_unread(&self) -> bool {
        self.more_ready || !self.unread.is_empty()
    }

    fn ready(&mut self, source: PacketSource, flags: epoll::EventFlags, now: Instant) {
        self.reading = source;
        match source {
            PacketSource::Commands => self.handle_wake(now),
            PacketSource::Listener(listener, side) => self.read_listener(listener, side, now),
            PacketSource::Trunk(node) => self.read_trunk(node, flags, now),
            PacketSource::Port(slot, side) => self.read_port(slot, side, flags, now),
            PacketSource::Worker(number) => self.read_worker(number, now),
            PacketSource::Quic => self.read_quic(now),
        }
    }

    fn read_listener(&mut self, listener: u8, side: RtpSide, now: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let (rtp, rtcp) = &self.egress.listeners[usize::from(listener)];
            let port = match side {
                RtpSide::Rtp => rtp,
                RtpSide::Rtcp => rtcp.as_ref().unwrap_or(rtp),
            };
            let Ok(count) = port.fill(&mut self.inbox) else { return };
            self.read += count;
            while let Some(place) = self.inbox.first() {
                self.take_client_datagram(listener, side, place, now);
                self.inbox.finish_first();
            }
            if count < BATCH {
                return;
            }
        }
        self.more_ready = true;
    }

    fn take_client_datagram(&mut self, listener: u8, side: RtpSide, place: usize, now: Instant) {
        let local = self.inbox.local(place);
        let Some((datagram, address)) = self.inbox.datagram(place) else {
            return self.egress.count_drop(DropReason::Oversize);
        };
        let source = SourceKey { listener, address };
        let found = self.ingress.identify(source, side, datagram, &self.egress, now);
        let Some((home, kind)) = found else { return };
        let arrival = ClientArrival { source, local, kind };
        if home.worker != self.number {
            return self.egress.relay(home, arrival, datagram);
        }
        if !self.sessions.has(home) {
            // The client may use the session before this worker has read the command that installs it.
            self.take_commands(now);
        }
        let PacketWorker { inbox, sessions, egress, board, ingress, .. } = self;
        if let Some((datagram, _)) = inbox.datagram(place) {
            let cx = &mut PacketContext { egress, board, now };
            ingress.deliver(sessions, home, arrival, datagram, cx);
        }
    }

    /// Reads datagrams that another worker received for sessions of this worker.
    fn read_worker(&mut self, number: u16, now: Instant) {
        // The datagram may precede the command that installs its session.
        self.take_commands(now);
        let PacketWorker { from_workers, sessions, egress, board, ingress, .. } = self;
        let Some(ring) = from_workers.get_mut(usize::from(number)) else { return };
        let more = drain(ring, |meta, bytes| {
            if let Some((arrival, datagram)) = ClientArrival::read(bytes) {
                let cx = &mut PacketContext { egress, board, now };
                ingress.deliver(sessions, meta.home, arrival, datagram, cx);
            }
        });
        if more {
            self.mark_unread(PacketSource::Worker(number));
        }
    }

    fn read_quic(&mut self, now: Instant) {
        self.take_commands(now);
        let PacketWorker { from_quic, sessions, egress, board, .. } = self;
        let Some(ring) = from_quic else { return };
        let more = drain(ring, |meta, packet| {
            let cx = &mut PacketContext { egress, board, now };
            let known = sessions.with(meta.home, |session| match meta.kind {
                ring::RingItem::Rtp => session.handle_client_rtp(packet, cx),
                ring::RingItem::Rtcp => session.handle_client_rtcp(packet, cx),
                ring::RingItem::Path(path) => session.handle_quic_path(path, cx),
                ring::RingItem::Attached => session.handle_other_input(cx),
                // The client may reconnect. If it does not, silence ends the session.
                ring::RingItem::Detached => {}
                // Only workers send this kind.
                ring::RingItem::Relayed => {}
            });
            if known.is_none() {
                egress.count_drop(DropReason::UnknownFlow);
            }
        });
        if more {
            self.mark_unread(PacketSource::Quic);
        }
    }

    /// Makes the next pass read this source without an event.
    fn mark_unread(&mut self, source: PacketSource) {
        if !self.unread.contains(&source) {
            self.unread.push(source);
        }
    }

    /// Makes the next passes read the sources that epoll has reported. It reports ports only once.
    fn mark_ready_unread(&mut self, events: &[epoll::Event]) {
        for event in events {
            self.mark_unread(PacketSource::from_token(event.data.u64()));
        }
    }

    fn read_unread(&mut self, now: Instant) {
        for _ in 0..self.unread.len() {
            let source = self.unread.remove(0);
            self.ready(source, epoll::EventFlags::empty(), now);
        }
    }

    fn flush(&mut self, now: Instant) {
        while !self.egress.ports.is_empty() && self.egress.permit.may_send() {
            let Some(home) = self.egress.ports.pop() else { break };
            self.sessions.with(home, |session| session.nodes.flush(&self.egress.stats, now));
        }
        self.egress.flush(now);
    }

    /// Summarises the next share of active sessions.
    fn summarise(&mut self, now: Instant) {
        let PacketWorker { sessions, sweep, summaries, egress, board, ingress, .. } = self;
        ingress.expire_cache(now);
        let share = sweep.take(egress.active.len(), now);
        if share.as_ref().is_some_and(|share| share.start == 0) {
            egress.stats.sums_up_every(every(egress.active.len()));
        }
        // Iterates backwards, because a removal moves the last session into the freed place.
        for place in share.unwrap_or_default().rev() {
            let home = egress.active[place];
            let went_idle = sessions.with(home, |session| {
                session.tick(&mut PacketContext { egress, board, now });
                summaries.extend(session.summary(now));
                session.went_idle(now)
            });
            if went_idle.unwrap_or(true) {
                // The moved session may miss its turn in this round; the next round summarises it.
                egress.active.swap_remove(place);
            }
        }
        if !summaries.is_empty() {
            egress.report(WorkerReport::Summaries(std::mem::take(summaries)));
        }
    }
}

/// Reads one turn's batches from a ring and returns whether more may remain: only an empty ring wakes its reader again.
fn drain(ring: &mut ring::Receiver, mut take: impl FnMut(&ring::RingMeta, &[u8])) -> bool {
    (0..BATCHES_PER_TURN).all(|_| ring.pop_batch(BATCH, &mut take) == BATCH)
}

#[cfg(test)]
mod tests;
