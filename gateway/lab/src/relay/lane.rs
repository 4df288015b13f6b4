//! One client's lane: a socket towards the client, one towards the gateway, an impairment for each direction.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use evenkeel_media::rtp;

use super::{Direction, Impairment};
use crate::TestHeader;

pub(super) struct Lane {
    pub(super) session: u64,
    pub(super) near: UdpSocket,
    pub(super) far: UdpSocket,
    /// The earlier far end. It is kept open and unread, so that its port is not reused.
    retired: Option<UdpSocket>,
    /// The client's last source address.
    pub(super) client: Option<SocketAddr>,
    up: Impairment,
    down: Impairment,
}

impl Lane {
    /// Both sockets on the loopback address of the gateway's family.
    pub(super) fn open(session: u64, gateway: SocketAddr, seed: u64) -> io::Result<Self> {
        let mut seeds =
            fastrand::Rng::with_seed(seed ^ session.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Ok(Self {
            session,
            near: bind(gateway)?,
            far: far(gateway)?,
            retired: None,
            client: None,
            up: Impairment::new(seeds.u64(..)),
            down: Impairment::new(seeds.u64(..)),
        })
    }

    /// Replaces the far socket, so that packets leave from another port.
    pub(super) fn rebind(&mut self) -> io::Result<()> {
        let next = far(self.far.peer_addr()?)?;
        self.retired = Some(std::mem::replace(&mut self.far, next));
        Ok(())
    }

    /// The socket on which packets of this direction arrive.
    pub(super) fn socket(&self, direction: Direction) -> &UdpSocket {
        match direction {
            Direction::Up => &self.near,
            Direction::Down => &self.far,
        }
    }

    pub(super) fn link(&mut self, direction: Direction) -> &mut Impairment {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// If the socket is full or refuses, the packet is lost, as on any network. The counters of the relay do not
    /// include such losses.
    pub(super) fn send_on(&self, direction: Direction, bytes: &[u8]) {
        let _lost_at_worst = match (direction, self.client) {
            (Direction::Up, _) => self.far.send(bytes),
            (Direction::Down, Some(client)) => self.near.send_to(bytes, client),
            (Direction::Down, None) => Ok(0),
        };
    }
}

/// A socket on the loopback address of this family.
fn bind(family: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match family {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn far(gateway: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind(gateway)?;
    socket.connect(gateway)?;
    Ok(socket)
}

/// The test header of a plain RTP packet.
pub(super) fn mark_of(datagram: &[u8]) -> Option<TestHeader> {
    let header = rtp::RtpHeader::parse(datagram).ok()?;
    TestHeader::read(&datagram[header.payload_offset..header.payload_end])
}
