//! Sockets with queues: those of a listener, and a session's own towards nodes. Nodes with port legs distinguish sessions
//! by port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use evenkeel_model::NodeId;
use evenkeel_model::forward::DropReason;

use super::stats::WorkerStats;
use crate::lease::Permit;
use crate::mmsg::{self, Family, SendBatch};

/// Limit of packets queued per port. Small, because each session holds the memory.
const QUEUED_MAX: usize = 8;

/// The socket of a listener or port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RtpSide {
    Rtp,
    Rtcp,
}

/// A listener's socket and its queue.
pub(crate) struct ListenerPort {
    pub(crate) socket: UdpSocket,
    pub(crate) outbox: SendBatch,
}

impl ListenerPort {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<ListenerPort> {
        let outbox = SendBatch::new(Family::of(socket.local_addr()?));
        Ok(ListenerPort { socket, outbox })
    }

    /// Sends everything in the queue, as far as the lease lasts.
    pub(super) fn flush(&mut self, stats: &WorkerStats, permit: &Permit) {
        if !self.outbox.is_empty() && permit.may_send() {
            for error in self.outbox.flush(self.socket.as_fd()).failed {
                stats.dropped(reason(&error));
            }
        }
    }
}

pub(crate) fn reason(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::BufferFull,
        // `io::ErrorKind` has no kind for EMSGSIZE.
        _ if error.raw_os_error() == Some(libc::EMSGSIZE) => DropReason::Oversize,
        _ => DropReason::SendFailed,
    }
}

/// A session's RTP socket, and an RTCP socket if RTCP has a separate port. Packets are queued during a pass and sent at
/// its end.
pub struct SessionPorts {
    rtp: ListenerPort,
    rtcp: Option<ListenerPort>,
    numbers: (u16, Option<u16>),
    /// The destination of the queued packets.
    node: Option<NodeId>,
}

impl SessionPorts {
    /// Enables the error queue of both sockets.
    ///
    /// # Errors
    /// Returns the error of a socket.
    pub fn new(rtp: UdpSocket, rtcp: Option<UdpSocket>) -> io::Result<SessionPorts> {
        let number = |socket: &UdpSocket| socket.local_addr().map(|address| address.port());
        let numbers = (number(&rtp)?, rtcp.as_ref().map(number).transpose()?);
        let port = |socket: UdpSocket| {
            socket.set_nonblocking(true)?;
            mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
            ListenerPort::new(socket)
        };
        Ok(SessionPorts { rtp: port(rtp)?, rtcp: rtcp.map(port).transpose()?, numbers, node: None })
    }

    /// Local ports of RTP, and of RTCP if it has a separate socket.
    pub fn numbers(&self) -> (u16, Option<u16>) {
        self.numbers
    }

    /// The number of sockets.
    pub(crate) fn sockets(&self) -> u8 {
        1 + u8::from(self.rtcp.is_some())
    }

    pub(crate) fn fd(&self, side: RtpSide) -> Option<BorrowedFd<'_>> {
        match side {
            RtpSide::Rtp => Some(self.rtp.socket.as_fd()),
            RtpSide::Rtcp => self.rtcp.as_ref().map(|port| port.socket.as_fd()),
        }
    }

    /// Duplicates the sockets.
    pub(crate) fn try_clone(&self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let rtcp = self.rtcp.as_ref().map(|port| port.socket.try_clone()).transpose()?;
        Ok((self.rtp.socket.try_clone()?.into(), rtcp.map(OwnedFd::from)))
    }

    /// Queues a packet to a node, after `flush` if earlier ones must be sent first. RTCP uses the RTP socket unless it has
    /// a separate one. Returns whether this is the first queued packet, so that a [`flush`](Self::flush) is required.
    pub(super) fn queue(
        &mut self,
        side: RtpSide,
        (node, to): (NodeId, SocketAddr),
        dscp: u8,
        packet: &[u8],
        flush: impl FnOnce(&mut SessionPorts),
    ) -> bool {
        let is_first = self.node.is_none();
        let is_due = self.node.is_some_and(|before| before != node)
            || self.port(side).outbox.len() >= QUEUED_MAX;
        if is_due {
            flush(self);
        }
        self.node = Some(node);
        self.port(side).outbox.push(Some(to), dscp, packet);
        is_first
    }

    fn port(&mut self, side: RtpSide) -> &mut ListenerPort {
        match side {
            RtpSide::Rtp => &mut self.rtp,
            RtpSide::Rtcp => self.rtcp.as_mut().unwrap_or(&mut self.rtp),
        }
    }

    /// Drops the queued packets and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        self.node = None;
        let ports = [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten();
        ports.map(|port| port.outbox.clear()).sum()
    }

    /// Sends the queued packets. An error of an earlier destination drops no packet.
    pub(crate) fn flush(&mut self, stats: &WorkerStats, now: Instant) {
        let Some(node) = self.node.take() else {
            return;
        };
        for port in [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten() {
            if port.outbox.is_empty() {
                continue;
            }
            let outcome = port.outbox.flush(port.socket.as_fd());
            outcome.failed.iter().for_each(|error| stats.dropped(reason(error)));
            if outcome.sent > 0 {
                stats.sent(node, now);
            }
        }
    }
}

impl std::fmt::Debug for SessionPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionPorts").field("rtp", &self.rtp.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
