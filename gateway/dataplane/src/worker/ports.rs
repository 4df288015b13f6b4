//! A session's own sockets towards nodes: what tells sessions apart on a port leg.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use evenkeel_core::NodeId;

use super::egress::{self, Port, Side};
use super::stats::Stamps;
use crate::mmsg::{self, Family};

/// Packets that one port gathers: each session keeps the room they took.
const QUEUED_MAX: usize = 8;

/// RTP, and RTCP where it has a port of its own. Packets are queued while a batch is worked on, and leave with its end.
pub struct Ports {
    rtp: Port,
    rtcp: Option<Port>,
    /// By these numbers.
    numbers: (u16, Option<u16>),
    /// The node that what is queued goes to.
    node: Option<NodeId>,
}

impl Ports {
    /// Both keep the kernel's errors with the address they accuse.
    ///
    /// # Errors
    /// What the sockets say.
    pub fn new(rtp: UdpSocket, rtcp: Option<UdpSocket>) -> io::Result<Ports> {
        let number = |socket: &UdpSocket| socket.local_addr().map(|address| address.port());
        let numbers = (number(&rtp)?, rtcp.as_ref().map(number).transpose()?);
        let port = |socket: UdpSocket| {
            socket.set_nonblocking(true)?;
            mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
            Port::new(socket)
        };
        Ok(Ports { rtp: port(rtp)?, rtcp: rtcp.map(port).transpose()?, numbers, node: None })
    }

    /// The ports of RTP, and of RTCP where that has its own.
    pub fn numbers(&self) -> (u16, Option<u16>) {
        self.numbers
    }

    pub(crate) fn fd(&self, side: Side) -> Option<BorrowedFd<'_>> {
        match side {
            Side::Rtp => Some(self.rtp.socket.as_fd()),
            Side::Rtcp => self.rtcp.as_ref().map(|port| port.socket.as_fd()),
        }
    }

    /// Queues a packet to a node; RTCP by the RTP socket where it has none of its own. Whether it is the first, and
    /// [`flush`](Self::flush) is due.
    pub(crate) fn queue(
        &mut self,
        side: Side,
        (node, to): (NodeId, SocketAddr),
        dscp: u8,
        packet: &[u8],
        (stamps, now): (&Stamps, Instant),
    ) -> bool {
        let is_first = self.node.is_none();
        if self.node.is_some_and(|before| before != node)
            || self.port(side).outbox.len() >= QUEUED_MAX
        {
            self.flush(stamps, now);
        }
        self.node = Some(node);
        self.port(side).outbox.push(Some(to), dscp, packet);
        is_first
    }

    fn port(&mut self, side: Side) -> &mut Port {
        match side {
            Side::Rtp => &mut self.rtp,
            Side::Rtcp => self.rtcp.as_mut().unwrap_or(&mut self.rtp),
        }
    }

    /// What is queued leaves. An error that accuses another address costs a packet nothing.
    pub(crate) fn flush(&mut self, stamps: &Stamps, now: Instant) {
        let Some(node) = self.node.take() else {
            return;
        };
        for port in [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten() {
            if port.outbox.is_empty() {
                continue;
            }
            let outcome = port.outbox.flush(port.socket.as_fd());
            outcome.failed.iter().for_each(|error| stamps.dropped(egress::reason(error)));
            if outcome.sent > 0 {
                stamps.sent(node, now);
            }
        }
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("rtp", &self.rtp.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_together_at_the_end_of_a_pass_and_in_order() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (first, second) = (bind(), bind());
        let addresses = [&first, &second].map(|socket| socket.local_addr().unwrap());
        for socket in [&first, &second] {
            socket.set_nonblocking(true).unwrap();
        }
        let now = Instant::now();
        let stamps = Stamps::new(now, 2);
        let mut ports = Ports::new(bind(), None).unwrap();
        let queue = |ports: &mut Ports, node: u32, byte| {
            let to = (NodeId(node), addresses[node as usize]);
            ports.queue(Side::Rtp, to, 0, &[byte], (&stamps, now))
        };
        let came = |socket: &UdpSocket| {
            let mut bytes = [0; 8];
            std::iter::from_fn(|| socket.recv(&mut bytes).ok().map(|_| bytes[0]))
                .collect::<Vec<_>>()
        };
        assert!(queue(&mut ports, 0, 1));
        assert!(!queue(&mut ports, 0, 2), "it is on its way to be flushed");
        assert_eq!(came(&first), [0; 0]);
        assert!(!queue(&mut ports, 1, 3), "and stays so, but another node's do not wait for it");
        assert_eq!(came(&first), [1, 2]);
        ports.flush(&stamps, now);
        assert_eq!(came(&second), [3]);
        assert!(queue(&mut ports, 1, 4), "the next pass");
    }
}
