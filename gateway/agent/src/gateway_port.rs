//! Watches whether a process of this host has the port of a gateway's beats.
//!
//! The kernel answers over `NETLINK_SOCK_DIAG` (sock_diag(7)), which needs no privilege. An upgrade replaces the gateway's
//! process, but both processes have the socket, so the port stays open. A datagram would not find it: the socket is
//! connected to the group's other gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::check::PortState;
use crate::config::GatewayConfigEntry;

const HEAD_LEN: usize = 16;
/// `nlmsghdr` and `inet_diag_req_v2`.
const REQUEST_LEN: usize = HEAD_LEN + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

pub(crate) struct GatewayPort {
    kernel: OwnedFd,
    pub(crate) gateway: GatewayConfigEntry,
    pub(crate) due: Instant,
    /// Silent until the port was open.
    pub(crate) port: PortState,
}

impl GatewayPort {
    pub(crate) fn new(gateway: GatewayConfigEntry, now: Instant) -> io::Result<GatewayPort> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkSockDiag;
        let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        let watch = GatewayPort { kernel, gateway, due: now, port: PortState::Silent };
        // A kernel without this service gives the same answer as for a closed port.
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = own.local_addr()?;
        if watch.is_open(address, address) != Some(true) {
            let reason = "the kernel does not tell which UDP ports are open (CONFIG_INET_UDP_DIAG)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        Ok(watch)
    }

    /// Looks if that is due. Returns whether the state has changed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + self.gateway.every;
        let port = match (self.is_open(self.gateway.address, self.gateway.peer), self.port) {
            (Some(true), _) => PortState::Up,
            // Only a port that was open shows an end: an address that is not the gateway's is never open.
            (Some(false), PortState::Up) => PortState::Closed,
            (_, port) => port,
        };
        std::mem::replace(&mut self.port, port) != port
    }

    /// Returns whether a socket receives datagrams from `remote` at `local`, or `None` if the kernel does not answer.
    fn is_open(&self, local: SocketAddr, remote: SocketAddr) -> Option<bool> {
        let kernel = self.kernel.as_raw_fd();
        send(kernel, &request(local, remote), MsgFlags::empty()).ok()?;
        let mut answer = [0; 512];
        let mut is_open = None;
        // The kernel has answered before the call returned. An answer that was left over comes first.
        while let Ok(length) = recv(kernel, &mut answer, MsgFlags::empty()) {
            is_open = read(&answer[..length]);
        }
        is_open
    }
}

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let (family, interface) = match local {
        SocketAddr::V4(_) => (AddressFamily::Inet, 0),
        SocketAddr::V6(v6) => (AddressFamily::Inet6, v6.scope_id()),
    };
    let mut message = Vec::with_capacity(REQUEST_LEN);
    message.extend((REQUEST_LEN as u32).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and port id.
    message.extend([0; 8]);
    message.extend([family as u8, libc::IPPROTO_UDP as u8, 0, 0]);
    let all_states = u32::MAX;
    message.extend(all_states.to_ne_bytes());
    // Source and destination of a datagram to the socket.
    let ends = [remote, local];
    message.extend(ends.iter().flat_map(|end| end.port().to_be_bytes()));
    for end in ends {
        let mut address = [0; 16];
        match end.ip() {
            IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => address = v6.octets(),
        }
        message.extend(address);
    }
    message.extend(interface.to_ne_bytes());
    let no_cookie = u64::MAX;
    message.extend(no_cookie.to_ne_bytes());
    message
}

/// `None` for an error that says nothing about the port.
fn read(answer: &[u8]) -> Option<bool> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    match i32::from(kind) {
        _ if kind == SOCK_DIAG_BY_FAMILY => Some(true),
        libc::NLMSG_ERROR => {
            let error = answer.get(HEAD_LEN..HEAD_LEN + 4)?;
            let error = i32::from_ne_bytes(error.try_into().ok()?);
            (error == -(Errno::ENOENT as i32)).then_some(false)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
