use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// A non-blocking socket connected to `address`.
pub(crate) fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any(address.is_ipv4()))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(crate) fn any(v4: bool) -> SocketAddr {
    if v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}
