//! Receive times of datagrams by the kernel's clock, so that reading late does not add to the round-trip time.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A longer wait means that the clock was set in between.
const WAITED_MAX: Duration = Duration::from_secs(1);

/// Enables receive timestamps (socket(7), SO_TIMESTAMPNS).
///
/// # Errors
/// Of the kernel.
pub(super) fn stamp(socket: &std::net::UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true).map_err(io::Error::from)
}

/// The length and receive time of the next datagram; the current time without a plausible timestamp.
///
/// # Errors
/// Of the kernel, including ECONNREFUSED for an earlier datagram.
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
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn implausible_timestamp_defaults_to_now() {
        let (now, epoch) = (Instant::now() + MS * 5_000, MS * 90_000);
        let waited = |stamped| now - arrived(stamped, epoch, now);
        assert_eq!(waited(Some(epoch - MS * 7)), MS * 7);
        assert_eq!(waited(Some(epoch)), Duration::ZERO);
        assert_eq!(waited(None), Duration::ZERO, "no stamp");
        assert_eq!(
            waited(Some(epoch + MS)),
            Duration::ZERO,
            "of a later time: the clock went back"
        );
        assert_eq!(waited(Some(epoch - MS * 1_001)), Duration::ZERO, "the clock was set");
    }

    #[tokio::test]
    async fn receive_time_is_arrival_not_read() {
        let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        stamp(&ours).unwrap();
        ours.set_nonblocking(true).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = ours.local_addr().unwrap();
        let ours = UdpSocket::from_std(ours).unwrap();
        let mut buffer = [0; 16];
        // If the machine stalls for a second the timestamp is not plausible.
        for _ in 0..10 {
            peer.send_to(b"words", own).unwrap();
            let sent = Instant::now();
            std::thread::sleep(MS * 50);
            let late = Instant::now();
            let (length, at) = receive(&ours, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"words");
            assert!(at + MS * 50 > sent, "not before it was sent");
            if at <= late {
                return;
            }
        }
        panic!("it was there before it was read");
    }

    #[tokio::test]
    async fn refused_datagram_is_an_error() {
        let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = {
            let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        ours.connect(nobody).unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = UdpSocket::from_std(ours).unwrap();
        ours.send(b"words").await.unwrap();
        let error = receive(&ours, &mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
