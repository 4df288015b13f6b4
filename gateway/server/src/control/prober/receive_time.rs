//! Receive times of datagrams by the kernel's clock, so that reading late does not add to the round-trip time.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Limit of a plausible wait in the socket's queue. A longer wait means that the wall clock was set in between.
const WAITED_MAX: Duration = Duration::from_secs(1);

/// Enables receive timestamps (socket(7), SO_TIMESTAMPNS).
pub(super) fn stamp(socket: &std::net::UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true).map_err(io::Error::from)
}

/// The length and receive time of the next datagram; the current time without a plausible timestamp.
/// Errors of the kernel include ECONNREFUSED for an earlier datagram.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Instant)> {
    let (length, stamped) = socket
        .async_io(Interest::READABLE | Interest::ERROR, || {
            let mut control = nix::cmsg_space!(TimeSpec);
            let mut into = [IoSliceMut::new(&mut *buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut control), flags)?;
            let stamped = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(at) => Some(at),
                _ => None,
            });
            Ok((message.bytes, stamped))
        })
        .await?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok((length, arrived(stamped.map(Duration::from), since, Instant::now())))
}

/// Converts a receive time of the wall clock, which may be set, to the monotonic clock.
fn arrived(stamped: Option<Duration>, since_epoch: Duration, now: Instant) -> Instant {
    let waited = stamped.and_then(|stamped| since_epoch.checked_sub(stamped));
    waited
        .filter(|waited| *waited <= WAITED_MAX)
        .and_then(|waited| now.checked_sub(waited))
        .unwrap_or(now)
}

#[cfg(test)]
mod tests;
