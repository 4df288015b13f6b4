//! A session's own sockets towards nodes: what tells sessions apart on a port leg.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use super::ways::Side;
use crate::mmsg::{self, Family, Outbox};

/// RTP, and RTCP where it has a port of its own.
pub(crate) struct Ports {
    rtp: UdpSocket,
    rtcp: Option<UdpSocket>,
    outbox: Outbox,
}

impl Ports {
    /// Both keep the kernel's errors with the address they accuse.
    ///
    /// # Errors
    /// What the sockets say.
    pub(crate) fn new(rtp: UdpSocket, rtcp: Option<UdpSocket>) -> io::Result<Ports> {
        for socket in [Some(&rtp), rtcp.as_ref()].into_iter().flatten() {
            socket.set_nonblocking(true)?;
            mmsg::keep_errors(socket.as_fd(), Family::of(socket.local_addr()?))?;
        }
        let outbox = Outbox::new(Family::of(rtp.local_addr()?));
        Ok(Ports { rtp, rtcp, outbox })
    }

    pub(crate) fn fd(&self, side: Side) -> Option<BorrowedFd<'_>> {
        match side {
            Side::Rtp => Some(self.rtp.as_fd()),
            Side::Rtcp => self.rtcp.as_ref().map(AsFd::as_fd),
        }
    }

    /// Sends one packet; RTCP from the RTP socket where it has none of its own.
    ///
    /// # Errors
    /// Why this packet could not go. An error that accuses another address costs it nothing.
    pub(crate) fn send(
        &mut self,
        side: Side,
        to: SocketAddr,
        dscp: u8,
        packet: &[u8],
    ) -> io::Result<()> {
        self.outbox.push(Some(to), dscp, packet);
        let socket = match side {
            Side::Rtp => &self.rtp,
            Side::Rtcp => self.rtcp.as_ref().unwrap_or(&self.rtp),
        };
        self.outbox.flush(socket.as_fd()).failed.pop().map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports")
            .field("rtp", &self.rtp)
            .field("rtcp", &self.rtcp)
            .finish_non_exhaustive()
    }
}
