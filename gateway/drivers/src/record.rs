//! Sessions at nodes, as another process continues them.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_model::{Hop, NodeId, SessionId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::agent::AgentsRecord;
use crate::rtpengine::CallRecord;
use crate::webhook::WebhookLeaseRecord;

/// Sessions at nodes, as another process continues them. The first three lists are those of the drivers that processes of
/// older versions know; they keep their form.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriversRecord {
    pub(crate) agents: AgentsRecord,
    pub(crate) calls: Vec<CallRecord>,
    pub(crate) webhooks: Vec<WebhookLeaseRecord>,
    /// Of all other drivers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leases: Vec<LeaseRecord>,
}

/// A session at a node, as its driver continues it in another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The session at the node.
    pub session: SessionId,
    /// Its hop, in the numbers of the process that reads the record.
    pub hop: Hop,
    /// Cleared if the session has other ports since: the core opens it again.
    pub has_ports: bool,
    /// What the driver wrote.
    pub state: LeaseState,
}

/// The state of a session in the encoding of its driver. It may contain keys.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseState(Zeroizing<Vec<u8>>);

impl LeaseState {
    /// The driver's encoding.
    pub fn new(bytes: Vec<u8>) -> LeaseState {
        LeaseState(Zeroizing::new(bytes))
    }

    /// The driver's encoding.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for LeaseState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LeaseState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LeaseState, D::Error> {
        Vec::deserialize(deserializer).map(LeaseState::new)
    }
}

impl fmt::Debug for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseState({} bytes)", self.0.len())
    }
}

impl DriversRecord {
    pub(crate) fn new(room_names: Option<u64>) -> DriversRecord {
        let agents = AgentsRecord { names: room_names, leases: Vec::new() };
        DriversRecord { agents, calls: Vec::new(), webhooks: Vec::new(), leases: Vec::new() }
    }

    /// Adds a session of a driver that has no list of its own.
    pub fn add(&mut self, lease: LeaseRecord) {
        self.leases.push(lease);
    }

    /// The sessions of drivers that have no list of their own.
    pub fn leases(&self) -> &[LeaseRecord] {
        &self.leases
    }

    /// The seed of the names of rooms towards nodes.
    pub(crate) fn room_names(&self) -> Option<u64> {
        self.agents.names
    }

    /// Keeps one record of each call, which each of its sessions brought.
    pub(crate) fn join_calls(&mut self) {
        let id = |call: &CallRecord| (call.hops().next().map(|(_, hop)| hop.node), call.number);
        self.calls.sort_by_key(id);
        self.calls.dedup_by_key(|call| id(call));
    }

    /// The records by the nodes that their sessions have here. Leases get the hop that they have here.
    pub(crate) fn by_node(
        self,
        here: &dyn Fn(SessionId, Hop) -> Option<Hop>,
    ) -> BTreeMap<NodeId, DriversRecord> {
        let DriversRecord { agents, calls, webhooks, leases } = self;
        let mut nodes = NodeRecords { room_names: agents.names, nodes: BTreeMap::new() };
        for lease in agents.leases {
            if let Some(hop) = here(lease.session, lease.hop) {
                nodes.at(hop).agents.leases.push(lease.at(hop));
            }
        }
        for call in calls {
            let hop = call.hops().find_map(|(session, hop)| here(session, hop));
            if let Some(hop) = hop {
                nodes.at(hop).calls.push(call);
            }
        }
        for lease in webhooks {
            if let Some(hop) = here(lease.session, lease.hop) {
                nodes.at(hop).webhooks.push(lease.at(hop));
            }
        }
        for lease in leases {
            if let Some(hop) = here(lease.session, lease.hop) {
                nodes.at(hop).leases.push(LeaseRecord { hop, ..lease });
            }
        }
        nodes.nodes
    }

    /// Notes that other sessions than these have other ports, on which they are opened again.
    pub fn lose_ports(&mut self, keeps: impl Fn(SessionId) -> bool) {
        self.calls.iter_mut().for_each(|call| call.lose_ports(&keeps));
        let webhooks = self.webhooks.iter_mut().filter(|lease| !keeps(lease.session));
        webhooks.for_each(|lease| lease.taken = None);
        let leases = self.leases.iter_mut().filter(|lease| !keeps(lease.session));
        leases.for_each(|lease| lease.has_ports = false);
    }
}

/// Records by the nodes of their sessions.
struct NodeRecords {
    room_names: Option<u64>,
    nodes: BTreeMap<NodeId, DriversRecord>,
}

impl NodeRecords {
    fn at(&mut self, hop: Hop) -> &mut DriversRecord {
        self.nodes.entry(hop.node).or_insert_with(|| DriversRecord::new(self.room_names))
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
    leases: BTreeMap<SessionId, Vec<LeaseRecord>>,
    names: Option<u64>,
}

impl DriversReplica {
    /// Takes the records of these sessions.
    pub fn apply(&mut self, changed: DriversRecord, sessions: impl Iterator<Item = SessionId>) {
        let DriversRecord { agents, calls, webhooks, leases } = changed;
        sessions.for_each(|session| self.forget(session));
        self.names = agents.names.or(self.names);
        for (session, agents) in agents.by_session() {
            self.agents.insert(session, agents);
        }
        for lease in webhooks {
            self.webhooks.entry(lease.session).or_default().push(lease);
        }
        for lease in leases {
            self.leases.entry(lease.session).or_default().push(lease);
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
        self.leases.remove(&session);
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
            leases: self.leases.into_values().flatten().collect(),
        }
    }
}
