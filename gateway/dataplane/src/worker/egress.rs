//! Output of a worker: packets to clients over UDP, to nodes over trunks, to the QUIC thread and to other workers, and
//! reports to control. Packets are queued during a pass and sent at its end.
//!
//! Early packets wait for a leg or a tag: a worker may read a new route before the command that adds the leg.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::seal::SealError;
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, NodeId, StreamKind};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::report::{ActiveSessions, WorkerReport, WorkerStats};
use super::sockets::{ListenerPort, RtpSide, Trunk, TrunkState};
use crate::flows::{FlowKey, Home};
use crate::lease::{Permit, SendLease};
use crate::{address, ring};

/// Limit of changed sessions between two copies.
const CHANGED_MAX: usize = 4_096;

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
            port.flush(&self.stats, &self.permit);
        }
        Some(port.outbox.push(Some(to.address), dscp, datagram))
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
            if trunk.is_full() && !self.permit.may_send() {
                return self.stats.dropped(DropReason::Fenced);
            }
            trunk.push_signed(message, sealed);
        }
    }

    pub(crate) fn is_sealed(&self, node: NodeId) -> bool {
        let trunk = self.trunks.get(node.0 as usize).and_then(Option::as_ref);
        trunk.is_some_and(Trunk::is_sealed)
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

    pub(crate) fn trunk(&mut self, node: NodeId) -> Option<&mut Trunk> {
        trunk_to(&mut self.trunks, node)
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
            for port in [Some(rtp), rtcp.as_mut()].into_iter().flatten() {
                port.flush(&self.stats, &self.permit);
            }
        }
        for (node, trunk) in (0..).map(NodeId).zip(&mut self.trunks) {
            let Some(trunk) = trunk else { continue };
            trunk.flush(node, &self.stats, &self.permit, now);
            if trunk.take_unreadable() {
                // A full channel drops the report, which the next unreadable datagram repeats.
                let _ = self.reports.try_send(WorkerReport::Unreadable { node });
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

fn trunk_to(trunks: &mut [Option<Trunk>], node: NodeId) -> Option<&mut Trunk> {
    trunks.get_mut(node.0 as usize).and_then(Option::as_mut)
}

/// The source of a client's datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
pub(crate) struct SourceKey {
    pub(crate) listener: u8,
    #[serde(with = "address")]
    pub(crate) address: SocketAddr,
}

impl SourceKey {
    /// Returns the source's key in the flow table.
    pub(crate) fn key(self) -> FlowKey {
        FlowKey::Udp { listener: self.listener, address: self.address }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientArrival {
    pub(crate) source: SourceKey,
    pub(crate) kind: ArrivalKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ArrivalKind {
    Rtp,
    Rtcp,
    /// A connectivity check with verified integrity.
    Check,
    /// A verified connectivity check with USE-CANDIDATE.
    Nomination,
    /// Carries no datagram: a check proved that the source belongs to another session now.
    AddressTaken,
}

impl ArrivalKind {
    const ALL: [ArrivalKind; 5] = [
        ArrivalKind::Rtp,
        ArrivalKind::Rtcp,
        ArrivalKind::Check,
        ArrivalKind::Nomination,
        ArrivalKind::AddressTaken,
    ];
}

/// Bytes in front of the datagram: kind, listener, address, port.
const HEADER: usize = 1 + 1 + 16 + 2;

impl ClientArrival {
    /// Writes header and datagram for a ring between workers.
    pub(crate) fn write(&self, datagram: &[u8], out: &mut Vec<u8>) {
        let SourceKey { listener, address } = self.source;
        out.clear();
        out.extend_from_slice(&[self.kind as u8, listener]);
        out.extend_from_slice(&address::as_v6(address.ip()).octets());
        out.extend_from_slice(&address.port().to_be_bytes());
        out.extend_from_slice(datagram);
    }

    /// Splits header and datagram. Returns `None` for bytes that [`write`](ClientArrival::write) cannot have written.
    pub(crate) fn read(bytes: &[u8]) -> Option<(ClientArrival, &[u8])> {
        let (header, datagram) = bytes.split_at_checked(HEADER)?;
        let kind = *ArrivalKind::ALL.get(usize::from(header[0]))?;
        // The kernel's mapped addresses were read as IPv4.
        let ip = IpAddr::V6(Ipv6Addr::from(*header[2..].first_chunk::<16>()?)).to_canonical();
        let port = u16::from_be_bytes([header[18], header[19]]);
        let source = SourceKey { listener: header[1], address: SocketAddr::new(ip, port) };
        Some((ClientArrival { source, kind }, datagram))
    }
}

/// Limit of early packets over all sessions of a worker.
const WAITING_MAX: usize = 4_096;

/// Limits of packets that wait for a leg.
#[derive(Clone, Copy, Debug)]
pub struct EarlyLimits {
    /// Packets of one session.
    pub packets: usize,
    /// Waiting time after which packets are dropped.
    pub wait: Duration,
}

/// A client's packet to a hop without a leg yet.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) home: Home,
    pub(crate) hop: Hop,
    pub(crate) side: RtpSide,
    pub(crate) kind: StreamKind,
    pub(crate) packet: Box<[u8]>,
    since: Instant,
}

/// A node's packet with an unknown tag.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) node: NodeId,
    pub(crate) tag: Tag,
    pub(crate) packet: Box<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Early {
    early_limits: EarlyLimits,
    outbound: Vec<Outbound>,
    /// Packets whose leg was added.
    ready: VecDeque<Outbound>,
    inbound: VecDeque<Inbound>,
}

impl Early {
    pub(crate) fn new(early_limits: EarlyLimits) -> Early {
        let (outbound, ready, inbound) = Default::default();
        Early { early_limits, outbound, ready, inbound }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outbound.is_empty() && self.ready.is_empty() && self.inbound.is_empty()
    }

    /// Keeps a client's packet. Returns `false` if too many wait.
    pub(crate) fn keep_outbound(
        &mut self,
        (home, hop): (Home, Hop),
        (side, kind): (RtpSide, StreamKind),
        packet: &[u8],
        now: Instant,
    ) -> bool {
        let of_session = self.outbound.iter().filter(|waiting| waiting.home == home).count();
        let fits = of_session < self.early_limits.packets && self.outbound.len() < WAITING_MAX;
        if fits {
            let packet = packet.into();
            self.outbound.push(Outbound { home, hop, side, kind, packet, since: now });
        }
        fits
    }

    /// Keeps a node's packet until the end of this pass. Returns `false` if too many wait.
    pub(crate) fn keep_inbound(&mut self, node: NodeId, tag: Tag, packet: &[u8]) -> bool {
        let fits = self.inbound.len() < WAITING_MAX;
        if fits {
            self.inbound.push_back(Inbound { node, tag, packet: packet.into() });
        }
        fits
    }

    pub(crate) fn inbound(&self) -> usize {
        self.inbound.len()
    }

    pub(crate) fn take_inbound(&mut self) -> Option<Inbound> {
        self.inbound.pop_front()
    }

    /// Moves packets whose leg was added to `ready`. Drops packets that waited too long and returns their number.
    pub(crate) fn sort_out(
        &mut self,
        now: Instant,
        mut has_leg: impl FnMut(Home, Hop) -> bool,
    ) -> usize {
        let mut late = 0;
        for waiting in std::mem::take(&mut self.outbound) {
            if has_leg(waiting.home, waiting.hop) {
                self.ready.push_back(waiting);
            } else if now.saturating_duration_since(waiting.since) < self.early_limits.wait {
                self.outbound.push(waiting);
            } else {
                late += 1;
            }
        }
        late
    }

    /// Drops all packets and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        let Early { outbound, ready, inbound, .. } = self;
        outbound.drain(..).count() + ready.drain(..).count() + inbound.drain(..).count()
    }

    pub(crate) fn take_ready(&mut self) -> Option<Outbound> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests;
