//! Packets from workers to clients.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use bytes::Bytes;
use evenkeel_media::roq;
use quinn_proto::SendDatagramError;

use super::{QuicEndpoint, TurnResult};
use crate::flows::Home;
use crate::quic::connection::StreamLimits;
use crate::quic::counters::count;
use crate::ring::{RingItem, RingMeta};

/// Packets taken from one ring per turn.
const RING_BATCH: usize = 256;

impl QuicEndpoint {
    pub(super) fn read_rings(&mut self, now: Instant) -> TurnResult {
        let mut look = TurnResult::default();
        let mut rings = std::mem::take(&mut self.rings);
        let read = catch_unwind(AssertUnwindSafe(|| {
            for ring in &mut rings {
                let taken =
                    ring.pop_batch(RING_BATCH, |meta, bytes| self.take_packet(meta, bytes, now));
                look.packets += taken;
                look.more |= taken == RING_BATCH;
            }
        }));
        self.rings = rings;
        read.unwrap_or_else(|panic| resume_unwind(panic));
        look
    }

    fn take_packet(&mut self, meta: &RingMeta, packet: &[u8], now: Instant) {
        match meta.kind {
            RingItem::Rtp | RingItem::Rtcp => self.send(meta.home, meta.flow, packet, now),
            RingItem::Detached => self.hub.forget(meta.home, now),
            // Workers never send these kinds to the endpoint.
            RingItem::Attached | RingItem::Path(_) | RingItem::Relayed => {}
        }
    }

    /// Queues a packet for the session's client: in a DATAGRAM if it fits, otherwise in a separate stream.
    fn send(&mut self, home: Home, flow: u64, packet: &[u8], now: Instant) {
        let counters = &self.hub.counters;
        let flow = roq::FlowId::new(flow);
        let handle = self.hub.client(home);
        let client = handle.and_then(|handle| self.connections.get_mut(handle));
        let (Some(flow), Some(client)) = (flow, client.filter(|client| client.is_open())) else {
            return count(&counters.unattached);
        };
        match client.send_datagram(datagram(flow, packet, &mut self.framed)) {
            // Counted when the DATAGRAM is sent.
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
                let limits = StreamLimits {
                    streams_out_max: self.settings.streams_out_max,
                    stream_lifetime: self.settings.stream_lifetime,
                };
                client.send_stream(Bytes::from(bytes), now, &self.hub, &limits);
            }
        }
        let handle = client.handle;
        self.connections.touch(handle);
    }
}

/// Frames a packet in separately allocated memory. Packets may wait in a queue, and the queue's limit in bytes holds
/// only if they share no memory.
fn datagram(flow: roq::FlowId, packet: &[u8], framed: &mut Vec<u8>) -> Bytes {
    framed.clear();
    roq::write_datagram(flow, packet, framed);
    Bytes::copy_from_slice(framed)
}

#[cfg(test)]
mod tests;
