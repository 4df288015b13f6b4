//! What workers send, on its way to clients.

use std::time::Instant;

use bytes::Bytes;
use evenkeel_media::roq;
use quinn_proto::SendDatagramError;

use super::{Endpoint, Look};
use crate::flows::Home;
use crate::quic::connection::Limits;
use crate::quic::counters::count;
use crate::ring::{Kind, Meta};

/// Packets taken from a ring before others get their turn.
const RING_BATCH: usize = 256;

impl Endpoint {
    pub(super) fn read_rings(&mut self, now: Instant) -> Look {
        let mut look = Look::default();
        let mut rings = std::mem::take(&mut self.rings);
        for ring in &mut rings {
            let taken =
                ring.pop_batch(RING_BATCH, |meta, bytes| self.take_packet(meta, bytes, now));
            look.packets += taken;
            look.more |= taken == RING_BATCH;
        }
        self.rings = rings;
        look
    }

    fn take_packet(&mut self, meta: &Meta, packet: &[u8], now: Instant) {
        match meta.kind {
            Kind::Media => self.send(meta.home, meta.flow, packet, now),
            Kind::Detached => self.hub.forget(meta.home, now),
            // Only ever told to a worker.
            Kind::Attached | Kind::Feedback { .. } => {}
        }
    }

    /// Queues a packet for its session's client: in a DATAGRAM where it fits, else in a stream of its own.
    fn send(&mut self, home: Home, flow: u64, packet: &[u8], now: Instant) {
        let counters = &self.hub.counters;
        let flow = roq::Flow::new(flow);
        let handle = self.hub.line(home);
        let line = handle.and_then(|handle| self.lines.get_mut(handle));
        let (Some(flow), Some(line)) = (flow, line.filter(|line| line.is_open())) else {
            return count(&counters.unattached);
        };
        match line.send_datagram(datagram(flow, packet, &mut self.framed)) {
            // Counted when it leaves.
            Ok(()) => {}
            Err(SendDatagramError::Blocked(_)) => count(&counters.datagrams_full),
            Err(
                SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled,
            ) => {
                let mut bytes = Vec::with_capacity(packet.len() + 16);
                roq::write_stream_start(flow, &mut bytes);
                roq::write_stream_packet(packet, &mut bytes);
                let limits = Limits {
                    streams_out_max: self.settings.streams_out_max,
                    stream_lifetime: self.settings.stream_lifetime,
                };
                line.send_stream(Bytes::from(bytes), now, &self.hub, &limits);
            }
        }
        let handle = line.handle;
        self.lines.touch(handle);
    }
}

/// A packet in its frame. Its memory is its own: it may wait for its client's network, and keeps nothing else while it
/// does, so that the bytes a queue may hold are the bytes it holds.
fn datagram(flow: roq::Flow, packet: &[u8], framed: &mut Vec<u8>) -> Bytes {
    framed.clear();
    roq::write_datagram(flow, packet, framed);
    Bytes::copy_from_slice(framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_that_waits_keeps_no_other() {
        let flow = roq::Flow::new(7).unwrap();
        let mut framed = Vec::new();
        let waiting = [b"one", b"two"].map(|packet| datagram(flow, packet, &mut framed));
        assert_eq!(waiting, [&b"\x07one"[..], b"\x07two"]);
        assert!(waiting.iter().all(Bytes::is_unique));
    }
}
