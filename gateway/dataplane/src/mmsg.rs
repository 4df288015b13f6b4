//! Batched datagrams: `recvmmsg`, `sendmmsg` and the error queue of a UDP socket.
//!
//! The bare relays of the bench use this module too, so that comparisons with them measure everything else.
//!
//! This is the only module of the crate with `unsafe`: no safe wrapper sends or receives batches without allocating.
#![expect(
    unsafe_code,
    reason = "the kernel's batch calls take pointers to pointers, which no library wraps without allocating"
)]

use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockAddr, SockRef};

/// Datagrams per system call. More datagrams make a call hardly cheaper per datagram.
pub const BATCH: usize = 64;

/// Longest datagram received; a longer one is truncated and rejected.
pub const DATAGRAM_MAX: usize = 2_048;

/// Reused buffers for received datagrams.
pub struct ReceiveBatch {
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    slices: Vec<libc::iovec>,
    /// The headers' pointers are written before each call.
    headers: Vec<libc::mmsghdr>,
    /// Control messages, by datagram. Headers point to them only in calls that read local addresses.
    controls: Vec<ControlBuffer>,
    /// Datagrams of the last [`fill`](Self::fill) that are not marked [`done`](Self::done).
    left: Range<usize>,
}

// SAFETY: the pointers in headers and slices are not followed between two calls.
unsafe impl Send for ReceiveBatch {}

impl Default for ReceiveBatch {
    /// Allocates buffers for one batch.
    fn default() -> ReceiveBatch {
        // SAFETY: all zeroes is valid for each of these plain C structures: no address, no buffers.
        let (name, slice, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        ReceiveBatch {
            bytes: vec![0; BATCH * DATAGRAM_MAX],
            names: vec![name; BATCH],
            slices: vec![slice; BATCH],
            headers: vec![header; BATCH],
            controls: vec![ControlBuffer::default(); BATCH],
            left: 0..0,
        }
    }
}

impl ReceiveBatch {
    /// Receives at most [`BATCH`] datagrams without waiting and returns their number.
    ///
    /// # Errors
    /// Returns the socket's error; `WouldBlock` if nothing has arrived.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.receive_at_most(BATCH, socket)
    }

    /// Like [`receive`](ReceiveBatch::receive), but keeps each datagram until [`finish_first`](ReceiveBatch::finish_first).
    /// Receives nothing while datagrams remain. Returns the number that remains.
    ///
    /// # Errors
    /// Same as [`receive`](ReceiveBatch::receive).
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.left.is_empty() {
            self.left = 0..self.receive(socket)?;
        }
        Ok(self.left.len())
    }

    /// Like [`fill`](ReceiveBatch::fill), and reads the local address of each datagram. The socket has to
    /// [report](report_local_addresses) it.
    ///
    /// # Errors
    /// Same as [`receive`](ReceiveBatch::receive).
    pub fn fill_with_local(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.left.is_empty() {
            for (header, control) in self.headers.iter_mut().zip(&mut self.controls) {
                header.msg_hdr.msg_control = control.bytes.as_mut_ptr().cast();
                // The previous call wrote the length of the received messages here.
                header.msg_hdr.msg_controllen = CONTROL_MAX;
            }
        }
        self.fill(socket)
    }

    /// Returns the position of the first remaining datagram.
    pub fn first(&self) -> Option<usize> {
        (!self.left.is_empty()).then_some(self.left.start)
    }

    /// Marks the first remaining datagram as done.
    pub fn finish_first(&mut self) {
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

    /// Returns the local address that a datagram of the last batch was sent to, a mapped one as IPv4. `None` if the socket does not
    /// report it.
    pub fn local(&self, place: usize) -> Option<IpAddr> {
        let header = &self.headers[place].msg_hdr;
        // The kernel wrote the length of the control messages, which is 0 for most sockets.
        if header.msg_controllen == 0 { None } else { local_address(header) }
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

/// Has a socket report the local address of each datagram (ip(7), IP_PKTINFO; RFC 3542, 6.1). An answer from another address of the
/// host is of no use to a client behind a NAT, or with ICE. Only a socket that is bound to an unspecified address needs it.
///
/// # Errors
/// Returns the error of `setsockopt`.
pub fn report_local_addresses(socket: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        // Includes mapped addresses.
        Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// Reads the address that an answer to the datagram is sent from.
fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled the control buffer that the header points to; CMSG_* stay within its length.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::SOL_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = std::ptr::read_unaligned(data.cast());
                    let ip = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    return (!ip.is_unspecified()).then_some(ip.into());
                }
                (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = std::ptr::read_unaligned(data.cast());
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical();
                    // RFC 3542, 4.1: never a source.
                    return (!ip.is_multicast()).then_some(ip);
                }
                _ => control = libc::CMSG_NXTHDR(header, control),
            }
        }
    }
    None
}

/// Converts an address from the kernel. A mapped address becomes IPv4.
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
        let Ok(received) = usize::try_from(received) else { return };
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
    setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    if family == Family::V6 {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(())
}

/// Limit of segments in older kernels (UDP_MAX_SEGMENTS).
const SEGMENTS_MAX: usize = 64;

/// Limit of bytes sent in segments: a UDP datagram's payload over IPv4 (RFC 768), less a margin for IPv6.
const SEGMENTED_MAX: usize = 65_000;

/// Attempts after an error that the kernel may have kept from an earlier datagram. Forged ICMP errors arrive one by one.
const REPEATS_MAX: u32 = 3;

const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Datagrams queued on one socket.
///
/// The network stack handles consecutive datagrams of one size to one destination as one packet and segments it last
/// (udp(7), UDP_SEGMENT). This saves most of the cost of a datagram.
pub struct SendBatch {
    bytes: Vec<u8>,
    queue: Vec<QueuedDatagrams>,
    datagrams: usize,
    family: Family,
    /// The source addresses of queued datagrams.
    sources: Vec<IpAddr>,
    /// The source that the kernel refused in this flush.
    absent: Source,
    /// True if segmentation is used.
    segmented: bool,
    class: TrafficClass,
}

/// The address that datagrams leave from: its place in [`SendBatch::sources`] plus 1, since a comparison of addresses for each packet
/// takes longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Source(u16);

impl Source {
    /// The address of the route.
    const ROUTE: Source = Source(0);
}

/// Consecutive datagrams to one destination.
#[derive(Clone, Debug)]
struct QueuedDatagrams {
    bytes: Range<usize>,
    /// Length of each datagram; the last may be shorter.
    each: usize,
    /// `None` on a connected socket.
    to: Option<SocketAddr>,
    marking: Marking,
}

/// Parts of a header that a control message sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Marking {
    source: Source,
    dscp: u8,
}

impl QueuedDatagrams {
    fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.each.max(1)).max(1)
    }

    /// Returns whether a datagram of this length can be appended.
    fn takes(&self, to: Option<SocketAddr>, marking: Marking, length: usize) -> bool {
        let whole = length > 0 && length <= self.each && self.bytes.len().is_multiple_of(self.each);
        let room = self.bytes.len() + length <= SEGMENTED_MAX && self.datagrams() < SEGMENTS_MAX;
        whole && room && marking == self.marking && to == self.to
    }
}

/// The data that a message header points to.
struct Envelope {
    slice: libc::iovec,
    name: MaybeUninit<SockAddr>,
    control: ControlBuffer,
}

/// The outcome of a [`SendBatch::flush`].
#[derive(Debug, Default)]
pub struct SendResult {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Datagrams that were queued with a local address that this host does not have, and left from the address of the route.
    pub from_route: usize,
    /// Errors of dropped datagrams: the socket's buffer was full, or the datagram could not be sent.
    pub failed: Vec<io::Error>,
}

/// Without the bytes, which are users' media.
impl fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch").field("datagrams", &self.datagrams).finish_non_exhaustive()
    }
}

impl SendBatch {
    /// Creates an empty queue for a socket of this family.
    pub fn new(family: Family) -> SendBatch {
        SendBatch {
            bytes: Vec::new(),
            queue: Vec::new(),
            datagrams: 0,
            family,
            sources: Vec::new(),
            absent: Source::ROUTE,
            segmented: true,
            class: TrafficClass::default(),
        }
    }

    /// Returns whether the queue holds [`BATCH`] datagrams.
    pub fn is_full(&self) -> bool {
        self.datagrams >= BATCH
    }

    /// Returns whether no datagram is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the number of queued datagrams.
    pub fn len(&self) -> usize {
        self.datagrams
    }

    /// Drops all queued datagrams and returns their number.
    pub fn clear(&mut self) -> usize {
        self.bytes.clear();
        self.queue.clear();
        self.sources.clear();
        mem::take(&mut self.datagrams)
    }

    /// Queues a datagram and returns its bytes, to be rewritten in place.
    #[inline]
    pub fn push(&mut self, to: Option<SocketAddr>, dscp: u8, datagram: &[u8]) -> &mut [u8] {
        self.push_with(Marking { source: Source::ROUTE, dscp }, to, datagram)
    }

    /// Like [`push`](SendBatch::push), but the datagram leaves from this local address, if the host has it.
    pub fn push_from(
        &mut self,
        local: IpAddr,
        to: Option<SocketAddr>,
        dscp: u8,
        datagram: &[u8],
    ) -> &mut [u8] {
        let source = self.source_at(local);
        self.push_with(Marking { source, dscp }, to, datagram)
    }

    fn push_with(
        &mut self,
        marking: Marking,
        to: Option<SocketAddr>,
        datagram: &[u8],
    ) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.datagrams += 1;
        match self.queue.last_mut() {
            Some(last) if self.segmented && last.takes(to, marking, datagram.len()) => {
                last.bytes.end = self.bytes.len();
            }
            _ => {
                let bytes = start..self.bytes.len();
                self.queue.push(QueuedDatagrams { bytes, each: datagram.len(), to, marking });
            }
        }
        &mut self.bytes[start..]
    }

    /// Sends each queued datagram once. The kernel may return an error of an earlier datagram instead of sending, and
    /// another one before the next attempt; up to three attempts follow.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> SendResult {
        let mut outcome = SendResult::default();
        let mut next = 0;
        let mut repeats = 0;
        while next < self.queue.len() {
            match self.send(socket, next) {
                Ok(sent) => {
                    let sent = &self.queue[next..next + sent];
                    next += sent.len();
                    outcome.sent += sent.iter().map(QueuedDatagrams::datagrams).sum::<usize>();
                    if self.absent != Source::ROUTE {
                        let by_route =
                            sent.iter().filter(|queued| queued.marking.source == self.absent);
                        outcome.from_route +=
                            by_route.map(QueuedDatagrams::datagrams).sum::<usize>();
                    }
                    repeats = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.queue[next].datagrams() > 1 && parts(&error) => {
                    self.part(next, &error);
                }
                Err(error)
                    if self.address_of(self.queue[next].marking.source).is_some()
                        && lacks_address(&error) =>
                {
                    self.absent = self.queue[next].marking.source;
                }
                Err(error)
                    if error.kind() != io::ErrorKind::WouldBlock && repeats < REPEATS_MAX =>
                {
                    repeats += 1;
                }
                Err(error) => {
                    let datagrams = self.queue[next].datagrams();
                    let again = || error.raw_os_error().map(io::Error::from_raw_os_error);
                    outcome.failed.extend((1..datagrams).filter_map(|_| again()));
                    outcome.failed.push(error);
                    repeats = 0;
                    next += 1;
                }
            }
        }
        self.absent = Source::ROUTE;
        self.clear();
        outcome
    }

    /// Splits a group after its segmentation failed; some devices never support it.
    fn part(&mut self, place: usize, error: &io::Error) {
        self.segmented &= error.raw_os_error() != Some(libc::EIO);
        let whole = self.queue[place].clone();
        let (bytes, each) = (whole.bytes.clone(), whole.each);
        let alone = bytes.clone().step_by(each).map(|start| {
            let bytes = start..bytes.end.min(start + each);
            QueuedDatagrams { each: bytes.len(), bytes, ..whole.clone() }
        });
        self.queue.splice(place..=place, alone);
    }

    /// The address of a source; `None`: that of the route.
    fn address_of(&self, source: Source) -> Option<IpAddr> {
        let at = usize::from(source.0).checked_sub(1).filter(|_| source != self.absent)?;
        self.sources.get(at).copied()
    }

    fn source_at(&mut self, local: IpAddr) -> Source {
        let known = self.sources.iter().position(|known| *known == local);
        let at = known.unwrap_or_else(|| {
            self.sources.push(local);
            self.sources.len() - 1
        });
        u16::try_from(at + 1).map_or(Source::ROUTE, Source)
    }

    /// Sends the queue from this position on and returns the number of groups sent.
    fn send(&mut self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let QueuedDatagrams { to, marking: Marking { source, dscp }, .. } = self.queue[from];
        let is_alone = from + 1 == self.queue.len() && self.queue[from].datagrams() == 1;
        if is_alone && self.address_of(source).is_none() && self.class.becomes(socket, to, dscp) {
            return self.send_alone(socket, from);
        }
        self.send_batch(socket, from)
    }

    /// Sends one datagram with `sendto`. With one socket per session most batches hold one datagram, and preparing
    /// batch headers costs more.
    fn send_alone(&self, socket: BorrowedFd<'_>, place: usize) -> io::Result<usize> {
        let QueuedDatagrams { bytes, to, .. } = &self.queue[place];
        let (bytes, socket) = (&self.bytes[bytes.clone()], SockRef::from(&socket));
        let sent = match *to {
            Some(to) => socket.send_to_with_flags(bytes, &self.name(to), SEND_FLAGS),
            None => socket.send_with_flags(bytes, SEND_FLAGS),
        };
        sent.map(|_| 1)
    }

    /// A destination as the kernel reads it.
    fn name(&self, to: SocketAddr) -> SockAddr {
        match (to, self.family) {
            (SocketAddr::V4(v4), Family::V6) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()).into()
            }
            (to, _) => to.into(),
        }
    }

    fn send_batch(&self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let batch = &self.queue[from..self.queue.len().min(from + BATCH)];
        // Only used headers are written: most batches are of one or two packets, and the headers are 15 KiB.
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let mut envelopes = [const { MaybeUninit::<Envelope>::uninit() }; BATCH];
        for ((queued, header), envelope) in batch.iter().zip(&mut headers).zip(&mut envelopes) {
            let bytes = &self.bytes[queued.bytes.clone()];
            let (iov_base, iov_len) = (bytes.as_ptr().cast_mut().cast(), bytes.len());
            let envelope = envelope.write(Envelope {
                slice: libc::iovec { iov_base, iov_len },
                name: MaybeUninit::uninit(),
                control: ControlBuffer::default(),
            });
            // SAFETY: all zeroes is valid for this plain C structure.
            let header = header.write(unsafe { mem::zeroed() });
            let header = &mut header.msg_hdr;
            header.msg_iov = &mut envelope.slice;
            header.msg_iovlen = 1;
            if let Some(to) = queued.to {
                let name = envelope.name.write(self.name(to));
                header.msg_namelen = name.len();
                header.msg_name = name.as_ptr().cast_mut().cast();
                if !self.class.is(queued.to, queued.marking.dscp) {
                    envelope.control.push_dscp(to, queued.marking.dscp);
                }
            }
            if let Some(local) = self.address_of(queued.marking.source) {
                envelope.control.push_local(local);
            }
            if queued.bytes.len() > queued.each {
                // udp(7), UDP_SEGMENT.
                let size = queued.each as u16;
                envelope.control.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
            }
            if envelope.control.used > 0 {
                header.msg_control = envelope.control.bytes.as_mut_ptr().cast();
                header.msg_controllen = envelope.control.used;
            }
        }
        // SAFETY: one header per element of `batch` was written, and each points to a slice, a name and control
        // messages that live until the call returns; the kernel writes only the headers' lengths.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                batch.len() as u32,
                SEND_FLAGS,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Returns whether the datagrams may be sent one by one: the device does not segment, or the path's MTU is smaller than
/// the segments, which IP can still fragment.
fn parts(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE))
}

/// Returns whether the host may lack the source address: IPv6 refuses it with EINVAL, IPv4 finds no route or, in older kernels, refuses it
/// with EINVAL.
fn lacks_address(error: &io::Error) -> bool {
    let refusals = [libc::EINVAL, libc::ENETUNREACH, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|error| refusals.contains(&error))
}

/// The traffic class (IP_TOS) set on the socket, as DSCP (RFC 2474). It applies to IPv4 datagrams without a control
/// message.
#[derive(Default, Debug)]
struct TrafficClass(u8);

impl TrafficClass {
    /// Returns whether a datagram to this destination has this DSCP without a control message. A connected socket
    /// (`None`) never sends control messages, so the result is true.
    fn is(&self, to: Option<SocketAddr>, dscp: u8) -> bool {
        let own = if to.is_some_and(goes_by_v4) { self.0 } else { 0 };
        to.is_none() || dscp == own
    }

    /// Like [`is`](Self::is), but first changes the socket's class if that suffices: a session's port sends only voice
    /// or only video for its whole life.
    fn becomes(&mut self, socket: BorrowedFd<'_>, to: Option<SocketAddr>, dscp: u8) -> bool {
        let set = || SockRef::from(&socket).set_tos_v4(u32::from(dscp) << 2);
        if !self.is(to, dscp) && to.is_some_and(goes_by_v4) && set().is_ok() {
            self.0 = dscp;
        }
        self.is(to, dscp)
    }
}

/// Returns whether IPv4 options apply to the destination, as for mapped addresses of an IPv6 socket.
fn goes_by_v4(to: SocketAddr) -> bool {
    match to {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_some(),
    }
}

/// Three control messages: 24 bytes for each `int`, and 40 bytes for a local address, the largest value.
const CONTROL_MAX: usize = 24 + 24 + 40;

/// Aligned memory for control messages, and the number of bytes used.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct ControlBuffer {
    bytes: [u8; CONTROL_MAX],
    used: usize,
}

impl Default for ControlBuffer {
    fn default() -> ControlBuffer {
        ControlBuffer { bytes: [0; CONTROL_MAX], used: 0 }
    }
}

impl ControlBuffer {
    /// Appends the traffic class (DSCP in its upper six bits, RFC 2474).
    fn push_dscp(&mut self, to: SocketAddr, dscp: u8) {
        let (level, kind) = if goes_by_v4(to) {
            (libc::SOL_IP, libc::IP_TOS)
        } else {
            (libc::SOL_IPV6, libc::IPV6_TCLASS)
        };
        self.push(level, kind, libc::c_int::from(dscp << 2));
    }

    /// Appends the source address. The route chooses the interface.
    fn push_local(&mut self, local: IpAddr) {
        match local {
            // IPv6 sockets take it for mapped destinations, too.
            IpAddr::V4(ip) => {
                let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let ipi_addr = libc::in_addr { s_addr: 0 };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr };
                self.push(libc::SOL_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(ip) => {
                let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                self.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }

    fn push<T>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        const { assert!(size_of::<T>() <= size_of::<libc::in6_pktinfo>()) };
        let size = size_of::<T>() as u32;
        // SAFETY: each message begins behind the one before, at a multiple of eight. There are at most three: a traffic class and a
        // size of segments, of 24 bytes each, and a local address of at most 40 bytes, which `CONTROL_MAX` holds.
        unsafe {
            let header: *mut libc::cmsghdr = self.bytes.as_mut_ptr().add(self.used).cast();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
            std::ptr::write_unaligned(libc::CMSG_DATA(header).cast(), value);
            self.used += libc::CMSG_SPACE(size) as usize;
        }
    }
}

#[cfg(test)]
mod tests;
