//! An endpoint whose clients another gateway has taken over.

use std::sync::atomic::Ordering;

use quinn_proto::EndpointEvent;

use super::Endpoint;

/// Batches that are dropped from the socket: more than its buffer holds.
const BATCHES: usize = 1_024;

impl Endpoint {
    pub(in crate::quic) fn may_send(&self) -> bool {
        self.lease.is_held_now()
    }

    /// Forgets all connections without a word to their clients, and drops what waits to be read.
    pub(in crate::quic) fn fence(&mut self) {
        for handle in self.connections.handles() {
            if let Some(client) = self.connections.get_mut(handle) {
                client.forgotten(&mut self.hub);
            }
            self.connections.remove(handle);
            let _ = self.quinn.handle_event(handle, EndpointEvent::drained());
        }
        self.connections.take_accessed();
        self.blocked = None;
        let mut dropped = self.received.drain(..).count();
        for _ in 0..BATCHES {
            if self.socket.receive(&mut self.received).is_none() {
                break;
            }
            dropped += self.received.drain(..).count();
        }
        for ring in &mut self.rings {
            while let taken @ 1.. = ring.pop_batch(256, |_, _| ()) {
                dropped += taken;
            }
        }
        self.hub.counters.fenced.fetch_add(dropped as u64, Ordering::Relaxed);
        self.hub.wake_workers();
    }
}
