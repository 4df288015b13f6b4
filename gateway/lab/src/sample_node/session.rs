//! One session at the node, and the streams that it sends.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::seal::NodeSeal;
use evenkeel_media::{retransmission, rtp};
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
    /// The session's last estimate of what it can receive, bits per second, and its time.
    pub(super) estimate: Option<(u64, Instant)>,
}

/// An incoming stream and its outgoing counterpart.
pub(super) struct ReflectedStream {
    pub(super) ssrc: u32,
    pub(super) out_ssrc: u32,
    pub(super) payload_type: u8,
    sequence_offset: u16,
    pub(super) timestamp_offset: u32,
    pub(super) heard: Instant,
    pub(super) reception: RtpReception,
}

impl ReflectedSession {
    pub(super) fn new(leg: SessionLeg, room: ReflectedRoom, expires: Instant) -> Self {
        Self { leg, room, expires, streams: Vec::new(), estimate: None }
    }

    /// The stream of this SSRC, created if new. Also returns the outgoing SSRC that was forgotten for it.
    pub(super) fn stream(
        &mut self,
        header: &rtp::RtpHeader,
        now: Instant,
        rng: &mut Rng,
    ) -> (&mut ReflectedStream, Option<u32>) {
        let mut forgotten = None;
        let index = match self.streams.iter().position(|stream| stream.ssrc == header.ssrc) {
            Some(index) => index,
            None => {
                if self.streams.len() == STREAMS_MAX
                    && let Some(silent) = (0..STREAMS_MAX).min_by_key(|&i| self.streams[i].heard)
                {
                    forgotten = Some(self.streams.swap_remove(silent).out_ssrc);
                }
                self.streams.push(ReflectedStream::new(header, now, rng));
                self.streams.len() - 1
            }
        };
        (&mut self.streams[index], forgotten)
    }

    /// Gives a retransmission the outgoing sequence number and timestamp of the packet that it contains.
    pub(super) fn rewrite_original(
        &self,
        header: &rtp::RtpHeader,
        retransmissions: &[u8],
        packet: &mut [u8],
    ) {
        let media =
            self.streams.iter().filter(|stream| !retransmissions.contains(&stream.payload_type));
        let streams = media.map(|stream| (stream, stream.reception.highest()));
        if let Some(original) = retransmission::original_sequence(header, packet)
            && let Some(stream) = retransmission::repaired(original, streams)
        {
            rtp::set_timestamp(packet, header.timestamp.wrapping_add(stream.timestamp_offset));
            let sequence = original.wrapping_add(stream.sequence_offset);
            retransmission::set_original_sequence(header, packet, sequence);
        }
    }
}

impl ReflectedStream {
    fn new(header: &rtp::RtpHeader, now: Instant, rng: &mut Rng) -> Self {
        Self {
            ssrc: header.ssrc,
            out_ssrc: rng.u32(..),
            payload_type: header.payload_type,
            sequence_offset: rng.u16(..),
            timestamp_offset: rng.u32(..),
            heard: now,
            reception: RtpReception::default(),
        }
    }

    /// The incoming sequence number of a packet of the outgoing stream.
    pub(super) fn incoming_sequence(&self, outgoing: u16) -> u16 {
        outgoing.wrapping_sub(self.sequence_offset)
    }

    /// Rewrites a packet of the incoming stream for the outgoing stream.
    pub(super) fn rewrite(&self, header: &rtp::RtpHeader, packet: &mut [u8]) {
        rtp::set_ssrc(packet, self.out_ssrc);
        rtp::set_sequence(packet, header.sequence.wrapping_add(self.sequence_offset));
        rtp::set_timestamp(packet, header.timestamp.wrapping_add(self.timestamp_offset));
    }
}

/// Sends a datagram, encrypted if there is a key. A socket without sessions may be unknown; it gets nothing.
pub(super) fn send(
    seal: Option<&mut NodeSeal>,
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
