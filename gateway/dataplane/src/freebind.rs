//! Sockets at addresses that other hosts may have.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

/// Lets the socket be bound to an address that this host does not have yet (ip(7), IP_FREEBIND). Until it has, the kernel
/// refuses to send from an IPv4 address, but not from an IPv6 address.
///
/// # Errors
///
/// Returns the system's error.
pub fn allow(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}
