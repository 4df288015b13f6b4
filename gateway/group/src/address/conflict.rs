//! Another host of the link that has an IPv4 address of this one: it answers an ARP probe (RFC 5227, 2.1.1).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

/// The host of the previous owner keeps an address for up to 3 s.
const FIRST_AFTER: Duration = Duration::from_secs(4);

const INTERVAL: Duration = Duration::from_secs(30);

/// Packets read at once. On a busy link others are read later, or lost.
const PACKETS_MAX: usize = 1_024;

/// The sender of an ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ArpClaim {
    pub(super) address: Ipv4Addr,
    pub(super) hardware: [u8; 6],
    pub(super) interface: usize,
}

pub(super) struct Claims {
    /// Receives the ARP packets of all interfaces.
    socket: Socket,
    probed: Option<Instant>,
    held: Instant,
}

impl Claims {
    pub(super) fn open() -> io::Result<Claims> {
        let arp = i32::from((libc::ETH_P_ARP as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(arp)))?;
        socket.set_nonblocking(true)?;
        Ok(Claims { socket, probed: None, held: Instant::now() })
    }

    /// The addresses were added.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.probed, self.held) = (None, now);
    }

    /// True if probes are to be sent.
    pub(super) fn take_probe(&mut self, now: Instant) -> bool {
        let next = self.probed.map_or(self.held + FIRST_AFTER, |probed| probed + INTERVAL);
        let is_due = now >= next;
        if is_due {
            self.probed = Some(now);
        }
        is_due
    }

    /// Reads the claims that have arrived. None counts before the first probe.
    pub(super) fn read(&self) -> Vec<ArpClaim> {
        let mut packet = [0; 64];
        let claims = std::iter::from_fn(|| {
            let (length, from) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut packet).ok()?;
            Some(from.and_then(|from| claim(&packet[..length], from.ifindex())))
        });
        let claims: Vec<Option<ArpClaim>> = claims.take(PACKETS_MAX).collect();
        if self.probed.is_some() { claims.into_iter().flatten().collect() } else { Vec::new() }
    }
}

/// Reads an ARP packet behind its Ethernet header.
fn claim(packet: &[u8], interface: usize) -> Option<ArpClaim> {
    // Ethernet, IPv4, and the lengths of both addresses.
    let is_ipv4 = packet.get(14..20)? == [0, 1, 0x08, 0, 6, 4];
    let hardware = packet.get(22..28)?.try_into().ok()?;
    let address: [u8; 4] = packet.get(28..32)?.try_into().ok()?;
    is_ipv4.then_some(ArpClaim { address: address.into(), hardware, interface })
}

#[cfg(test)]
mod tests;
