//! Sockets for questions to agents, and the time in signed datagrams.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Longest answer that is read; a vote's answer has 80 bytes.
const ANSWER_MAX: usize = 512;

/// Must be called in an event loop.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Returns the next answer and its source. May be cancelled without a loss.
pub(super) async fn receive(socket: Option<&UdpSocket>) -> (Vec<u8>, SocketAddr) {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut buffer = [0; ANSWER_MAX];
    loop {
        // An error belongs to an earlier question.
        if let Ok((length, source)) = socket.recv_from(&mut buffer).await {
            return (buffer[..length].to_vec(), source);
        }
    }
}

/// Microseconds since the Unix epoch.
pub(super) fn now_us() -> u64 {
    evenkeel_process::unix_us(SystemTime::now())
}
