//! The drivers of all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_config::NodeConfig;
use evenkeel_core::SessionRecord;
use evenkeel_model::{Hop, NodeId, SessionId};

use crate::driver::{DriverContext, DriverTable, NodeDriver, NodeInput, RecordScope};
use crate::fencing::Fencing;
use crate::record::DriversRecord;
use crate::session::{Clock, ContinuedSession, DriverAction, LocalSource, OpenRequest, ports};

/// Timers of drivers are this exact.
const ROUND_EVERY: Duration = Duration::from_millis(1);

/// The drivers of all nodes.
pub struct Drivers {
    table: DriverTable,
    context: DriverContext,
    /// Indexed by node.
    nodes: Vec<Option<Box<dyn NodeDriver>>>,
    /// Nodes whose drivers have changed since they were polled.
    changed: BTreeSet<NodeId>,
    /// The start of the last round, in which all drivers are polled.
    round: Option<Instant>,
    /// The next node of the round.
    turn: usize,
}

impl Drivers {
    /// Drivers of this table, without nodes.
    pub fn new(table: DriverTable, source: LocalSource, fencing: Arc<Fencing>) -> Drivers {
        let context = DriverContext { source, fencing, room_names: Arc::default() };
        let (nodes, changed) = (Vec::new(), BTreeSet::new());
        Drivers { table, context, nodes, changed, round: None, turn: 0 }
    }

    /// Sets or removes a node's driver; removal drops its sessions.
    pub fn put(&mut self, node: NodeId, config: Option<&NodeConfig>) {
        let start = |config: &NodeConfig| {
            let driver = self.table.iter().find(|driver| driver.name() == config.driver.name);
            let driver = driver.expect("the settings were read with the same drivers");
            driver.start(node, config, &self.context)
        };
        set(&mut self.nodes, node, config.map(start));
        self.changed.insert(node);
    }

    /// The sessions that are open at nodes, for another process.
    pub fn record(&self) -> DriversRecord {
        let mut record = DriversRecord::new(self.context.room_names.seed());
        for driver in self.nodes.iter().flatten() {
            driver.record(RecordScope::All, &mut record);
        }
        record
    }

    /// These sessions at nodes, for a follower of the records. A standby gets no keys of SRTP, since this process may go on with
    /// them.
    pub fn record_of(&self, sessions: &[&SessionRecord], with_keys: bool) -> DriversRecord {
        let mut record = DriversRecord::new(self.context.room_names.seed());
        for (session, legs) in sessions.iter().map(|session| (session.id, &session.legs)) {
            for hop in legs.iter().map(|leg| leg.hop) {
                if let Some(Some(driver)) = self.nodes.get(hop.node.0 as usize) {
                    driver.record(RecordScope::Session { session, hop, with_keys }, &mut record);
                }
            }
        }
        record.join_calls();
        record
    }

    /// Continues sessions that another process opened at nodes.
    pub fn restore(
        &mut self,
        record: DriversRecord,
        known: &ContinuedSession<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        self.context.room_names.continue_from(record.room_names());
        for (node, record) in record.by_node(known.hop) {
            if let Some(driver) = self.get(node) {
                driver.restore(record, known, draw, now);
            }
        }
        self.nodes.iter_mut().flatten().for_each(|driver| driver.refresh(now));
    }

    /// The driver of a node that is about to change.
    fn get(&mut self, node: NodeId) -> Option<&mut dyn NodeDriver> {
        let driver = self.nodes.get_mut(node.0 as usize)?.as_mut()?;
        self.changed.insert(node);
        Some(&mut **driver)
    }

    /// Finds two nodes that the session would reach at the same address, and that separate sessions by it: their packets
    /// could not be told apart. Nodes that are being removed do not count, because another node may already have their
    /// address. `named` contains the addresses in the offer.
    pub fn shared_address(
        &self,
        named: &[(NodeId, SocketAddr)],
        rtcp_apart: bool,
        leaves: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, NodeId, SocketAddr)> {
        let nodes = (0..).map(NodeId).zip(&self.nodes).filter(|(node, _)| !leaves(*node));
        let at = nodes.filter_map(|(node, driver)| {
            let address = driver.as_ref()?.shared_address()?;
            let own = named.iter().find(|(at, _)| *at == node).map(|(_, address)| *address);
            Some((node, own.unwrap_or(address)))
        });
        shared(at, rtcp_apart)
    }

    /// Opens a session at a hop. The result is returned at once or comes later as a `DriverAction`.
    pub fn open(
        &mut self,
        request: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        if let Some(refused) = request.refusal() {
            return Some(refused);
        }
        self.get(request.hop.node)?.open(request, draw, clock)
    }

    /// If the message is lost, the lease expires.
    pub fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<DriverAction> {
        self.get(hop.node)?.close(session, hop, clock)
    }

    /// Handles an input of a node's driver.
    pub fn handle(
        &mut self,
        node: NodeId,
        input: NodeInput,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        self.get(node)?.handle(input, draw, clock)
    }

    /// The nodes that drop packets until a message of their driver comes from the same source.
    pub fn announcing(&self) -> Vec<NodeId> {
        let nodes = (0..).map(NodeId).zip(&self.nodes);
        let announces = |driver: &dyn NodeDriver| driver.announces_source();
        nodes
            .filter(|(_, driver)| driver.as_deref().is_some_and(announces))
            .map(|(node, _)| node)
            .collect()
    }

    /// Returns the next message of this node's driver that is due. Called until it returns `None`.
    pub fn poll_node(&mut self, node: NodeId, clock: Clock) -> Option<DriverAction> {
        self.nodes.get_mut(node.0 as usize)?.as_mut()?.poll(clock)
    }

    /// Returns the next queued message, retry or refresh that is due. Called until it returns `None`.
    pub fn poll(&mut self, clock: Clock) -> Option<DriverAction> {
        while let Some(&node) = self.changed.first() {
            if let Some(action) = self.poll_node(node, clock) {
                return Some(action);
            }
            self.changed.remove(&node);
        }
        let is_due = self.round.is_none_or(|round| round + ROUND_EVERY <= clock.now);
        if is_due && self.turn >= self.nodes.len() {
            (self.round, self.turn) = (Some(clock.now), 0);
        }
        while self.turn < self.nodes.len() {
            if let Some(action) = self.poll_node(NodeId(self.turn as u32), clock) {
                return Some(action);
            }
            self.turn += 1;
        }
        None
    }
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

/// Stores the value of a node in a table by node, which grows as needed.
pub fn set<T: Default>(table: &mut Vec<T>, node: NodeId, value: T) {
    let place = node.0 as usize;
    if place >= table.len() {
        table.resize_with(place + 1, T::default);
    }
    table[place] = value;
}

#[cfg(test)]
mod tests;
