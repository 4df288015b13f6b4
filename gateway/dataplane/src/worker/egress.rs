//! Output of a worker: packets to clients over UDP, to nodes over trunks, to the QUIC thread and to other workers, and
//! reports to control. Packets are queued during a pass and sent at its end.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel_media::srtp::{CopyNumber, GrantView, IndexGrant};
use evenkeel_media::trunk::seal::{self, SealError};
use evenkeel_media::trunk::{self, Bundle, REPAIR_EXCESS, SHARED_MAX, Tag, TrunkRepair};
use evenkeel_model::{Board, DropReason, NodeId, StreamKind};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::dtls::{HandshakeInput, InputKind};
use super::early::{Early, EarlyLimits};
use super::pacing::PacedSessions;
use super::repair_memory::RepairMemory;
use super::report::{WorkerReport, WorkerStats};
use super::sockets::{ClientArrival, ClientPath, ListenerPort, RtpSide, SourceKey, reason};
use crate::flows::Home;
use crate::lease::SendLease;
use crate::mmsg::{self, DATAGRAM_MAX, Family, SendBatch};
use crate::ring;

/// Limit of changed sessions between two copies.
const CHANGED_MAX: usize = 4_096;

pub(crate) struct Egress {
    /// Sockets by listener: RTP, and RTCP if it has a separate port.
    pub(crate) listeners: Vec<(ListenerPort, Option<ListenerPort>)>,
    /// Trunks by node.
    pub(crate) trunks: Vec<Option<Trunk>>,
    pub(crate) to_quic: Option<ring::RingSender>,
    pub(crate) to_handshakes: Option<crossbeam_channel::Sender<HandshakeInput>>,
    /// Rings by worker; `None` for this worker.
    pub(crate) to_workers: Vec<Option<ring::RingSender>>,
    pub(crate) reports: mpsc::Sender<WorkerReport>,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) permit: Permit,
    pub(crate) indices: WorkerGrant,
    pub(crate) early: Early,
    /// Sessions with packets queued on their ports.
    pub(crate) ports: Vec<Home>,
    /// Sessions to be summarised, unordered.
    pub(crate) active: Vec<Home>,
    /// Sessions with video that waits for its turn.
    pub(crate) paced: PacedSessions,
    /// Sessions with another leg, hop or address since the last copy.
    pub(crate) changed: RefCell<Vec<Home>>,
    relayed: Vec<u8>,
    /// Buffer for an encrypted SRTP packet to a client.
    pub(crate) protected: Vec<u8>,
    pub(crate) repair_memory: RepairMemory,
    /// Buffer for the own frame of a packet with redundancy (RFC 2198).
    pub(crate) stripped: Vec<u8>,
    /// Another process continues the sessions, with the counters that they had when this was set.
    pub(crate) is_handed_out: bool,
}

/// DSCP of packets by kind (RFC 2474).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DscpMarks {
    /// Voice and its RTCP; 46 is EF.
    pub voice: u8,
    /// 34 is AF41.
    pub video: u8,
}

impl DscpMarks {
    #[inline]
    pub(super) fn of(self, kind: StreamKind) -> u8 {
        match kind {
            StreamKind::Audio => self.voice,
            StreamKind::Video => self.video,
        }
    }
}

/// State of the worker that a session uses while it handles a packet.
pub(crate) struct PacketContext<'a> {
    pub(crate) egress: &'a mut Egress,
    pub(crate) board: &'a Board,
    pub(crate) now: Instant,
}

impl Egress {
    pub(crate) fn new(
        reports: mpsc::Sender<WorkerReport>,
        stats: Arc<WorkerStats>,
        early_limits: EarlyLimits,
    ) -> Egress {
        Egress {
            listeners: Vec::new(),
            trunks: Vec::new(),
            to_quic: None,
            to_handshakes: None,
            to_workers: Vec::new(),
            reports,
            stats,
            permit: Permit::new(Arc::new(SendLease::forever())),
            indices: WorkerGrant::new(Arc::new(IndexGrant::new(0, Instant::now())), 0),
            early: Early::new(early_limits),
            ports: Vec::new(),
            active: Vec::new(),
            paced: PacedSessions::new(Instant::now()),
            changed: RefCell::default(),
            relayed: Vec::new(),
            protected: Vec::new(),
            repair_memory: RepairMemory::new(usize::MAX),
            stripped: Vec::new(),
            is_handed_out: false,
        }
    }

    /// Has the next copy include the session. If too many changed, the copies of the next second do.
    pub(crate) fn note_changed(&self, home: Home) {
        let mut changed = self.changed.borrow_mut();
        if changed.len() < CHANGED_MAX && changed.last() != Some(&home) {
            changed.push(home);
        }
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.stats.dropped(reason);
    }

    /// Queues a datagram and returns its bytes, to be rewritten in place. `local`: the local address of its [`ClientPath`], which only
    /// listeners with several addresses need.
    #[inline(always)]
    pub(crate) fn queue_to_source(
        &mut self,
        to: SourceKey,
        local: impl FnOnce() -> Option<IpAddr>,
        side: RtpSide,
        dscp: u8,
        datagram: &[u8],
    ) -> Option<&mut [u8]> {
        let (rtp, rtcp) = self.listeners.get_mut(usize::from(to.listener))?;
        let port = match side {
            RtpSide::Rtp => rtp,
            RtpSide::Rtcp => rtcp.as_mut().unwrap_or(rtp),
        };
        if port.outbox.is_full() && self.permit.may_send() {
            port.flush(&self.stats);
        }
        let address = Some(to.address);
        if port.reports_local
            && let Some(local) = local()
        {
            return Some(port.outbox.push_from(local, address, dscp, datagram));
        }
        Some(port.outbox.push(address, dscp, datagram))
    }

    /// Queues a datagram on a path.
    pub(crate) fn queue_to_client(
        &mut self,
        ClientPath { source, local }: ClientPath,
        side: RtpSide,
        dscp: u8,
        datagram: &[u8],
    ) -> Option<&mut [u8]> {
        self.queue_to_source(source, || local, side, dscp, datagram)
    }

    pub(crate) fn queue_on_trunk(&mut self, node: NodeId, tag: Tag, packet: &[u8]) {
        match trunk_to(&mut self.trunks, node).map(|trunk| trunk.push(tag, packet)) {
            Some(true) => {}
            Some(false) => self.stats.dropped(DropReason::Oversize),
            None => self.stats.dropped(DropReason::NoHop),
        }
    }

    pub(crate) fn send_signed(&mut self, node: NodeId, message: &[u8], sealed: bool) {
        if let Some(trunk) = trunk_to(&mut self.trunks, node) {
            // Control repeats it.
            if trunk.outbox.is_full() && !self.permit.may_send() {
                return self.stats.dropped(DropReason::Fenced);
            }
            queue(&mut trunk.outbox, trunk.seal.as_deref_mut().filter(|_| sealed), message);
        }
    }

    pub(crate) fn is_sealed(&self, node: NodeId) -> bool {
        let trunk = self.trunks.get(node.0 as usize).and_then(Option::as_ref);
        trunk.is_some_and(|trunk| trunk.seal.is_some())
    }

    /// Decrypts a datagram of the node in place. Returns `None` if it was dropped.
    pub(crate) fn open<'a>(
        &mut self,
        node: NodeId,
        datagram: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let reason = match trunk_to(&mut self.trunks, node)?.open(datagram) {
            Ok(content) => return Some(content),
            Err(SealError::Forged) => DropReason::BadIntegrity,
            Err(SealError::Replayed) => DropReason::Stale,
        };
        self.stats.dropped(reason);
        None
    }

    /// Notes a bundle of the node. Returns false if its packets were delivered before, since the bundle was recovered. `is_open`: a
    /// session has this tag.
    pub(crate) fn note_bundle(
        &mut self,
        node: NodeId,
        bundle: &[u8],
        is_open: impl FnOnce(Tag) -> bool,
        now: Instant,
    ) -> bool {
        let trunk = trunk_to(&mut self.trunks, node);
        trunk.is_none_or(|trunk| trunk.note_bundle(bundle, is_open, now))
    }

    /// Handles a repair datagram of the node, or its report of losses.
    pub(crate) fn handle_repair(
        &mut self,
        node: NodeId,
        datagram: &[u8],
        is_open: impl FnOnce(Tag) -> bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        let trunk = trunk_to(&mut self.trunks, node);
        trunk.map_or(Ok(()), |trunk| trunk.handle_repair(datagram, is_open, now))
    }

    /// Writes a bundle that the last datagram of the node recovered. Returns false if there is none.
    pub(crate) fn take_recovered(&mut self, node: NodeId, bundle: &mut Vec<u8>) -> bool {
        let trunk = trunk_to(&mut self.trunks, node);
        let repair = trunk.and_then(|trunk| trunk.repair.as_mut());
        repair.is_some_and(|numbered| numbered.repair.take_recovered(bundle))
    }

    pub(crate) fn hand_out_trunks(&mut self) -> Vec<TrunkState> {
        let trunks = (0..).map(NodeId).zip(&mut self.trunks);
        trunks.filter_map(|(node, trunk)| Some(trunk.as_mut()?.hand_out(node))).collect()
    }

    pub(crate) fn add_trunk(&mut self, node: NodeId, trunk: Trunk) {
        let place = node.0 as usize;
        self.trunks.resize_with(self.trunks.len().max(place + 1), || None);
        self.trunks[place] = Some(trunk);
    }

    /// Closes the node's trunk and clears its statistics: its number may be reused.
    pub(crate) fn remove_node(&mut self, node: NodeId) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize) {
            *trunk = None;
        }
        self.stats.forget(node);
    }

    pub(crate) fn queue_to_quic(
        &mut self,
        home: Home,
        flow: u64,
        terms: ring::SendTerms,
        packet: &[u8],
    ) {
        let meta = ring::RingMeta { home, kind: ring::RingItem::ToClient(terms), flow };
        let pushed = self.to_quic.as_mut().map(|ring| ring.push(meta, packet));
        if pushed != Some(Ok(())) {
            self.stats.dropped(DropReason::RingFull);
        }
    }

    /// Passes a client's datagram to its session's home worker.
    pub(crate) fn relay(&mut self, home: Home, arrival: ClientArrival, datagram: &[u8]) {
        arrival.write(datagram, &mut self.relayed);
        let meta = ring::RingMeta { home, kind: ring::RingItem::Relayed, flow: 0 };
        let ring = self.to_workers.get_mut(usize::from(home.worker)).and_then(Option::as_mut);
        if ring.map(|ring| ring.push(meta, &self.relayed)) != Some(Ok(())) {
            self.stats.dropped(DropReason::RingFull);
        }
    }

    /// Passes an input to the thread of handshakes. A datagram for which there is no room is dropped.
    pub(crate) fn pass_to_handshakes(&self, input: InputKind) {
        let input = HandshakeInput(input);
        let passed = self.to_handshakes.as_ref().is_some_and(|to| to.try_send(input).is_ok());
        if !passed {
            self.stats.dropped(DropReason::RingFull);
        }
    }

    /// Sends a report to control. A full channel drops the report; most reports are repeated.
    pub(crate) fn report(&self, report: WorkerReport) {
        let _ = self.reports.try_send(report);
    }

    /// Sends everything in the queues, as far as the lease lasts.
    pub(crate) fn flush(&mut self, now: Instant) {
        for (rtp, rtcp) in &mut self.listeners {
            for port in [Some(rtp), rtcp.as_mut()].into_iter().flatten() {
                if !port.outbox.is_empty() && self.permit.may_send() {
                    port.flush(&self.stats);
                }
            }
        }
        for (node, trunk) in (0..).map(NodeId).zip(&mut self.trunks) {
            let Some(trunk) = trunk else { continue };
            trunk.flush(node, &self.stats, &self.permit, now);
            if std::mem::take(&mut trunk.unreadable) {
                // A full channel drops the report, which the next unreadable datagram repeats.
                let _ = self.reports.try_send(WorkerReport::Unreadable(node));
            }
        }
        let rings = self.to_workers.iter().flatten().chain(&self.to_quic);
        rings.for_each(ring::RingSender::wake);
    }

    /// Drops everything in the queues and returns the number of datagrams.
    pub(super) fn clear_queues(&mut self) -> usize {
        let mut dropped = 0;
        for (rtp, rtcp) in &mut self.listeners {
            dropped += rtp.outbox.clear();
            dropped += rtcp.as_mut().map_or(0, |rtcp| rtcp.outbox.clear());
        }
        for trunk in self.trunks.iter_mut().flatten() {
            dropped += trunk.clear();
        }
        dropped
    }
}

pub(super) fn trunk_to(trunks: &mut [Option<Trunk>], node: NodeId) -> Option<&mut Trunk> {
    trunks.get_mut(node.0 as usize).and_then(Option::as_mut)
}

/// The indices of SRTP that sessions of this worker may use, as far as a standby determines them.
pub(crate) struct WorkerGrant {
    grant: Arc<IndexGrant>,
    /// The number of the last copy of this worker.
    pub(crate) copy: CopyNumber,
    /// Sessions that another process has sent before, until they begin here.
    pub(crate) restored: Vec<Home>,
}

impl WorkerGrant {
    pub(crate) fn new(grant: Arc<IndexGrant>, worker: u16) -> WorkerGrant {
        WorkerGrant { grant, copy: CopyNumber { worker, number: 0 }, restored: Vec::new() }
    }

    /// Begins to copy to a standby.
    #[cfg(test)]
    pub(crate) fn follow(&mut self, now: Instant) {
        let grant = IndexGrant::new(1, now);
        grant.begin(now);
        self.grant = Arc::new(grant);
    }

    pub(crate) fn view(&self, now: Instant) -> GrantView<'_> {
        GrantView { grant: &self.grant, worker: self.copy.worker, now }
    }
}

/// A worker's use of the lease.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) lease: Arc<SendLease>,
    /// True if something was not sent in this pass because the lease had ended.
    pub(crate) held_back: Cell<bool>,
}

impl Permit {
    pub(crate) fn new(lease: Arc<SendLease>) -> Permit {
        Permit { lease, held_back: Cell::new(false) }
    }

    /// Returns whether the worker may send now. If not, its queue waits for the renewal.
    pub(crate) fn may_send(&self) -> bool {
        let may_send = self.lease.is_held(Instant::now);
        if !may_send {
            self.held_back.set(true);
        }
        may_send
    }
}

/// Size limits of shared trunk datagrams. 1,200 bytes fit any path, 1,252 bytes of IPv4 fit IPv6's minimum MTU of 1,280
/// after translation, and the last is the default.
pub const BUNDLE_SIZES: [u16; 3] = [1_200, 1_252, SHARED_MAX as u16];

/// Size limit of a trunk datagram with one large packet. Clients fill whole Ethernet frames, which leaves no space for
/// a tag, so the kernel fragments such a datagram where the path's MTU is smaller.
const TRUNK_ALONE_MAX: usize = DATAGRAM_MAX;

/// A node that sends neither a numbered bundle nor a report for this time may have been replaced by one that reads no numbers. Reports
/// come each second at least.
const NUMBERED_FOR: Duration = Duration::from_secs(3);

/// A worker's connected socket to a node.
#[derive(Debug)]
pub struct TrunkSocket {
    /// A socket connected to the node's trunk port.
    pub socket: UdpSocket,
    /// Set if the trunk is encrypted.
    pub seal: Option<Box<seal::GatewaySeal>>,
    /// The number of the first numbered bundle: random ([`TrunkRepair::new`]).
    pub first_number: u16,
}

/// The state of a worker's trunk to a node.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct TrunkState {
    /// The node's number at the gateway that uses this state.
    pub node: NodeId,
    /// Limit of the size of datagrams that packets share.
    pub(super) size_max: u16,
    /// Set if the trunk is encrypted.
    seal: Option<seal::Position>,
}

/// A connected socket to a node and its queue.
pub(crate) struct Trunk {
    pub(crate) socket: UdpSocket,
    seal: Option<Box<seal::GatewaySeal>>,
    bundle: Bundle,
    /// The bundle for a packet that is too large to share a datagram.
    alone: Bundle,
    outbox: SendBatch,
    /// Set if the node reads numbered bundles.
    repair: Option<Box<NumberedTrunk>>,
    first_number: u16,
    /// True if session packets are queued, and not only signed messages.
    media: bool,
    /// True if a queued datagram is longer than the size that fits any path.
    long: bool,
    /// True if a datagram was not decrypted.
    unreadable: bool,
}

/// The repair of a trunk to a node that reads numbered bundles.
struct NumberedTrunk {
    repair: TrunkRepair,
    /// The time of the node's last numbered bundle or report.
    heard: Instant,
}

impl Trunk {
    /// Enables the error queue of the socket.
    pub(crate) fn new(
        TrunkSocket { socket, seal, first_number }: TrunkSocket,
    ) -> io::Result<Trunk> {
        mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
        let overhead = overhead(seal.as_deref());
        Ok(Trunk {
            socket,
            seal,
            bundle: Bundle::new(SHARED_MAX - REPAIR_EXCESS - overhead),
            alone: Bundle::new(TRUNK_ALONE_MAX - overhead),
            // The socket is connected, so no address is written.
            outbox: SendBatch::new(Family::V4),
            repair: None,
            first_number,
            media: false,
            long: false,
            unreadable: false,
        })
    }

    /// Returns whether an encrypted datagram that begins with these bytes was sent.
    pub(crate) fn has_sealed(&self, start: &[u8]) -> bool {
        self.seal.as_ref().is_some_and(|seal| seal.has_sent(start))
    }

    fn close_bundle(&mut self) {
        if !self.bundle.is_empty() {
            let Trunk { outbox, seal, repair, bundle, .. } = self;
            self.long |= queue_bundle(outbox, seal.as_deref_mut(), repair.as_deref_mut(), bundle);
        }
    }

    fn note_bundle(
        &mut self,
        bundle: &[u8],
        is_open: impl FnOnce(Tag) -> bool,
        now: Instant,
    ) -> bool {
        let is_numbered = trunk::number(bundle).is_some();
        // Only a bundle with the tag of a session proves that the node sent it.
        if (!is_numbered && self.repair.is_none()) || !trunk::first_tag(bundle).is_some_and(is_open)
        {
            return true;
        }
        if is_numbered {
            return self.numbered(now).handle_bundle(bundle, now);
        }
        self.repair = None;
        true
    }

    fn handle_repair(
        &mut self,
        datagram: &[u8],
        is_open: impl FnOnce(Tag) -> bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        // Reports have the tag of a session. Repair datagrams are of use only with bundles.
        if let Some(tag) = trunk::first_tag(datagram) {
            if !is_open(tag) {
                return Err(DropReason::UnknownTag);
            }
            self.numbered(now);
        }
        let Some(numbered) = &mut self.repair else { return Ok(()) };
        numbered.repair.handle_repair(datagram, now).map_err(|_| DropReason::Malformed)
    }

    /// The repair of this trunk, now that the node has proved that it reads numbered bundles.
    #[inline(never)]
    fn numbered(&mut self, now: Instant) -> &mut TrunkRepair {
        let first_number = self.first_number;
        let begin =
            || Box::new(NumberedTrunk { repair: TrunkRepair::new(first_number), heard: now });
        let numbered = self.repair.get_or_insert_with(begin);
        numbered.heard = now;
        &mut numbered.repair
    }

    /// Queues a report of losses that is due, and ends repair that the node no longer proves to read.
    #[inline(never)]
    fn report_losses(&mut self, now: Instant) {
        let is_old = |numbered: &mut Box<NumberedTrunk>| {
            now.saturating_duration_since(numbered.heard) >= NUMBERED_FOR
        };
        let _stale = self.repair.take_if(is_old);
        let report = self.repair.as_mut().and_then(|numbered| numbered.repair.poll_report(now));
        if let Some(report) = report {
            queue(&mut self.outbox, self.seal.as_deref_mut(), &report);
        }
    }

    /// Returns `false` if the packet is too large.
    pub(super) fn push(&mut self, tag: Tag, packet: &[u8]) -> bool {
        self.media = true;
        if self.bundle.push(tag, packet) {
            return true;
        }
        self.close_bundle();
        if self.bundle.push(tag, packet) {
            return true;
        }
        let fits = self.alone.push(tag, packet);
        if fits {
            let Trunk { outbox, seal, repair, alone, .. } = self;
            queue_bundle(outbox, seal.as_deref_mut(), repair.as_deref_mut(), alone);
        }
        fits
    }

    /// Decrypts a datagram in place.
    pub(super) fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a mut [u8], SealError> {
        let opened = match &mut self.seal {
            Some(seal) => seal.open(datagram, unix_us),
            None => Err(SealError::Forged),
        };
        self.unreadable |= matches!(opened, Err(SealError::Forged));
        opened
    }

    pub(super) fn limit_bundles(&mut self, size_max: u16) {
        self.close_bundle();
        let overhead = REPAIR_EXCESS + overhead(self.seal.as_deref());
        self.bundle = Bundle::new(usize::from(size_max) - overhead);
    }

    pub(super) fn hand_out(&mut self, node: NodeId) -> TrunkState {
        let overhead = REPAIR_EXCESS + overhead(self.seal.as_deref());
        let size_max = (self.bundle.size_max() + overhead) as u16;
        TrunkState { node, size_max, seal: self.seal.as_mut().map(|seal| seal.hand_out()) }
    }

    pub(super) fn go_on(&mut self, TrunkState { size_max, seal, .. }: TrunkState) {
        let own = self.seal.as_mut().zip(seal);
        own.into_iter().for_each(|(own, seal)| own.go_on(seal));
        if BUNDLE_SIZES.contains(&size_max) {
            self.limit_bundles(size_max);
        }
    }

    /// Sends everything in the queue, as far as the lease lasts.
    pub(super) fn flush(
        &mut self,
        node: NodeId,
        stats: &WorkerStats,
        permit: &Permit,
        now: Instant,
    ) {
        self.close_bundle();
        if self.repair.is_some() {
            self.report_losses(now);
        }
        if self.outbox.is_empty() || !permit.may_send() {
            return;
        }
        let outcome = self.outbox.flush(self.socket.as_fd());
        outcome.failed.iter().for_each(|error| stats.dropped(reason(error)));
        if std::mem::take(&mut self.media) && outcome.sent > 0 {
            stats.sent(node, now);
        }
        if std::mem::take(&mut self.long) {
            stats.long(node);
        }
    }

    /// Drops everything in the queue and returns the number of datagrams.
    pub(super) fn clear(&mut self) -> usize {
        let dropped = self.outbox.clear() + usize::from(!self.bundle.is_empty());
        self.bundle.clear();
        dropped
    }
}

/// Bytes that encryption adds to a datagram.
fn overhead(seal: Option<&seal::GatewaySeal>) -> usize {
    seal.map_or(0, |_| seal::OVERHEAD)
}

/// Queues a datagram to a node, encrypted if the trunk is. Returns the queued bytes.
fn queue<'a>(
    outbox: &'a mut SendBatch,
    seal: Option<&mut seal::GatewaySeal>,
    datagram: &[u8],
) -> &'a [u8] {
    match seal {
        None => outbox.push(None, 0, datagram),
        Some(seal) => outbox.push(None, 0, seal.seal(datagram)),
    }
}

/// Queues a bundle, numbered if the node reads numbers, with the repair datagram that follows it. Returns whether it is long.
fn queue_bundle(
    outbox: &mut SendBatch,
    mut seal: Option<&mut seal::GatewaySeal>,
    numbered: Option<&mut NumberedTrunk>,
    bundle: &mut Bundle,
) -> bool {
    let mut long = false;
    match numbered {
        None => long = is_long(queue(outbox, seal, bundle.as_bytes())),
        Some(numbered) => numbered.repair.send(bundle, |datagram| {
            long |= is_long(queue(outbox, seal.as_deref_mut(), datagram));
        }),
    }
    bundle.clear();
    long
}

pub(super) fn unix_us() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix.as_micros() as u64
}

/// Returns whether the bundle is longer than the size that fits any path.
pub(super) fn is_long(bundle: &[u8]) -> bool {
    bundle.len() > usize::from(BUNDLE_SIZES[0])
}

#[cfg(test)]
mod tests;
