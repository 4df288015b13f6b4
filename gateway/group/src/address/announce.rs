//! Ethernet frames that tell all hosts of a link where an address is now, and those of another host that has an IPv4
//! address of this one: it answers an ARP probe (RFC 5227, 2.1.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

/// Milliseconds after the first announcement, which may be lost, or arrive before a switch forwards.
const REPEATED_AFTER: [u64; 10] = [10, 50, 150, 350, 750, 1_500, 2_000, 3_000, 4_000, 5_000];

/// Later ones wait for a renewal: a gateway that is stopped may have lost the addresses, and its holder is not stopped.
const WITHOUT_ORDER: Duration = Duration::from_millis(350);

const BROADCAST: [u8; 6] = [0xff; 6];

/// The Ethernet address of [`ALL_NODES`] (RFC 2464, 7).
const ALL_NODES_LINK: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ICMPV6: u8 = 58;

/// The host of the previous owner keeps an address for up to 3 s.
const PROBED_AFTER: Duration = Duration::from_secs(4);

const PROBED_EVERY: Duration = Duration::from_secs(30);

/// Packets read at once. On a busy link others are read later, or lost.
const PACKETS_MAX: usize = 1_024;

/// The times of the repetitions.
pub(super) struct Repetitions {
    since: Instant,
    made: usize,
}

impl Repetitions {
    pub(super) fn from(since: Instant) -> Repetitions {
        Repetitions { since, made: 0 }
    }

    /// The time of the next one, unless it waits for a renewal.
    pub(super) fn next_without_order(&self) -> Option<Instant> {
        self.next().filter(|next| *next <= self.since + WITHOUT_ORDER)
    }

    fn next(&self) -> Option<Instant> {
        let after = REPEATED_AFTER.get(self.made)?;
        Some(self.since + Duration::from_millis(*after))
    }

    /// True if one is due. Those that were missed are not made up for.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let before = self.made;
        while self.next().is_some_and(|next| next <= now) {
            self.made += 1;
        }
        self.made > before
    }
}

pub(super) fn frame(address: IpAddr, hardware: [u8; 6]) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(address, address, hardware),
        IpAddr::V6(address) => neighbour_advertisement(address, hardware),
    }
}

/// Asks for another host with the address (RFC 5227, 2.1.1).
pub(super) fn probe(address: Ipv4Addr, hardware: [u8; 6]) -> Vec<u8> {
    arp(Ipv4Addr::UNSPECIFIED, address, hardware)
}

/// An ARP request. An announcement has the address as its sender and target (RFC 5227, 3). Linux takes it at once; a
/// reply it ignores for a second after the last change of the entry.
fn arp(sender: Ipv4Addr, target: Ipv4Addr, hardware: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(BROADCAST);
    frame.extend(hardware);
    // Type ARP; Ethernet, IPv4, the lengths of both addresses, request.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(hardware);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// An unsolicited neighbour advertisement, which overrides entries (RFC 4861, 4.4 and 7.2.6).
fn neighbour_advertisement(address: Ipv6Addr, hardware: [u8; 6]) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // Option: link-layer address of the target, in units of 8 bytes.
    message.extend([2, 1]);
    message.extend(hardware);
    let sum = checksum(address, ALL_NODES, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);

    let mut frame = Vec::new();
    frame.extend(ALL_NODES_LINK);
    frame.extend(hardware);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    // Hosts refuse another hop limit.
    frame.extend([ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// The checksum of ICMPv6 (RFC 4443, 2.3). The message has an even length, and zero in place of its checksum.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let (pairs, _) = bytes.as_chunks::<2>();
        pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum()
    };
    let addresses = words(&source.octets()) + words(&destination.octets());
    let mut sum = addresses + message.len() as u32 + u32::from(ICMPV6) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

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
        let next = self.probed.map_or(self.held + PROBED_AFTER, |probed| probed + PROBED_EVERY);
        let is_due = now >= next;
        if is_due {
            self.probed = Some(now);
        }
        is_due
    }

    /// Reads the claims that have arrived. None counts before the first probe.
    pub(super) fn read(&self) -> Vec<ArpClaim> {
        let claims = self.read_all();
        if self.probed.is_some() { claims } else { Vec::new() }
    }

    /// Reads the claims that have arrived.
    pub(super) fn read_all(&self) -> Vec<ArpClaim> {
        let mut packet = [0; 64];
        let claims = std::iter::from_fn(|| {
            let (length, from) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut packet).ok()?;
            Some(from.and_then(|from| claim(&packet[..length], from.ifindex())))
        });
        claims.take(PACKETS_MAX).flatten().collect()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
