//! Receiving in batches, socket addresses as the kernel reads and writes them, and the error queue of a UDP socket.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fmt, io, mem};

use super::{BATCH, DATAGRAM_MAX};

/// Reused buffers for received datagrams.
pub struct ReceiveBatch {
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    slices: Vec<libc::iovec>,
    /// The headers' pointers are written before each call.
    headers: Vec<libc::mmsghdr>,
    /// Datagrams of the last [`fill`](Self::fill) that are not marked [`done`](Self::done).
    left: Range<usize>,
}

// SAFETY: the pointers in headers and slices are not followed between two calls.
unsafe impl Send for ReceiveBatch {}

impl Default for ReceiveBatch {
    fn default() -> ReceiveBatch {
        ReceiveBatch::new()
    }
}

impl fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl ReceiveBatch {
    /// Allocates buffers for one batch.
    pub fn new() -> ReceiveBatch {
        // SAFETY: all zeroes is valid for each of these plain C structures: no address, no buffers.
        let (name, slice, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        ReceiveBatch {
            bytes: vec![0; BATCH * DATAGRAM_MAX],
            names: vec![name; BATCH],
            slices: vec![slice; BATCH],
            headers: vec![header; BATCH],
            left: 0..0,
        }
    }

    /// Receives at most [`BATCH`] datagrams without waiting and returns their number.
    ///
    /// # Errors
    /// Returns the socket's error; `WouldBlock` if nothing has arrived.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive_at_most(BATCH, socket)
    }

    /// Like [`receive`](ReceiveBatch::receive), but keeps each datagram until it is marked [`done`](ReceiveBatch::done). Receives
    /// nothing while datagrams remain. Returns the number that remains.
    ///
    /// # Errors
    /// Same as [`receive`](ReceiveBatch::receive).
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.left.is_empty() {
            self.left = 0..self.receive(socket)?;
        }
        Ok(self.left.len())
    }

    /// Returns the position of the first remaining datagram.
    pub fn first(&self) -> Option<usize> {
        (!self.left.is_empty()).then_some(self.left.start)
    }

    /// Marks the first remaining datagram as done.
    pub fn done(&mut self) {
        self.left.start += 1;
    }

    /// Like [`receive`](ReceiveBatch::receive), but receives at most `most` datagrams. A small `most` saves the preparation of
    /// headers where one or two datagrams are expected.
    ///
    /// # Errors
    /// Same as [`receive`](ReceiveBatch::receive).
    pub fn receive_at_most(&mut self, most: usize, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let headers = &mut self.headers[..most.min(BATCH)];
        let rows = self.bytes.chunks_exact_mut(DATAGRAM_MAX).zip(&mut self.names);
        for ((header, slice), (bytes, name)) in headers.iter_mut().zip(&mut self.slices).zip(rows) {
            slice.iov_base = bytes.as_mut_ptr().cast();
            slice.iov_len = bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = slice;
            header.msg_iovlen = 1;
            header.msg_name = std::ptr::from_mut(name).cast();
            // The previous call wrote the length of a received address here.
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        }
        // SAFETY: every header points to one slice and one name, which live until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Returns bytes and source of a datagram of the last batch. `None` if it was truncated or its address family is
    /// unknown.
    pub fn datagram(&mut self, place: usize) -> Option<(&mut [u8], SocketAddr)> {
        let header = &self.headers[place];
        let (length, cut) =
            (header.msg_len as usize, header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0);
        let source = address(&self.names[place])?;
        let start = place * DATAGRAM_MAX;
        (!cut).then(|| (&mut self.bytes[start..start + length], source))
    }
}

/// The address family of a socket. An IPv6 socket reaches IPv4 addresses as mapped ones (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 as mapped addresses.
    V6,
}

impl Family {
    /// Returns the family of a socket bound to this address.
    pub fn of(local: SocketAddr) -> Family {
        if local.is_ipv6() { Family::V6 } else { Family::V4 }
    }
}

pub(super) fn mapped(to: SocketAddr, family: Family) -> SocketAddr {
    match (to, family) {
        (SocketAddr::V4(v4), Family::V6) => {
            SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
        }
        (to, _) => to,
    }
}

pub(super) fn write_address(address: SocketAddr, name: &mut libc::sockaddr_storage) -> u32 {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large and aligned enough for every kind of address.
            unsafe { std::ptr::write(std::ptr::from_mut(name).cast(), raw) };
            size_of::<libc::sockaddr_in>() as u32
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { std::ptr::write(std::ptr::from_mut(name).cast(), raw) };
            size_of::<libc::sockaddr_in6>() as u32
        }
    }
}

/// Converts an address from the kernel. A mapped address becomes IPv4.
pub(super) fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in.
            let raw: libc::sockaddr_in = unsafe { std::ptr::read(std::ptr::from_ref(name).cast()) };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let raw: libc::sockaddr_in6 =
                unsafe { std::ptr::read(std::ptr::from_ref(name).cast()) };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
                None => SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    port,
                    raw.sin6_flowinfo,
                    raw.sin6_scope_id,
                )),
            })
        }
        _ => None,
    }
}

/// Bytes kept of a datagram that ICMP quotes: a whole probe, and the header of any other datagram. Linux quotes 548
/// bytes (RFC 1812, 4.3.2.3); some hosts quote none (RFC 792 requires only the UDP header).
const QUOTED_MAX: usize = 128;

/// Passes the ICMP errors of sent datagrams to `each`: port unreachable, too large, no route (ip(7), IP_RECVERR). The
/// arguments are the destination, the error, and the start of the datagram as ICMP quotes it. Any host can forge ICMP,
/// but only one that saw the datagram can quote it. Local errors are skipped; the send call has returned them. Handles
/// at most [`BATCH`] errors per call.
pub fn drain_errors(socket: BorrowedFd<'_>, mut each: impl FnMut(SocketAddr, io::Error, &[u8])) {
    for _ in 0..BATCH {
        // SAFETY: all zeroes is valid for each of these plain C structures.
        let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut control = [0_u64; 16];
        let mut quoted = [0_u8; QUOTED_MAX];
        let mut slice = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: QUOTED_MAX };
        // SAFETY: as above.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = std::ptr::from_mut(&mut name).cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        header.msg_iov = &mut slice;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: the header points to buffers that live until the call returns.
        let received = unsafe {
            libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
        };
        let Ok(received) = usize::try_from(received) else {
            return;
        };
        if let (Some(accused), Some(error)) = (address(&name), extended_error(&header)) {
            each(accused, error, &quoted[..received.min(QUOTED_MAX)]);
        }
    }
}

/// Returns the error of an `IP_RECVERR` or `IPV6_RECVERR` control message if it came by ICMP.
fn extended_error(header: &libc::msghdr) -> Option<io::Error> {
    // SAFETY: the kernel filled the control buffer that the header points to; CMSG_* stay within its length.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let kind = ((*control).cmsg_level, (*control).cmsg_type);
            if kind == (libc::SOL_IP, libc::IP_RECVERR)
                || kind == (libc::SOL_IPV6, libc::IPV6_RECVERR)
            {
                let error: libc::sock_extended_err =
                    std::ptr::read_unaligned(libc::CMSG_DATA(control).cast());
                let told = error.ee_origin != libc::SO_EE_ORIGIN_LOCAL;
                let errno = i32::try_from(error.ee_errno).ok().filter(|_| told);
                return errno.map(io::Error::from_raw_os_error);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

/// Enables the error queue of a socket (ip(7), IP_RECVERR). Its owner has to drain it: queued errors use the memory of
/// received datagrams.
///
/// # Errors
/// Returns the error of `setsockopt`.
pub fn keep_errors(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    keep(socket, libc::SOL_IP, libc::IP_RECVERR)?;
    match family {
        Family::V4 => Ok(()),
        Family::V6 => keep(socket, libc::SOL_IPV6, libc::IPV6_RECVERR),
    }
}

fn keep(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, and gets one of its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
