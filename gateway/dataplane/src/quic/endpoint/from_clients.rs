//! Passes datagrams from clients to their connections.

use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::DatagramEvent;

use super::{QuicEndpoint, TurnResult};
use crate::quic::counters::count;
use crate::quic::socket::From;

/// Datagrams per turn. One batch of the kernel may hold eight times this number.
const DATAGRAMS_PER_TURN: usize = 256;

/// A handshake takes as long as this many datagrams. Otherwise other clients would wait 200 ms for a turn in which all connect
/// again, and each of these for the last one.
const DATAGRAMS_PER_HANDSHAKE: usize = 32;

impl QuicEndpoint {
    pub(super) fn read_socket(&mut self, now: Instant) -> TurnResult {
        let mut look = TurnResult { packets: 0, more: true };
        let mut spent = 0;
        while spent < DATAGRAMS_PER_TURN {
            if let Some((from, datagram)) = self.received.pop_front() {
                look.packets += 1;
                let before = self.connections.count();
                self.take_datagram(from, datagram, now);
                let is_handshake = self.connections.count() > before;
                spent += if is_handshake { DATAGRAMS_PER_HANDSHAKE } else { 1 };
                continue;
            }
            // Lets workers start on the packets read so far.
            self.hub.wake_workers();
            if !look.more {
                return look;
            }
            match self.socket.receive(&mut self.received) {
                Some(more) => {
                    count(&self.hub.counters.reads);
                    look.more = more;
                }
                None => return TurnResult { more: false, ..look },
            }
        }
        look.more |= !self.received.is_empty();
        look
    }

    fn take_datagram(&mut self, from: From, datagram: BytesMut, now: Instant) {
        let From { source, local, ecn } = from;
        self.packet.clear();
        // Until quinn finds the connection, a panic belongs to none.
        self.connections.take_accessed();
        match self.quinn.handle(now, source, local, ecn, datagram, &mut self.packet) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(client) = self.connections.get_mut(handle) {
                    client.connection.handle_event(event);
                    client.read_datagrams(now, &mut self.hub);
                }
                self.connections.touch(handle);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming, now),
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
        }
    }
}
