//! Sending in batches, with the traffic class of each datagram.

use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fmt, io};

use super::BATCH;
use super::receive::{Family, mapped, write_address};

/// Limit of segments in older kernels (UDP_MAX_SEGMENTS).
const SEGMENTS_MAX: usize = 64;

/// Limit of bytes sent in segments: a UDP datagram's payload over IPv4 (RFC 768), less a margin for IPv6.
const SEGMENTED_MAX: usize = 65_000;

/// Attempts after an error that the kernel may have kept from an earlier datagram. Forged ICMP errors arrive one by one.
const REPEATS_MAX: u32 = 3;

/// Datagrams queued on one socket.
///
/// The network stack handles consecutive datagrams of one size to one destination as one packet and segments it last
/// (udp(7), UDP_SEGMENT). This saves most of the cost of a datagram.
pub struct SendBatch {
    bytes: Vec<u8>,
    queue: Vec<QueuedDatagrams>,
    datagrams: usize,
    family: Family,
    /// True if segmentation is used.
    segmented: bool,
    class: TrafficClass,
}

impl fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &self.datagrams).finish_non_exhaustive()
    }
}

/// Consecutive datagrams to one destination.
#[derive(Clone)]
struct QueuedDatagrams {
    bytes: Range<usize>,
    /// Length of each datagram; the last may be shorter.
    each: usize,
    /// `None` on a connected socket.
    to: Option<SocketAddr>,
    dscp: u8,
}

impl QueuedDatagrams {
    fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.each.max(1)).max(1)
    }

    /// Returns whether a datagram of this length can be appended.
    fn takes(&self, to: Option<SocketAddr>, dscp: u8, length: usize) -> bool {
        let whole = length > 0 && length <= self.each && self.bytes.len().is_multiple_of(self.each);
        let room = self.bytes.len() + length <= SEGMENTED_MAX && self.datagrams() < SEGMENTS_MAX;
        whole && room && dscp == self.dscp && to == self.to
    }
}

/// The data that a message header points to.
struct Envelope {
    slice: libc::iovec,
    name: libc::sockaddr_storage,
    control: ControlBuffer,
}

/// The outcome of a [`SendBatch::flush`].
#[derive(Debug, Default)]
pub struct SendResult {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Errors of dropped datagrams: the socket's buffer was full, or the datagram could not be sent.
    pub failed: Vec<io::Error>,
}

impl SendBatch {
    /// Creates an empty queue for a socket of this family.
    pub fn new(family: Family) -> SendBatch {
        SendBatch {
            bytes: Vec::new(),
            queue: Vec::new(),
            datagrams: 0,
            family,
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
        mem::take(&mut self.datagrams)
    }

    /// Queues a datagram and returns its bytes, to be rewritten in place.
    pub fn push(&mut self, to: Option<SocketAddr>, dscp: u8, datagram: &[u8]) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.datagrams += 1;
        match self.queue.last_mut() {
            Some(last) if self.segmented && last.takes(to, dscp, datagram.len()) => {
                last.bytes.end = self.bytes.len();
            }
            _ => {
                let bytes = start..self.bytes.len();
                self.queue.push(QueuedDatagrams { bytes, each: datagram.len(), to, dscp });
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
                    repeats = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.queue[next].datagrams() > 1 && parts(&error) => {
                    self.part(next, &error);
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
        self.clear();
        outcome
    }

    /// Splits a group after its segmentation failed; some devices never support it.
    fn part(&mut self, place: usize, error: &io::Error) {
        self.segmented &= error.raw_os_error() != Some(libc::EIO);
        let QueuedDatagrams { bytes, each, to, dscp } = self.queue[place].clone();
        let alone = bytes.clone().step_by(each).map(|start| {
            let bytes = start..bytes.end.min(start + each);
            QueuedDatagrams { each: bytes.len(), bytes, to, dscp }
        });
        self.queue.splice(place..=place, alone);
    }

    /// Sends the queue from this position on and returns the number of groups sent.
    fn send(&mut self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let QueuedDatagrams { to, dscp, .. } = self.queue[from];
        let is_alone = from + 1 == self.queue.len() && self.queue[from].datagrams() == 1;
        if is_alone && self.class.becomes(socket, to, dscp) {
            return self.send_alone(socket, from);
        }
        self.send_batch(socket, from)
    }

    /// Sends one datagram with `sendto`. With one socket per session most batches hold one datagram, and preparing
    /// batch headers costs more.
    fn send_alone(&self, socket: BorrowedFd<'_>, place: usize) -> io::Result<usize> {
        let QueuedDatagrams { bytes, to, .. } = &self.queue[place];
        let bytes = &self.bytes[bytes.clone()];
        // SAFETY: all zeroes is valid for this plain C structure.
        let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let length = to.map_or(0, |to| write_address(mapped(to, self.family), &mut name));
        let name = if length == 0 { std::ptr::null() } else { std::ptr::from_ref(&name).cast() };
        // SAFETY: bytes and name live until the call returns, the call only reads them, and both lengths are correct.
        let sent = unsafe {
            let bytes_at = bytes.as_ptr().cast();
            let (socket, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            libc::sendto(socket, bytes_at, bytes.len(), flags, name, length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) }
    }

    fn send_batch(&self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let batch = &self.queue[from..self.queue.len().min(from + BATCH)];
        // Only used headers are written: most batches are of one or two packets, and the headers are 15 KiB.
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
                if !self.class.is(queued.to, queued.dscp) {
                    envelope.control.push_dscp(to, queued.dscp);
                }
            }
            if queued.bytes.len() > queued.each {
                envelope.control.push_segment(queued.each as u16);
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
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
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

/// The traffic class (IP_TOS) set on the socket, as DSCP (RFC 2474). It applies to IPv4 datagrams without a control
/// message.
#[derive(Default)]
pub(super) struct TrafficClass(u8);

impl TrafficClass {
    /// Returns whether a datagram to this destination has this DSCP without a control message. A connected socket
    /// (`None`) never sends control messages, so the result is true.
    pub(super) fn is(&self, to: Option<SocketAddr>, dscp: u8) -> bool {
        let own = if to.is_some_and(goes_by_v4) { self.0 } else { 0 };
        to.is_none() || dscp == own
    }

    /// Like [`is`](Self::is), but first changes the socket's class if that suffices: a session's port sends only voice
    /// or only video for its whole life.
    pub(super) fn becomes(
        &mut self,
        socket: BorrowedFd<'_>,
        to: Option<SocketAddr>,
        dscp: u8,
    ) -> bool {
        if !self.is(to, dscp) && to.is_some_and(goes_by_v4) && set(socket, dscp).is_ok() {
            self.0 = dscp;
        }
        self.is(to, dscp)
    }
}

fn set(socket: BorrowedFd<'_>, dscp: u8) -> io::Result<()> {
    let class = libc::c_int::from(dscp << 2);
    // SAFETY: the option takes an int, and gets one of its size.
    let set = unsafe {
        let option = std::ptr::from_ref(&class).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_TOS, option, 4)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether IPv4 options apply to the destination, as for mapped addresses of an IPv6 socket.
pub(super) fn goes_by_v4(to: SocketAddr) -> bool {
    match to {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_some(),
    }
}

/// Aligned memory for two control messages with an `int` each, and the number of bytes used.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlBuffer {
    pub(super) bytes: [u8; 64],
    pub(super) used: usize,
}

impl ControlBuffer {
    /// Appends the traffic class (DSCP in its upper six bits, RFC 2474).
    pub(super) fn push_dscp(&mut self, to: SocketAddr, dscp: u8) {
        let (level, kind) = if goes_by_v4(to) {
            (libc::SOL_IP, libc::IP_TOS)
        } else {
            (libc::SOL_IPV6, libc::IPV6_TCLASS)
        };
        self.push(level, kind, libc::c_int::from(dscp << 2));
    }

    /// Appends the segment size (udp(7), UDP_SEGMENT).
    pub(super) fn push_segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
    }

    fn push<T>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        const { assert!(size_of::<T>() <= size_of::<libc::c_int>()) };
        let size = size_of::<T>() as u32;
        // SAFETY: CMSG_SPACE of at most an int is 24 bytes, each message begins behind the one before, at a multiple of
        // eight, and there are at most two: 48 bytes of the aligned 64.
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
