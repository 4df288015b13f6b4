//! Opens, refreshes and closes sessions at nodes. An opening is a lease: what is not refreshed ends by itself, so a
//! gateway's death leaks nothing. One message refreshes many; of a node that lost some of them they are opened again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, NodeId, RoomId, SessionId};
use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{Answer, Question, Secret, Status};

use super::leases::{Due, Keep, Lease, Leases, State};
use crate::flows::Home;
use crate::worker::{Leg, NodePort, tag};

/// After how long without a refresh a node may forget a session. There are three within it: two in a row may be lost,
/// and none is asked again before the next one's turn.
const LEASE: Duration = Duration::from_secs(30);

/// How sessions are opened at a node.
pub(crate) enum Driver {
    /// Not at all: RTP goes to this address, or one that the offer names.
    Plain(SocketAddr),
    /// By signed messages on the trunk.
    Agent(Secret),
}

/// What the driver wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// Send a signed message on the node's trunk, from the home worker of the sessions that it is about: the node
    /// learns from it where their packets go.
    Sign { worker: u16, node: NodeId, message: Box<[u8]> },
    /// The session is open at the hop, by this leg.
    Opened { session: SessionId, hop: Hop, leg: Leg },
    /// It could not be opened there. `unwilling`: the node takes no new sessions at all.
    /// `full`: since it has as many as it takes.
    Refused { session: SessionId, hop: Hop, unwilling: bool, full: bool },
}

/// Sessions at nodes.
pub(crate) struct Drivers {
    nodes: Vec<Driver>,
    leases: Leases,
    /// What rooms are called towards nodes comes from this. Drawn, since other gateways count their rooms from 1 too
    /// and may share a node.
    names: Option<u64>,
}

impl Drivers {
    pub(crate) fn new(nodes: Vec<Driver>) -> Drivers {
        Drivers { nodes, leases: Leases::new(), names: None }
    }

    fn secret(&self, node: NodeId) -> Option<&Secret> {
        match self.nodes.get(node.0 as usize)? {
            Driver::Agent(secret) => Some(secret),
            Driver::Plain(_) => None,
        }
    }

    /// Two plain nodes that a session would reach at the same address, if there are any: what comes from there could
    /// be of either. `named` are addresses that its offer names.
    pub(crate) fn shared_address(
        &self,
        named: &[(NodeId, SocketAddr)],
        rtcp_apart: bool,
    ) -> Option<(NodeId, NodeId, SocketAddr)> {
        let mut taken = BTreeMap::new();
        for (node, driver) in (0..).map(NodeId).zip(&self.nodes) {
            let Driver::Plain(standing) = driver else { continue };
            let own = named.iter().find(|(at, _)| *at == node).map(|(_, address)| *address);
            let (rtp, rtcp) = ports(own.unwrap_or(*standing), rtcp_apart);
            for address in [rtp, rtcp] {
                let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
                let other = *taken.entry(canonical).or_insert(node);
                if other != node {
                    return Some((other, node, address));
                }
            }
        }
        None
    }

    /// Opens a session at a hop. `address` is the one the offer named for it; `rtcp_apart` where RTCP has a port of
    /// its own, the next one up.
    pub(crate) fn open(
        &mut self,
        wish: &Wish,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<Act> {
        let &Wish { session, home, room, hop, address, rtcp_apart } = wish;
        match self.nodes.get(hop.node.0 as usize)? {
            Driver::Plain(standing) => {
                let (address, rtcp) = ports(address.unwrap_or(*standing), rtcp_apart);
                let leg = Leg::Port(Box::new(NodePort { address, rtcp_port: rtcp.port() }));
                Some(Act::Opened { session, hop, leg })
            }
            Driver::Agent(_) => {
                self.leases.end(session, hop);
                let names = *self.names.get_or_insert_with(&mut *draw);
                let name = name(names, room);
                let whose = (session, hop, home.worker);
                let lease = self.leases.begin(whose, name, tag(home.slot, draw()), draw());
                self.ask(&lease, clock)
            }
        }
    }

    /// Asks the node to open the session, until it answers.
    fn ask(&mut self, lease: &Lease, clock: Clock) -> Option<Act> {
        self.leases.asked(lease.nonce, clock.now);
        let question = Question::Open {
            room: lease.room,
            session: lease.session.0,
            tag: lease.tag,
            lease_s: LEASE.as_secs() as u16,
        };
        self.sign((lease.hop.node, lease.worker), &question, lease.nonce, clock)
    }

    fn sign(
        &self,
        (node, worker): (NodeId, u16),
        question: &Question,
        nonce: u64,
        clock: Clock,
    ) -> Option<Act> {
        let mut message = Vec::new();
        question.write(self.secret(node)?, nonce, clock.unix_us, &mut message);
        Some(Act::Sign { worker, node, message: message.into() })
    }

    /// Closes a session at a hop. The message may be lost; the lease ends it then.
    pub(crate) fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<Act> {
        let Lease { tag, worker, nonce, .. } = self.leases.end(session, hop)?;
        self.sign((hop.node, worker), &Question::Close { tag }, nonce, clock)
    }

    /// A signed message came from a node.
    pub(crate) fn handle_signed(
        &mut self,
        node: NodeId,
        message: &[u8],
        clock: Clock,
    ) -> Option<Act> {
        let verified = Answer::read(message, self.secret(node)?, clock.unix_us).ok()?;
        match verified.message {
            Answer::Open { tag, status } => self.answered(node, verified.nonce, tag, status),
            Answer::Keep { unknown } => {
                self.leases.unknown(node, verified.nonce, &unknown, clock.now);
                None
            }
            Answer::Probe(_)
            | Answer::Close { .. }
            | Answer::Drain(_)
            | Answer::Notice { .. }
            | Answer::Start(_)
            | Answer::Break(_) => None,
        }
    }

    /// The node says whether the session is open.
    fn answered(&mut self, node: NodeId, nonce: u64, tag: Tag, status: Status) -> Option<Act> {
        let lease = self.leases.by_nonce(nonce)?;
        let Lease { session, hop, state, .. } = *lease;
        if hop.node != node || tag != lease.tag {
            return None;
        }
        match status {
            Status::Ok => {
                lease.state = State::Open;
                let opened = Act::Opened { session, hop, leg: Leg::Trunk(tag) };
                (state == State::Opening).then_some(opened)
            }
            Status::Full | Status::Draining | Status::UnknownTag | Status::Failed => {
                self.leases.end(session, hop)?;
                let unwilling = matches!(status, Status::Full | Status::Draining);
                let full = status == Status::Full;
                Some(Act::Refused { session, hop, unwilling, full })
            }
        }
    }

    /// What is due: openings to ask again, leases to refresh.
    pub(crate) fn handle_timeout(&mut self, clock: Clock) -> Option<Act> {
        match self.leases.due(clock.now)? {
            Due::Open(lease) => self.ask(&lease, clock),
            Due::Keep(Keep { node, worker, nonce, tags }) => {
                let question = Question::Keep { lease_s: LEASE.as_secs() as u16, tags };
                self.sign((node, worker), &question, nonce, clock)
            }
        }
    }
}

/// The name of a room: another one for each, by a mixing that loses nothing (SplitMix64).
fn name(names: u64, room: RoomId) -> u64 {
    let mut mixed = names.wrapping_add(room.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Where a plain node takes RTP and RTCP: on one port, or RTCP on the next one up.
fn ports(address: SocketAddr, rtcp_apart: bool) -> (SocketAddr, SocketAddr) {
    let next = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
    (address, if rtcp_apart { next } else { address })
}

/// Where a session is to be opened.
pub(crate) struct Wish {
    pub(crate) session: SessionId,
    /// Its place.
    pub(crate) home: Home,
    pub(crate) room: RoomId,
    pub(crate) hop: Hop,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) rtcp_apart: bool,
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// Microseconds since the Unix epoch.
    pub(crate) unix_us: u64,
}

impl Clock {
    pub(crate) fn read() -> Clock {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Clock { now: Instant::now(), unix_us: unix.map_or(0, |since| since.as_micros() as u64) }
    }
}

#[cfg(test)]
mod tests;
