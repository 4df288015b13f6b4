//! Batches of datagrams in one system call, each with its source and the kernel's receive time.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};
use nix::sys::time::TimeSpec;

/// Datagrams per system call: a burst of a hundred sessions takes two.
const BATCH: usize = 64;

/// A datagram of the last batch.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload; empty if the datagram was larger than the buffer.
    pub bytes: &'a [u8],
    /// The sender's address.
    pub source: SocketAddr,
    /// Receive time of the kernel, nanoseconds since the Unix epoch; `None` without [`stamp_arrivals`].
    pub(crate) stamp_ns: Option<u64>,
}

struct DatagramMeta {
    length: usize,
    source: SocketAddr,
    stamp_ns: Option<u64>,
    truncated: bool,
}

/// Enables kernel receive timestamps (SO_TIMESTAMPNS).
pub(crate) fn stamp_arrivals(socket: &UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true).map_err(io::Error::from)
}

/// The local address of a socket towards this one: any, and a free port.
pub(crate) fn any_of(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Reusable buffers for one batch of datagrams.
pub struct DatagramInbox {
    bytes: Vec<u8>,
    size: usize,
    received: Vec<DatagramMeta>,
}

impl DatagramInbox {
    /// Creates buffers for `count` datagrams of at most `size` bytes each.
    pub fn new(size: usize, count: usize) -> Self {
        Self { bytes: vec![0; size * count], size, received: Vec::with_capacity(count) }
    }

    /// Reads the queued datagrams, at most one batch. A blocking socket waits for the first one up to the read timeout.
    ///
    /// Returns the number of datagrams; 0 after a timeout or a signal.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.received.clear();
        let Self { bytes, size, received } = self;
        // Rebuilt for each call: the kernel overwrites the lengths in the headers, which would be too short for the
        // next socket of another family.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(
            bytes.len() / *size,
            Some(nix::cmsg_space!(TimeSpec)),
        );
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            bytes.chunks_exact_mut(*size).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let results = match recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        ) {
            Ok(results) => results,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        };
        for message in results {
            let stamp_ns = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|control| match control {
                    ControlMessageOwned::ScmTimestampns(time) => Some(stamp_of(time)),
                    _ => None,
                })
            });
            let Some(source) = message.address.as_ref().and_then(std_address) else { continue };
            let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
            received.push(DatagramMeta { length: message.bytes, source, stamp_ns, truncated });
        }
        Ok(self.received.len())
    }

    /// The datagrams of the last [`receive`](Self::receive), in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.received.iter().zip(self.bytes.chunks_exact(self.size)).map(|(meta, chunk)| Datagram {
            bytes: if meta.truncated { &[] } else { &chunk[..meta.length.min(chunk.len())] },
            source: meta.source,
            stamp_ns: meta.stamp_ns,
        })
    }
}

/// A queue of datagrams that are sent together.
pub(crate) struct DatagramOutbox {
    bytes: Vec<u8>,
    waiting: Vec<(Range<usize>, SocketAddr)>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Default for DatagramOutbox {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            waiting: Vec::new(),
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }
}

impl DatagramOutbox {
    pub(crate) fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.waiting.push((start..self.bytes.len(), to));
    }

    /// Sends all queued datagrams in order. Datagrams that the kernel refuses are skipped.
    ///
    /// Returns the number of sent datagrams.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) -> usize {
        let (mut next, mut sent) = (0, 0);
        while next < self.waiting.len() {
            let batch = &self.waiting[next..self.waiting.len().min(next + BATCH)];
            let slices: Vec<[IoSlice<'_>; 1]> =
                batch.iter().map(|(range, _)| [IoSlice::new(&self.bytes[range.clone()])]).collect();
            let addresses: Vec<Option<SockaddrStorage>> =
                batch.iter().map(|(_, to)| Some(SockaddrStorage::from(*to))).collect();
            let outcome = sendmmsg(
                socket.as_raw_fd(),
                &mut self.headers,
                slices.iter(),
                &addresses,
                [],
                MsgFlags::MSG_NOSIGNAL,
            );
            match outcome.map(Iterator::count) {
                Ok(count) => {
                    sent += count;
                    next += count.max(1);
                }
                Err(Errno::EINTR) => {}
                Err(_) => next += 1,
            }
        }
        self.waiting.clear();
        self.bytes.clear();
        sent
    }
}

fn stamp_of(time: TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into())
}

#[cfg(test)]
mod tests;
