//! The process that adds addresses to interfaces, announces and removes them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use evenkeel_process::sandbox;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use socket2::{Domain, Socket, Type};

use super::announce::{self, ArpClaim, Claims, Repetitions};
use super::netlink::{self, Netlink};
use super::router::DefaultRouter;
use super::{
    AddressError, AddressOrder, LocalAddress, MESSAGE_MAX, VALID_FOR, answer, message, read_message,
};

/// Needed to add addresses, and to open the socket of announcements.
const NEEDED: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Time for the answer of a router of the link.
const ROUTER_ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// Holds addresses such as `192.0.2.10/24@eth0` as the socket at standard input orders, until it closes: the body of the
/// subcommand `hold-addresses`, which the gateway starts.
pub fn hold_addresses(addresses: &[String]) -> io::Result<()> {
    // Sent to a whole service or terminal. The gateway ends first, and may end later.
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_block()?;
    let mut orders = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let addresses: Result<Vec<LocalAddress>, String> =
        addresses.iter().map(|address| address.parse()).collect();
    match addresses.and_then(Holder::open) {
        Ok(holder) => {
            for missing in sandbox::confine([Capability::CAP_NET_ADMIN]) {
                eprintln!("`evenkeel hold-addresses`: {missing}");
            }
            orders.write_all(&message(0, &answer(&Ok(()))))?;
            holder.serve(&mut orders);
            Ok(())
        }
        Err(reason) => orders.write_all(&message(0, &answer(&Err(AddressError::Refused(reason))))),
    }
}

pub(super) struct Holder {
    addresses: Vec<LocalAddress>,
    netlink: Netlink,
    /// Sends Ethernet frames and receives none.
    frames: Socket,
    claims: Claims,
    /// Interfaces by name.
    links: BTreeMap<String, LinkAddr>,
    address: Option<HeldAddress>,
}

struct HeldAddress {
    renewed: Instant,
    repetitions: Repetitions,
}

impl Holder {
    pub(super) fn open(addresses: Vec<LocalAddress>) -> Result<Holder, String> {
        for needed in NEEDED {
            if !caps::has_cap(None, CapSet::Effective, needed).unwrap_or(false) {
                return Err(format!(
                    "{needed} is missing; start the gateway with CAP_NET_ADMIN and CAP_NET_RAW \
                     (AmbientCapabilities of systemd), or use a `hook`"
                ));
            }
        }
        let failed = |error: io::Error| format!("no socket to change addresses: {error}");
        let netlink = Netlink::open().map_err(failed)?;
        let frames = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
        frames.set_nonblocking(true).map_err(failed)?;
        let claims = Claims::open().map_err(failed)?;
        let links = BTreeMap::new();
        let mut holder = Holder { addresses, netlink, frames, claims, links, address: None };
        holder.find_links()?;
        for local in &holder.addresses {
            holder.link(local)?;
        }
        // A killed process may have left them, and a member that starts is not the owner.
        let failures = holder.release();
        if failures.is_empty() { Ok(holder) } else { Err(failures.join("; ")) }
    }

    /// Executes orders until no process can send one.
    pub(super) fn serve(mut self, orders: &mut UnixStream) {
        while let Ok([is_readable]) = wait([orders.as_fd()], self.next_announcement()) {
            if !is_readable {
                self.repeat(Instant::now());
                continue;
            }
            let mut order = [0; MESSAGE_MAX];
            let Ok(length @ 1..) = orders.read(&mut order) else { break };
            let Some((number, word)) = read_message(&order[..length]) else { continue };
            let outcome = match AddressOrder::ALL.into_iter().find(|order| order.word() == word) {
                Some(order) => self.execute(order, orders, Instant::now()),
                None => Err(AddressError::Refused(format!("unknown order {word:?}"))),
            };
            if orders.write_all(&message(number, &answer(&outcome))).is_err() {
                break;
            }
        }
        // The kernel removes what cannot be removed here.
        let _ = self.execute(AddressOrder::Release, orders, Instant::now());
    }

    fn execute(
        &mut self,
        order: AddressOrder,
        orders: &UnixStream,
        now: Instant,
    ) -> Result<(), AddressError> {
        let failures = match order {
            AddressOrder::Hold => self.hold(now),
            AddressOrder::Renew => {
                match &mut self.address {
                    Some(held) if now < held.renewed + VALID_FOR => held.renewed = now,
                    _ => {
                        self.address = None;
                        return Err(AddressError::Lapsed);
                    }
                }
                let failures = self.add("renewed");
                self.repeat(now);
                let conflicts = self.conflicts(now);
                if failures.is_empty() && !conflicts.is_empty() {
                    return Err(AddressError::Conflict(conflicts.join("; ")));
                }
                failures
            }
            AddressOrder::DropWaiting => self.drop_waiting(),
            AddressOrder::AskRouter => self.ask_routers(orders).err().into_iter().collect(),
            AddressOrder::Release => {
                let failures = self.release();
                failures.into_iter().chain(self.drop_waiting()).collect()
            }
        };
        match failures.is_empty() {
            true => Ok(()),
            false => Err(AddressError::Refused(failures.join("; "))),
        }
    }

    fn hold(&mut self, now: Instant) -> Vec<String> {
        // Interfaces may have been replaced.
        let unknown = self.find_links().err();
        self.address = Some(HeldAddress { renewed: now, repetitions: Repetitions::from(now) });
        self.claims.begin(now);
        let added = self.add("added");
        unknown.into_iter().chain(added).chain(self.announce()).collect()
    }

    /// Adds the addresses, or renews them.
    fn add(&mut self, done: &str) -> Vec<String> {
        self.each(|netlink, local, link| {
            let added = netlink.add(local, link);
            added.map_err(|errno| format!("cannot be {done}, {}", reason(errno)))
        })
    }

    fn release(&mut self) -> Vec<String> {
        self.address = None;
        self.each(|netlink, local, link| match netlink.remove(local, link) {
            // The interface, or its part for this version of IP, is gone, with all addresses.
            Ok(()) | Err(Errno::ENODEV | Errno::ENXIO) => Ok(()),
            Err(errno) => Err(format!("cannot be removed, {}", reason(errno))),
        })
    }

    /// Drops the packets that wait for neighbours at the interfaces of the addresses. Returns failures.
    fn drop_waiting(&mut self) -> Vec<String> {
        let links: Vec<i32> = self
            .addresses
            .iter()
            .filter_map(|local| Some(self.links.get(&local.interface)?.ifindex() as i32))
            .collect();
        let dropped = self.netlink.drop_waiting(&links);
        let failed = |errno: Errno| format!("packets wait for neighbours: {}", errno.desc());
        dropped.err().map(failed).into_iter().collect()
    }

    /// Announces all addresses. Returns failures.
    fn announce(&mut self) -> Vec<String> {
        let frames = self.frames.as_raw_fd();
        self.each(|_, local, link| {
            let Some(hardware) = hardware(link) else { return Ok(()) };
            let frame = announce::frame(local.address, hardware);
            let sent = sendto(frames, &frame, link, MsgFlags::empty());
            sent.map(drop).map_err(|errno| format!("cannot be announced, {}", reason(errno)))
        })
    }

    /// Finds other hosts that have an address, by the answers to the previous probes, and sends the next if they are due.
    fn conflicts(&mut self, now: Instant) -> Vec<String> {
        let found = self.claims.read();
        let is_due = self.claims.take_probe(now);
        let frames = self.frames.as_raw_fd();
        self.each(|_, local, link| {
            let (IpAddr::V4(address), Some(hardware)) = (local.address, hardware(link)) else {
                return Ok(());
            };
            if is_due {
                // A link that is down has no other host.
                let _ =
                    sendto(frames, &announce::probe(address, hardware), link, MsgFlags::empty());
            }
            let other = found.iter().find(|claim| {
                let is_here = claim.interface == link.ifindex() && claim.address == address;
                is_here && claim.hardware != hardware
            });
            other.map_or(Ok(()), |claim| {
                let bytes = claim.hardware.map(|byte| format!("{byte:02x}"));
                Err(format!("is also at {}, another host of the link", bytes.join(":")))
            })
        })
    }

    /// Asks the default routers at the interfaces of the addresses, by ARP. The next order ends the wait.
    fn ask_routers(&mut self, orders: &UnixStream) -> Result<(), String> {
        self.find_links()?;
        let routers = DefaultRouter::list().map_err(|error| format!("no routes: {error}"))?;
        let is_ours = |name: &str| self.addresses.iter().any(|local| local.interface == name);
        let asked: Vec<(DefaultRouter, &LinkAddr)> = routers
            .into_iter()
            .filter(|router| is_ours(&router.interface))
            .filter_map(|router| {
                let link = self.links.get(&router.interface)?;
                Some((router, link))
            })
            .collect();
        self.claims.read_all();
        for (router, link) in &asked {
            let Some(hardware) = hardware(link) else { continue };
            let frame = announce::probe(router.address, hardware);
            // A link that is down has no router.
            let _ = sendto(self.frames.as_raw_fd(), &frame, *link, MsgFlags::empty());
        }
        let until = Instant::now() + ROUTER_ANSWERS_WITHIN;
        while !asked.is_empty() && Instant::now() < until {
            let ready = wait([orders.as_fd(), self.claims.as_fd()], Some(until));
            let Ok([false, _]) = ready else { break };
            let has_answered = |claim: ArpClaim| {
                asked.iter().any(|(router, link)| {
                    claim.address == router.address && claim.interface == link.ifindex()
                })
            };
            if self.claims.read_all().into_iter().any(has_answered) {
                return Ok(());
            }
        }
        let asked = asked.iter().map(|(router, _)| router.address.to_string());
        match asked.reduce(|all, next| format!("{all}, {next}")) {
            Some(asked) => Err(format!("the default router does not answer: {asked}")),
            None => Err("no default router at the interfaces of the group's addresses".to_owned()),
        }
    }

    fn next_announcement(&self) -> Option<Instant> {
        self.address.as_ref()?.repetitions.next_without_order()
    }

    fn repeat(&mut self, now: Instant) {
        let Some(held) = &mut self.address else { return };
        if now >= held.renewed + VALID_FOR {
            self.address = None;
        } else if held.repetitions.take(now) {
            // The first announcement told of failures.
            self.announce();
        }
    }

    /// Applies a step to each address. Returns failures.
    fn each(
        &mut self,
        mut step: impl FnMut(&mut Netlink, &LocalAddress, &LinkAddr) -> Result<(), String>,
    ) -> Vec<String> {
        let Holder { addresses, netlink, links, .. } = self;
        let failures = addresses.iter().filter_map(|local| {
            let failed = match links.get(&local.interface) {
                Some(link) => step(netlink, local, link).err()?,
                None => "has no interface".to_owned(),
            };
            Some(format!("{} at {} {failed}", local.address, local.interface))
        });
        failures.collect()
    }

    fn link(&self, local: &LocalAddress) -> Result<&LinkAddr, String> {
        let LocalAddress { address, interface, .. } = local;
        self.links.get(interface).ok_or_else(|| {
            let found: Vec<&str> = self.links.keys().map(String::as_str).collect();
            format!("no interface {interface} for {address}; found {}", found.join(", "))
        })
    }

    fn find_links(&mut self) -> Result<(), String> {
        let failed = |errno: Errno| format!("cannot list interfaces: {}", errno.desc());
        self.links = netlink::links().map_err(failed)?;
        Ok(())
    }
}

/// The Ethernet address. Other kinds of interfaces have no neighbours to tell.
fn hardware(link: &LinkAddr) -> Option<[u8; 6]> {
    link.addr().filter(|_| link.hatype() == libc::ARPHRD_ETHER)
}

fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "CAP_NET_ADMIN is missing",
        Errno::EACCES => "IPv6 is disabled there",
        Errno::ENODEV | Errno::ENXIO => "the interface is gone",
        Errno::ENETDOWN => "the interface is down",
        Errno::EAGAIN => "the kernel did not answer within 1 s",
        other => other.desc(),
    }
}

/// Waits until one of them is readable, or for this time. Returns which are.
fn wait<const N: usize>(
    readable: [BorrowedFd<'_>; N],
    until: Option<Instant>,
) -> nix::Result<[bool; N]> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // The kernel counts whole milliseconds.
    let rounded = left.map(|left| left + Duration::from_millis(1));
    let timeout = rounded.and_then(|left| PollTimeout::try_from(left).ok());
    let mut fds = readable.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE)) {
        Ok(_) => Ok(fds.map(|fd| fd.any().unwrap_or(false))),
        Err(Errno::EINTR) => Ok([false; N]),
        Err(errno) => Err(errno),
    }
}
