//! A link to one address, such as that of a node or a gateway: each sender to its near end reaches the address from its own far end.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use nix::sys::epoll::Epoll;

use super::pump::{self, DATAGRAM, DelayQueue, Pump};
use super::{Direction, RelayTally};
use crate::datagrams::DatagramInbox;
use crate::links::{Conditions, Impairment, PacketOutcome};

/// A gateway has a socket for each worker, one for probes, and one for each session on port legs. Packets of further
/// senders are dropped.
const SENDERS_MAX: usize = 4_096;
/// The near end's place in the readiness list.
const NEAR: u64 = u64::MAX;

/// A running link. Dropping it ends its thread.
pub struct Link {
    pump: Pump<World>,
    near: SocketAddr,
}

struct World {
    node: SocketAddr,
    /// `None` while the node refuses packets: then the near end refuses them as well.
    near: Option<UdpSocket>,
    senders: Vec<Sender>,
    by_source: HashMap<SocketAddr, usize>,
    up: Impairment,
    down: Impairment,
    /// Packets longer than this do not cross.
    mtu: usize,
    late: DelayQueue<Delayed>,
    tally: RelayTally,
}

struct Sender {
    source: SocketAddr,
    far: UdpSocket,
}

enum Delayed {
    Datagram {
        sender: usize,
        direction: Direction,
        bytes: Vec<u8>,
    },
    /// An ICMP port unreachable from the node's host.
    Refusal,
}

impl Link {
    /// Starts an unimpaired link to this node with its near end at a free port of `at`.
    ///
    /// # Errors
    /// The system has no sockets or threads.
    pub fn start(at: SocketAddr, node: SocketAddr, seed: u64) -> io::Result<Self> {
        let near = open(at)?;
        let address = near.local_addr()?;
        let mut seeds = fastrand::Rng::with_seed(seed);
        let world = World {
            node,
            near: Some(near),
            senders: Vec::new(),
            by_source: HashMap::new(),
            up: Impairment::new(seeds.u64(..)),
            down: Impairment::new(seeds.u64(..)),
            mtu: DATAGRAM,
            late: DelayQueue::default(),
            tally: RelayTally::default(),
        };
        let link = Self { pump: Pump::start("link", world)?, near: address };
        link.listen_near()?;
        Ok(link)
    }

    /// The address that senders use instead of the node's.
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Sets the impairment of one direction for packets that arrive from now on.
    pub fn set(&self, direction: Direction, conditions: Conditions) {
        self.pump.world().way(direction).conditions = conditions;
    }

    /// Sets the impairment of both directions.
    pub fn set_both(&self, conditions: Conditions) {
        self.set(Direction::Up, conditions);
        self.set(Direction::Down, conditions);
    }

    /// Longer datagrams do not cross any more.
    pub fn set_mtu(&self, bytes: usize) {
        self.pump.world().mtu = bytes;
    }

    /// Reopens the near end after the node restarted. Earlier refusals, also those in flight, no longer close it.
    ///
    /// # Errors
    /// The near end's port is taken.
    pub fn reopen(&self) -> io::Result<()> {
        let mut world = self.pump.world();
        for sender in &world.senders {
            let _refused_before = sender.far.take_error()?;
        }
        world.late.retain(|kept| matches!(kept, Delayed::Datagram { .. }));
        if world.near.is_none() {
            world.near = Some(open(self.near)?);
            drop(world);
            self.listen_near()?;
        }
        Ok(())
    }

    fn listen_near(&self) -> io::Result<()> {
        let world = self.pump.world();
        world.near.as_ref().map_or(Ok(()), |near| self.pump.watch(near, NEAR))
    }

    /// The datagrams since the start.
    pub fn tally(&self) -> RelayTally {
        self.pump.world().tally
    }
}

impl pump::RelayHandler for World {
    type Kept = Delayed;

    fn late(&mut self) -> &mut DelayQueue<Delayed> {
        &mut self.late
    }

    fn read(&mut self, place: u64, inbox: &mut DatagramInbox, epoll: &Epoll) {
        match place {
            NEAR => self.read_near(inbox, epoll),
            sender => self.read_far(sender as usize, inbox),
        }
    }

    fn send(&mut self, kept: Delayed) {
        let Delayed::Datagram { sender, direction, bytes } = kept else {
            self.near = None;
            return;
        };
        let sender = &self.senders[sender];
        // A full or refusing socket loses the packet, as any network would.
        let _lost_at_worst = match (direction, &self.near) {
            (Direction::Up, _) => sender.far.send(&bytes),
            (Direction::Down, Some(near)) => near.send_to(&bytes, sender.source),
            (Direction::Down, None) => Ok(0),
        };
    }
}

impl World {
    fn way(&mut self, direction: Direction) -> &mut Impairment {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn read_near(&mut self, inbox: &mut DatagramInbox, epoll: &Epoll) {
        // ICMP errors from a gateway that has gone are ignored.
        let Some(Ok(_)) = self.near.as_ref().map(|near| inbox.receive(near)) else { return };
        for datagram in inbox.iter() {
            if let Some(sender) = self.sender(datagram.source, epoll) {
                self.take(sender, Direction::Up, datagram.bytes);
            }
        }
    }

    fn read_far(&mut self, sender: usize, inbox: &mut DatagramInbox) {
        match self.senders.get(sender).map(|sender| inbox.receive(&sender.far)) {
            Some(Ok(_)) => {}
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let back = self.down.conditions;
                if !back.blackout {
                    self.late.keep(Instant::now() + back.delay, Delayed::Refusal);
                }
                return;
            }
            _ => return,
        }
        for datagram in inbox.iter() {
            self.take(sender, Direction::Down, datagram.bytes);
        }
    }

    fn sender(&mut self, source: SocketAddr, epoll: &Epoll) -> Option<usize> {
        if let Some(&known) = self.by_source.get(&source) {
            return Some(known);
        }
        if self.senders.len() == SENDERS_MAX {
            return None;
        }
        let far = open(SocketAddr::new(self.node.ip(), 0)).ok()?;
        far.connect(self.node).ok()?;
        let place = self.senders.len();
        pump::watch(epoll, &far, place as u64).ok()?;
        self.senders.push(Sender { source, far });
        self.by_source.insert(source, place);
        Some(place)
    }

    fn take(&mut self, sender: usize, direction: Direction, bytes: &[u8]) {
        self.tally.arrived += 1;
        let fate = self.way(direction).decide(Instant::now(), bytes.len());
        let PacketOutcome::Deliver { at, copy_at, turned } = fate else {
            self.tally.dropped += 1;
            return;
        };
        if bytes.len() > self.mtu {
            self.tally.dropped += 1;
            return;
        }
        let mut bytes = bytes.to_vec();
        if let Some(bit) = turned {
            self.tally.corrupted += 1;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.tally.copied += u64::from(copy_at.is_some());
        for at in copy_at.into_iter().chain([at]) {
            self.late.keep(at, Delayed::Datagram { sender, direction, bytes: bytes.clone() });
        }
        self.tally.forwarded += 1;
    }
}

fn open(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
