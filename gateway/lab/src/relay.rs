//! A simulated network in user space. From one seed it delays, duplicates, corrupts, reorders and drops datagrams, and
//! it records every dropped packet.
//!
//! A client sends to the near side of its lane instead of the gateway; the gateway sees the lane's far side as the
//! client.

pub mod link;
pub mod pump;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use evenkeel_media::rtp;
use nix::sys::epoll::Epoll;

use crate::links::{Conditions, Impairment, ImpairmentCause, PacketOutcome};
use pump::{DelayQueue, Pump};

use crate::TestHeader;
use crate::datagrams::DatagramInbox;

/// The direction of a packet through the relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// From the client to the gateway.
    Up,
    /// From the gateway to the client.
    Down,
}

/// A packet that did not cross, or crossed damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RelayDrop {
    /// The session of the lane: the receiver of packets down, the sender of packets up.
    pub(crate) lane: u64,
    pub(crate) direction: Direction,
    pub(crate) cause: ImpairmentCause,
    /// The test header of the packet; `None` for RTCP, STUN and encrypted packets.
    pub(crate) mark: Option<TestHeader>,
}

/// Datagrams of all lanes since the relay started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RelayTally {
    /// Datagrams read, before any impairment.
    pub arrived: u64,
    /// Forwarded datagrams, without copies.
    pub forwarded: u64,
    /// Datagrams sent a second time.
    pub copied: u64,
    /// Datagrams dropped for any cause.
    pub dropped: u64,
    /// Datagrams forwarded with one bit inverted.
    pub corrupted: u64,
}

/// A running relay. Dropping it ends its thread.
pub struct ImpairmentRelay {
    pump: Pump<RelayLanes>,
    seed: u64,
}

struct RelayLanes {
    lanes: Vec<SessionLane>,
    late: DelayQueue<Delayed>,
    dropped: Vec<RelayDrop>,
    tally: RelayTally,
}

struct Delayed {
    lane: usize,
    direction: Direction,
    bytes: Vec<u8>,
}

impl ImpairmentRelay {
    /// Starts a relay without lanes. The same seed and the same packets per lane and direction give the same
    /// impairments.
    pub(crate) fn start(seed: u64) -> io::Result<Self> {
        let world = RelayLanes {
            lanes: Vec::new(),
            late: DelayQueue::default(),
            dropped: Vec::new(),
            tally: RelayTally::default(),
        };
        Ok(Self { pump: Pump::start("relay", world)?, seed })
    }

    /// Opens a lane for this session towards the gateway, without impairment until [`set_all`](Self::set_all) is called.
    /// Returns the address that the client uses instead of the gateway's.
    ///
    /// # Errors
    /// The system has no sockets.
    pub(crate) fn lane(&self, session: u64, gateway: SocketAddr) -> io::Result<SocketAddr> {
        let mut world = self.pump.world();
        let index = world.lanes.len();
        let lane = SessionLane::open(session, gateway, self.seed)?;
        for (direction, socket) in [(Direction::Up, &lane.near), (Direction::Down, &lane.far)] {
            self.pump.watch(socket, token_of(index, direction))?;
        }
        let near = lane.near.local_addr()?;
        world.lanes.push(lane);
        Ok(near)
    }

    /// Rebinds all lanes as a NAT would: the gateway sees the clients at other addresses, and packets to the old ones are
    /// lost.
    pub(crate) fn rebind_all(&self) -> io::Result<()> {
        for (index, lane) in self.pump.world().lanes.iter_mut().enumerate() {
            self.pump.forget(&lane.far)?;
            lane.rebind()?;
            self.pump.watch(&lane.far, token_of(index, Direction::Down))?;
        }
        Ok(())
    }

    /// Changes one direction of the lanes of these sessions.
    pub(crate) fn set(
        &self,
        sessions: &BTreeSet<u64>,
        direction: Direction,
        conditions: Conditions,
    ) {
        let mut world = self.pump.world();
        for lane in world.lanes.iter_mut().filter(|lane| sessions.contains(&lane.session)) {
            lane.links[direction as usize].conditions = conditions;
        }
    }

    /// Changes both directions of every lane.
    pub(crate) fn set_all(&self, conditions: Conditions) {
        for lane in &mut self.pump.world().lanes {
            lane.links.iter_mut().for_each(|link| link.conditions = conditions);
        }
    }

    /// All packets since the start that did not cross, or crossed damaged.
    pub(crate) fn dropped(&self) -> Vec<RelayDrop> {
        self.pump.world().dropped.clone()
    }
}

impl pump::RelayHandler for RelayLanes {
    type Kept = Delayed;

    fn late(&mut self) -> &mut DelayQueue<Delayed> {
        &mut self.late
    }

    fn read(&mut self, place: u64, inbox: &mut DatagramInbox, _epoll: &Epoll) {
        let (lane, direction) = place_of(place);
        self.read_lane(lane, direction, inbox);
    }

    fn send(&mut self, Delayed { lane, direction, bytes }: Delayed) {
        self.lanes[lane].send_on(direction, &bytes);
    }
}

impl RelayLanes {
    fn read_lane(&mut self, index: usize, direction: Direction, inbox: &mut DatagramInbox) {
        let lane = &mut self.lanes[index];
        // An ICMP error for an earlier packet. That packet is lost, as on any network.
        let socket = if direction == Direction::Up { &lane.near } else { &lane.far };
        if inbox.receive(socket).is_err() {
            return;
        }
        for datagram in inbox.iter() {
            self.tally.arrived += 1;
            if direction == Direction::Up {
                lane.client = Some(datagram.source);
            }
            let now = Instant::now();
            let fate = lane.links[direction as usize].decide(now, datagram.bytes.len());
            let session = lane.session;
            let report = |cause| RelayDrop {
                lane: session,
                direction,
                cause,
                mark: mark_of(datagram.bytes),
            };
            let (at, copy_at, turned) = match fate {
                PacketOutcome::Drop(cause) => {
                    self.tally.dropped += 1;
                    self.dropped.push(report(cause));
                    continue;
                }
                PacketOutcome::Deliver { at, copy_at, turned } => (at, copy_at, turned),
            };
            let mut bytes = datagram.bytes.to_vec();
            if let Some(bit) = turned {
                self.tally.corrupted += 1;
                self.dropped.push(report(ImpairmentCause::Corrupted));
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            for at in copy_at.into_iter().chain([at]) {
                self.late.keep(at, Delayed { lane: index, direction, bytes: bytes.clone() });
            }
            self.tally.forwarded += 1;
            self.tally.copied += u64::from(copy_at.is_some());
        }
    }
}

fn token_of(lane: usize, direction: Direction) -> u64 {
    (lane as u64) << 1 | u64::from(direction == Direction::Down)
}

fn place_of(token: u64) -> (usize, Direction) {
    let direction = if token & 1 == 1 { Direction::Down } else { Direction::Up };
    (usize::try_from(token >> 1).unwrap_or(usize::MAX), direction)
}

/// One client's lane: a socket towards the client, one towards the gateway, an impairment for each direction.
struct SessionLane {
    session: u64,
    near: UdpSocket,
    far: UdpSocket,
    /// The earlier far end. It is kept open and unread, so that its port is not reused.
    retired: Option<UdpSocket>,
    /// The client's last source address.
    client: Option<SocketAddr>,
    links: [Impairment; 2],
}

impl SessionLane {
    /// Both sockets on the loopback address of the gateway's family.
    fn open(session: u64, gateway: SocketAddr, seed: u64) -> io::Result<Self> {
        let mut seeds =
            fastrand::Rng::with_seed(seed ^ session.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Ok(Self {
            session,
            near: bind(gateway)?,
            far: far(gateway)?,
            retired: None,
            client: None,
            links: [Impairment::new(seeds.u64(..)), Impairment::new(seeds.u64(..))],
        })
    }

    /// Replaces the far socket, so that packets leave from another port.
    fn rebind(&mut self) -> io::Result<()> {
        let next = far(self.far.peer_addr()?)?;
        self.retired = Some(std::mem::replace(&mut self.far, next));
        Ok(())
    }

    /// If the socket is full or refuses, the packet is lost, as on any network. The counters of the relay do not
    /// include such losses.
    fn send_on(&self, direction: Direction, bytes: &[u8]) {
        let _lost_at_worst = match (direction, self.client) {
            (Direction::Up, _) => self.far.send(bytes),
            (Direction::Down, Some(client)) => self.near.send_to(bytes, client),
            (Direction::Down, None) => Ok(0),
        };
    }
}

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
fn mark_of(datagram: &[u8]) -> Option<TestHeader> {
    let header = rtp::RtpHeader::parse(datagram).ok()?;
    TestHeader::read(&datagram[header.payload_offset..header.payload_end])
}

#[cfg(test)]
mod tests;
