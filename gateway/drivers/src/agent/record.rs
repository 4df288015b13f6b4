//! Leases at nodes with an agent, as another process continues them.

use std::collections::BTreeMap;

use evenkeel_media::trunk::Tag;
use evenkeel_model::{Hop, SessionId};
use serde::{Deserialize, Serialize};

/// The leases of all nodes, for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentsRecord {
    /// The seed of the names of rooms.
    pub(crate) names: Option<u64>,
    pub(crate) leases: Vec<LeaseRecord>,
}

impl AgentsRecord {
    pub(crate) fn by_session(self) -> BTreeMap<SessionId, AgentsRecord> {
        let mut by_session: BTreeMap<SessionId, AgentsRecord> = BTreeMap::new();
        for lease in self.leases {
            let new = || AgentsRecord { names: self.names, leases: Vec::new() };
            by_session.entry(lease.session).or_insert_with(new).leases.push(lease);
        }
        by_session
    }

    pub(crate) fn joined(
        names: Option<u64>,
        records: impl Iterator<Item = AgentsRecord>,
    ) -> AgentsRecord {
        AgentsRecord { names, leases: records.flat_map(|record| record.leases).collect() }
    }
}

/// A lease, as another process continues it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) session: SessionId,
    pub(crate) hop: Hop,
    pub(super) room: u64,
    pub(super) tag: Tag,
    /// The upper half of the nonce.
    pub(super) drawn: u64,
    pub(super) worker: u16,
}

impl LeaseRecord {
    /// The lease at the hop that its session has here.
    pub(crate) fn at(self, hop: Hop) -> LeaseRecord {
        LeaseRecord { hop, ..self }
    }
}
