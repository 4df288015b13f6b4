//! Opens, refreshes and closes sessions at nodes by the node's own protocol. A session at a node is a lease: it expires
//! unless refreshed, so nothing leaks if the gateway dies. Nothing here blocks: answers come later, and an opening
//! without an answer in time has failed.

#![deny(missing_docs)]

mod agent;
mod poster;
mod rtpengine;
mod session;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod tls;
mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use agent::TrunkPath;
use agent::{AgentDriver, AgentsRecord};
use evenkeel_config::WebhookTarget;
use evenkeel_core::SessionRecord;
use evenkeel_dataplane::worker::{NodeLeg, NodePort};
use evenkeel_media::trunk::GroupOwner;
use evenkeel_media::trunk::message::{NodeSecret, TrunkQuestion};
use evenkeel_model::{Hop, NodeId, SessionId};
pub use poster::{
    Effort, HttpAnswer, HttpClient, HttpError, HttpRequest, Posted, Poster, TraceHeaders,
    WebhookMessage,
};
use rtpengine::{CallRecord, Rtpengine};
pub use rtpengine::{Ng, NgDatagram, NgSocket};
use serde::{Deserialize, Serialize};
use session::Asking;
pub use session::{Brief, Clock, ContinuedSession, DriverAction, LocalSource, OpenRequest};
pub use socket::LocalTask;
use tokio::sync::mpsc;
use webhook::{Webhook, WebhookLeaseRecord};

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

/// The drivers of all nodes.
pub struct Drivers {
    /// Indexed by node.
    nodes: Vec<Option<NodeDriver>>,
    agents: AgentDriver,
    source: LocalSource,
    fencing: Arc<Fencing>,
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
        Drivers { nodes: Vec::new(), agents: AgentDriver::default(), source, fencing }
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
        self.agents.paths.forget(node);
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

    /// These sessions at nodes, for a follower of the records. A standby gets no keys of SRTP, since this process may go on with
    /// them.
    pub fn record_of(&self, sessions: &[&SessionRecord], with_keys: bool) -> DriversRecord {
        let (mut calls, mut webhooks) = (BTreeMap::new(), Vec::new());
        for (session, legs) in sessions.iter().map(|session| (session.id, &session.legs)) {
            for hop in legs.iter().map(|leg| leg.hop) {
                match self.nodes.get(hop.node.0 as usize).and_then(Option::as_ref) {
                    None | Some(NodeDriver::Plain(_) | NodeDriver::Agent(_)) => {}
                    Some(NodeDriver::Rtpengine(engine)) => {
                        let call = engine.record_of(session, hop, with_keys);
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
        shared(plain, rtcp_apart)
    }

    /// Opens a session at a hop. The result is returned at once or comes later as a `DriverAction`.
    pub fn open(
        &mut self,
        wish: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        if let Some(refused) = wish.refusal() {
            return Some(refused);
        }
        match self.nodes.get_mut(wish.hop.node.0 as usize)?.as_mut()? {
            NodeDriver::Plain(standing) => Some(open_plain(*standing, wish)),
            NodeDriver::Agent(_) => {
                let asking = self.agents.open(wish, draw, clock.now);
                self.sign(&asking, clock)
            }
            NodeDriver::Rtpengine(engine) => engine.open(wish, draw, clock.now),
            NodeDriver::Webhook(webhook) => webhook.open(wish, draw, clock.now),
        }
    }

    /// Records that a bundle longer than the minimum size was sent or received.
    pub fn sent_long(&mut self, path: TrunkPath, draw: &mut dyn FnMut() -> u64, now: Instant) {
        self.agents.paths.used(path, draw, now);
    }

    /// Performs path MTU discovery; called every 30 ms.
    pub fn look_at_paths(&mut self, now: Instant) {
        self.agents.paths.look(now);
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

    /// Gives the legs of the session's room other keys of SRTP, at most once a second.
    pub fn renew_keys(&mut self, session: SessionId, hop: Hop, now: Instant) {
        if let Some(NodeDriver::Rtpengine(engine)) = self.get(hop.node) {
            engine.renew_keys(session, hop, now);
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

    /// Handles the number of sessions that a node with an agent reports.
    pub fn handle_sessions(&mut self, node: NodeId, sessions: u32, now: Instant) {
        self.agents.handle_sessions(node, sessions, now);
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

/// Opens a session without signalling, at the node's configured address, or at one that the offer names.
fn open_plain(standing: SocketAddr, wish: &OpenRequest<'_>) -> DriverAction {
    let &OpenRequest { session, hop, address, rtcp_apart, .. } = wish;
    let (address, rtcp) = ports(address.unwrap_or(standing), rtcp_apart);
    let leg = NodeLeg::Port(Box::new(NodePort { address, rtcp_port: rtcp.port() }));
    DriverAction::Opened { session, hop, leg }
}

fn shared(
    nodes: impl Iterator<Item = (NodeId, SocketAddr)>,
    rtcp_apart: bool,
) -> Option<(NodeId, NodeId, SocketAddr)> {
    let mut taken = BTreeMap::new();
    for (node, address) in nodes {
        let (rtp, rtcp) = ports(address, rtcp_apart);
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

/// RTP and RTCP addresses of a node: one port, or RTCP on the next one.
fn ports(address: SocketAddr, rtcp_apart: bool) -> (SocketAddr, SocketAddr) {
    let next = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
    (address, if rtcp_apart { next } else { address })
}

/// Stores the value of a node in a table by node, which grows as needed.
pub fn set<T: Default>(table: &mut Vec<T>, node: NodeId, value: T) {
    let place = node.0 as usize;
    if place >= table.len() {
        table.resize_with(place + 1, T::default);
    }
    table[place] = value;
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

/// A call at its rtpengine.
type CallId = (NodeId, u64);

/// A copy of another process's open sessions, by session.
#[derive(Clone, Default, Debug)]
pub struct DriversReplica {
    agents: BTreeMap<SessionId, AgentsRecord>,
    webhooks: BTreeMap<SessionId, Vec<WebhookLeaseRecord>>,
    calls: BTreeMap<CallId, CallRecord>,
    /// The calls of each session.
    calls_of: BTreeMap<SessionId, Vec<CallId>>,
    names: Option<u64>,
}

impl DriversReplica {
    /// Takes the records of these sessions.
    pub fn apply(&mut self, changed: DriversRecord, sessions: impl Iterator<Item = SessionId>) {
        let DriversRecord { agents, calls, webhooks } = changed;
        sessions.for_each(|session| self.forget(session));
        self.names = agents.names.or(self.names);
        for (session, agents) in agents.by_session() {
            self.agents.insert(session, agents);
        }
        for lease in webhooks {
            self.webhooks.entry(lease.session).or_default().push(lease);
        }
        for call in calls {
            for (session, hop) in call.hops() {
                let id = (hop.node, call.number);
                self.calls.insert(id, call.clone());
                let calls = self.calls_of.entry(session).or_default();
                if !calls.contains(&id) {
                    calls.push(id);
                }
            }
        }
    }

    /// The session is closed.
    pub fn forget(&mut self, session: SessionId) {
        self.agents.remove(&session);
        self.webhooks.remove(&session);
        for id in self.calls_of.remove(&session).into_iter().flatten() {
            if let Some(call) = self.calls.get_mut(&id) {
                call.leave(session);
                if call.hops().next().is_none() {
                    self.calls.remove(&id);
                }
            }
        }
    }

    /// The record by which this process continues the sessions.
    pub fn record(self) -> DriversRecord {
        DriversRecord {
            agents: AgentsRecord::joined(self.names, self.agents.into_values()),
            calls: self.calls.into_values().collect(),
            webhooks: self.webhooks.into_values().flatten().collect(),
        }
    }
}

/// Reports of refused messages that wait. One is enough: all name about the same epoch.
const REFUSALS_MAX: usize = 64;

/// The epoch of this gateway in the messages to nodes, which refuse them once another gateway of the group is the owner.
#[derive(Default, Debug)]
pub struct Fencing {
    group: u32,
    /// 0: this gateway owns no addresses of a group.
    epoch: AtomicU64,
    refused: Option<mpsc::Sender<u64>>,
}

impl Fencing {
    /// Returns the fencing of a member of this group, and the newer epochs because of which nodes refuse its messages.
    pub fn new(group: u32) -> (Arc<Fencing>, mpsc::Receiver<u64>) {
        let (refused, epochs) = mpsc::channel(REFUSALS_MAX);
        let fencing = Fencing { group, epoch: AtomicU64::new(0), refused: Some(refused) };
        (Arc::new(fencing), epochs)
    }

    /// Signs messages in the name of this ownership from now on; 0 ends it.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The group and epoch in whose name messages are signed; `None` without a group.
    pub fn owner(&self) -> Option<GroupOwner> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch > 0).then_some(GroupOwner { group: self.group, epoch })
    }

    /// Handles that a node refused a message because it knows this epoch. Messages that were under way while this
    /// gateway's own epoch rose do not count.
    pub fn handle_refused(&self, node: NodeId, epoch: u64) {
        if self.owner().is_some_and(|owner| owner.epoch < epoch)
            && let Some(refused) = &self.refused
        {
            tracing::debug!(%node, epoch, "message refused: the group has a newer owner");
            // A full channel holds the same.
            let _ = refused.try_send(epoch);
        }
    }
}

/// The number of a group in messages to nodes; equal at all members.
pub fn group_number(cluster: &evenkeel_config::GroupSettings) -> u32 {
    let digest = evenkeel_process::sha256(cluster.members().join(" ").as_bytes());
    u32::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}
