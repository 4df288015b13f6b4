//! Opens, refreshes and closes sessions at nodes, as each node wants it. An opening is a lease: what is not refreshed
//! ends by itself, so a gateway's death leaks nothing. Nothing here waits: what is asked is answered later, and what is
//! not answered in time was not opened.

mod agent;
mod plain;
mod rtpengine;
#[cfg(test)]
mod tests;
mod webhook;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_core::{Hop, Labels, Media, NodeId, RoomId, SessionId};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::Leg;
use evenkeel_media::trunk::message::{Question, Secret};

use super::equipment::set;
use crate::webhook::Hook;
use agent::{Agents, Asking};
use rtpengine::Rtpengine;
pub(crate) use rtpengine::{Line, Ng};
pub(crate) use webhook::Posted;
use webhook::Webhook;

/// How sessions are opened at a node.
pub(crate) enum Driver {
    /// Not at all: RTP goes to this address, or one that the offer names.
    Plain(SocketAddr),
    /// By signed messages on the trunk.
    Agent(Secret),
    /// By the NG protocol, at this address.
    Rtpengine(SocketAddr),
    /// By POSTs about a node of this name and address.
    Webhook { name: Arc<str>, address: SocketAddr, hook: Arc<Hook> },
}

/// What the driver wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// Send a signed message on the node's trunk, from the home worker of the sessions that it is about: the node
    /// learns from it where their packets go. Or it is about the path, and `of_sessions` is false.
    Sign { worker: u16, node: NodeId, message: Box<[u8]>, of_sessions: bool },
    /// Packets that go from this worker to the node share datagrams up to this size from now on.
    LimitBundles { worker: u16, node: NodeId, size_max: u16 },
    /// Send this to where the node takes the NG protocol.
    Ng { node: NodeId, datagram: Arc<[u8]> },
    /// POST this; what comes of it is told by its number.
    Post { node: NodeId, number: u64, hook: Arc<Hook>, body: Bytes, within: Duration },
    /// The session is open at the hop, by this leg.
    Opened { session: SessionId, hop: Hop, leg: Leg },
    /// It is open still, and by another leg from now on.
    Changed { session: SessionId, hop: Hop, leg: Leg },
    /// It could not be opened there. `unwilling`: the node takes no new sessions at all.
    Refused { session: SessionId, hop: Hop, unwilling: bool, reason: Cow<'static, str> },
}

/// Sessions at nodes.
pub(crate) struct Drivers {
    /// By number.
    nodes: Vec<Option<Standing>>,
    agents: Agents,
    towards: fn(SocketAddr) -> Option<IpAddr>,
}

/// A node's driver, with what it keeps.
enum Standing {
    Plain(SocketAddr),
    Agent(Secret),
    Rtpengine(Box<Rtpengine>),
    Webhook(Box<Webhook>),
}

impl Drivers {
    /// `towards` finds the address from which packets to another leave this machine.
    pub(crate) fn new(towards: fn(SocketAddr) -> Option<IpAddr>) -> Drivers {
        Drivers { nodes: Vec::new(), agents: Agents::new(), towards }
    }

    /// A node has this driver from now on; or none any more, and what was kept of its sessions is forgotten.
    pub(crate) fn put(&mut self, node: NodeId, driver: Option<Driver>) {
        let standing = driver.map(|driver| match driver {
            Driver::Plain(address) => Standing::Plain(address),
            Driver::Agent(secret) => Standing::Agent(secret),
            Driver::Rtpengine(ng) => {
                Standing::Rtpengine(Box::new(Rtpengine::new(node, ng, self.towards)))
            }
            Driver::Webhook { name, address, hook } => {
                let webhook = Webhook::new((node, name), address, hook, self.towards);
                Standing::Webhook(Box::new(webhook))
            }
        });
        self.agents.forget(node);
        set(&mut self.nodes, node, standing);
    }

    fn get(&mut self, node: NodeId) -> Option<&mut Standing> {
        self.nodes.get_mut(node.0 as usize)?.as_mut()
    }

    /// Two plain nodes that a session would reach at the same address, if there are any: what comes from there could
    /// be of either. Of those that are to go none counts: their address may be another's already. `named` are addresses
    /// that its offer names.
    pub(crate) fn shared_address(
        &self,
        named: &[(NodeId, SocketAddr)],
        rtcp_apart: bool,
        leaves: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, NodeId, SocketAddr)> {
        let nodes = (0..).map(NodeId).zip(&self.nodes).filter(|(node, _)| !leaves(*node));
        let plain = nodes.filter_map(|(node, standing)| match standing.as_ref()? {
            Standing::Plain(address) => {
                let own = named.iter().find(|(at, _)| *at == node).map(|(_, address)| *address);
                Some((node, own.unwrap_or(*address)))
            }
            Standing::Agent(_) | Standing::Rtpengine(_) | Standing::Webhook(_) => None,
        });
        plain::shared(plain, rtcp_apart)
    }

    /// Opens a session at a hop: whether it is open comes now or later.
    pub(crate) fn open(
        &mut self,
        wish: &Wish<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<Act> {
        match self.nodes.get_mut(wish.hop.node.0 as usize)?.as_mut()? {
            Standing::Plain(standing) => Some(plain::open(*standing, wish)),
            Standing::Agent(_) => {
                let asking = self.agents.open(wish, draw, clock.now);
                self.sign(&asking, clock)
            }
            Standing::Rtpengine(engine) => engine.open(wish, draw, clock.now),
            Standing::Webhook(webhook) => webhook.open(wish, draw, clock.now),
        }
    }

    /// A bundle went from a worker to a node, or came, that not every path carries.
    pub(crate) fn sent_long(
        &mut self,
        way: (u16, NodeId),
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        self.agents.sent_long(way, draw, now);
    }

    /// To be called every 30 ms: whether paths carry what is sent.
    pub(crate) fn look_at_paths(&mut self, now: Instant) {
        self.agents.look_at_paths(now);
    }

    fn sign(&self, asking: &Asking, clock: Clock) -> Option<Act> {
        let &Asking { node, worker, ref question, nonce } = asking;
        let Standing::Agent(secret) = self.nodes.get(node.0 as usize)?.as_ref()? else {
            return None;
        };
        let mut message = Vec::new();
        question.write(secret, nonce, clock.unix_us, &mut message);
        let of_sessions = !matches!(question, Question::Path { .. });
        Some(Act::Sign { worker, node, message: message.into(), of_sessions })
    }

    /// Closes a session at a hop. The message may be lost; the lease ends it then.
    pub(crate) fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<Act> {
        match self.nodes.get_mut(hop.node.0 as usize)?.as_mut()? {
            Standing::Plain(_) => None,
            Standing::Agent(_) => {
                let asking = self.agents.close(session, hop)?;
                self.sign(&asking, clock)
            }
            Standing::Rtpengine(engine) => {
                engine.close(session, hop);
                None
            }
            Standing::Webhook(webhook) => webhook.close(session, hop),
        }
    }

    /// A signed message came from a node.
    pub(crate) fn handle_signed(
        &mut self,
        node: NodeId,
        message: &[u8],
        clock: Clock,
    ) -> Option<Act> {
        match self.nodes.get(node.0 as usize)?.as_ref()? {
            Standing::Agent(secret) => self.agents.handle_signed(node, secret, message, clock),
            Standing::Plain(_) | Standing::Rtpengine(_) | Standing::Webhook(_) => None,
        }
    }

    /// Something came by the NG protocol, or nobody takes it there.
    pub(crate) fn handle_ng(&mut self, node: NodeId, told: &Ng, clock: Clock) {
        if let Some(Standing::Rtpengine(engine)) = self.get(node) {
            engine.handle_ng(told, clock.now);
        }
    }

    /// A POST was answered, or was not.
    pub(crate) fn handle_posted(&mut self, node: NodeId, number: u64, posted: Posted) {
        if let Some(Standing::Webhook(webhook)) = self.get(node) {
            webhook.handle_posted(number, posted);
        }
    }

    /// What is due: what was to be said, openings to ask again, leases to refresh. To be called until there is nothing
    /// more.
    pub(crate) fn handle_timeout(&mut self, clock: Clock) -> Option<Act> {
        if let Some(asking) = self.agents.handle_timeout(clock.now) {
            return self.sign(&asking, clock);
        }
        self.nodes.iter_mut().flatten().find_map(|standing| match standing {
            Standing::Plain(_) | Standing::Agent(_) => None,
            Standing::Rtpengine(engine) => engine.handle_timeout(clock.now),
            Standing::Webhook(webhook) => webhook.handle_timeout(clock.now),
        })
    }
}

/// Numbers of a row that nobody guesses from each other, and no two alike: a mixing that loses nothing (SplitMix64).
fn mixed(drawn: u64, number: u64) -> u64 {
    let mut mixed = drawn.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Where a session is to be opened.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) session: SessionId,
    /// Its place.
    pub(crate) home: Home,
    pub(crate) room: RoomId,
    pub(crate) hop: Hop,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) rtcp_apart: bool,
    /// What media servers are told of it; none where no node wants to be told.
    pub(crate) brief: Option<&'a Brief>,
}

/// What media servers are told of a session.
#[derive(Debug)]
pub(crate) struct Brief {
    /// The name of its room.
    pub(crate) room: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) media: Arc<Media>,
    /// Where it sends from and hears: the ports of its own sockets, that for RTCP where it has one.
    pub(crate) ports: (u16, Option<u16>),
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
