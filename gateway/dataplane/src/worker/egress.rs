//! Output of a worker: packets to clients over UDP, to nodes over trunks, to the QUIC thread and to other workers, and
//! reports to control. Packets are queued during a pass and sent at its end.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::seal::SealError;
use evenkeel_model::NodeId;
use evenkeel_model::forward::DropReason;
use tokio::sync::mpsc;

use super::arrival::{ClientArrival, SourceKey};
use super::early::{Early, EarlyLimits};
use super::ports::{ListenerPort, RtpSide};
use super::report::WorkerReport;
use super::stats::WorkerStats;
use super::summaries::ActiveSessions;
use super::trunk::{Trunk, TrunkState};
use crate::flows::Home;
use crate::lease::{Permit, SendLease};
use crate::ring;

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

    pub(crate) fn limit_bundles(&mut self, node: NodeId, size_max: u16) {
        if let Some(trunk) = trunk_to(&mut self.trunks, node) {
            trunk.limit_bundles(size_max);
        }
    }

    pub(crate) fn hand_out_trunks(&mut self) -> Vec<TrunkState> {
        let trunks = (0..).map(NodeId).zip(&mut self.trunks);
        trunks.filter_map(|(node, trunk)| Some(trunk.as_mut()?.hand_out(node))).collect()
    }

    pub(crate) fn continue_trunk(&mut self, state: TrunkState) {
        if let Some(trunk) = trunk_to(&mut self.trunks, state.node) {
            trunk.go_on(state);
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

#[cfg(test)]
mod tests;
