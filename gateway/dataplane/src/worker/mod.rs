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
//!
//! A suspended worker hands out its sessions and reads nothing, so that another worker, perhaps in another process, can continue
//! them with duplicates of its sockets. If that fails, this worker resumes. A worker without a lease rests as well. It keeps the
//! packets that it has read, and sends them once the lease is renewed, or drops them if it is suspended: then another worker
//! continues the sessions.

mod client_ingress;
mod command;
pub(crate) mod dtls;
mod early;
mod egress;
mod gather;
mod node_ingress;
mod pacing;
mod packet_path;
mod repair_memory;
mod report;
mod session;
mod slots;
mod sockets;

use std::any::Any;
use std::hash::RandomState;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_ingress::ClientIngress;
pub use command::{Copies, Duplicate, HandedOut, SocketDuplicates, WorkerCommand};
pub use dtls::{HandshakeFlight, HandshakeInput, handshake_channel};
pub use early::EarlyLimits;
use early::Outbound;
pub use egress::{BUNDLE_SIZES, DscpMarks, TrunkSocket, TrunkState};
use egress::{Egress, PacketContext, Permit, Trunk, WorkerGrant, trunk_to};
use evenkeel_media::continuity::FILLED_WITHIN;
use evenkeel_media::srtp::IndexGrant;
use evenkeel_media::trunk;
use evenkeel_model::{Board, CloseReason, DropReason, NodeId, SessionId};
pub(crate) use gather::Gather;
use node_ingress::NodeIngress;
pub use packet_path::PacketPath;
pub use repair_memory::RepairMemory;
pub use report::{
    Distribution, MediaCounts, MediaDirection, RepairCounts, ShedRun, Summary, Totals,
    WorkerReport, WorkerStats,
};
use report::{Sweep, every};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use session::WorkerSession;
pub use session::{
    AnsweredMedia, ClientAddressing, ClientPassword, ClientStream, Install, NodeLeg, NodePort,
    SessionState, SrtpKeying, SrtpPort,
};
use slots::SessionSlots;
pub use slots::tag;
pub use sockets::SessionPorts;
use sockets::{ClientArrival, ListenerPort, RtpSide, reason};
pub(crate) use sockets::{ClientPath, SourceKey};
use tokio::sync::mpsc;

use crate::client_probes::ClientProbes;
use crate::flows::{Flows, Home};
use crate::lease::{CHECKED_EVERY, SendLease};
use crate::mmsg::{BATCH, ReceiveBatch, drain_errors};
use crate::{Waker, panics, ring};

/// Limit of queued commands: several for every session that a worker can hold. Control waits when the queue is full.
pub const COMMANDS_MAX: usize = 65_536;

/// Batches read from one socket or ring per pass.
const BATCHES_PER_TURN: usize = 4;

/// Datagrams per read from a session's port: a video frame.
const PER_PORT: usize = 16;

/// Commands handled before packets are read again: about a millisecond.
const COMMANDS_PER_TURN: usize = 1_024;

/// Time in which the other workers stop passing packets to a worker that is suspended: a pass takes about a millisecond.
const PAUSED_WITHIN: Duration = Duration::from_millis(100);

/// Interval at which a worker looks for packets from the others.
const LOOKS_EVERY: Duration = Duration::from_micros(50);

/// [`lease::CHECKED_EVERY`](crate::lease::CHECKED_EVERY), as the kernel takes it.
const LOOKS_FOR_LEASE_EVERY: Timespec =
    Timespec { tv_sec: 0, tv_nsec: CHECKED_EVERY.subsec_nanos() as i64 };

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
    /// Probes of clients, shared by all workers.
    pub probes: Arc<ClientProbes>,
    /// The states of nodes, written by control.
    pub board: Arc<Board>,
    /// Limits of packets that wait for a leg.
    pub early_limits: EarlyLimits,
    /// Memory of the caches from which sessions are repaired, shared by all workers.
    pub repair_memory: RepairMemory,
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
    client_ingress: ClientIngress,
    node_ingress: NodeIngress,
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
        egress.repair_memory = parts.repair_memory;
        Ok(PacketWorker {
            number: parts.number,
            epoll,
            inbox: ReceiveBatch::default(),
            egress,
            client_ingress: ClientIngress::new(
                parts.number,
                Arc::clone(&parts.flows),
                open,
                parts.misses_per_prefix,
                parts.hash_keys,
                now,
            )
            .with_probes(parts.probes),
            node_ingress: NodeIngress::default(),
            sessions: SessionSlots::default(),
            from_quic: parts.from_quic,
            from_workers: parts.from_workers,
            commands: parts.commands,
            waker: parts.waker,
            flows: parts.flows,
            board: parts.board,
            unread: Vec::new(),
            reading: PacketSource::Commands,
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
                let due = self.sweep.due(self.egress.active.len());
                let due = self.egress.paced.due().map_or(due, |paced| paced.min(due));
                due.saturating_duration_since(self.gather.ended)
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
        let timeout = Timespec::try_from(at_most).expect("the next share is seconds away at most");
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
            if !self.egress.paced.is_empty() {
                self.send_paced(now);
            }
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

    fn read_listener(&mut self, listener: u8, side: RtpSide, now: Instant) {
        for _ in 0..BATCHES_PER_TURN {
            let (rtp, rtcp) = &self.egress.listeners[usize::from(listener)];
            let port = match side {
                RtpSide::Rtp => rtp,
                RtpSide::Rtcp => rtcp.as_ref().unwrap_or(rtp),
            };
            let socket = port.socket.as_fd();
            let filled = match port.reports_local {
                true => self.inbox.fill_with_local(socket),
                false => self.inbox.fill(socket),
            };
            let Ok(count) = filled else { return };
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
        let found = self.client_ingress.identify(source, side, datagram, &self.egress, now);
        let Some((home, kind)) = found else {
            if let Some(answer) = self.client_ingress.probe_answer() {
                self.egress.queue_to_client(ClientPath { source, local }, side, 0, answer);
            }
            return;
        };
        let arrival = ClientArrival { source, local, kind };
        if home.worker != self.number {
            return self.egress.relay(home, arrival, datagram);
        }
        if !self.sessions.has(home) {
            // The client may use the session before this worker has read the command that installs it.
            self.take_commands(now);
        }
        let PacketWorker { inbox, sessions, egress, board, client_ingress, .. } = self;
        if let Some((datagram, _)) = inbox.datagram(place) {
            let cx = &mut PacketContext { egress, board, now };
            client_ingress.deliver(sessions, home, arrival, datagram, cx);
        }
    }

    /// Reads datagrams that another worker received for sessions of this worker.
    fn read_worker(&mut self, number: u16, now: Instant) {
        // The datagram may precede the command that installs its session.
        self.take_commands(now);
        let PacketWorker { from_workers, sessions, egress, board, client_ingress, .. } = self;
        let Some(ring) = from_workers.get_mut(usize::from(number)) else { return };
        let more = drain(ring, |meta, bytes| {
            if let Some((arrival, datagram)) = ClientArrival::read(bytes) {
                let cx = &mut PacketContext { egress, board, now };
                client_ingress.deliver(sessions, meta.home, arrival, datagram, cx);
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
                ring::RingItem::Relayed | ring::RingItem::ToClient(_) => {}
            });
            if known.is_none() {
                egress.count_drop(DropReason::UnknownFlow);
            }
        });
        if more {
            self.mark_unread(PacketSource::Quic);
        }
    }

    fn read_trunk(&mut self, node: NodeId, flags: epoll::EventFlags, now: Instant) {
        if flags.contains(epoll::EventFlags::ERR) {
            self.read_trunk_errors(node);
        }
        for _ in 0..BATCHES_PER_TURN {
            let Some(Some(trunk)) = self.egress.trunks.get(node.0 as usize) else { return };
            // After an error that belongs to an earlier send, epoll reports the socket again.
            let Ok(count) = self.inbox.fill(trunk.socket.as_fd()) else { return };
            self.read += count;
            let mut packets = 0;
            while let Some(place) = self.inbox.first() {
                packets += self.take_trunk_datagram(node, place, now);
                self.inbox.finish_first();
            }
            if packets > 0 {
                self.egress.stats.received(node, packets, now);
            }
            if count < BATCH {
                return;
            }
        }
        self.more_ready = true;
    }

    /// Reports the node's port closed if an error quotes a bundle of one of its sessions, or an encrypted datagram that
    /// was sent. Any other `ConnectionRefused` may be forged.
    #[cold]
    fn read_trunk_errors(&mut self, node: NodeId) {
        let PacketWorker { sessions, egress, .. } = self;
        let Some(Some(trunk)) = egress.trunks.get(node.0 as usize) else { return };
        let mut refused = false;
        drain_errors(trunk.socket.as_fd(), |_, error, quoted| {
            if error.kind() != io::ErrorKind::ConnectionRefused {
                return egress.count_drop(reason(&error));
            }
            let tag = trunk::first_tag(quoted);
            let is_open = |tag| sessions.with_tag(node, tag, |_, _| ()).is_some();
            refused |= trunk.has_sealed(quoted) || tag.is_some_and(is_open);
        });
        if refused {
            egress.report(WorkerReport::Refused(node));
        }
    }

    /// Handles a trunk datagram. Returns its number of packets.
    fn take_trunk_datagram(&mut self, node: NodeId, place: usize, now: Instant) -> u64 {
        let PacketWorker { inbox, sessions, egress, board, node_ingress, .. } = self;
        let Some((datagram, _)) = inbox.datagram(place) else {
            egress.count_drop(DropReason::Oversize);
            return 0;
        };
        node_ingress.deliver(sessions, node, datagram, &mut PacketContext { egress, board, now })
    }

    /// Reads a session's port. Epoll reports it once, so it is read until it is empty.
    fn read_port(&mut self, slot: u32, side: RtpSide, flags: epoll::EventFlags, now: Instant) {
        let PacketWorker { inbox, sessions, egress, board, .. } = self;
        let cx = &mut PacketContext { egress, board, now };
        let turn = sessions.with_slot(slot, |session| {
            let fd = session.nodes.fd(side)?;
            // Without flags the read continues an earlier pass. If a panic ended that pass, epoll does not report the
            // errors a second time.
            if flags.is_empty() || flags.contains(epoll::EventFlags::ERR) {
                drain_errors(fd, |address, error, quoted| {
                    session.send_failed(address, &error, quoted, cx);
                });
            }
            match inbox.receive_at_most(PER_PORT, fd) {
                Ok(count) => {
                    (0..count).for_each(|place| {
                        node_ingress::deliver_from_port(session, inbox, place, cx);
                    });
                    Some((count, count == PER_PORT))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                // The error belongs to an earlier send; datagrams may remain.
                Err(_) => Some((0, true)),
            }
        });
        let Some((count, may_have_more)) = turn.flatten() else { return };
        self.read += count;
        if may_have_more {
            self.mark_unread(PacketSource::Port(slot, side));
        }
    }

    /// Retries packets that arrived before the command that adds their tag.
    fn retry_early(&mut self, now: Instant) {
        self.take_commands(now);
        let PacketWorker { sessions, egress, board, .. } = self;
        for _ in 0..egress.early.inbound.len() {
            if let Some(early) = egress.early.inbound.pop_front() {
                let cx = &mut PacketContext { egress, board, now };
                node_ingress::deliver_packet(sessions, early.node, early.tag, &early.packet, cx);
            }
        }
        // Packets whose tag is still unknown were queued again. They are dropped without a third attempt.
        while egress.early.inbound.pop_front().is_some() {
            egress.count_drop(DropReason::UnknownTag);
        }
    }

    /// Sends clients' packets whose leg was added meanwhile.
    fn send_early(&mut self, now: Instant) {
        let PacketWorker { sessions, egress, board, .. } = self;
        let has_leg =
            |home, hop| sessions.with(home, |session| session.nodes.has_leg(hop)).unwrap_or(false);
        for _ in 0..egress.early.sort_out(now, has_leg) {
            egress.count_drop(DropReason::NotOpened);
        }
        while let Some(Outbound { home, hop, side, kind, packet, .. }) =
            egress.early.ready.pop_front()
        {
            let cx = &mut PacketContext { egress, board, now };
            sessions.with(home, |session| session.send_to_node(hop, side, kind, &packet, cx));
        }
    }

    fn flush(&mut self, now: Instant) {
        while !self.egress.ports.is_empty() && self.egress.permit.may_send() {
            let Some(home) = self.egress.ports.pop() else { break };
            self.sessions.with(home, |session| session.nodes.flush(&self.egress.stats, now));
        }
        self.egress.flush(now);
    }

    /// Sends video that waited for its turn.
    #[inline(never)]
    fn send_paced(&mut self, now: Instant) {
        let PacketWorker { sessions, egress, board, .. } = self;
        for _ in 0..egress.paced.begin(now) {
            let Some(home) = egress.paced.pop() else { break };
            let cx = &mut PacketContext { egress, board, now };
            let has_more = sessions.with(home, |session| session.send_paced(cx));
            if has_more.unwrap_or_default() {
                egress.paced.add(home, now);
            }
        }
    }

    /// Sends all video that waits for its turn: another worker continues the sessions.
    #[cold]
    fn send_all_paced(&mut self, now: Instant) {
        while let Some(home) = self.egress.paced.pop() {
            self.with_session(home, now, |session, cx| {
                session.send_all_paced(cx);
                // It is no longer listed.
                session.send_paced(cx);
            });
        }
        self.flush(now);
    }

    /// Summarises the next share of active sessions.
    fn summarise(&mut self, now: Instant) {
        let PacketWorker { sessions, sweep, summaries, egress, board, client_ingress, .. } = self;
        client_ingress.expire_cache(now);
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

    /// Runs commands after control has woken the worker.
    fn handle_wake(&mut self, now: Instant) {
        self.waker.clear();
        if self.run_commands(COMMANDS_PER_TURN, now) {
            self.mark_unread(PacketSource::Commands);
        }
    }

    /// Runs all commands sent so far. Packets read afterwards may depend on them.
    fn take_commands(&mut self, now: Instant) {
        self.run_commands(COMMANDS_MAX, now);
    }

    /// Runs up to `most` commands. Returns whether more may be waiting.
    fn run_commands(&mut self, most: usize, now: Instant) -> bool {
        let done = (0..most).map_while(|_| {
            let command = self.commands.try_recv().ok()?;
            self.run_command(command, now);
            Some(())
        });
        let may_have_more = done.count() == most;
        // Packets that waited for a leg are sent before later ones.
        self.send_early(now);
        may_have_more
    }

    fn run_command(&mut self, command: WorkerCommand, now: Instant) {
        match command {
            WorkerCommand::Install(install) => self.install(*install, now),
            WorkerCommand::Attach { home, hop, leg } => {
                self.sessions.with(home, |session| session.attach(hop, leg));
                self.egress.note_changed(home);
            }
            WorkerCommand::Detach { home, hop } => {
                self.sessions.with(home, |session| session.detach(hop));
                self.egress.note_changed(home);
            }
            WorkerCommand::Limit { home, limits } => {
                self.with_session(home, now, |session, cx| session.set_limits(limits, cx));
            }
            WorkerCommand::SetKeys { home, keys } => {
                self.sessions.with(home, |session| session.set_keys(&keys));
                self.egress.note_changed(home);
            }
            WorkerCommand::Renegotiate { home, media, answered } => {
                self.sessions.with(home, |session| session.renegotiate(media, answered));
                self.egress.note_changed(home);
            }
            WorkerCommand::SendDtls(flight) => {
                let HandshakeFlight { home, to, bytes } = *flight;
                self.with_session(home, now, |session, cx| session.send_dtls(to, &bytes, cx));
            }
            WorkerCommand::KeyFrame(home) => {
                self.with_session(home, now, WorkerSession::request_client_key_frame);
            }
            #[cfg(any(test, feature = "fault-injection"))]
            WorkerCommand::Panic(home) => {
                self.sessions.with(home, |session| session.panics = true);
            }
            WorkerCommand::Remove(home) => self.remove(home, now),
            WorkerCommand::ForgetRestored => self.forget_restored(),
            WorkerCommand::SendSigned { node, message, sealed } => {
                self.egress.send_signed(node, &message, sealed);
            }
            WorkerCommand::LimitBundles { node, size_max } => {
                if let Some(trunk) = trunk_to(&mut self.egress.trunks, node) {
                    trunk.limit_bundles(size_max);
                }
            }
            WorkerCommand::AddTrunk { node, trunk } => self.add_trunk(node, trunk),
            WorkerCommand::RemoveNode(node) => self.egress.remove_node(node),
            // Fails only if control waits no longer.
            WorkerCommand::Duplicate { slots, all, for_standby, done } => {
                drop(done.send(self.duplicate(slots, all, for_standby, now)));
            }
            WorkerCommand::Suspend(to) => self.suspending = Some(to),
            WorkerCommand::Continue { home, state } => self.continue_session(home, *state, now),
            // Fails only if control waits no longer.
            WorkerCommand::Copy { slots, all, for_standby, done } => {
                drop(done.send(self.copy(slots, all, for_standby, now)));
            }
            WorkerCommand::ContinueTrunk(state) => {
                if let Some(trunk) = trunk_to(&mut self.egress.trunks, state.node) {
                    trunk.go_on(*state);
                }
            }
            WorkerCommand::Confirm(done) => drop(done.send(())),
            WorkerCommand::Resume => self.resume(),
            WorkerCommand::Stop => self.stopped = true,
        }
    }

    fn add_trunk(&mut self, node: NodeId, trunk: TrunkSocket) {
        let watched = watch(&self.epoll, &trunk.socket, PacketSource::Trunk(node));
        match watched.and_then(|()| Trunk::new(trunk)) {
            Ok(trunk) => self.egress.add_trunk(node, trunk),
            // Probes use another socket and still succeed, so only this line explains the silence.
            Err(error) => {
                tracing::error!(%node, %error, "trunk not opened; no packets are exchanged with the node");
            }
        }
    }

    fn with_session(
        &mut self,
        home: Home,
        now: Instant,
        act: impl FnOnce(&mut WorkerSession, &mut PacketContext<'_>),
    ) {
        let cx = &mut PacketContext { egress: &mut self.egress, board: &self.board, now };
        self.sessions.with(home, |session| act(session, cx));
    }

    fn install(&mut self, mut install: Install, now: Instant) {
        // Sessions that are installed while nothing is read come from another process.
        let awaits_counters = self.suspended && install.state.is_none();
        let is_restored = self.suspended || install.state.is_some();
        let home = install.home;
        let learned = install.state.as_deref_mut().map(SessionState::take_learned);
        let slot = install.home.slot;
        for side in [RtpSide::Rtp, RtpSide::Rtcp] {
            let fd = install.ports.as_ref().and_then(|ports| ports.fd(side));
            if let Some(fd) = fd
                && let Err(error) = watch(&self.epoll, fd, PacketSource::Port(slot, side))
            {
                tracing::warn!(session = %install.session, %error, "port not watched; node packets are not read");
            }
        }
        let mut session = WorkerSession::new(install);
        if awaits_counters {
            session.await_srtp_counters();
        }
        learned.into_iter().flatten().for_each(|learned| session.relearn(learned, &self.flows));
        if session.is_active() {
            self.egress.active.push(session.home);
        }
        let (has_srtp, has_srtp_legs) = (session.has_srtp(), session.has_srtp_legs());
        self.sessions.put(session);
        if (has_srtp || has_srtp_legs) && is_restored {
            self.egress.indices.restored.push(home);
            self.begin_restored(now);
        } else if has_srtp {
            // A standby without a copy of the counters cannot continue the session.
            self.egress.note_changed(home);
        }
    }

    /// Begins to send SRTP of restored sessions, unless this worker sends nothing yet. Sessions with unknown used indices end.
    fn begin_restored(&mut self, now: Instant) {
        if self.suspended {
            return;
        }
        for home in std::mem::take(&mut self.egress.indices.restored) {
            let lost = self.sessions.with(home, |session| {
                (!session.begin_srtp(now)).then_some((session.id, CloseReason::SrtpCountersLost))
            });
            self.unreported.extend(lost.flatten());
        }
        self.report_ends();
    }

    /// Repeats reports for which control had no room.
    #[cold]
    fn report_ends(&mut self) {
        let reports = &self.egress.reports;
        let report = |&(session, reason): &_| WorkerReport::Ended(session, reason);
        self.unreported.retain(|ended| reports.try_send(report(ended)).is_err());
    }

    fn continue_session(&mut self, home: Home, mut state: SessionState, now: Instant) {
        let (learned, flows) = (state.take_learned(), &self.flows);
        let begins = self.sessions.with(home, |session| {
            let was_active = session.is_active();
            session
                .client
                .learned()
                .iter()
                .for_each(|source| _ = flows.remove(&source.key(), home));
            session.go_on(state);
            learned.into_iter().for_each(|learned| session.relearn(learned, flows));
            session.is_active() && !was_active
        });
        if begins.unwrap_or_default() {
            self.egress.active.push(home);
        }
        self.begin_restored(now);
    }

    fn remove(&mut self, home: Home, now: Instant) {
        self.with_session(home, now, WorkerSession::send_all_paced);
        let (flows, egress) = (&self.flows, &self.egress);
        self.sessions.with(home, |session| {
            for source in session.client.learned() {
                flows.remove(&source.key(), home);
            }
            if session.nodes.sockets() > 0 && egress.permit.may_send() {
                session.nodes.flush(&egress.stats, now);
            }
            (0..session.nodes.clear()).for_each(|_| egress.count_drop(DropReason::Fenced));
            session.end_dtls(egress);
            session.report_shed(egress);
            // Packets still missing count as lost.
            let (mode, totals) = (session.mode(), session.totals(now + FILLED_WITHIN));
            let (session, counts) = (session.id, session.take_counts());
            egress.report(WorkerReport::Removed { session, mode, totals, counts });
        });
        self.sessions.remove(home);
    }

    /// Nothing was read or sent since the sessions were installed.
    fn forget_restored(&mut self) {
        for session in self.sessions.iter() {
            for source in session.client.learned() {
                self.flows.remove(&source.key(), session.home);
            }
        }
        self.sessions = SessionSlots::default();
        self.egress.indices.restored.clear();
        self.egress.active.clear();
        self.egress.changed.take();
    }

    /// Runs commands while the worker is suspended, which [`WorkerCommand::Resume`] ends, and while its
    /// lease has ended.
    #[cold]
    fn run_suspended(&mut self) -> io::Result<()> {
        let mut began = Instant::now();
        // Epoll does not report these again.
        let mut unread = Vec::new();
        while !self.stopped {
            if let Some(to) = self.suspending.take() {
                self.hand_out(&to);
            }
            let is_held = self.egress.permit.lease.is_held(Instant::now);
            if !self.suspended && is_held {
                break;
            }
            if self.suspended && !is_held {
                self.drop_output();
            }
            unread.extend(self.unread.extract_if(.., |source| *source != PacketSource::Commands));
            if self.unread.is_empty() {
                let wait = if self.suspended { None } else { Some(&LOOKS_FOR_LEASE_EVERY) };
                match poll(&mut [PollFd::new(&self.waker, PollFlags::IN)], wait) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                self.mark_unread(PacketSource::Commands);
            }
            self.guarded_pass(&[], Instant::now());
            if self.suspended {
                // No packet is awaited here.
                began = Instant::now();
                self.egress.stats.pass_ends(began);
            } else {
                // Packets wait.
                self.egress.stats.pass_begins(began);
            }
        }
        unread.into_iter().for_each(|source| self.mark_unread(source));
        Ok(())
    }

    /// Begins the suspension, and hands out sessions and trunks.
    #[cold]
    fn hand_out(&mut self, to: &mpsc::Sender<HandedOut>) {
        self.pause_rings(true);
        self.read_rings_to_the_end();
        self.send_all_paced(Instant::now());
        self.suspended = true;
        self.egress.is_handed_out = true;
        let at = self.egress.indices.view(Instant::now());
        let (flows, sessions) = (&self.flows, &mut self.sessions);
        let mut states = (0..sessions.slots()).filter_map(|slot| {
            let state = sessions
                .with_slot(slot, |session| session.uncopied.then(|| session.hand_over(flows, at)));
            state.flatten()
        });
        loop {
            let part: Vec<_> = states.by_ref().take(HandedOut::PART).collect();
            if part.is_empty() {
                break;
            }
            // The hand-over fails without the last part. `Resume` follows.
            if to.try_send(HandedOut::Sessions(part)).is_err() {
                return;
            }
        }
        let trunks = self.egress.hand_out_trunks();
        let _ = to.try_send(HandedOut::Trunks { worker: self.number, trunks });
    }

    #[cold]
    fn duplicate(
        &mut self,
        slots: Range<u32>,
        all: bool,
        for_standby: bool,
        now: Instant,
    ) -> io::Result<SocketDuplicates> {
        let number = self.next_copy(for_standby);
        let at = self.egress.indices.view(now);
        let mut sessions = Vec::new();
        for slot in slots {
            let flows = &self.flows;
            let duplicate: Option<io::Result<_>> = self.sessions.with_slot(slot, |session| {
                let ports = session.nodes.duplicate_sockets()?;
                let wanted = all || ports.is_some();
                Ok(wanted.then(|| Duplicate { state: session.copy(flows, number, at), ports }))
            });
            sessions.extend(duplicate.transpose()?.flatten());
        }
        Ok(SocketDuplicates { sessions, slots: self.sessions.slots() })
    }

    #[cold]
    fn copy(&mut self, slots: Range<u32>, all: bool, for_standby: bool, now: Instant) -> Copies {
        let number = self.next_copy(for_standby);
        let mut changed = self.egress.changed.take();
        if all && slots.start == 0 {
            // The first copy includes each in its turn.
            changed.clear();
        }
        let changed = changed.into_iter().map(|home| home.slot);
        let at = self.egress.indices.view(now);
        let mut copies = Vec::new();
        for (slot, all) in slots.map(|slot| (slot, all)).chain(changed.map(|slot| (slot, false))) {
            let flows = &self.flows;
            let copied = self.sessions.with_slot(slot, |session| {
                let sockets = session.nodes.sockets();
                let is_wanted =
                    all || session.uncopied || number.is_some() && session.needs_copy(at);
                is_wanted.then(|| (session.copy(flows, number, at), sockets))
            });
            copies.extend(copied.flatten());
        }
        let number = self.egress.indices.copy;
        Copies { sessions: copies, slots: self.sessions.slots(), number }
    }

    /// Counts a copy. Returns its number if it is for a standby.
    fn next_copy(&mut self, for_standby: bool) -> Option<u64> {
        let copy = &mut self.egress.indices.copy.number;
        *copy += 1;
        for_standby.then_some(*copy)
    }

    fn resume(&mut self) {
        self.pause_rings(false);
        self.suspending = None;
        self.suspended = false;
        self.egress.is_handed_out = false;
        // Packets of another process may have been counted up to now.
        self.begin_restored(Instant::now());
    }

    /// Drops the packets that wait to be sent.
    fn drop_output(&mut self) {
        let mut dropped = self.egress.clear_queues();
        while let Some(home) = self.egress.ports.pop() {
            let of_session = self.sessions.with(home, |session| session.nodes.clear());
            dropped += of_session.unwrap_or_default();
        }
        (0..dropped).for_each(|_| self.egress.count_drop(DropReason::Fenced));
    }

    /// Reads what other threads have passed on. Other workers have paused, or do so soon.
    fn read_rings_to_the_end(&mut self) {
        let sockets = std::mem::take(&mut self.unread);
        let until = Instant::now() + PAUSED_WITHIN;
        loop {
            // A ring that is paused here holds all that its sender pushed.
            let paused = self.from_workers.iter().all(ring::Receiver::is_paused);
            (0..self.from_workers.len() as u16)
                .for_each(|number| self.mark_unread(PacketSource::Worker(number)));
            self.mark_unread(PacketSource::Quic);
            while !self.unread.is_empty() && Instant::now() < until {
                self.guarded_pass(&[], Instant::now());
            }
            if paused || Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOKS_EVERY);
        }
        sockets.into_iter().for_each(|source| self.mark_unread(source));
    }

    fn pause_rings(&self, paused: bool) {
        self.egress.to_workers.iter().flatten().for_each(|ring| ring.pause(paused));
    }
}

/// Reads one turn's batches from a ring and returns whether more may remain: only an empty ring wakes its reader again.
fn drain(ring: &mut ring::Receiver, mut take: impl FnMut(&ring::RingMeta, &[u8])) -> bool {
    (0..BATCHES_PER_TURN).all(|_| ring.pop_batch(BATCH, &mut take) == BATCH)
}

#[cfg(test)]
mod tests;
