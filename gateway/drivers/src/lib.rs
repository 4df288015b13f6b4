//! Opens, refreshes and closes sessions at nodes by the node's own protocol. A session at a node is a lease: it expires
//! unless refreshed, so nothing leaks if the gateway dies. Nothing here blocks: answers come later, and an opening
//! without an answer in time has failed.

#![deny(missing_docs)]

mod agent;
mod fencing;
mod plain;
mod poster;
mod replica;
mod rtpengine;
pub mod socket;
mod task;
#[cfg(test)]
mod tests;
mod webhook;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::{AgentDriver, AgentsRecord, Asking};
use bytes::Bytes;
use evenkeel_config::WebhookTarget;
use evenkeel_core::SessionRecord;
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::NodeLeg;
use evenkeel_media::trunk::message::{NodeSecret, TrunkQuestion};
use evenkeel_model::{Hop, Labels, MediaDescription, NodeId, RoomId, SessionId};
pub use fencing::{Fencing, group_number};
pub use poster::{Effort, HttpAnswer, HttpError, Poster};
pub use replica::DriversReplica;
use rtpengine::{CallRecord, Rtpengine};
pub use rtpengine::{Ng, NgSocket};
use serde::{Deserialize, Serialize};
pub use task::LocalTask;
pub use webhook::Posted;
use webhook::{Webhook, WebhookLeaseRecord};

/// Length limit of a reason that a node reports, characters.
const REASON_CHARS_MAX: usize = 200;

/// Shortens a reason that a node reports and removes control characters: it is shown in logs and to operators.
fn plain_reason(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

/// The driver of one node, with what it needs.
pub enum DriverConfig {
    /// No signalling: RTP goes to this address, or to one that the offer names.
    Plain(SocketAddr),
    /// Signed messages on the trunk.
    Agent(NodeSecret),
    /// The NG protocol at this address.
    Rtpengine(SocketAddr),
    /// POST requests about the node with this name and address.
    Webhook {
        /// The node's name in requests.
        name: Arc<str>,
        /// The address for media.
        address: SocketAddr,
        /// Where sessions are announced.
        hook: Arc<WebhookTarget>,
    },
}

/// An effect of the drivers: a message to send, or the outcome of an opening.
#[derive(Debug)]
pub enum DriverAction {
    /// Sends a signed message on the node's trunk. With `of_sessions` the message is about sessions and leaves from
    /// their home worker, because the node sends their packets to the source of the message. Otherwise the message is
    /// about the path.
    Sign {
        /// The worker whose socket sends it.
        worker: u16,
        /// The addressee.
        node: NodeId,
        /// Its body.
        message: Box<[u8]>,
        /// It is about sessions.
        of_sessions: bool,
    },
    /// Limits the size of trunk datagrams (bundles) from this worker to the node.
    LimitBundles {
        /// The sending worker.
        worker: u16,
        /// The receiver.
        node: NodeId,
        /// Bytes of a datagram.
        size_max: u16,
    },
    /// Sends an NG message.
    Ng {
        /// The addressee.
        node: NodeId,
        /// Cookie and dictionary.
        datagram: Arc<[u8]>,
    },
    /// Sends a POST request; `number` identifies its response.
    Post {
        /// The addressee.
        node: NodeId,
        /// The request's number.
        number: u64,
        /// Where it is sent.
        hook: Arc<WebhookTarget>,
        /// JSON.
        body: Bytes,
        /// The time limit.
        within: Duration,
    },
    /// The session is open at the hop.
    Opened {
        /// The session that can send packets now.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
        /// Where its packets go.
        leg: NodeLeg,
    },
    /// The session stays open at the hop with another leg.
    Changed {
        /// The session whose leg changed.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
        /// Where its packets go from now on.
        leg: NodeLeg,
    },
    /// The session was not opened at the hop.
    Refused {
        /// The session that the node refused.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
        /// The node accepts no new sessions at all.
        unwilling: bool,
        /// The node's reason.
        reason: Cow<'static, str>,
    },
    /// The node refused a message because its group has this newer epoch.
    Fenced {
        /// The node that refused the message.
        node: NodeId,
        /// The newer epoch.
        epoch: u64,
    },
}

/// The drivers of all nodes.
pub struct Drivers {
    /// Indexed by node.
    nodes: Vec<Option<NodeDriver>>,
    agents: AgentDriver,
    source: LocalSource,
    fencing: Arc<Fencing>,
}

/// The source address of packets from sessions' own ports.
#[derive(Clone, Copy, Debug)]
pub enum LocalSource {
    /// The ports are bound to it.
    Bound(IpAddr),
    /// The ports are bound to all addresses, and the route to a destination decides.
    Routed(fn(SocketAddr) -> Option<IpAddr>),
}

impl LocalSource {
    fn towards(self, other: SocketAddr) -> Option<IpAddr> {
        match self {
            LocalSource::Bound(address) => Some(address),
            LocalSource::Routed(towards) => towards(other),
        }
    }
}

/// Sessions at nodes, as another process continues them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriversRecord {
    agents: AgentsRecord,
    calls: Vec<CallRecord>,
    webhooks: Vec<WebhookLeaseRecord>,
}

impl DriversRecord {
    /// Notes that other sessions than these have other ports, on which they are opened again.
    pub fn lose_ports(&mut self, keeps: impl Fn(SessionId) -> bool) {
        self.calls.iter_mut().for_each(|call| call.lose_ports(&keeps));
        let leases = self.webhooks.iter_mut().filter(|lease| !keeps(lease.session));
        leases.for_each(|lease| lease.taken = None);
    }
}

/// Facts of the process that continues sessions of another one.
pub struct ContinuedSession<'a> {
    /// The hop that a recorded one is now, for a session that continues.
    pub hop: &'a dyn Fn(SessionId, Hop) -> Option<Hop>,
    /// Descriptions of sessions, for the drivers that need them.
    pub brief: &'a dyn Fn(SessionId) -> Option<&'a Brief>,
}

enum NodeDriver {
    Plain(SocketAddr),
    Agent(NodeSecret),
    Rtpengine(Box<Rtpengine>),
    Webhook(Box<Webhook>),
}

impl Drivers {
    /// Drivers without nodes.
    pub fn new(source: LocalSource, fencing: Arc<Fencing>) -> Drivers {
        Drivers { nodes: Vec::new(), agents: AgentDriver::new(), source, fencing }
    }

    /// Sets or removes a node's driver; removal drops its sessions.
    pub fn put(&mut self, node: NodeId, driver: Option<DriverConfig>) {
        let standing = driver.map(|driver| match driver {
            DriverConfig::Plain(address) => NodeDriver::Plain(address),
            DriverConfig::Agent(secret) => NodeDriver::Agent(secret),
            DriverConfig::Rtpengine(ng) => {
                NodeDriver::Rtpengine(Box::new(Rtpengine::new(node, ng, self.source)))
            }
            DriverConfig::Webhook { name, address, hook } => {
                let webhook = Webhook::new((node, name), address, hook, self.source);
                NodeDriver::Webhook(Box::new(webhook))
            }
        });
        self.agents.forget(node);
        set(&mut self.nodes, node, standing);
    }

    /// The sessions that are open at nodes, for another process.
    pub fn record(&self) -> DriversRecord {
        let (mut calls, mut webhooks) = (Vec::new(), Vec::new());
        for standing in self.nodes.iter().flatten() {
            match standing {
                NodeDriver::Plain(_) | NodeDriver::Agent(_) => {}
                NodeDriver::Rtpengine(engine) => calls.extend(engine.record()),
                NodeDriver::Webhook(webhook) => webhooks.extend(webhook.record()),
            }
        }
        DriversRecord { agents: self.agents.record(), calls, webhooks }
    }

    /// These sessions at nodes, for a follower of the records.
    pub fn record_of(&self, sessions: &[&SessionRecord]) -> DriversRecord {
        let (mut calls, mut webhooks) = (BTreeMap::new(), Vec::new());
        for (session, legs) in sessions.iter().map(|session| (session.id, &session.legs)) {
            for hop in legs.iter().map(|leg| leg.hop) {
                match self.nodes.get(hop.node.0 as usize).and_then(Option::as_ref) {
                    None | Some(NodeDriver::Plain(_) | NodeDriver::Agent(_)) => {}
                    Some(NodeDriver::Rtpengine(engine)) => {
                        let call = engine.record_of(session, hop);
                        calls.extend(call.map(|call| ((hop.node, call.number), call)));
                    }
                    Some(NodeDriver::Webhook(webhook)) => {
                        webhooks.extend(webhook.record_of(session, hop));
                    }
                }
            }
        }
        let agents = self.agents.record_of(sessions.iter().map(|session| session.id));
        DriversRecord { agents, calls: calls.into_values().collect(), webhooks }
    }

    /// Continues sessions that another process opened at nodes.
    pub fn restore(
        &mut self,
        record: DriversRecord,
        known: &ContinuedSession<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        let DriversRecord { agents, mut calls, webhooks } = record;
        self.agents.restore(agents, known.hop, now);
        calls.iter_mut().for_each(|call| call.await_openings(now));
        calls.sort_unstable_by_key(|call| call.refresh);
        for call in calls {
            let node = call.hops().find_map(|(session, hop)| (known.hop)(session, hop));
            if let Some(NodeDriver::Rtpengine(engine)) = node.and_then(|hop| self.get(hop.node)) {
                engine.restore(call, known, draw, now);
            }
        }
        for lease in webhooks {
            if let Some(hop) = (known.hop)(lease.session, lease.hop)
                && let Some(brief) = (known.brief)(lease.session)
                && let Some(NodeDriver::Webhook(webhook)) = self.get(hop.node)
            {
                webhook.restore(lease, hop, brief, now);
            }
        }
    }

    fn get(&mut self, node: NodeId) -> Option<&mut NodeDriver> {
        self.nodes.get_mut(node.0 as usize)?.as_mut()
    }

    /// Finds two plain nodes that the session would reach at the same address: their packets could not be told apart.
    /// Nodes that are being removed do not count, because another node may already have their address. `named` contains
    /// the addresses in the offer.
    pub fn shared_address(
        &self,
        named: &[(NodeId, SocketAddr)],
        rtcp_apart: bool,
        leaves: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, NodeId, SocketAddr)> {
        let nodes = (0..).map(NodeId).zip(&self.nodes).filter(|(node, _)| !leaves(*node));
        let plain = nodes.filter_map(|(node, standing)| match standing.as_ref()? {
            NodeDriver::Plain(address) => {
                let own = named.iter().find(|(at, _)| *at == node).map(|(_, address)| *address);
                Some((node, own.unwrap_or(*address)))
            }
            NodeDriver::Agent(_) | NodeDriver::Rtpengine(_) | NodeDriver::Webhook(_) => None,
        });
        plain::shared(plain, rtcp_apart)
    }

    /// Opens a session at a hop. The result is returned at once or comes later as a `DriverAction`.
    pub fn open(
        &mut self,
        wish: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        match self.nodes.get_mut(wish.hop.node.0 as usize)?.as_mut()? {
            NodeDriver::Plain(standing) => Some(plain::open(*standing, wish)),
            NodeDriver::Agent(_) => {
                let asking = self.agents.open(wish, draw, clock.now);
                self.sign(&asking, clock)
            }
            NodeDriver::Rtpengine(engine) => engine.open(wish, draw, clock.now),
            NodeDriver::Webhook(webhook) => webhook.open(wish, draw, clock.now),
        }
    }

    /// Records that a bundle longer than the minimum size was sent or received.
    pub fn sent_long(&mut self, way: (u16, NodeId), draw: &mut dyn FnMut() -> u64, now: Instant) {
        self.agents.sent_long(way, draw, now);
    }

    /// Performs path MTU discovery; called every 30 ms.
    pub fn look_at_paths(&mut self, now: Instant) {
        self.agents.look_at_paths(now);
    }

    fn sign(&self, asking: &Asking, clock: Clock) -> Option<DriverAction> {
        let &Asking { node, worker, ref question, nonce } = asking;
        let NodeDriver::Agent(secret) = self.nodes.get(node.0 as usize)?.as_ref()? else {
            return None;
        };
        let mut message = Vec::new();
        let owner = self.fencing.owner();
        question.write_for(owner, secret, nonce, clock.unix_us, &mut message);
        let of_sessions = !matches!(question, TrunkQuestion::Path { .. });
        Some(DriverAction::Sign { worker, node, message: message.into(), of_sessions })
    }

    /// If the message is lost, the lease expires.
    pub fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<DriverAction> {
        match self.nodes.get_mut(hop.node.0 as usize)?.as_mut()? {
            NodeDriver::Plain(_) => None,
            NodeDriver::Agent(_) => {
                let asking = self.agents.close(session, hop)?;
                self.sign(&asking, clock)
            }
            NodeDriver::Rtpengine(engine) => {
                engine.close(session, hop);
                None
            }
            NodeDriver::Webhook(webhook) => webhook.close(session, hop),
        }
    }

    /// Handles an answer that the node's agent signed.
    pub fn handle_signed(
        &mut self,
        node: NodeId,
        message: &[u8],
        clock: Clock,
    ) -> Option<DriverAction> {
        match self.nodes.get(node.0 as usize)?.as_ref()? {
            NodeDriver::Agent(secret) => self.agents.handle_signed(node, secret, message, clock),
            NodeDriver::Plain(_) | NodeDriver::Rtpengine(_) | NodeDriver::Webhook(_) => None,
        }
    }

    /// Handles a datagram from rtpengine, or its absence.
    pub fn handle_ng(&mut self, node: NodeId, told: &Ng, clock: Clock) {
        if let Some(NodeDriver::Rtpengine(engine)) = self.get(node) {
            engine.handle_ng(told, clock.now);
        }
    }

    /// Handles the response to a [`DriverAction::Post`].
    pub fn handle_posted(&mut self, node: NodeId, number: u64, posted: Posted) {
        if let Some(NodeDriver::Webhook(webhook)) = self.get(node) {
            webhook.handle_posted(number, posted);
        }
    }

    /// Returns the next message to an agent that is due. Called until it returns `None`.
    pub fn handle_agents_timeout(&mut self, clock: Clock) -> Option<DriverAction> {
        loop {
            let asking = self.agents.handle_timeout(clock.now)?;
            // The node may have left meanwhile.
            if let Some(act) = self.sign(&asking, clock) {
                return Some(act);
            }
        }
    }

    /// Returns the next queued message, retry or refresh that is due. Called until it returns `None`.
    pub fn handle_timeout(&mut self, clock: Clock) -> Option<DriverAction> {
        if let Some(act) = self.handle_agents_timeout(clock) {
            return Some(act);
        }
        self.nodes.iter_mut().flatten().find_map(|standing| match standing {
            NodeDriver::Plain(_) | NodeDriver::Agent(_) => None,
            NodeDriver::Rtpengine(engine) => engine.handle_timeout(clock.now),
            NodeDriver::Webhook(webhook) => webhook.handle_timeout(clock.now),
        })
    }
}

/// Unpredictable, distinct numbers from a counter, by a bijective mixer (SplitMix64).
fn mixed(drawn: u64, number: u64) -> u64 {
    let mut mixed = drawn.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A session to open at a hop.
#[derive(Clone, Copy)]
pub struct OpenRequest<'a> {
    /// The session to open.
    pub session: SessionId,
    /// The worker and slot that own its packets.
    pub home: Home,
    /// The room's number at nodes.
    pub room: RoomId,
    /// The hop at which it is opened.
    pub hop: Hop,
    /// The node's address for this session; `None` for the configured one.
    pub address: Option<SocketAddr>,
    /// RTCP has a port of its own.
    pub rtcp_apart: bool,
    /// Description for media servers; `None` if no driver needs it.
    pub brief: Option<&'a Brief>,
}

/// Description of a session for media servers.
#[derive(Debug)]
pub struct Brief {
    /// The room's name.
    pub room: Arc<str>,
    /// Labels of the offer.
    pub labels: Labels,
    /// Its streams.
    pub media: Arc<MediaDescription>,
    /// Local ports of the session's sockets for RTP and, if it has its own port, RTCP.
    pub ports: (u16, Option<u16>),
}

/// Monotonic and wall clock, read together.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Monotonic time.
    pub now: Instant,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

impl Clock {
    /// Reads both clocks of the system.
    pub fn read() -> Clock {
        let unix_us = evenkeel_process::unix_us(std::time::SystemTime::now());
        Clock { now: Instant::now(), unix_us }
    }
}

/// Stores the value of a node in a table by node, which grows as needed.
pub fn set<T: Default>(table: &mut Vec<T>, node: NodeId, value: T) {
    let place = node.0 as usize;
    if place >= table.len() {
        table.resize_with(place + 1, T::default);
    }
    table[place] = value;
}
