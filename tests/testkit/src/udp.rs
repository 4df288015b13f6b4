//! UDP ports of other processes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::TIMEOUT;

/// Waits until no process has a socket at this address of this network namespace. A program that another test starts has the sockets
/// of this one from fork(2) until execve(2).
///
/// # Panics
/// It stays open.
pub fn await_closed(address: SocketAddr) {
    let deadline = Instant::now() + TIMEOUT;
    while is_open(address) {
        assert!(Instant::now() < deadline, "{address} stays open");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Whether a socket of this network namespace has this port. Looks without a socket of its own, which other programs would have in turn.
pub fn is_open(address: SocketAddr) -> bool {
    let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let sockets = std::fs::read_to_string(table).expect("the kernel lists sockets");
    let port = format!(":{:04X}", address.port());
    let mut locals = sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    locals.any(|local| local.ends_with(&port))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;

    #[test]
    fn port_is_open_while_a_socket_has_it() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let socket = UdpSocket::bind((ip, 0)).expect("loopback has a free port");
            let address = socket.local_addr().expect("it is bound");
            let other = socket.try_clone().expect("a socket can be duplicated");
            drop(socket);
            assert!(is_open(address));
            drop(other);
            await_closed(address);
        }
    }
}
