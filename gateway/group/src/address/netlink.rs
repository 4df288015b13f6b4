//! Addresses of interfaces, by rtnetlink(7).

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
pub(super) const HEADER: usize = 16;

/// The kernel returns the header of the request, and may explain an error in words.
const ANSWER_MAX: usize = 1 << 10;

/// The longest part of a list that the kernel returns at once.
const PART_MAX: usize = 32 << 10;

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
        self.sequence += 1;
        let request = add_request(local, link.ifindex() as u32, self.sequence);
        self.execute(&request)
    }

    /// Removes the address, if it is there.
    pub(super) fn remove(&mut self, local: &LocalAddress, link: &LinkAddr) -> Result<(), Errno> {
        self.sequence += 1;
        let request = remove_request(local, link.ifindex() as u32, self.sequence);
        match self.execute(&request) {
            Err(Errno::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    /// The request with a number of its own.
    pub(super) fn number(&mut self, request: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let mut numbered = request.to_vec();
        numbered[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        numbered
    }

    /// Calls `take` with each message of a list.
    pub(super) fn list(&self, request: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        let mut part = vec![0; PART_MAX];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut part, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            let mut rest = &part[..length];
            while let Some((message, later)) = first_message(rest) {
                if let Some(outcome) = outcome(message, self.sequence) {
                    return outcome;
                }
                if is_end(message, self.sequence) {
                    return Ok(());
                }
                take(message);
                rest = later;
            }
        }
    }

    pub(super) fn execute(&self, request: &[u8]) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        loop {
            let mut answer = [0; ANSWER_MAX];
            let length = match recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            if let Some(outcome) = outcome(&answer[..length], self.sequence) {
                return outcome;
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

fn add_request(local: &LocalAddress, index: u32, sequence: u32) -> Vec<u8> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    // Without it the kernel first asks the network whether another host has the IPv6 address, and the previous owner may.
    let no_detection = if local.address.is_ipv6() { libc::IFA_F_NODAD } else { 0 };
    let mut request = request(libc::RTM_NEWADDR, flags, no_detection, local, index, sequence);
    // struct ifa_cacheinfo. It is never preferred: connections of the host itself do not leave from an address that moves.
    let preferred = 0_u32;
    let lifetimes = [preferred, VALID_FOR.as_secs() as u32, 0, 0].map(u32::to_ne_bytes);
    push_attribute(&mut request, libc::IFA_CACHEINFO, lifetimes.as_flattened());
    finish(request)
}

fn remove_request(local: &LocalAddress, index: u32, sequence: u32) -> Vec<u8> {
    finish(request(libc::RTM_DELADDR, 0, 0, local, index, sequence))
}

/// `struct nlmsghdr`, without length and number.
pub(super) fn head(kind: u16, flags: i32) -> Vec<u8> {
    let mut head = vec![0; HEADER];
    head[4..6].copy_from_slice(&kind.to_ne_bytes());
    head[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    head
}

/// `struct nlmsghdr`, `struct ifaddrmsg`, and the address.
fn request(
    kind: u16,
    flags: i32,
    address_flags: u32,
    local: &LocalAddress,
    index: u32,
    sequence: u32,
) -> Vec<u8> {
    let (family, bytes) = match local.address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut request = head(kind, libc::NLM_F_ACK | flags);
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    request.extend([family as u8, local.prefix, address_flags as u8, libc::RT_SCOPE_UNIVERSE]);
    request.extend(index.to_ne_bytes());
    push_attribute(&mut request, libc::IFA_LOCAL, &bytes);
    push_attribute(&mut request, libc::IFA_ADDRESS, &bytes);
    request
}

pub(super) fn push_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    request.extend((value.len() as u16 + 4).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// Writes the length.
pub(super) fn finish(mut request: Vec<u8>) -> Vec<u8> {
    let length = (request.len() as u32).to_ne_bytes();
    request[..4].copy_from_slice(&length);
    request
}

/// The interfaces by name.
pub(super) fn links() -> Result<BTreeMap<String, LinkAddr>, Errno> {
    let links = getifaddrs()?.filter_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        Some((entry.interface_name, link))
    });
    Ok(links.collect())
}
