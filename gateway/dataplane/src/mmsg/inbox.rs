//! Receiving in batches.

use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::address;
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
