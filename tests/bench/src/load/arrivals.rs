//! Received IPv4 datagrams in batches, each with the kernel's time stamp, in reused memory.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;

/// Longer than any packet of a load.
const DATAGRAM_MAX: usize = 2_048;
/// Large enough that packets are lost in the relay only.
const BUFFER: usize = 32 << 20;

#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) source: SocketAddrV4,
    /// The kernel's receive time, nanoseconds since the Unix epoch.
    pub(super) stamp_ns: u64,
}

/// Buffers for a batch.
pub(super) struct Arrivals {
    bytes: Vec<u8>,
    /// The kernel overwrites the lengths, with the same values each time: a stamp and an IPv4 address.
    headers: MultiHeaders<SockaddrIn>,
    batch: usize,
}

impl Arrivals {
    pub(super) fn new(batch: usize) -> Arrivals {
        Arrivals { bytes: vec![0; DATAGRAM_MAX * batch], headers: headers(batch), batch }
    }

    /// Passes on received packets, at most a batch, and returns their number; 0 without packets or after an ICMP error.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        mut take: impl FnMut(Arrival<'_>),
    ) -> io::Result<usize> {
        let Arrivals { bytes, headers, batch } = self;
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            bytes.chunks_exact_mut(DATAGRAM_MAX).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let received =
            recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        let messages = match received {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        };
        let (mut count, mut is_whole) = (0, true);
        for message in messages {
            count += 1;
            let stamp = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|control| match control {
                    ControlMessageOwned::ScmTimestampns(time) => Some(nanoseconds(time)),
                    _ => None,
                })
            });
            let (Some(stamp_ns), Some(source)) = (stamp, message.address) else {
                is_whole = false;
                continue;
            };
            let source = SocketAddrV4::new(source.ip(), source.port());
            let bytes = message.iovs().next().unwrap_or_default();
            take(Arrival { bytes, source, stamp_ns });
        }
        if !is_whole {
            self.headers = self::headers(*batch);
        }
        Ok(count)
    }
}

fn headers(batch: usize) -> MultiHeaders<SockaddrIn> {
    MultiHeaders::preallocate(batch, Some(nix::cmsg_space!(TimeSpec)))
}

fn nanoseconds(time: TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// A non-blocking socket with receive stamps and a large buffer.
pub(super) fn socket(at: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_lab::clock;

    #[test]
    fn batches_keep_bytes_source_and_stamp() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&sink, sockopt::ReceiveTimestampns, &true).unwrap();
        let to = sink.local_addr().unwrap();
        let mut arrivals = Arrivals::new(4);
        for round in 0..3_u8 {
            let before = clock::now_ns();
            for number in 0..6 {
                sender.send_to(&vec![round; number + 1], to).unwrap();
            }
            let mut lengths = Vec::new();
            while arrivals
                .receive(&sink, |arrival| {
                    assert_eq!(arrival.source, sender.local_addr().map(v4).unwrap());
                    assert!(arrival.stamp_ns >= before);
                    assert!(arrival.bytes.iter().all(|byte| *byte == round));
                    lengths.push(arrival.bytes.len());
                })
                .unwrap()
                > 0
            {}
            assert_eq!(lengths, [1, 2, 3, 4, 5, 6]);
        }
    }

    fn v4(address: std::net::SocketAddr) -> SocketAddrV4 {
        let std::net::SocketAddr::V4(v4) = address else { panic!() };
        v4
    }
}
