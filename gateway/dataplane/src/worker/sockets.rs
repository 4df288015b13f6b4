//! Sockets of a worker with their queues: those of listeners, and a session's own ports towards nodes. Nodes with port legs
//! distinguish sessions by port. Clients' datagrams with their source, as workers pass them to each other.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use evenkeel_model::{DropReason, NodeId};
use serde::{Deserialize, Serialize};

use super::report::WorkerStats;
use crate::address;
use crate::flows::FlowKey;
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
#[derive(Debug)]
pub(crate) struct ListenerPort {
    pub(crate) socket: UdpSocket,
    pub(crate) outbox: SendBatch,
    /// True if the socket tells which address of the host a datagram was sent to.
    pub(super) reports_local: bool,
}

impl ListenerPort {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<ListenerPort> {
        let outbox = SendBatch::new(Family::of(socket.local_addr()?));
        Ok(ListenerPort { socket, outbox, reports_local: false })
    }

    /// Uses the socket of a listener. If it is bound to all addresses of the host, answers leave from the address that the client
    /// sends to.
    pub(super) fn listen(socket: UdpSocket) -> io::Result<ListenerPort> {
        let bound = socket.local_addr()?;
        let mut port = ListenerPort::new(socket)?;
        if bound.ip().is_unspecified() {
            let enabled = mmsg::report_local_addresses(port.socket.as_fd(), Family::of(bound));
            port.reports_local = enabled.is_ok();
            if let Err(error) = enabled {
                tracing::warn!(
                    listen = %bound, %error,
                    "kernel does not report local addresses; answers leave from the route's address: listen on one address"
                );
            }
        }
        Ok(port)
    }

    /// Sends everything in the queue.
    pub(super) fn flush(&mut self, stats: &WorkerStats) {
        let outcome = self.outbox.flush(self.socket.as_fd());
        outcome.failed.iter().for_each(|error| stats.dropped(reason(error)));
        if outcome.from_route > 0 {
            stats.sent_from_route(outcome.from_route);
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
#[derive(Debug)]
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
        node: NodeId,
        to: SocketAddr,
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
        let Some(node) = self.node.take() else { return };
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

/// The source of a client's datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
pub(crate) struct SourceKey {
    pub(crate) listener: u8,
    #[serde(with = "address")]
    pub(crate) address: SocketAddr,
}

impl SourceKey {
    /// Returns the source's key in the flow table.
    pub(crate) fn key(self) -> FlowKey {
        FlowKey::Udp { listener: self.listener, address: self.address }
    }

    /// The path from this source to a listener with one address.
    #[cfg(test)]
    pub(crate) fn path(self) -> ClientPath {
        ClientPath { source: self, local: None }
    }
}

/// A client's address, and the gateway's address that the client sends to: the two ends of a candidate pair (RFC 8445, 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientPath {
    pub(crate) source: SourceKey,
    /// Of the same family. `None` if the listener has one address, or if it is unknown: the route then determines it.
    pub(crate) local: Option<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientArrival {
    pub(crate) source: SourceKey,
    /// The local address of its [`ClientPath`].
    pub(crate) local: Option<IpAddr>,
    pub(crate) kind: ArrivalKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ArrivalKind {
    Rtp,
    Rtcp,
    /// Records of DTLS.
    Dtls,
    /// A connectivity check with verified integrity.
    Check,
    /// A verified connectivity check with USE-CANDIDATE.
    Nomination,
    /// A response to a check of the gateway.
    CheckAnswer,
    /// Carries no datagram: a check proved that the source belongs to another session now.
    AddressTaken,
}

impl ArrivalKind {
    const ALL: [Self; 7] = [
        Self::Rtp,
        Self::Rtcp,
        Self::Dtls,
        Self::Check,
        Self::Nomination,
        Self::CheckAnswer,
        Self::AddressTaken,
    ];
}

/// Bytes in front of the datagram: kind, listener, address, port, local address.
const HEADER: usize = 1 + 1 + 16 + 2 + 16;

impl ClientArrival {
    pub(crate) fn path(&self) -> ClientPath {
        ClientPath { source: self.source, local: self.local }
    }

    /// Writes header and datagram for a ring between workers.
    pub(crate) fn write(&self, datagram: &[u8], out: &mut Vec<u8>) {
        let SourceKey { listener, address } = self.source;
        out.clear();
        out.extend_from_slice(&[self.kind as u8, listener]);
        out.extend_from_slice(&address::as_v6(address.ip()).octets());
        out.extend_from_slice(&address.port().to_be_bytes());
        let local = self.local.map_or(Ipv6Addr::UNSPECIFIED, address::as_v6);
        out.extend_from_slice(&local.octets());
        out.extend_from_slice(datagram);
    }

    /// Splits header and datagram. Returns `None` for bytes that [`write`](ClientArrival::write) cannot have written.
    pub(crate) fn read(bytes: &[u8]) -> Option<(ClientArrival, &[u8])> {
        let (header, datagram) = bytes.split_at_checked(HEADER)?;
        let kind = *ArrivalKind::ALL.get(usize::from(header[0]))?;
        // The kernel's mapped addresses were read as IPv4.
        let ip = |bytes: &[u8]| Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical());
        let local = ip(&header[20..])?;
        let local = (!local.is_unspecified()).then_some(local);
        let port = u16::from_be_bytes([header[18], header[19]]);
        let source =
            SourceKey { listener: header[1], address: SocketAddr::new(ip(&header[2..])?, port) };
        Some((ClientArrival { source, local, kind }, datagram))
    }
}

#[cfg(test)]
mod tests;
