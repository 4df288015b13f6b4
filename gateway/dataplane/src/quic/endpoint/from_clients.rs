//! What clients send, on its way to their connections.

use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::DatagramEvent;

use super::{Endpoint, Look};
use crate::quic::counters::count;
use crate::quic::socket::From;

/// Datagrams taken before others get their turn. A batch of the kernel's may hold eight times as many.
const DATAGRAMS_PER_TURN: usize = 256;

impl Endpoint {
    pub(super) fn read_socket(&mut self, now: Instant) -> Look {
        let mut look = Look { packets: 0, more: true };
        while look.packets < DATAGRAMS_PER_TURN {
            if let Some((from, datagram)) = self.received.pop_front() {
                look.packets += 1;
                self.take_datagram(from, datagram, now);
                continue;
            }
            // They need not wait for what comes behind it.
            self.hub.wake_workers();
            if !look.more {
                return look;
            }
            match self.socket.receive(&mut self.received) {
                Some(more) => {
                    count(&self.hub.counters.reads);
                    look.more = more;
                }
                None => return Look { more: false, ..look },
            }
        }
        look.more |= !self.received.is_empty();
        look
    }

    fn take_datagram(&mut self, from: From, datagram: BytesMut, now: Instant) {
        let From { source, local, ecn } = from;
        self.packet.clear();
        match self.quinn.handle(now, source, local, ecn, datagram, &mut self.packet) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(line) = self.lines.get_mut(handle) {
                    line.connection.handle_event(event);
                    line.read_datagrams(now, &mut self.hub);
                }
                self.lines.touch(handle);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.let_in(incoming, now),
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
        }
    }
}
