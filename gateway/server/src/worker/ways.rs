//! Every way out of a worker: to clients over UDP, to nodes over trunks, to the QUIC thread, to other workers, to
//! control. Packets are queued while a batch is worked on, and leave with its end.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{NodeId, forward::Reason};
use evenkeel_media::trunk::{Bundle, Tag};
use tokio::sync::mpsc;

use super::arrival::Arrival;
use super::command::Report;
use super::early::{Early, Patience};
use super::stamps::Stamps;
use crate::flows::Home;
use crate::mmsg::{DATAGRAM_MAX, Family, Outbox};
use crate::ring;

/// A trunk datagram's size at most: IPv6's least MTU of 1,280 would waste, 1,500 less IPv6, UDP and some tunnel holds.
const TRUNK_DATAGRAM_MAX: usize = 1_400;

/// A listener's socket at this worker, and what leaves by it.
pub(crate) struct Port {
    pub(crate) socket: UdpSocket,
    pub(crate) outbox: Outbox,
}

/// A connected socket to a node, and what leaves by it.
pub(crate) struct Trunk {
    pub(crate) socket: UdpSocket,
    bundle: Bundle,
    /// For a packet that shares its datagram with nobody.
    alone: Bundle,
    outbox: Outbox,
    refused: bool,
}

/// All of them.
pub(crate) struct Ways {
    /// By number of the listener: RTP, and RTCP where it has a port of its own.
    pub(crate) listeners: Vec<(Port, Option<Port>)>,
    /// By number of the node.
    pub(crate) trunks: Vec<Option<Trunk>>,
    pub(crate) to_quic: Option<ring::Sender>,
    /// By number of the worker; none to itself.
    pub(crate) to_workers: Vec<Option<ring::Sender>>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) stamps: Arc<Stamps>,
    pub(crate) early: Early,
    carried: Vec<u8>,
}

/// Which socket of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Rtp,
    Rtcp,
}

impl Port {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Port> {
        let outbox = Outbox::new(Family::of(socket.local_addr()?));
        Ok(Port { socket, outbox })
    }
}

impl Trunk {
    pub(crate) fn new(socket: UdpSocket) -> Trunk {
        Trunk {
            socket,
            bundle: Bundle::new(TRUNK_DATAGRAM_MAX),
            alone: Bundle::new(DATAGRAM_MAX),
            // Connected: no address is written.
            outbox: Outbox::new(Family::V4),
            refused: false,
        }
    }
}

impl Ways {
    pub(crate) fn new(
        reports: mpsc::Sender<Report>,
        stamps: Arc<Stamps>,
        patience: Patience,
    ) -> Ways {
        Ways {
            listeners: Vec::new(),
            trunks: Vec::new(),
            to_quic: None,
            to_workers: Vec::new(),
            reports,
            stamps,
            early: Early::new(patience),
            carried: Vec::new(),
        }
    }

    pub(crate) fn drop(&self, reason: Reason) {
        self.stamps.dropped(reason);
    }

    /// Queues a datagram to a client, and hands out its bytes to be changed in place.
    pub(crate) fn queue_to_client(
        &mut self,
        (listener, side): (u8, Side),
        address: SocketAddr,
        dscp: u8,
        datagram: &[u8],
    ) -> Option<&mut [u8]> {
        let (rtp, rtcp) = self.listeners.get_mut(usize::from(listener))?;
        let port = match side {
            Side::Rtp => rtp,
            Side::Rtcp => rtcp.as_mut().unwrap_or(rtp),
        };
        if port.outbox.is_full() {
            flush_port(port, &self.stamps);
        }
        Some(port.outbox.push(Some(address), dscp, datagram))
    }

    /// Queues a packet on the trunk to a node, behind its tag.
    pub(crate) fn on_trunk(&mut self, node: NodeId, tag: Tag, packet: &[u8]) {
        let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) else {
            self.stamps.dropped(Reason::NoHop);
            return;
        };
        if trunk.bundle.push(tag, packet) {
            return;
        }
        if !trunk.bundle.is_empty() {
            trunk.outbox.push(None, 0, trunk.bundle.as_bytes());
            trunk.bundle.clear();
        }
        if trunk.bundle.push(tag, packet) {
            return;
        }
        // Larger than what surely crosses in one piece: the path may fragment it, which beats losing it for sure.
        if trunk.alone.push(tag, packet) {
            trunk.outbox.push(None, 0, trunk.alone.as_bytes());
            trunk.alone.clear();
        } else {
            self.stamps.dropped(Reason::Oversize);
        }
    }

    /// Queues a signed message on the trunk to a node.
    pub(crate) fn sign(&mut self, node: NodeId, message: &[u8]) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) {
            trunk.outbox.push(None, 0, message);
        }
    }

    /// The node's trunk said that nobody listens there.
    pub(crate) fn trunk_refused(&mut self, node: NodeId) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) {
            trunk.refused = true;
        }
    }

    /// Hands a datagram to the QUIC thread.
    pub(crate) fn queue_to_quic(&mut self, home: Home, flow: u64, packet: &[u8]) {
        let meta = ring::Meta { home, kind: ring::Kind::Media, flow };
        let pushed = self.to_quic.as_mut().map(|ring| ring.push(meta, packet));
        if pushed != Some(Ok(())) {
            self.stamps.dropped(Reason::RingFull);
        }
    }

    /// Hands a client's datagram to the worker that its session has its home at.
    pub(crate) fn carry(&mut self, home: Home, arrival: Arrival, datagram: &[u8]) {
        arrival.write(datagram, &mut self.carried);
        let meta = ring::Meta { home, kind: ring::Kind::Media, flow: 0 };
        let ring = self.to_workers.get_mut(usize::from(home.worker)).and_then(Option::as_mut);
        if ring.map(|ring| ring.push(meta, &self.carried)) != Some(Ok(())) {
            self.stamps.dropped(Reason::RingFull);
        }
    }

    /// Tells control. Where it does not keep up, what is told again anyway is dropped.
    pub(crate) fn report(&self, report: Report) {
        let _ = self.reports.try_send(report);
    }

    /// The end of a batch: everything that is queued leaves.
    pub(crate) fn flush(&mut self, now: Instant) {
        for (rtp, rtcp) in &mut self.listeners {
            flush_port(rtp, &self.stamps);
            if let Some(rtcp) = rtcp {
                flush_port(rtcp, &self.stamps);
            }
        }
        for number in 0..self.trunks.len() {
            self.flush_trunk(NodeId(number as u32), now);
        }
        let rings = self.to_workers.iter().flatten().chain(&self.to_quic);
        rings.for_each(ring::Sender::wake);
    }

    fn flush_trunk(&mut self, node: NodeId, now: Instant) {
        let Some(trunk) = &mut self.trunks[node.0 as usize] else {
            return;
        };
        if !trunk.bundle.is_empty() {
            trunk.outbox.push(None, 0, trunk.bundle.as_bytes());
            trunk.bundle.clear();
        }
        if !trunk.outbox.is_empty() {
            let outcome = trunk.outbox.flush(trunk.socket.as_fd());
            for (_, kind, _) in outcome.failed {
                match kind {
                    io::ErrorKind::ConnectionRefused => trunk.refused = true,
                    kind => self.stamps.dropped(reason(kind)),
                }
            }
            if outcome.sent > 0 {
                self.stamps.sent(node, now);
            }
        }
        if std::mem::take(&mut trunk.refused) {
            self.report(Report::Refused { node });
        }
    }
}

fn flush_port(port: &mut Port, stamps: &Stamps) {
    if !port.outbox.is_empty() {
        for (_, kind, _) in port.outbox.flush(port.socket.as_fd()).failed {
            stamps.dropped(reason(kind));
        }
    }
}

/// What a failed send is counted as.
pub(crate) fn reason(kind: io::ErrorKind) -> Reason {
    match kind {
        io::ErrorKind::WouldBlock => Reason::BufferFull,
        io::ErrorKind::InvalidInput => Reason::Oversize,
        _ => Reason::SendFailed,
    }
}
