//! The default traffic class of a socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

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

#[cfg(test)]
mod tests;
