//! Sizes of socket buffers.

use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Sets both buffers of a socket. A privileged process gets the size whatever the system's limit (socket(7),
/// SO_RCVBUFFORCE); another process gets at most the limit, by default a hundredth of a second of 50,000 packets a
/// second, and runs on.
pub fn set_sizes(socket: &impl AsFd, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
}
