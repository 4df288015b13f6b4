//! Output of a worker: packets to clients over UDP, to nodes over trunks, to the QUIC thread and to other workers, and
//! reports to control. Packets are queued during a pass and sent at its end.

use std::cell::RefCell;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_media::trunk::seal::{self, SealError};
use evenkeel_media::trunk::{Bundle, SHARED_MAX, Tag};
use evenkeel_model::NodeId;
use evenkeel_model::forward::DropReason;
use tokio::sync::mpsc;

use super::arrival::{ClientArrival, SourceKey};
use super::command::{TrunkSocket, WorkerReport};
use super::early::{Early, EarlyLimits};
use super::stats::WorkerStats;
use super::summaries::ActiveSessions;
use super::suspension::TrunkState;
use crate::flows::Home;
use crate::lease::{Permit, SendLease};
use crate::mmsg::{self, DATAGRAM_MAX, Family, SendBatch};
use crate::ring;

/// Size limits of shared trunk datagrams. 1,200 bytes fit any path, 1,252 bytes of IPv4 fit IPv6's minimum MTU of 1,280
/// after translation, and the last is the default.
pub const BUNDLE_SIZES: [u16; 3] = [1_200, 1_252, SHARED_MAX as u16];

/// Size limit of a trunk datagram with one large packet. Clients fill whole Ethernet frames, which leaves no space for
/// a tag, so the kernel fragments such a datagram where the path's MTU is smaller.
const TRUNK_ALONE_MAX: usize = DATAGRAM_MAX;

/// Limit of changed sessions between two copies.
const CHANGED_MAX: usize = 4_096;

/// A listener's socket and its queue.
pub(crate) struct ListenerPort {
    pub(crate) socket: UdpSocket,
    pub(crate) outbox: SendBatch,
}

/// A connected socket to a node and its queue.
pub(crate) struct Trunk {
    pub(crate) socket: UdpSocket,
    seal: Option<Box<seal::GatewaySeal>>,
    bundle: Bundle,
    /// The bundle for a packet that is too large to share a datagram.
    alone: Bundle,
    outbox: SendBatch,
    /// True if session packets are queued, and not only signed messages.
    media: bool,
    /// True if a queued datagram is longer than the size that fits any path.
    long: bool,
    /// True if a datagram was not decrypted.
    unreadable: bool,
}

pub(crate) struct Egress {
    /// Sockets by listener: RTP, and RTCP if it has a separate port.
    pub(crate) listeners: Vec<(ListenerPort, Option<ListenerPort>)>,
    /// Trunks by node.
    pub(crate) trunks: Vec<Option<Trunk>>,
    pub(crate) to_quic: Option<ring::RingSender>,
    /// Rings by worker; `None` for this worker.
    pub(crate) to_workers: Vec<Option<ring::RingSender>>,
    pub(crate) reports: mpsc::Sender<WorkerReport>,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) permit: Permit,
    pub(crate) early: Early,
    /// Sessions with packets queued on their ports.
    pub(crate) ports: Vec<Home>,
    pub(crate) active: ActiveSessions,
    /// Sessions with another leg, hop or address since the last copy.
    changed: RefCell<Vec<Home>>,
    relayed: Vec<u8>,
}

/// The socket of a listener or port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RtpSide {
    Rtp,
    Rtcp,
}

impl ListenerPort {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<ListenerPort> {
        let outbox = SendBatch::new(Family::of(socket.local_addr()?));
        Ok(ListenerPort { socket, outbox })
    }
}

impl Trunk {
    /// Enables the error queue of the socket.
    pub(crate) fn new(TrunkSocket { socket, seal }: TrunkSocket) -> io::Result<Trunk> {
        mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
        let overhead = if seal.is_some() { seal::OVERHEAD } else { 0 };
        Ok(Trunk {
            socket,
            seal,
            bundle: Bundle::new(SHARED_MAX - overhead),
            alone: Bundle::new(TRUNK_ALONE_MAX - overhead),
            // The socket is connected, so no address is written.
            outbox: SendBatch::new(Family::V4),
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
            let sent = queue(&mut self.outbox, self.seal.as_deref_mut(), self.bundle.as_bytes());
            self.long |= is_long(sent);
            self.bundle.clear();
        }
    }
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
            to_workers: Vec::new(),
            reports,
            stats,
            permit: Permit::new(Arc::new(SendLease::forever())),
            early: Early::new(early_limits),
            ports: Vec::new(),
            active: ActiveSessions::default(),
            changed: RefCell::default(),
            relayed: Vec::new(),
        }
    }

    /// Has the next copy include the session. If too many changed, the copies of the next second do.
    pub(crate) fn note_changed(&self, home: Home) {
        let mut changed = self.changed.borrow_mut();
        if changed.len() < CHANGED_MAX && changed.last() != Some(&home) {
            changed.push(home);
        }
    }

    pub(crate) fn take_changed(&self) -> Vec<Home> {
        self.changed.take()
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.stats.dropped(reason);
    }

    /// Queues a datagram and returns its bytes, to be rewritten in place.
    pub(crate) fn queue_to_client(
        &mut self,
        to: SourceKey,
        side: RtpSide,
        dscp: u8,
        datagram: &[u8],
    ) -> Option<&mut [u8]> {
        let (rtp, rtcp) = self.listeners.get_mut(usize::from(to.listener))?;
        let port = match side {
            RtpSide::Rtp => rtp,
            RtpSide::Rtcp => rtcp.as_mut().unwrap_or(rtp),
        };
        if port.outbox.is_full() {
            flush_port(port, &self.stats, &self.permit);
        }
        Some(port.outbox.push(Some(to.address), dscp, datagram))
    }

    pub(crate) fn queue_on_trunk(&mut self, node: NodeId, tag: Tag, packet: &[u8]) {
        let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) else {
            self.stats.dropped(DropReason::NoHop);
            return;
        };
        trunk.media = true;
        if trunk.bundle.push(tag, packet) {
            return;
        }
        trunk.close_bundle();
        if trunk.bundle.push(tag, packet) {
            return;
        }
        if trunk.alone.push(tag, packet) {
            queue(&mut trunk.outbox, trunk.seal.as_deref_mut(), trunk.alone.as_bytes());
            trunk.alone.clear();
        } else {
            self.stats.dropped(DropReason::Oversize);
        }
    }

    pub(crate) fn send_signed(&mut self, node: NodeId, message: &[u8], sealed: bool) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) {
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
        let trunk = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut)?;
        let opened = match &mut trunk.seal {
            Some(seal) => seal.open(datagram, unix_us),
            None => Err(SealError::Forged),
        };
        match opened {
            Ok(content) => Some(content),
            Err(SealError::Forged) => {
                trunk.unreadable = true;
                self.stats.dropped(DropReason::BadIntegrity);
                None
            }
            Err(SealError::Replayed) => {
                self.stats.dropped(DropReason::Stale);
                None
            }
        }
    }

    pub(crate) fn limit_bundles(&mut self, node: NodeId, size_max: u16) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) {
            trunk.close_bundle();
            let overhead = if trunk.seal.is_some() { seal::OVERHEAD } else { 0 };
            trunk.bundle = Bundle::new(usize::from(size_max) - overhead);
        }
    }

    pub(crate) fn hand_out_trunks(&mut self) -> Vec<TrunkState> {
        let state = |(number, trunk): (u32, &mut Option<Trunk>)| {
            let Trunk { seal, bundle, .. } = trunk.as_mut()?;
            let overhead = if seal.is_some() { seal::OVERHEAD } else { 0 };
            Some(TrunkState {
                node: NodeId(number),
                size_max: (bundle.size_max() + overhead) as u16,
                seal: seal.as_mut().map(|seal| seal.hand_out()),
            })
        };
        (0..).zip(&mut self.trunks).filter_map(state).collect()
    }

    pub(crate) fn continue_trunk(&mut self, TrunkState { node, size_max, seal }: TrunkState) {
        let trunk = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut);
        let own = trunk.and_then(|trunk| trunk.seal.as_mut());
        own.zip(seal).into_iter().for_each(|(own, seal)| own.go_on(seal));
        if BUNDLE_SIZES.contains(&size_max) {
            self.limit_bundles(node, size_max);
        }
    }

    pub(crate) fn add_trunk(&mut self, node: NodeId, trunk: Trunk) {
        let place = node.0 as usize;
        if place >= self.trunks.len() {
            self.trunks.resize_with(place + 1, || None);
        }
        self.trunks[place] = Some(trunk);
    }

    /// Closes the node's trunk and clears its statistics: its number may be reused.
    pub(crate) fn remove_node(&mut self, node: NodeId) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize) {
            *trunk = None;
        }
        self.stats.forget(node);
    }

    pub(crate) fn queue_to_quic(&mut self, home: Home, flow: u64, side: RtpSide, packet: &[u8]) {
        let kind = match side {
            RtpSide::Rtp => ring::RingItem::Rtp,
            RtpSide::Rtcp => ring::RingItem::Rtcp,
        };
        let meta = ring::RingMeta { home, kind, flow };
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

    /// Sends a report to control. A full channel drops the report; most reports are repeated.
    pub(crate) fn report(&self, report: WorkerReport) {
        let _ = self.try_report(report);
    }

    /// Sends a report to control. Returns whether the channel took it.
    pub(crate) fn try_report(&self, report: WorkerReport) -> bool {
        self.reports.try_send(report).is_ok()
    }

    /// Sends everything in the queues, as far as the lease lasts.
    pub(crate) fn flush(&mut self, now: Instant) {
        for (rtp, rtcp) in &mut self.listeners {
            flush_port(rtp, &self.stats, &self.permit);
            if let Some(rtcp) = rtcp {
                flush_port(rtcp, &self.stats, &self.permit);
            }
        }
        for number in 0..self.trunks.len() {
            self.flush_trunk(NodeId(number as u32), now);
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
            dropped += trunk.outbox.clear() + usize::from(!trunk.bundle.is_empty());
            trunk.bundle.clear();
        }
        dropped
    }

    fn flush_trunk(&mut self, node: NodeId, now: Instant) {
        let Some(trunk) = &mut self.trunks[node.0 as usize] else {
            return;
        };
        trunk.close_bundle();
        if !trunk.outbox.is_empty() && self.permit.may_send() {
            let outcome = trunk.outbox.flush(trunk.socket.as_fd());
            outcome.failed.iter().for_each(|error| self.stats.dropped(reason(error)));
            if std::mem::take(&mut trunk.media) && outcome.sent > 0 {
                self.stats.sent(node, now);
            }
            if std::mem::take(&mut trunk.long) {
                self.stats.long(node);
            }
        }
        if std::mem::take(&mut trunk.unreadable) {
            self.report(WorkerReport::Unreadable { node });
        }
    }
}

fn flush_port(port: &mut ListenerPort, stats: &WorkerStats, permit: &Permit) {
    if !port.outbox.is_empty() && permit.may_send() {
        for error in port.outbox.flush(port.socket.as_fd()).failed {
            stats.dropped(reason(&error));
        }
    }
}

fn unix_us() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix.as_micros() as u64
}

/// Returns whether the bundle is longer than the size that fits any path.
pub(super) fn is_long(bundle: &[u8]) -> bool {
    bundle.len() > usize::from(BUNDLE_SIZES[0])
}

pub(crate) fn reason(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::BufferFull,
        // `io::ErrorKind` has no kind for EMSGSIZE.
        _ if error.raw_os_error() == Some(libc::EMSGSIZE) => DropReason::Oversize,
        _ => DropReason::SendFailed,
    }
}

#[cfg(test)]
mod tests;
