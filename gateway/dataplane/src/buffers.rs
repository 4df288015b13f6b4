//! Sizes of socket buffers.

use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

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
