//! Outgoing datagrams, one system call each, since clients and nodes do not share bundles.

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

    /// Datagrams that the system refuses are lost and counted as missing.
    pub(super) fn flush(&mut self, socket: &UdpSocket) {
        for (to, range) in self.queue.drain(..) {
            let _ = socket.send_to(&self.bytes[range], to);
        }
        self.bytes.clear();
    }
}
