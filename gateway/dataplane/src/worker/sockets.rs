//! Sockets of a worker with their queues: those of listeners, a session's own ports towards nodes, and trunks to nodes. Nodes
//! with port legs distinguish sessions by port. Sockets, rings and the waker for commands are the worker's event sources.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_media::trunk::seal::{self, SealError};
use evenkeel_media::trunk::{Bundle, SHARED_MAX, Tag};
use evenkeel_model::NodeId;
use evenkeel_model::forward::DropReason;
use rustix::event::epoll;
use serde::{Deserialize, Serialize};

use super::report::WorkerStats;
use crate::lease::Permit;
use crate::mmsg::{self, DATAGRAM_MAX, Family, SendBatch};

/// Limit of packets queued per port. Small, because each session holds the memory.
const QUEUED_MAX: usize = 8;

/// The socket of a listener or port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RtpSide {
    Rtp,
    Rtcp,
}

/// A listener's socket and its queue.
#[derive(Debug)]
pub(crate) struct ListenerPort {
    pub(crate) socket: UdpSocket,
    pub(crate) outbox: SendBatch,
}

impl ListenerPort {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<ListenerPort> {
        let outbox = SendBatch::new(Family::of(socket.local_addr()?));
        Ok(ListenerPort { socket, outbox })
    }

    /// Sends everything in the queue, as far as the lease lasts.
    pub(super) fn flush(&mut self, stats: &WorkerStats, permit: &Permit) {
        if !self.outbox.is_empty() && permit.may_send() {
            for error in self.outbox.flush(self.socket.as_fd()).failed {
                stats.dropped(reason(&error));
            }
        }
    }
}

pub(crate) fn reason(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::BufferFull,
        // `io::ErrorKind` has no kind for EMSGSIZE.
        _ if error.raw_os_error() == Some(libc::EMSGSIZE) => DropReason::Oversize,
        _ => DropReason::SendFailed,
    }
}

/// A session's RTP socket, and an RTCP socket if RTCP has a separate port. Packets are queued during a pass and sent at
/// its end.
#[derive(Debug)]
pub struct SessionPorts {
    rtp: ListenerPort,
    rtcp: Option<ListenerPort>,
    numbers: (u16, Option<u16>),
    /// The destination of the queued packets.
    node: Option<NodeId>,
}

impl SessionPorts {
    /// Enables the error queue of both sockets.
    ///
    /// # Errors
    /// Returns the error of a socket.
    pub fn new(rtp: UdpSocket, rtcp: Option<UdpSocket>) -> io::Result<SessionPorts> {
        let number = |socket: &UdpSocket| socket.local_addr().map(|address| address.port());
        let numbers = (number(&rtp)?, rtcp.as_ref().map(number).transpose()?);
        let port = |socket: UdpSocket| {
            socket.set_nonblocking(true)?;
            mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
            ListenerPort::new(socket)
        };
        Ok(SessionPorts { rtp: port(rtp)?, rtcp: rtcp.map(port).transpose()?, numbers, node: None })
    }

    /// Local ports of RTP, and of RTCP if it has a separate socket.
    pub fn numbers(&self) -> (u16, Option<u16>) {
        self.numbers
    }

    /// The number of sockets.
    pub(crate) fn sockets(&self) -> u8 {
        1 + u8::from(self.rtcp.is_some())
    }

    pub(crate) fn fd(&self, side: RtpSide) -> Option<BorrowedFd<'_>> {
        match side {
            RtpSide::Rtp => Some(self.rtp.socket.as_fd()),
            RtpSide::Rtcp => self.rtcp.as_ref().map(|port| port.socket.as_fd()),
        }
    }

    /// Duplicates the sockets.
    pub(crate) fn try_clone(&self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let rtcp = self.rtcp.as_ref().map(|port| port.socket.try_clone()).transpose()?;
        Ok((self.rtp.socket.try_clone()?.into(), rtcp.map(OwnedFd::from)))
    }

    /// Queues a packet to a node, after `flush` if earlier ones must be sent first. RTCP uses the RTP socket unless it has
    /// a separate one. Returns whether this is the first queued packet, so that a [`flush`](Self::flush) is required.
    pub(super) fn queue(
        &mut self,
        side: RtpSide,
        (node, to): (NodeId, SocketAddr),
        dscp: u8,
        packet: &[u8],
        flush: impl FnOnce(&mut SessionPorts),
    ) -> bool {
        let is_first = self.node.is_none();
        let is_due = self.node.is_some_and(|before| before != node)
            || self.port(side).outbox.len() >= QUEUED_MAX;
        if is_due {
            flush(self);
        }
        self.node = Some(node);
        self.port(side).outbox.push(Some(to), dscp, packet);
        is_first
    }

    fn port(&mut self, side: RtpSide) -> &mut ListenerPort {
        match side {
            RtpSide::Rtp => &mut self.rtp,
            RtpSide::Rtcp => self.rtcp.as_mut().unwrap_or(&mut self.rtp),
        }
    }

    /// Drops the queued packets and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        self.node = None;
        let ports = [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten();
        ports.map(|port| port.outbox.clear()).sum()
    }

    /// Sends the queued packets. An error of an earlier destination drops no packet.
    pub(crate) fn flush(&mut self, stats: &WorkerStats, now: Instant) {
        let Some(node) = self.node.take() else { return };
        for port in [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten() {
            if port.outbox.is_empty() {
                continue;
            }
            let outcome = port.outbox.flush(port.socket.as_fd());
            outcome.failed.iter().for_each(|error| stats.dropped(reason(error)));
            if outcome.sent > 0 {
                stats.sent(node, now);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketSource {
    Listener(u8, RtpSide),
    Trunk(NodeId),
    Port(u32, RtpSide),
    Worker(u16),
    Quic,
    Commands,
}

impl PacketSource {
    pub(super) fn token(self) -> u64 {
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

    pub(super) fn from_token(token: u64) -> PacketSource {
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
pub(super) fn watch(epoll: impl AsFd, fd: impl AsFd, source: PacketSource) -> io::Result<()> {
    let data = epoll::EventData::new_u64(source.token());
    let flags = match source {
        PacketSource::Port(..) => epoll::EventFlags::IN | epoll::EventFlags::ET,
        _ => epoll::EventFlags::IN,
    };
    Ok(epoll::add(epoll, fd, data, flags)?)
}

/// Size limits of shared trunk datagrams. 1,200 bytes fit any path, 1,252 bytes of IPv4 fit IPv6's minimum MTU of 1,280
/// after translation, and the last is the default.
pub const BUNDLE_SIZES: [u16; 3] = [1_200, 1_252, SHARED_MAX as u16];

/// Size limit of a trunk datagram with one large packet. Clients fill whole Ethernet frames, which leaves no space for
/// a tag, so the kernel fragments such a datagram where the path's MTU is smaller.
const TRUNK_ALONE_MAX: usize = DATAGRAM_MAX;

/// A worker's connected socket to a node.
#[derive(Debug)]
pub struct TrunkSocket {
    /// A socket connected to the node's trunk port.
    pub socket: UdpSocket,
    /// Set if the trunk is encrypted.
    pub seal: Option<Box<seal::GatewaySeal>>,
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
    /// True if session packets are queued, and not only signed messages.
    media: bool,
    /// True if a queued datagram is longer than the size that fits any path.
    long: bool,
    /// True if a datagram was not decrypted.
    unreadable: bool,
}

impl Trunk {
    /// Enables the error queue of the socket.
    pub(crate) fn new(TrunkSocket { socket, seal }: TrunkSocket) -> io::Result<Trunk> {
        mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
        let overhead = overhead(seal.as_deref());
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

    pub(super) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    pub(super) fn is_full(&self) -> bool {
        self.outbox.is_full()
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
            queue(&mut self.outbox, self.seal.as_deref_mut(), self.alone.as_bytes());
            self.alone.clear();
        }
        fits
    }

    pub(super) fn push_signed(&mut self, message: &[u8], sealed: bool) {
        queue(&mut self.outbox, self.seal.as_deref_mut().filter(|_| sealed), message);
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

    pub(super) fn take_unreadable(&mut self) -> bool {
        std::mem::take(&mut self.unreadable)
    }

    pub(super) fn limit_bundles(&mut self, size_max: u16) {
        self.close_bundle();
        self.bundle = Bundle::new(usize::from(size_max) - overhead(self.seal.as_deref()));
    }

    pub(super) fn hand_out(&mut self, node: NodeId) -> TrunkState {
        let size_max = (self.bundle.size_max() + overhead(self.seal.as_deref())) as u16;
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
