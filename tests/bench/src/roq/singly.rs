//! Datagrams on their way out, each by a call of its own: clients and nodes do not travel together.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;

#[derive(Default)]
pub(super) struct Singly {
    bytes: Vec<u8>,
    queue: Vec<(SocketAddr, Range<usize>)>,
}

impl Singly {
    pub(super) fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.queue.push((to, start..self.bytes.len()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the system has no room for is lost, and found missing.
    pub(super) fn flush(&mut self, socket: &UdpSocket) {
        for (to, range) in self.queue.drain(..) {
            let _ = socket.send_to(&self.bytes[range], to);
        }
        self.bytes.clear();
    }
}
