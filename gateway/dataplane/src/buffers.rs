//! Sizes of socket buffers.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Sets both buffers of a socket. A privileged process may exceed the system's limit (socket(7), SO_RCVBUFFORCE). For
/// another process the kernel reduces the size to the limit, by default 10 ms of 50,000 packets a second; that is no
/// error.
pub fn set_sizes(socket: &impl AsFd, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
}

/// Sets the receive buffer of a socket, within the system's limit.
pub fn set_receive_size(socket: &impl AsFd, bytes: usize) {
    // The kernel reduces the size to the limit.
    let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
}

/// Returns whether a datagram waits in the socket.
pub fn has_waiting(socket: &impl AsFd) -> bool {
    // Fails for no open socket.
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
}

/// The receive buffer of a socket, without the part that the kernel adds for its own overhead.
pub fn receive_size(socket: &impl AsFd) -> usize {
    // Fails for no open socket.
    getsockopt(socket, sockopt::RcvBuf).unwrap_or_default() / 2
}
