//! One session at the node, the streams that it sends, and the way of their packets.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::rtp;
use evenkeel_media::trunk::seal::{self, SealError, SealSender};
use evenkeel_media::trunk::{Bundles, Tag};
use fastrand::Rng;

use crate::datagrams::DatagramOutbox;
use crate::reception::RtpReception;

/// Maximum streams of one session: voice, video, retransmissions, and a few restarts. Above this the stream that has
/// been silent longest is forgotten.
const STREAMS_MAX: usize = 16;

/// The destination of a session's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionLeg {
    Trunk { tag: Tag, reply_to: SocketAddr },
    Port { source: SocketAddr },
}

/// The sessions that exchange packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum ReflectedRoom {
    /// A room of trunk legs, numbered by the gateway.
    Named(u64),
    Plain,
    Alone(SocketAddr),
}

pub(super) struct ReflectedSession {
    pub(super) leg: SessionLeg,
    pub(super) room: ReflectedRoom,
    pub(super) expires: Instant,
    pub(super) streams: Vec<ReflectedStream>,
}

/// An incoming stream and its outgoing counterpart.
pub(super) struct ReflectedStream {
    pub(super) ssrc: u32,
    pub(super) out_ssrc: u32,
    sequence_offset: u16,
    pub(super) timestamp_offset: u32,
    pub(super) heard: Instant,
    pub(super) reception: RtpReception,
}

impl ReflectedSession {
    pub(super) fn new(leg: SessionLeg, room: ReflectedRoom, expires: Instant) -> Self {
        Self { leg, room, expires, streams: Vec::new() }
    }

    /// The stream of this SSRC, created if new. Also returns the outgoing SSRC that was forgotten for it.
    pub(super) fn stream(
        &mut self,
        ssrc: u32,
        now: Instant,
        rng: &mut Rng,
    ) -> (&mut ReflectedStream, Option<u32>) {
        let mut forgotten = None;
        let index = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(index) => index,
            None => {
                if self.streams.len() == STREAMS_MAX
                    && let Some(silent) = (0..STREAMS_MAX).min_by_key(|&i| self.streams[i].heard)
                {
                    forgotten = Some(self.streams.swap_remove(silent).out_ssrc);
                }
                self.streams.push(ReflectedStream::new(ssrc, now, rng));
                self.streams.len() - 1
            }
        };
        (&mut self.streams[index], forgotten)
    }
}

impl ReflectedStream {
    fn new(ssrc: u32, now: Instant, rng: &mut Rng) -> Self {
        Self {
            ssrc,
            out_ssrc: rng.u32(..),
            sequence_offset: rng.u16(..),
            timestamp_offset: rng.u32(..),
            heard: now,
            reception: RtpReception::default(),
        }
    }

    /// Rewrites a packet of the incoming stream for the outgoing stream.
    pub(super) fn rewrite(&self, header: &rtp::RtpHeader, packet: &mut [u8]) {
        rtp::set_ssrc(packet, self.out_ssrc);
        rtp::set_sequence(packet, header.sequence.wrapping_add(self.sequence_offset));
        rtp::set_timestamp(packet, header.timestamp.wrapping_add(self.timestamp_offset));
    }
}

/// Outgoing packets: bundled per destination on trunk legs, one by one on port legs.
#[derive(Default)]
pub(super) struct Outgoing {
    bundles: Bundles,
    /// Set if trunk legs are encrypted.
    seal: Option<seal::NodeSeal>,
}

impl Outgoing {
    pub(super) fn sealed(seal: seal::NodeSeal) -> Self {
        Self { bundles: Bundles::sealed(), seal: Some(seal) }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Decrypts a datagram in place.
    pub(super) fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        source: SocketAddr,
    ) -> Result<(&'a mut [u8], SealSender), SealError> {
        self.seal.as_mut().ok_or(SealError::Forged)?.open(datagram, source)
    }

    /// Learns the sender of an encrypted message that was accepted.
    pub(super) fn learn(&mut self, sender: SealSender) {
        if let Some(seal) = &mut self.seal {
            seal.learn(sender);
        }
    }

    /// Sends an answer, encrypted as its question was.
    pub(super) fn answer(
        &mut self,
        to: SocketAddr,
        answer: &[u8],
        sealed: bool,
        outbox: &mut DatagramOutbox,
    ) {
        send(self.seal.as_mut().filter(|_| sealed), to, answer, outbox);
    }

    /// Learns the largest datagram for this destination from a received one.
    pub(super) fn came(&mut self, from: SocketAddr, size: usize, outbox: &mut DatagramOutbox) {
        let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
        self.bundles.came(from, size, send);
    }

    /// Learns how long shared datagrams to this address may be.
    pub(super) fn limit(&mut self, to: SocketAddr, bundle_max: u16) {
        self.bundles.limit(to, bundle_max.into());
    }

    /// Adds a packet. Returns false if it is too large for the leg.
    pub(super) fn push(
        &mut self,
        leg: SessionLeg,
        packet: &[u8],
        outbox: &mut DatagramOutbox,
    ) -> bool {
        match leg {
            SessionLeg::Port { source } => {
                outbox.push(source, packet);
                true
            }
            SessionLeg::Trunk { tag, reply_to } => {
                let send = &mut |to, bundle: &[u8]| send(self.seal.as_mut(), to, bundle, outbox);
                self.bundles.push(reply_to, tag, packet, send)
            }
        }
    }

    pub(super) fn flush(&mut self, outbox: &mut DatagramOutbox) {
        self.bundles.flush(&mut |to, bundle| send(self.seal.as_mut(), to, bundle, outbox));
    }

    /// Forgets destinations that no session has.
    pub(super) fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.bundles.keep(&known);
        if let Some(seal) = &mut self.seal {
            seal.keep(known);
        }
    }

    #[cfg(test)]
    pub(super) fn destinations(&self) -> usize {
        self.bundles.destinations()
    }
}

/// Sends a datagram, encrypted if there is a key. A socket without sessions may be unknown; it gets nothing.
fn send(
    seal: Option<&mut seal::NodeSeal>,
    to: SocketAddr,
    datagram: &[u8],
    outbox: &mut DatagramOutbox,
) {
    match seal.map(|seal| seal.seal(to, datagram)) {
        None => outbox.push(to, datagram),
        Some(Some(sealed)) => outbox.push(to, sealed),
        Some(None) => {}
    }
}
