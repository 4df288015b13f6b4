//! A worker's trunk to a node: bundles of packets and signed messages on one socket, encrypted or not.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_media::trunk::seal::{self, SealError};
use evenkeel_media::trunk::{Bundle, SHARED_MAX, Tag};
use evenkeel_model::NodeId;
use serde::{Deserialize, Serialize};

use super::ports::reason;
use super::stats::WorkerStats;
use crate::lease::Permit;
use crate::mmsg::{self, DATAGRAM_MAX, Family, SendBatch};

/// Size limits of shared trunk datagrams. 1,200 bytes fit any path, 1,252 bytes of IPv4 fit IPv6's minimum MTU of 1,280
/// after translation, and the last is the default.
pub const BUNDLE_SIZES: [u16; 3] = [1_200, 1_252, SHARED_MAX as u16];

/// Size limit of a trunk datagram with one large packet. Clients fill whole Ethernet frames, which leaves no space for
/// a tag, so the kernel fragments such a datagram where the path's MTU is smaller.
const TRUNK_ALONE_MAX: usize = DATAGRAM_MAX;

/// A worker's connected socket to a node.
#[derive(Debug)]
pub struct TrunkSocket {
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
