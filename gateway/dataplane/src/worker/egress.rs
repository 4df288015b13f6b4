//! Every way out of a worker: to clients over UDP, to nodes over trunks, to the QUIC thread, to other workers, to
//! control. Packets are queued while a batch is worked on, and leave with its end.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{NodeId, forward::Reason};
use evenkeel_media::trunk::{Bundle, SHARED_MAX, Tag};
use tokio::sync::mpsc;

use super::arrival::Arrival;
use super::awake::Awake;
use super::command::Report;
use super::early::{Early, Patience};
use super::stats::Stamps;
use crate::flows::Home;
use crate::mmsg::{DATAGRAM_MAX, Family, Outbox};
use crate::ring;

/// How long trunk datagrams are at most that packets share, by what the path carries: the first is what any path does,
/// the second fits IPv4 in IPv6's least MTU of 1,280, the last is taken where nobody knows better.
pub const BUNDLE_SIZES: [u16; 3] = [1_200, 1_252, SHARED_MAX as u16];

/// The size of a trunk datagram that one large packet has for itself: what the other end's answer may have, too. The
/// system splits it where the path is narrower; clients fill whole Ethernet frames, and there is no room for a tag.
const TRUNK_ALONE_MAX: usize = DATAGRAM_MAX;

/// A listener's socket at this worker, and what leaves by it.
pub(crate) struct Port {
    pub(crate) socket: UdpSocket,
    pub(crate) outbox: Outbox,
}

/// A connected socket to a node, and what leaves by it.
pub(crate) struct Trunk {
    pub(crate) socket: UdpSocket,
    bundle: Bundle,
    /// For what is too large to share one.
    alone: Bundle,
    outbox: Outbox,
    /// Whether packets of sessions are among what leaves.
    media: bool,
    /// Whether not every path carries what leaves.
    long: bool,
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
    /// Sessions whose own ports have something queued.
    pub(crate) ports: Vec<Home>,
    pub(crate) awake: Awake,
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
            bundle: Bundle::new(SHARED_MAX),
            alone: Bundle::new(TRUNK_ALONE_MAX),
            // Connected: no address is written.
            outbox: Outbox::new(Family::V4),
            media: false,
            long: false,
            refused: false,
        }
    }

    /// What has gathered is queued, if there is any.
    fn close_bundle(&mut self) {
        if !self.bundle.is_empty() {
            self.long |= is_long(self.bundle.as_bytes());
            self.outbox.push(None, 0, self.bundle.as_bytes());
            self.bundle.clear();
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
            ports: Vec::new(),
            awake: Awake::default(),
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
        trunk.media = true;
        if trunk.bundle.push(tag, packet) {
            return;
        }
        trunk.close_bundle();
        if trunk.bundle.push(tag, packet) {
            return;
        }
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

    /// Packets to a node share datagrams up to this size from now on.
    pub(crate) fn limit_bundles(&mut self, node: NodeId, size_max: u16) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize).and_then(Option::as_mut) {
            trunk.close_bundle();
            trunk.bundle = Bundle::new(size_max.into());
        }
    }

    /// The node is reached by this trunk from now on.
    pub(crate) fn reach(&mut self, node: NodeId, trunk: Trunk) {
        let place = node.0 as usize;
        if place >= self.trunks.len() {
            self.trunks.resize_with(place + 1, || None);
        }
        self.trunks[place] = Some(trunk);
    }

    /// Nothing leads to the node any more, and its number may be another's.
    pub(crate) fn forget_node(&mut self, node: NodeId) {
        if let Some(trunk) = self.trunks.get_mut(node.0 as usize) {
            *trunk = None;
        }
        self.stamps.forget(node);
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
        let _ = self.tells(report);
    }

    /// Tells control, and whether it took the word.
    pub(crate) fn tells(&self, report: Report) -> bool {
        self.reports.try_send(report).is_ok()
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

    /// Nothing of what is queued leaves.
    pub(super) fn forget_queued(&mut self) {
        for (rtp, _) in &mut self.listeners {
            rtp.outbox.clear();
        }
        for trunk in self.trunks.iter_mut().flatten() {
            trunk.bundle.clear();
            trunk.outbox.clear();
        }
    }

    fn flush_trunk(&mut self, node: NodeId, now: Instant) {
        let Some(trunk) = &mut self.trunks[node.0 as usize] else {
            return;
        };
        trunk.close_bundle();
        if !trunk.outbox.is_empty() {
            let outcome = trunk.outbox.flush(trunk.socket.as_fd());
            for error in outcome.failed.iter().chain(&outcome.earlier) {
                match error.kind() {
                    io::ErrorKind::ConnectionRefused => trunk.refused = true,
                    _ => self.stamps.dropped(reason(error)),
                }
            }
            if std::mem::take(&mut trunk.media) && outcome.sent > 0 {
                self.stamps.sent(node, now);
            }
            if std::mem::take(&mut trunk.long) {
                self.stamps.long(node);
            }
        }
        if std::mem::take(&mut trunk.refused) {
            self.report(Report::Refused { node });
        }
    }
}

fn flush_port(port: &mut Port, stamps: &Stamps) {
    if !port.outbox.is_empty() {
        for error in port.outbox.flush(port.socket.as_fd()).failed {
            stamps.dropped(reason(&error));
        }
    }
}

/// Whether not every path carries a bundle like this.
pub(super) fn is_long(bundle: &[u8]) -> bool {
    bundle.len() > usize::from(BUNDLE_SIZES[0])
}

/// What a failed send is counted as.
pub(crate) fn reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::WouldBlock => Reason::BufferFull,
        // Which has no kind of its own.
        _ if error.raw_os_error() == Some(libc::EMSGSIZE) => Reason::Oversize,
        _ => Reason::SendFailed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_media::trunk;

    use super::*;

    const TAG: Tag = Tag(7);

    /// Sends packets of these lengths on a trunk; how long they are that came, by datagram, and how many were dropped.
    fn travelled(lengths: &[usize]) -> (Vec<Vec<usize>>, u64) {
        travelled_on(None, lengths)
    }

    /// The same on one whose path carries no more than this.
    fn travelled_on(size_max: Option<u16>, lengths: &[usize]) -> (Vec<Vec<usize>>, u64) {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (here, there) = (bind(), bind());
        here.connect(there.local_addr().unwrap()).unwrap();
        there.set_nonblocking(true).unwrap();
        let stamps = Arc::new(Stamps::new(Instant::now(), 1));
        let patience = Patience { packets: 1, wait: Duration::ZERO };
        let mut ways = Ways::new(mpsc::channel(1).0, Arc::clone(&stamps), patience);
        ways.trunks.push(Some(Trunk::new(here)));
        size_max.into_iter().for_each(|size_max| ways.limit_bundles(NodeId(0), size_max));
        for &length in lengths {
            ways.on_trunk(NodeId(0), TAG, &vec![128; length]);
        }
        ways.flush(Instant::now());
        let mut datagram = [0; 2 * DATAGRAM_MAX];
        let came = std::iter::from_fn(|| {
            let length = there.recv(&mut datagram).ok()?;
            Some(trunk::entries(&datagram[..length]).map(|entry| entry.unwrap().1.len()).collect())
        });
        (came.collect(), stamps.drops(Reason::Oversize))
    }

    #[test]
    fn a_signed_message_is_no_media_that_an_answer_is_expected_to() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        let base = Instant::now();
        let stamps = Arc::new(Stamps::new(base, 1));
        let patience = Patience { packets: 1, wait: Duration::ZERO };
        let mut ways = Ways::new(mpsc::channel(1).0, Arc::clone(&stamps), patience);
        ways.trunks.push(Some(Trunk::new(socket)));
        let sent = |stamps: &Stamps| {
            let mut all = [evenkeel_core::Stamp::default()];
            stamps.merge_into(&mut all);
            all[0].last_sent
        };
        let now = base + Duration::from_millis(1);
        ways.sign(NodeId(0), b"a lease");
        ways.flush(now);
        assert_eq!(sent(&stamps), None);
        ways.on_trunk(NodeId(0), TAG, &[128; 160]);
        ways.sign(NodeId(0), b"a lease");
        ways.flush(now);
        assert_eq!(sent(&stamps), Some(now));
    }

    #[test]
    fn a_datagram_that_the_kernel_calls_too_long_is_counted_as_such() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut outbox = Outbox::new(Family::V4);
        outbox.push(Some(address), 0, &vec![0; 65_536]);
        let outcome = outbox.flush(socket.as_fd());
        assert_eq!(outcome.failed.iter().map(reason).collect::<Vec<_>>(), [Reason::Oversize]);
    }

    #[test]
    fn packets_share_a_trunk_datagram_while_it_has_room() {
        assert_eq!(travelled(&[160, 160, 160]), (vec![vec![160, 160, 160]], 0));
        assert_eq!(travelled(&[900, 900]), (vec![vec![900], vec![900]], 0));
    }

    #[test]
    fn packets_share_no_more_than_the_path_carries() {
        assert_eq!(travelled(&[600, 700]), (vec![vec![600, 700]], 0));
        let narrow = travelled_on(Some(1_200), &[600, 570, 600, 580, 1_300]);
        assert_eq!(narrow, (vec![vec![600, 570], vec![600], vec![580], vec![1_300]], 0));
    }

    #[test]
    fn packet_that_fills_an_ethernet_frame_has_a_trunk_datagram_for_itself() {
        assert_eq!(travelled(&[160, 1_472, 200]), (vec![vec![160], vec![1_472], vec![200]], 0));
        assert_eq!(travelled(&[1_472, 1_472]), (vec![vec![1_472], vec![1_472]], 0));
        let largest = DATAGRAM_MAX - trunk::OVERHEAD - trunk::ENTRY_OVERHEAD;
        assert_eq!(travelled(&[largest]), (vec![vec![largest]], 0));
        assert_eq!(travelled(&[largest + 1, 160]), (vec![vec![160]], 1));
    }
}
