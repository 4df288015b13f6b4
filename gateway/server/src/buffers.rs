//! How much a socket may hold for a thread that is busy.

use std::os::fd::AsFd;
use std::sync::Once;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Has the kernel hold so many bytes each way for this socket. A privileged process gets them whatever the system's limit
/// is (socket(7), SO_RCVBUFFORCE); another gets as much as that allows, which is no reason not to run, and is told of once:
/// by default it is a hundredth of a second of 50,000 packets a second.
pub(crate) fn hold(socket: &impl AsFd, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
    static TOLD: Once = Once::new();
    if let Some(granted) = falls_short(socket, bytes) {
        TOLD.call_once(|| {
            tracing::warn!(
                wanted = bytes,
                granted,
                "the kernel holds fewer bytes for a socket than wanted, so a stop of this gateway costs more packets: \
                 raise net.core.rmem_max, or grant CAP_NET_ADMIN"
            );
        });
    }
}

/// What the kernel holds of what comes in, where it is less than that: it doubles what it is told, for what it keeps beside
/// a packet.
fn falls_short(socket: &impl AsFd, bytes: usize) -> Option<usize> {
    let granted = getsockopt(socket, sockopt::RcvBuf).ok()? / 2;
    (granted < bytes).then_some(granted)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_socket_holds_what_the_kernel_grants_and_less_is_noticed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        hold(&socket, 64 << 10);
        assert_eq!(falls_short(&socket, 64 << 10), None);
        assert_eq!(falls_short(&socket, 65 << 10), Some(64 << 10));
    }
}
