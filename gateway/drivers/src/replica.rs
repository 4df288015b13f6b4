//! Sessions at nodes as another process continues them: their record, and a copy kept from the records of changed ones.

use std::collections::BTreeMap;

use evenkeel_model::{NodeId, SessionId};
use serde::{Deserialize, Serialize};

use super::agent::AgentsRecord;
use super::rtpengine::CallRecord;
use super::webhook::WebhookLeaseRecord;

/// Sessions at nodes, as another process continues them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriversRecord {
    pub(super) agents: AgentsRecord,
    pub(super) calls: Vec<CallRecord>,
    pub(super) webhooks: Vec<WebhookLeaseRecord>,
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
#[derive(Default, Debug)]
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
        self.names = agents.names().or(self.names);
        for (session, agents) in agents.by_session() {
            self.agents.insert(session, agents);
        }
        for lease in webhooks {
            self.webhooks.entry(lease.session).or_default().push(lease);
        }
        for call in calls {
            for (session, hop) in call.hops() {
                let id = (hop.node, call.number);
                self.calls.insert(id, call);
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
