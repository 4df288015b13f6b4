//! Nodes with an agent: sessions are opened by signed messages on the trunk. One message refreshes many sessions;
//! sessions that the node has lost are opened again.

mod leases;
mod paths;

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_dataplane::worker::{NodeLeg, tag};
use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{NodeSecret, OpenStatus, TrunkAnswer, TrunkQuestion};
use evenkeel_model::{Hop, NodeId, RoomId, SessionId};
use leases::{DueLease, LEASE, LeaseRecord, LeaseRefresh, LeaseState, Leases, TrunkLease};
use paths::Paths;
use serde::{Deserialize, Serialize};

use super::session::{Asking, Clock, DriverAction, OpenRequest, mixed};

/// The leases of all nodes, for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AgentsRecord {
    names: Option<u64>,
    leases: Vec<LeaseRecord>,
}

impl AgentsRecord {
    pub(super) fn names(&self) -> Option<u64> {
        self.names
    }

    pub(super) fn by_session(self) -> BTreeMap<SessionId, AgentsRecord> {
        let mut by_session: BTreeMap<SessionId, AgentsRecord> = BTreeMap::new();
        for lease in self.leases {
            let new = || AgentsRecord { names: self.names, leases: Vec::new() };
            by_session.entry(lease.session).or_insert_with(new).leases.push(lease);
        }
        by_session
    }

    pub(super) fn joined(
        names: Option<u64>,
        records: impl Iterator<Item = AgentsRecord>,
    ) -> AgentsRecord {
        AgentsRecord { names, leases: records.flat_map(|record| record.leases).collect() }
    }
}

pub(super) struct AgentDriver {
    leases: Leases,
    /// Seeds the room names used towards nodes. Random, because other gateways count rooms from 1 too and may share a
    /// node.
    names: Option<u64>,
    paths: Paths,
}

impl AgentDriver {
    pub(super) fn new() -> AgentDriver {
        AgentDriver { leases: Leases::new(), names: None, paths: Paths::default() }
    }

    pub(super) fn open(
        &mut self,
        wish: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) -> Asking {
        let &OpenRequest { session, home, room: RoomId(room), hop, .. } = wish;
        self.leases.end(session, hop);
        let names = *self.names.get_or_insert_with(&mut *draw);
        let whose = (session, hop, home.worker);
        let lease = self.leases.begin(whose, mixed(names, room), tag(home.slot, draw()), draw());
        self.ask(&lease, now)
    }

    pub(super) fn record_of(&self, sessions: impl Iterator<Item = SessionId>) -> AgentsRecord {
        let leases = sessions.flat_map(|session| self.leases.record_of(session));
        AgentsRecord { names: self.names, leases: leases.collect() }
    }

    pub(super) fn record(&self) -> AgentsRecord {
        AgentsRecord { names: self.names, leases: self.leases.record() }
    }

    /// Continues the leases of another process at these hops, and refreshes them at once.
    pub(super) fn restore(
        &mut self,
        record: AgentsRecord,
        hop: impl Fn(SessionId, Hop) -> Option<Hop>,
        now: Instant,
    ) {
        self.names = record.names.or(self.names);
        for lease in record.leases {
            if let Some(hop) = hop(lease.session, lease.hop) {
                self.leases.restore(LeaseRecord { hop, ..lease });
            }
        }
        self.leases.refresh_all(now);
    }

    /// Requests the opening of a lease, repeated until answered.
    fn ask(&mut self, lease: &TrunkLease, now: Instant) -> Asking {
        let &TrunkLease { session, hop, room, tag, nonce, worker, .. } = lease;
        self.leases.asked(nonce, now);
        let lease_s = LEASE.as_secs() as u16;
        let question = TrunkQuestion::Open { room, session: session.0, tag, lease_s };
        Asking { node: hop.node, worker, question, nonce }
    }

    /// If the message is lost, the lease expires.
    pub(super) fn close(&mut self, session: SessionId, hop: Hop) -> Option<Asking> {
        let TrunkLease { tag, worker, nonce, .. } = self.leases.end(session, hop)?;
        Some(Asking { node: hop.node, worker, question: TrunkQuestion::Close { tag }, nonce })
    }

    pub(super) fn handle_signed(
        &mut self,
        node: NodeId,
        secret: &NodeSecret,
        message: &[u8],
        clock: Clock,
    ) -> Option<DriverAction> {
        let verified = TrunkAnswer::read(message, secret, clock.unix_us).ok()?;
        match verified.message {
            TrunkAnswer::Open { tag, status } => self.answered(node, verified.nonce, tag, status),
            TrunkAnswer::Keep { unknown } => {
                self.leases.refreshed(node, verified.nonce, &unknown, clock.now);
                None
            }
            TrunkAnswer::Path { .. } => {
                let changed = self.paths.answered(node, verified.nonce, clock.now);
                changed.map(|(worker, size_max)| DriverAction::LimitBundles {
                    worker,
                    node,
                    size_max,
                })
            }
            TrunkAnswer::Superseded { epoch } => Some(DriverAction::Fenced { node, epoch }),
            _ => None,
        }
    }

    fn answered(
        &mut self,
        node: NodeId,
        nonce: u64,
        tag: Tag,
        status: OpenStatus,
    ) -> Option<DriverAction> {
        let lease = self.leases.by_nonce(nonce)?;
        let TrunkLease { session, hop, state, .. } = *lease;
        if hop.node != node || tag != lease.tag {
            return None;
        }
        let (unwilling, reason) = match status {
            OpenStatus::Ok => {
                lease.state = LeaseState::Open;
                let opened = DriverAction::Opened { session, hop, leg: NodeLeg::Trunk(tag) };
                return (state == LeaseState::Opening).then_some(opened);
            }
            OpenStatus::Full => (true, "it is full"),
            OpenStatus::Draining => (true, "it is draining"),
            OpenStatus::UnknownTag => (false, "it does not know the tag"),
            OpenStatus::Failed => (false, "it failed to"),
            OpenStatus::Unencrypted => (false, "it requires `encrypt = true`"),
        };
        self.leases.end(session, hop)?;
        Some(DriverAction::Refused { session, hop, unwilling, reason: reason.into() })
    }

    /// Restarts path MTU discovery for a removed or replaced node.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.paths.forget(node);
    }

    pub(super) fn sent_long(
        &mut self,
        (worker, node): (u16, NodeId),
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        self.paths.used((worker, node), draw, now);
    }

    pub(super) fn look_at_paths(&mut self, now: Instant) {
        self.paths.look(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Asking> {
        if let Some(asking) = self.paths.due() {
            return Some(asking);
        }
        Some(match self.leases.due(now)? {
            DueLease::Open(lease) => self.ask(&lease, now),
            DueLease::Keep(LeaseRefresh { node, worker, nonce, tags }) => {
                let question = TrunkQuestion::Keep { lease_s: LEASE.as_secs() as u16, tags };
                Asking { node, worker, question, nonce }
            }
        })
    }
}
