//! Datagrams in batches: `recvmmsg`, `sendmmsg` and the error queue of a UDP socket.
//!
//! What the packet workers are made of, and the bench's bare relays too, so that a comparison compares the rest.
//!
//! The one module of this crate with `unsafe`: no safe wrapper sends or receives batches without allocating.
#![expect(
    unsafe_code,
    reason = "the kernel's batch calls take pointers to pointers, which no library wraps without allocating"
)]

use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams per system call: past this the call itself no longer shows.
pub const BATCH: usize = 64;

/// Longest datagram taken; a longer one is cut and told as such.
pub const DATAGRAM_MAX: usize = 2_048;

/// Room for one control message with an `int` in it, aligned.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 32]);

/// Where datagrams are received, again and again.
pub struct Inbox {
    bytes: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    lengths: [(usize, bool); BATCH],
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox::new()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    /// Room for one batch.
    pub fn new() -> Inbox {
        // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
        let nobody: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Inbox {
            bytes: vec![0; BATCH * DATAGRAM_MAX].into(),
            names: vec![nobody; BATCH].into(),
            lengths: [(0, false); BATCH],
        }
    }

    /// Takes what has arrived, at most [`BATCH`], without waiting. How many.
    ///
    /// # Errors
    /// What the socket says; `WouldBlock` where nothing has arrived.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: all zeroes is a valid mmsghdr and iovec: no name, no buffers.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut slices: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
        let rows = self.bytes.chunks_exact_mut(DATAGRAM_MAX).zip(self.names.iter_mut());
        for ((header, slice), (bytes, name)) in headers.iter_mut().zip(&mut slices).zip(rows) {
            slice.iov_base = bytes.as_mut_ptr().cast();
            slice.iov_len = bytes.len();
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        }
        // SAFETY: every header points to one slice, one name and lengths that live until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers[..received]) {
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *length = (header.msg_len as usize, cut);
        }
        Ok(received)
    }

    /// A datagram of the last batch: its bytes, and where it came from. `None` if it was cut or its sender's
    /// address is of no known kind.
    pub fn datagram(&mut self, place: usize) -> Option<(&mut [u8], SocketAddr)> {
        let (length, cut) = self.lengths[place];
        let source = address(&self.names[place])?;
        let start = place * DATAGRAM_MAX;
        (!cut).then(|| (&mut self.bytes[start..start + length], source))
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

/// Datagrams on their way out of one socket.
pub struct Outbox {
    bytes: Vec<u8>,
    queue: Vec<Queued>,
    family: Family,
}

/// What kind of socket a batch leaves by: an IPv6 one reaches IPv4 addresses as mapped ones (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// It reaches IPv4 addresses.
    V4,
    /// It reaches IPv6 addresses, and IPv4 ones as mapped.
    V6,
}

impl Family {
    /// Of a socket with this local address.
    pub fn of(local: SocketAddr) -> Family {
        if local.is_ipv6() { Family::V6 } else { Family::V4 }
    }
}

struct Queued {
    bytes: Range<usize>,
    /// `None` on a connected socket.
    to: Option<SocketAddr>,
    dscp: u8,
}

/// What a header of a batch points to.
struct Envelope {
    slice: libc::iovec,
    name: libc::sockaddr_storage,
    control: Control,
}

/// How sending a batch went.
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Why datagrams were given up: the socket's buffer was full, or this one could not go.
    pub failed: Vec<io::Error>,
    /// What the kernel told, at these, of datagrams that it took before.
    pub earlier: Vec<io::Error>,
}

impl Outbox {
    /// An empty one.
    pub fn new(family: Family) -> Outbox {
        Outbox { bytes: Vec::new(), queue: Vec::new(), family }
    }

    /// Whether a whole batch waits.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= BATCH
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Queues a datagram and hands out its bytes, to be changed in place.
    pub fn push(&mut self, to: Option<SocketAddr>, dscp: u8, datagram: &[u8]) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.queue.push(Queued { bytes: start..self.bytes.len(), to, dscp });
        &mut self.bytes[start..]
    }

    /// Sends everything that is queued, each datagram once. An error of an earlier datagram, which the kernel tells
    /// at the next call, costs nobody else's: the rest of the batch is sent again once.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> Sent {
        let mut outcome = Sent::default();
        let mut next = 0;
        let mut told = None;
        while next < self.queue.len() {
            match self.send(socket, next) {
                Ok(sent) => {
                    next += sent;
                    outcome.sent += sent;
                    outcome.earlier.extend(told.take());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock && told.is_none() => {
                    told = Some(error);
                }
                Err(error) => {
                    outcome.failed.push(error);
                    told = None;
                    next += 1;
                }
            }
        }
        self.bytes.clear();
        self.queue.clear();
        outcome
    }

    fn send(&self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let batch = &self.queue[from..self.queue.len().min(from + BATCH)];
        // Only what is used is written: most batches are of a packet or two, and these are 15 KiB.
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let mut envelopes = [const { MaybeUninit::<Envelope>::uninit() }; BATCH];
        for ((queued, header), envelope) in batch.iter().zip(&mut headers).zip(&mut envelopes) {
            let bytes = &self.bytes[queued.bytes.clone()];
            // SAFETY: all zeroes is valid for these plain C structures.
            let (header, envelope) =
                unsafe { (header.write(mem::zeroed()), envelope.write(mem::zeroed())) };
            envelope.slice.iov_base = bytes.as_ptr().cast_mut().cast();
            envelope.slice.iov_len = bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = &mut envelope.slice;
            header.msg_iovlen = 1;
            if let Some(to) = queued.to {
                header.msg_namelen = write_address(mapped(to, self.family), &mut envelope.name);
                header.msg_name = std::ptr::from_mut(&mut envelope.name).cast();
                if queued.dscp != 0 {
                    header.msg_controllen = write_dscp(to, queued.dscp, &mut envelope.control);
                    header.msg_control = envelope.control.0.as_mut_ptr().cast();
                }
            }
        }
        // SAFETY: as many headers as the batch is long were written, and each points to a slice, a name and a control
        // message that live until the call returns; the kernel writes their lengths and nothing else.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                batch.len() as u32,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// What the path said of datagrams sent, by destination: nobody listens there, too large for the way, no way there
/// (ip(7), IP_RECVERR). What this host itself said, the call that sent it has told. At most [`BATCH`] a call.
pub fn drain_errors(socket: BorrowedFd<'_>, mut tell: impl FnMut(SocketAddr, io::Error)) {
    for _ in 0..BATCH {
        // SAFETY: all zeroes is valid for each of these plain C structures.
        let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut control = [Control([0; 32]); 4];
        let mut byte = 0_u8;
        let mut slice = libc::iovec { iov_base: std::ptr::from_mut(&mut byte).cast(), iov_len: 1 };
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
        if received < 0 {
            return;
        }
        if let (Some(accused), Some(error)) = (address(&name), extended_error(&header)) {
            tell(accused, error);
        }
    }
}

/// What an `IP_RECVERR` or `IPV6_RECVERR` control message says, if it came by ICMP.
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

/// Has the kernel keep errors of an unconnected socket with the address they accuse (ip(7), IP_RECVERR).
///
/// # Errors
/// What `setsockopt` says.
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

/// Writes the traffic class (DSCP in its upper six bits, RFC 2474) as a control message; its length.
fn write_dscp(to: SocketAddr, dscp: u8, control: &mut Control) -> usize {
    // IPv4-mapped destinations of an IPv6 socket take the IPv4 option.
    let v4 = match to {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_some(),
    };
    let (level, kind) =
        if v4 { (libc::SOL_IP, libc::IP_TOS) } else { (libc::SOL_IPV6, libc::IPV6_TCLASS) };
    let class = libc::c_int::from(dscp << 2);
    let space = size_of::<libc::c_int>() as u32;
    // SAFETY: CMSG_SPACE of an int is 24 bytes, which the aligned 32 of `control` hold; the header lies at its start.
    unsafe {
        let header: *mut libc::cmsghdr = control.0.as_mut_ptr().cast();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(space) as usize;
        std::ptr::write_unaligned(libc::CMSG_DATA(header).cast(), class);
        libc::CMSG_SPACE(space) as usize
    }
}

fn mapped(to: SocketAddr, family: Family) -> SocketAddr {
    match (to, family) {
        (SocketAddr::V4(v4), Family::V6) => {
            SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
        }
        (to, _) => to,
    }
}

fn write_address(address: SocketAddr, name: &mut libc::sockaddr_storage) -> u32 {
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

/// The address, an IPv4 one that came to an IPv6 socket as what it is.
fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn receive_all(
        inbox: &mut Inbox,
        socket: &UdpSocket,
        wanted: usize,
    ) -> Vec<(Vec<u8>, SocketAddr)> {
        let mut got = Vec::new();
        while got.len() < wanted {
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)],
                None,
            )
            .unwrap();
            let count = inbox.receive(socket.as_fd()).unwrap();
            got.extend(
                (0..count).filter_map(|at| inbox.datagram(at).map(|(b, a)| (b.to_vec(), a))),
            );
        }
        got
    }

    #[test]
    fn an_ipv6_socket_reaches_ipv4_and_knows_who_answers() {
        let (here, there) =
            (UdpSocket::bind("[::]:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut outbox = Outbox::new(Family::of(here.local_addr().unwrap()));
        outbox.push(Some(there.local_addr().unwrap()), 46, b"over");
        assert_eq!(outbox.flush(here.as_fd()).sent, 1);
        let (_, from) = receive_all(&mut Inbox::new(), &there, 1).remove(0);
        there.send_to(b"back", from).unwrap();
        let (bytes, from) = receive_all(&mut Inbox::new(), &here, 1).remove(0);
        assert_eq!((&*bytes, from), (b"back".as_slice(), there.local_addr().unwrap()));
    }

    #[test]
    fn a_batch_arrives_whole_in_order_and_with_its_sender() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (here, there) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
            let mut outbox = Outbox::new(Family::V4);
            for number in 0..150_u8 {
                outbox.push(
                    Some(there.local_addr().unwrap()),
                    46,
                    &vec![number; usize::from(number) + 1],
                );
            }
            assert!(outbox.is_full());
            assert_eq!(outbox.flush(here.as_fd()).sent, 150);
            assert!(outbox.is_empty());
            let got = receive_all(&mut Inbox::new(), &there, 150);
            for (number, (bytes, from)) in got.iter().enumerate() {
                assert_eq!(bytes, &vec![number as u8; number + 1]);
                assert_eq!(*from, here.local_addr().unwrap());
            }
        }
    }

    #[test]
    fn a_datagram_too_long_is_told_as_cut() {
        let (here, there) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        here.send_to(&[0; DATAGRAM_MAX + 1], there.local_addr().unwrap()).unwrap();
        here.send_to(&[0; DATAGRAM_MAX], there.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(there.as_fd()).unwrap(), 2);
        assert!(inbox.datagram(0).is_none());
        assert_eq!(inbox.datagram(1).map(|(bytes, _)| bytes.len()), Some(DATAGRAM_MAX));
    }

    #[test]
    fn a_refusal_costs_the_next_datagram_nothing_and_is_told() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        here.connect(gone).unwrap();
        here.send(b"first").unwrap();
        let mut outbox = Outbox::new(Family::V4);
        outbox.push(None, 0, b"second");
        let outcome = outbox.flush(here.as_fd());
        assert_eq!(outcome.sent, 1);
        assert_eq!(outcome.earlier[0].kind(), io::ErrorKind::ConnectionRefused);
        assert!(outcome.failed.is_empty());
    }

    #[test]
    fn the_error_queue_accuses_who_does_not_listen_and_nobody_else() {
        for (host, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6)] {
            let gone = UdpSocket::bind(host).unwrap().local_addr().unwrap();
            let alive = UdpSocket::bind(host).unwrap();
            let here = UdpSocket::bind(host).unwrap();
            keep_errors(here.as_fd(), family).unwrap();
            let mut outbox = Outbox::new(Family::V4);
            outbox.push(Some(gone), 0, b"x");
            outbox.flush(here.as_fd());
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(&here, rustix::event::PollFlags::ERR)],
                None,
            )
            .unwrap();
            let mut accused = Vec::new();
            drain_errors(here.as_fd(), |address, error| accused.push((address, error.kind())));
            assert_eq!(accused, [(gone, io::ErrorKind::ConnectionRefused)]);
            outbox.push(Some(alive.local_addr().unwrap()), 0, b"y");
            assert_eq!(outbox.flush(here.as_fd()).sent, 1);
        }
    }
}
