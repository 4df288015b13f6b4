//! Sessions' own ports: their sockets towards nodes with port legs.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use evenkeel_dataplane::freebind;
use evenkeel_model::SessionId;
use evenkeel_process::descriptors;
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Binds a socket to this address. Port 0: the kernel chooses one.
pub(super) fn bind(at: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(at, port);
    let socket = if at.is_unspecified() {
        UdpSocket::bind(address)?
    } else {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        freebind::allow(&socket, address)?;
        socket.bind(&address.into())?;
        socket.into()
    };
    if descriptors::is_reserved(&socket) { Err(Errno::EMFILE.into()) } else { Ok(socket) }
}

/// Sockets at the ports of another gateway's sessions, bound before its address moves here: packets that come with the
/// address wait in them.
#[derive(Default, Debug)]
pub(crate) struct ReservedPorts {
    at: Option<IpAddr>,
    sockets: BTreeMap<SessionId, Reserved>,
}

#[derive(Debug)]
struct Reserved {
    numbers: (u16, Option<u16>),
    /// RTP, then RTCP.
    sockets: Vec<OwnedFd>,
}

impl ReservedPorts {
    /// `at`: the address of the group to which both members bind sessions' own ports. Without one nothing is reserved.
    pub(crate) fn new(at: Option<IpAddr>) -> ReservedPorts {
        ReservedPorts { at, sockets: BTreeMap::new() }
    }

    /// Binds these ports unless it has. A port that is not free now may be so at the takeover. `at`: the address to which
    /// the other gateway has bound them.
    pub(crate) fn reserve(
        &mut self,
        session: SessionId,
        at: Option<IpAddr>,
        numbers: (u16, Option<u16>),
    ) {
        let Some(here) = self.at.filter(|here| at == Some(*here)) else { return };
        if self.sockets.get(&session).is_none_or(|reserved| reserved.numbers != numbers) {
            // Closes the session's earlier sockets first.
            self.sockets.remove(&session);
            let (rtp, rtcp) = numbers;
            let ports = [Some(rtp), rtcp].into_iter().flatten();
            let sockets = ports.map(|port| bind(here, port).map(OwnedFd::from)).collect();
            if let Ok(sockets) = sockets {
                self.sockets.insert(session, Reserved { numbers, sockets });
            }
        }
    }

    pub(crate) fn forget(&mut self, session: SessionId) {
        self.sockets.remove(&session);
    }

    pub(crate) fn retain(&mut self, stays: impl Fn(SessionId) -> bool) {
        self.sockets.retain(|session, _| stays(*session));
    }

    /// The session's sockets: RTP, then RTCP. None if its ports are not free.
    pub(crate) fn take(&mut self, session: SessionId) -> Vec<OwnedFd> {
        self.sockets.remove(&session).map(|reserved| reserved.sockets).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
