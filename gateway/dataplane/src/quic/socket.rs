//! The endpoint's socket: batches, ECN, local addresses, and segmentation by the kernel.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};

use crate::{buffers, freebind};

/// Socket buffer in bytes, which the kernel doubles for its overhead: 50 ms of 50,000 voice packets a second.
const BUFFER: usize = 1_024 * 1_024;
/// Longest UDP payload received: that of an Ethernet frame. Clients learn it by `max_udp_payload_size` (RFC 9000,
/// 18.2).
pub(super) const DATAGRAM_MAX: usize = 1_472;
/// Datagrams of one size to one client per system call.
pub(super) const SEGMENTS_MAX: usize = 10;

/// Source and metadata of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct From {
    pub(super) source: SocketAddr,
    pub(super) local: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
}

pub(super) struct QuicSocket {
    pub(super) socket: UdpSocket,
    pub(super) state: UdpSocketState,
    bytes: Box<[u8]>,
}

impl QuicSocket {
    pub(super) fn listen(address: SocketAddr, moves: bool) -> io::Result<QuicSocket> {
        let domain = socket2::Domain::for_address(address);
        let socket =
            socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        if moves {
            freebind::allow(&socket, address)?;
        }
        buffers::set_sizes(&socket, BUFFER);
        socket.bind(&address.into())?;
        QuicSocket::on(socket.into())
    }

    /// Uses a bound socket.
    pub(super) fn on(socket: UdpSocket) -> io::Result<QuicSocket> {
        // This makes the socket non-blocking, enables ECN and local addresses, and sets the don't-fragment bit.
        let state = UdpSocketState::new((&socket).into())?;
        let bytes = vec![0; BATCH_SIZE * DATAGRAM_MAX * state.gro_segments()].into();
        Ok(QuicSocket { socket, state, bytes })
    }

    /// Reads at most one batch. Returns whether more may be waiting; `None` if nothing has arrived.
    pub(super) fn receive(&mut self, received: &mut VecDeque<(From, BytesMut)>) -> Option<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let room = self.bytes.len() / BATCH_SIZE;
        let mut rows = self.bytes.chunks_exact_mut(room).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| rows.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        // An error belongs to an earlier send; the kernel returns it once.
        let count = self.state.recv((&self.socket).into(), &mut slices, &mut metas).ok()?;
        for (meta, bytes) in metas.iter().zip(&slices).take(count) {
            let from = From {
                source: meta.addr,
                local: meta.dst_ip,
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            };
            for datagram in bytes[..meta.len].chunks(meta.stride.max(1)) {
                // Copied: quinn keeps out-of-order data, and a single kept byte would keep the memory of the whole
                // batch, which quinn does not count for the client.
                received.push_back((from, BytesMut::from(datagram)));
            }
        }
        Some(count == BATCH_SIZE)
    }

    /// Sends a packet. Returns `false` if the buffer is full. Another error counts as loss: quinn retransmits, and learns
    /// the path's MTU from it.
    pub(super) fn send(&self, transmit: &quinn_proto::Transmit, bytes: &[u8]) -> bool {
        let transmit = Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let sent = self.state.send((&self.socket).into(), &transmit);
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsFd for QuicSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
