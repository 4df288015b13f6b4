//! Copies of the gateway in virtual time, made of its record: one loses nodes, for the blast radius of their loss; another one has
//! no sessions and one policy, for the proof of a revision.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreSettings, Health, MediaDescription, NodeId, NodeProbing, NodeSettings, PolicyName, RoomId,
    SessionId,
};
use evenkeel_nodes::{Node, OpeningWindow};

use crate::effects::Timer;
use crate::gateway::Gateway;
use crate::gateway::records::Records;
use crate::record::{GatewayRecord, RestoreError};
use crate::rooms::room::RoomRecord;
use crate::sessions::SessionRecord;

/// No session of a copy ends for silence: its clients are not heard there.
const NEVER_SILENT: Duration = Duration::from_secs(86_400);

/// First number of rooms and sessions of a copy that begins without them: none of the copied gateway's has it.
const FIRST_NUMBER: u64 = 1 << 63;

/// A copy of a gateway: its settings, nodes and regions, and the rooms that were added.
#[derive(Clone, Debug)]
pub struct GatewayCopy {
    settings: CoreSettings,
    /// Names a node by its place in `nodes`.
    record: GatewayRecord,
    /// Indexed by the node's number in the copy.
    nodes: Vec<CopiedNode>,
    /// Rooms of the gateway that are not covered.
    unprotected: u32,
    /// The next reviews of all rooms, with their times.
    reviews: Vec<(Timer, Instant)>,
}

/// The facts of a node that no record contains.
#[derive(Clone, Debug)]
pub(super) struct CopiedNode {
    id: NodeId,
    refuses: bool,
    loses: bool,
    decay_permille: u16,
    /// The pace of openings.
    openings: OpeningWindow,
    /// The round trip of its probes; zero without one.
    round_trip: Duration,
    /// The usual time until its death is detected.
    detected_within: Duration,
    /// Other names of the same machine.
    beside: Vec<NodeId>,
}

/// A live session, for a copy.
#[derive(Clone, Debug)]
pub struct SessionCopy {
    session: SessionRecord,
    media: Arc<MediaDescription>,
}

impl SessionCopy {
    /// The record of the session.
    pub fn record(&self) -> &SessionRecord {
        &self.session
    }
}

impl Records<'_> {
    /// Copies the settings, the nodes and the regions.
    pub fn copy_nodes(&self) -> GatewayCopy {
        let table = &self.gateway.tables.nodes;
        let copied = |node: &Node| CopiedNode {
            id: node.id,
            refuses: node.takes_rooms() && !node.welcomes_rooms(),
            loses: node.loses(),
            decay_permille: node.decay_permille,
            openings: table.pace(node.id).idle(),
            round_trip: node.detector.round_trip().map_or(Duration::ZERO, |(smoothed, _)| smoothed),
            detected_within: node.detector.detects_within(node.settings.probed),
            beside: self.gateway.tables.capacity.ledger().beside(node.id).collect(),
        };
        // A copy sends no probes.
        let unprobed = |node: &Node| NodeSettings {
            probed: NodeProbing::No,
            canary: false,
            ..node.settings.clone()
        };
        let mut settings = CoreSettings {
            zones: table.zones().to_vec(),
            nodes: table.iter().map(unprobed).collect(),
            ..self.gateway.tables.settings.clone()
        };
        for scenario in settings.scenarios.values_mut() {
            scenario.bound.fill(false);
        }
        let mut record = self.of_places();
        for (place, node) in record.nodes.iter_mut().enumerate() {
            node.name = place.to_string().into();
            // A restored node is listed again.
            node.trust.draining |= node.trust.removed;
        }
        let due = |timer: Timer| self.gateway.tables.effects.due(&timer).map(|at| (timer, at));
        GatewayCopy {
            settings,
            record,
            nodes: table.iter().map(copied).collect(),
            unprotected: self.gateway.tables.worklists.unprotected() as u32,
            reviews: [Timer::Weigh, Timer::Failback].into_iter().filter_map(due).collect(),
        }
    }

    /// Copies the placed rooms after this one in order of their ids.
    pub fn copy_rooms(
        &self,
        after: RoomId,
        now: Instant,
    ) -> impl Iterator<Item = (RoomId, Option<RoomRecord>)> {
        let rooms = self.gateway.rooms.after(after).filter(|room| room.is_placed());
        rooms.map(move |room| {
            let mut copy = self.room(room, now);
            copy.forget_review(room.heading().is_some());
            (room.id(), Some(copy))
        })
    }

    /// Copies the sessions after this one in order of their ids. A session that is not live has no copy.
    pub fn copy_sessions(
        &self,
        after: SessionId,
    ) -> impl Iterator<Item = (SessionId, Option<SessionCopy>)> {
        let rest = self.gateway.tables.sessions.range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(id, session)| {
            let copy = session.is_live().then(|| SessionCopy {
                session: self.session(session, 0),
                media: Arc::clone(session.media()),
            });
            (id, copy)
        })
    }
}

impl GatewayCopy {
    /// The settings of the copied gateway, with its present nodes; no scenario binds a policy.
    pub fn settings(&self) -> &CoreSettings {
        &self.settings
    }

    /// Begins a gateway without sessions on the copied nodes. Of the policies only this one decides.
    ///
    /// # Errors
    /// If the copied parts contradict each other.
    pub fn begin(&self, policy: &PolicyName, now: Instant) -> Result<Gateway, RestoreError> {
        let mut settings = self.settings.clone();
        for scenario in settings.scenarios.values_mut().filter(|it| it.set == policy.set) {
            scenario.bound[policy.hook as usize] = true;
        }
        let (next_room, next_session) = (FIRST_NUMBER, FIRST_NUMBER);
        let record = GatewayRecord { next_room, next_session, ..self.record.clone() };
        self.restored(settings, record, now)
    }

    /// Continues the copy with other settings. Sessions that were added without their room are left out.
    pub(super) fn start(
        &self,
        settings: CoreSettings,
        now: Instant,
    ) -> Result<Gateway, RestoreError> {
        self.restored(settings, self.consistent_record(), now)
    }

    pub(super) fn nodes(&self) -> &[CopiedNode] {
        &self.nodes
    }

    /// The sessions that were added.
    pub(super) fn sessions(&self) -> &[SessionRecord] {
        &self.record.sessions
    }

    /// Rooms of the gateway that are not covered.
    pub(super) fn unprotected(&self) -> u32 {
        self.unprotected
    }

    /// The next reviews of all rooms, with their times.
    pub(super) fn reviews(&self) -> &[(Timer, Instant)] {
        &self.reviews
    }

    fn restored(
        &self,
        settings: CoreSettings,
        record: GatewayRecord,
        now: Instant,
    ) -> Result<Gateway, RestoreError> {
        let mut gateway = Gateway::new(settings, now);
        gateway.handle_summaries_within(NEVER_SILENT);
        let by_place = |name: &str| name.parse().ok().map(NodeId);
        gateway.handle_record(record, by_place, now)?;
        for (here, copied) in (0..).map(NodeId).zip(&self.nodes) {
            copied.apply(here, self, &mut gateway, now);
        }
        gateway.settle_restored(now);
        Ok(gateway)
    }

    /// Adds a room.
    pub fn add_room(&mut self, room: RoomRecord) {
        self.record.next_room = self.record.next_room.max(room.largest_number() + 1);
        self.record.rooms.push(room);
    }

    /// Adds a session. It is left out if its room was not added.
    pub fn add_session(&mut self, SessionCopy { mut session, media }: SessionCopy) {
        self.record.next_session = self.record.next_session.max(session.id.0 + 1);
        session.media = self.record.media.len() as u32;
        self.record.sessions.push(session);
        self.record.media.push(media);
    }

    /// The copy's record, in the order that a restore expects.
    fn consistent_record(&self) -> GatewayRecord {
        let mut record = self.record.clone();
        let newest: BTreeMap<Arc<str>, RoomId> =
            record.rooms.iter().map(|room| (Arc::clone(&room.name), room.id)).collect();
        record.rooms.retain(|room| newest.get(&room.name) == Some(&room.id));
        let known: BTreeSet<RoomId> = record.rooms.iter().map(|room| room.id).collect();
        record.sessions.retain(|session| known.contains(&session.room));
        record.sessions.sort_by_key(|session| session.id);
        let used: BTreeSet<RoomId> = record.sessions.iter().map(|session| session.room).collect();
        record.rooms.retain(|room| used.contains(&room.id));
        record
    }
}

impl CopiedNode {
    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    /// The round trip of its probes; zero without one.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// The usual time until its death is detected.
    pub(super) fn detected_within(&self) -> Duration {
        self.detected_within
    }

    fn apply(&self, here: NodeId, copy: &GatewayCopy, gateway: &mut Gateway, now: Instant) {
        let Some(node) = gateway.tables.nodes.get_mut(here) else { return };
        node.handle_willing(!self.refuses, now);
        (node.fares_badly, node.decay_permille) = (self.loses, self.decay_permille);
        if node.health() == Health::Cold {
            // A hook is called only for a node that is known not to run.
            node.detector.handle_agent(false, now);
        }
        *gateway.tables.nodes.pace_mut(here) = self.openings.clone();
        let other = |id: &NodeId| copy.nodes.iter().position(|node| node.id == *id);
        for other in self.beside.iter().filter_map(other) {
            gateway.tables.capacity.ledger.is_one_machine([here, NodeId(other as u32)]);
        }
    }
}
