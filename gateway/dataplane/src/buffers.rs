//! How much a socket may hold for a thread that is busy.

use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Has the kernel hold so many bytes each way for this socket. A privileged process gets them whatever the system's limit
/// is (socket(7), SO_RCVBUFFORCE); another gets as much as that allows, which is no reason not to run: by default it is
/// a hundredth of a second of 50,000 packets a second.
pub fn hold(socket: &impl AsFd, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
}
