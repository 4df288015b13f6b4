//! Addresses of interfaces and their neighbours, by rtnetlink(7).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{LinkAddr, MsgFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LocalAddress, VALID_FOR};

/// Time for the kernel's answer. It changes one address at a time, in all namespaces.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Length of `struct ndmsg`.
const NEIGHBOUR: usize = 12;

/// The kernel returns the header of the request, and may explain an error in words.
const ANSWER_MAX: usize = 1 << 10;

/// The longest part of a list that the kernel returns at once.
const PART_MAX: usize = 32 << 10;

/// A neighbour that has not answered: its `struct ndmsg`, and its address.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Unanswered {
    neighbour: [u8; NEIGHBOUR],
    address: Vec<u8>,
}

pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Netlink> {
        let route = Protocol::from(libc::NETLINK_ROUTE);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(route))?;
        socket.set_read_timeout(Some(ANSWERED_WITHIN))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Adds the address, or renews it.
    pub(super) fn add(&mut self, local: &LocalAddress, link: &LinkAddr) -> Result<(), Errno> {
        self.execute(add_request(local, link.ifindex() as u32))
    }

    /// Removes the address, if it is there.
    pub(super) fn remove(&mut self, local: &LocalAddress, link: &LinkAddr) -> Result<(), Errno> {
        let index = link.ifindex() as u32;
        match self.execute(address_request(libc::RTM_DELADDR, 0, 0, local, index)) {
            Err(Errno::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    /// Drops the packets that wait at these interfaces for the Ethernet address of a neighbour. The kernel keeps about 250
    /// for each, and sends them once it answers: a link that returns would carry packets of an owner that was replaced
    /// meanwhile.
    pub(super) fn drop_waiting(&mut self, interfaces: &[i32]) -> Result<(), Errno> {
        let ask = neighbour_request(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &[0; NEIGHBOUR], &[]);
        for Unanswered { neighbour, address } in self.list_unanswered(ask)? {
            if interfaces.contains(&interface(&neighbour)) {
                let acknowledged = libc::NLM_F_ACK;
                let delete =
                    neighbour_request(libc::RTM_DELNEIGH, acknowledged, &neighbour, &address);
                match self.execute(delete) {
                    // It has answered, or was given up.
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(())
    }

    fn list_unanswered(&mut self, request: Vec<u8>) -> Result<Vec<Unanswered>, Errno> {
        self.send(request)?;
        let (mut part, mut found) = (vec![0; PART_MAX], Vec::new());
        loop {
            let length = self.receive(&mut part)?;
            let mut rest = &part[..length];
            while let Some((message, later)) = first_message(rest) {
                if let Some(outcome) = outcome(message, self.sequence) {
                    return outcome.map(|()| found);
                }
                if is_end(message, self.sequence) {
                    return Ok(found);
                }
                found.extend(unanswered(message));
                rest = later;
            }
        }
    }

    fn execute(&mut self, request: Vec<u8>) -> Result<(), Errno> {
        self.send(request)?;
        loop {
            let mut answer = [0; ANSWER_MAX];
            let length = self.receive(&mut answer)?;
            if let Some(outcome) = outcome(&answer[..length], self.sequence) {
                return outcome;
            }
        }
    }

    /// Writes the length and a number of its own into the request, and sends it.
    fn send(&mut self, mut request: Vec<u8>) -> Result<(), Errno> {
        self.sequence += 1;
        let length = (request.len() as u32).to_ne_bytes();
        request[..4].copy_from_slice(&length);
        request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty()).map(drop)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                received => return received,
            }
        }
    }
}

/// The first of several messages, and the others.
fn first_message(messages: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let message = messages.get(..length).filter(|message| message.len() >= HEADER)?;
    Some((message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn is_end(message: &[u8], sequence: u32) -> bool {
    message[4..6] == (libc::NLMSG_DONE as u16).to_ne_bytes()
        && message[8..12] == sequence.to_ne_bytes()
}

/// The outcome of the request with this number. `None`: the answer is to a request that was given up.
fn outcome(answer: &[u8], sequence: u32) -> Option<Result<(), Errno>> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let answered = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    let is_ours = i32::from(kind) == libc::NLMSG_ERROR && answered == sequence;
    is_ours.then(|| if error == 0 { Ok(()) } else { Err(Errno::from_raw(-error)) })
}

fn add_request(local: &LocalAddress, index: u32) -> Vec<u8> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    // Without it the kernel first asks the network whether another host has the IPv6 address, and the previous owner may.
    let no_detection = if local.address.is_ipv6() { libc::IFA_F_NODAD } else { 0 };
    let mut request = address_request(libc::RTM_NEWADDR, flags, no_detection, local, index);
    // struct ifa_cacheinfo. It is never preferred: connections of the host itself do not leave from an address that moves.
    let preferred = 0_u32;
    let lifetimes = [preferred, VALID_FOR.as_secs() as u32, 0, 0].map(u32::to_ne_bytes);
    push_attribute(&mut request, libc::IFA_CACHEINFO, lifetimes.as_flattened());
    request
}

/// `struct nlmsghdr`, without length and number.
fn head(kind: u16, flags: i32) -> Vec<u8> {
    let mut head = vec![0; HEADER];
    head[4..6].copy_from_slice(&kind.to_ne_bytes());
    head[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    head
}

/// `struct nlmsghdr`, `struct ifaddrmsg`, and the address.
fn address_request(
    kind: u16,
    flags: i32,
    address_flags: u32,
    local: &LocalAddress,
    index: u32,
) -> Vec<u8> {
    let (family, bytes) = match local.address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut request = head(kind, libc::NLM_F_ACK | flags);
    request.extend([family as u8, local.prefix, address_flags as u8, libc::RT_SCOPE_UNIVERSE]);
    request.extend(index.to_ne_bytes());
    push_attribute(&mut request, libc::IFA_LOCAL, &bytes);
    push_attribute(&mut request, libc::IFA_ADDRESS, &bytes);
    request
}

fn neighbour_request(
    kind: u16,
    flags: i32,
    neighbour: &[u8; NEIGHBOUR],
    address: &[u8],
) -> Vec<u8> {
    let mut request = head(kind, flags);
    request.extend(neighbour);
    if !address.is_empty() {
        push_attribute(&mut request, libc::NDA_DST, address);
    }
    request
}

fn push_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    request.extend((value.len() as u16 + 4).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(request.len().next_multiple_of(4), 0);
}

fn interface(neighbour: &[u8; NEIGHBOUR]) -> i32 {
    let [_, _, _, _, index @ .., _, _, _, _] = *neighbour;
    i32::from_ne_bytes(index)
}

/// Reads a message of a list.
fn unanswered(message: &[u8]) -> Option<Unanswered> {
    let (neighbour, mut attributes) = message.get(HEADER..)?.split_first_chunk::<NEIGHBOUR>()?;
    let state = u16::from_ne_bytes([neighbour[8], neighbour[9]]);
    while let Some((head, _)) = attributes.split_first_chunk::<4>() {
        let [length, kind] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_ne_bytes);
        let value = attributes.get(4..usize::from(length))?;
        if kind == libc::NDA_DST && state == libc::NUD_INCOMPLETE {
            return Some(Unanswered { neighbour: *neighbour, address: value.to_vec() });
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..)?;
    }
    None
}

/// The interfaces by name.
pub(super) fn links() -> Result<BTreeMap<String, LinkAddr>, Errno> {
    let links = getifaddrs()?.filter_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        Some((entry.interface_name, link))
    });
    Ok(links.collect())
}
