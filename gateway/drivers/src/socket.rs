//! Connected sockets to nodes. Receive times are those of the kernel, so that reading late does not add to the round-trip
//! time. ICMP errors are returned with the datagrams that they quote, because any host can forge ICMP.

use std::cell::OnceCell;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_dataplane::mmsg;
use evenkeel_model::NodeId;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Interval of `connect` attempts while no route to the node exists.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(500);

/// Limit of a plausible wait in the socket's queue. A longer wait means that the wall clock was set in between.
const WAITED_MAX: Duration = Duration::from_secs(1);

/// What a socket of a driver returned.
#[derive(PartialEq, Eq, Debug)]
pub enum Received {
    /// A datagram of this length, with its receive time.
    Datagram(usize, Instant),
    /// ICMP reports no listener for the datagrams that begin with these bytes.
    Refused(Vec<Box<[u8]>>),
}

/// Opens a socket with receive timestamps (socket(7), SO_TIMESTAMPNS) and an error queue.
pub fn connected(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    mmsg::keep_errors(socket.as_fd(), mmsg::Family::of(address))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The socket of the cell, set as soon as a route to the node exists.
pub async fn connect_in_time(
    cell: &OnceCell<UdpSocket>,
    node: NodeId,
    connect: impl Fn() -> io::Result<std::net::UdpSocket>,
) -> &UdpSocket {
    loop {
        if let Some(socket) = cell.get() {
            return socket;
        }
        tokio::time::sleep(CONNECT_AGAIN).await;
        fill(cell, node, connect());
    }
}

/// Sets the cell if a route to the node exists.
pub fn fill(cell: &OnceCell<UdpSocket>, node: NodeId, connected: io::Result<std::net::UdpSocket>) {
    match connected.and_then(UdpSocket::from_std) {
        Ok(socket) => _ = cell.set(socket),
        Err(error) => tracing::debug!(?node, %error, "no route to the node"),
    }
}

/// Sends a datagram. If the kernel returns the error of an earlier datagram instead of sending, it is sent again once.
pub fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<usize> {
    match socket.try_send(datagram) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => socket.try_send(datagram),
        sent => sent,
    }
}

/// Returns the next datagram, with the current time if it has no plausible timestamp, or the refused datagrams. The
/// caller has to read continuously, because queued errors use the memory of received datagrams.
pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let attempt = || receive_now(socket, buffer);
    socket.async_io(Interest::READABLE | Interest::ERROR, attempt).await
}

/// The same without waiting. It asks the kernel, not the runtime, which notes arrivals only between its tasks.
pub fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    match read(socket, buffer) {
        Ok((length, stamped)) => {
            let since =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ok(Received::Datagram(length, arrived(stamped, since, Instant::now())))
        }
        Err(error) => {
            let mut refused = Vec::new();
            mmsg::drain_errors(socket.as_fd(), |_, error, quoted| {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    refused.push(quoted.into());
                }
            });
            if refused.is_empty() { Err(error) } else { Ok(Received::Refused(refused)) }
        }
    }
}

fn read(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut into = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut control), flags)?;
    let stamped = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at.into()),
        _ => None,
    });
    Ok((message.bytes, stamped))
}

/// Converts a receive time of the wall clock, which may be set, to the monotonic clock.
fn arrived(stamped: Option<Duration>, since_epoch: Duration, now: Instant) -> Instant {
    let waited = stamped.and_then(|stamped| since_epoch.checked_sub(stamped));
    waited
        .filter(|waited| *waited <= WAITED_MAX)
        .and_then(|waited| now.checked_sub(waited))
        .unwrap_or(now)
}

/// A task on the current `LocalSet`, aborted when dropped.
pub struct LocalTask(tokio::task::AbortHandle);

impl LocalTask {
    /// Starts a task. Must be called on a `LocalSet`.
    pub fn spawn(work: impl Future<Output = ()> + 'static) -> LocalTask {
        LocalTask(tokio::task::spawn_local(work).abort_handle())
    }
}

impl Drop for LocalTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
