//! The error queue of a UDP socket.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::BATCH;
use super::address::{Family, address};

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
