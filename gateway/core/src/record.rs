//! The record of a gateway: all that another process needs to continue its sessions, as plain data.
//!
//! A record contains decisions and evidence. Everything that follows from them is computed again: the capacity ledger,
//! lists of rooms, votes about nodes. Moves in progress and sessions that are not live are not recorded; revisions of
//! policies have records of their own.
//!
//! Hops in a record are those of the gateway that wrote it. [`HopMap`] translates them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_breakers::{Breaker, ClientBreakerRecord};
use evenkeel_media::instant;
use evenkeel_model::{
    CapBounds, ClientGroup, ClientTransport, Decider, HOPS_MAX, Hop, HopGrant, Incarnation, Labels,
    MediaDescription, MoveCause, MoveOutcome, NodeId, PlanRecord, PolicyName, RedundancyMode,
    RegionId, RoomId, SessionId,
};
use evenkeel_nodes::{NodeTrust, ProviderBreaker};
use evenkeel_revisions::{Memos, StateVersions};
use evenkeel_slo::{SessionMarks, SloRecord};
use serde::{Deserialize, Serialize};

use crate::capacity::Gauge;
use crate::shares::{WHOLE, need_kbps};

/// The record of a gateway.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct GatewayRecord {
    /// The listed nodes, also those that are being removed.
    pub nodes: Vec<NodeRecord>,
    /// Indexed by [`RegionId`].
    pub regions: Vec<RegionRecord>,
    /// Breakers of clients that do not act as new ones.
    #[serde(default)]
    pub client_breakers: Vec<ClientBreakerRecord>,
    /// Breakers of providers of nodes after failed starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_breakers: BTreeMap<Arc<str>, ProviderBreaker>,
    /// Rooms with a live session.
    pub rooms: Vec<RoomRecord>,
    /// Live sessions.
    pub sessions: Vec<SessionRecord>,
    /// The sessions' media. Many sessions share an equal one.
    pub media: Vec<Arc<MediaDescription>>,
    /// The memos of the policies' revisions.
    pub memos: Vec<MemoRecord>,
    /// Windows of service level objectives, of some scenarios or of all.
    #[serde(default)]
    pub slo: Option<SloRecord>,
    /// The next free number of a session.
    pub next_session: u64,
    /// The next free number of a room.
    pub next_room: u64,
    /// The start of the time that policies see.
    #[serde(with = "instant")]
    pub started: Instant,
}

/// A node, with the trust in it.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct NodeRecord {
    /// The node's current incarnation.
    pub hop: Hop,
    /// The name by which the other process finds it.
    pub name: Box<str>,
    pub(crate) trust: NodeTrust,
    pub(crate) drain: Option<NodeDrain>,
    pub(crate) gauge: Gauge,
}

/// A region, with its breaker.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct RegionRecord {
    /// The name by which the other process finds it.
    pub(crate) name: Box<str>,
    /// An operator drains the region.
    pub(crate) drained: bool,
    /// Zones of the region that an operator drains.
    #[serde(default)]
    pub(crate) drained_zones: Vec<Box<str>>,
    pub(crate) failback: Failback,
    pub(crate) breaker: Breaker,
    /// Breakers of the region's zones that do not act as new ones.
    #[serde(default)]
    pub(crate) zone_breakers: Vec<(Box<str>, Breaker)>,
}

/// A room with a live session.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct RoomRecord {
    /// The number, which the other process continues.
    pub id: RoomId,
    /// The name by which the other process finds it.
    pub name: Arc<str>,
    pub(crate) scenario: Arc<str>,
    pub(crate) labels: Labels,
    /// The room's native region.
    pub(crate) region: RegionId,
    pub(crate) spares: u8,
    pub(crate) mode: RedundancyMode,
    /// The room's number at nodes.
    pub(crate) call: RoomId,
    /// The order of rescues; higher goes first.
    pub(crate) priority: i64,
    /// The version of the route. The restored route has a higher one.
    pub(crate) version: u64,
    /// The route, best first, with its grants.
    pub(crate) hops: Vec<(Hop, HopGrant)>,
    /// The reserve at the second hop covers the zone or region that the scenario wants covered.
    #[serde(default)]
    pub(crate) covers: bool,
    /// The hop that a move left, until its packets are refused.
    #[serde(with = "instant::paired")]
    pub leaving: Option<(Hop, Instant)>,
    pub(crate) placed_by: Decider,
    pub(crate) stranded: Option<Stranded>,
    /// The room is outside its native place without anyone's choice.
    pub(crate) away: bool,
    pub(crate) memory: StateVersions,
    /// Milliseconds between reviews by the policy; 0: none.
    pub(crate) ttl_ms: u32,
    #[serde(with = "instant::option")]
    pub(crate) due: Option<Instant>,
    /// The room was moving, or waited for its routing policy. The policy is asked again.
    pub(crate) waits: bool,
    pub(crate) struck: Vec<Struck>,
    pub(crate) unalike: Option<[Hop; 2]>,
    /// Times of moves that count towards the limit.
    pub(crate) counted: Vec<RecordedInstant>,
    pub(crate) moves: Vec<MoveRecord>,
    /// Moves of the last two seconds whose cause is not final.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) port_moves: Vec<PortMoveRecord>,
}

/// A move off a hop where the room's port was closed. It is counted once the node was found dead, or was not.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct PortMoveRecord {
    pub(crate) hop: Hop,
    /// The time at which the port was closed.
    #[serde(with = "instant")]
    pub(crate) closed: Instant,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) took: Duration,
}

/// A hop that did not take the room.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Struck {
    pub(crate) hop: Hop,
    #[serde(with = "instant")]
    pub(crate) until: Instant,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct RecordedInstant(#[serde(with = "instant")] pub(crate) Instant);

/// A live session.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct SessionRecord {
    /// The number, which the other process continues.
    pub id: SessionId,
    /// The number of the room.
    pub room: RoomId,
    /// Labels of the offer, which policies may read.
    pub labels: Labels,
    /// Index in [`GatewayRecord::media`].
    pub media: u32,
    pub(crate) transport: ClientTransport,
    pub(crate) of_first_packet: bool,
    #[serde(with = "instant")]
    pub(crate) offered: Instant,
    pub(crate) bounds: CapBounds,
    pub(crate) close_after: Duration,
    /// The plan by policies, before the share applies.
    pub(crate) plan: PlanRecord,
    /// The granted share of the need above the floor, in thousandths.
    pub(crate) share: u16,
    /// The time since which the share is below the whole.
    #[serde(with = "instant::option")]
    pub(crate) reduced: Option<Instant>,
    /// The group of clients by which the session was admitted with voice only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) voice_only_for: Option<Box<ClientGroup>>,
    #[serde(default, skip_serializing_if = "SessionMarks::are_empty")]
    pub(crate) slo_marks: SessionMarks,
    pub(crate) admitted_by: Decider,
    /// The hops where the session is open or opening.
    pub legs: Vec<LegRecord>,
    /// The time of the last packet of the client.
    #[serde(with = "instant")]
    pub last_heard: Instant,
    pub(crate) memory: StateVersions,
}

impl SessionRecord {
    /// The bit rate that the session of these streams needs, kbit/s.
    pub fn need_kbps(&self, media: &MediaDescription) -> u64 {
        need_kbps(media, self.bounds)
    }
}

/// A room without a hop that its packets may take.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Stranded {
    pub(crate) lost: Hop,
    #[serde(with = "instant")]
    pub(crate) since: Instant,
    /// Rooms with fewer attempts go first.
    pub(crate) attempts: u32,
}

/// One entry in a room's record of moves.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct MoveRecord {
    /// The reason of the move.
    pub cause: MoveCause,
    /// The author of the decision.
    pub by: Arc<Decider>,
    /// The hop before the move.
    pub from: Hop,
    /// `None`: no hop was left for the room.
    pub to: Option<Hop>,
    /// The time of the decision.
    #[serde(with = "instant")]
    pub started: Instant,
    /// The time at which the move ended.
    #[serde(with = "instant")]
    pub ended: Instant,
    /// How the move ended.
    pub outcome: MoveOutcome,
}

/// The progress of a node's drain.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct NodeDrain {
    #[serde(with = "instant")]
    pub(crate) started: Instant,
    /// `None` if rooms leave as soon as other nodes can take them, and after the deadline's event was emitted.
    #[serde(with = "instant::option")]
    pub(crate) deadline: Option<Instant>,
    /// The last room that was moved away.
    pub(crate) last: RoomId,
    /// The event that reports the node empty was emitted.
    pub(crate) empty: bool,
}

evenkeel_model::named! {
    /// How rooms return to their native place once a node there is trusted again.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
    pub enum Failback {
        /// Rooms return to nodes that are Up and lose little, unless the room moved too often or the region accepts no new
        /// rooms.
        #[default]
        Auto = "auto",
        /// An operator forces the return: also to nodes that are Wary or lossy, regardless of the limit of moves and the
        /// region's breaker.
        Force = "force",
        /// An operator forbids the return.
        Forbid = "forbid",
    }
}

/// A record of another process, before its rooms are settled.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// Sessions that do not continue yet.
    pub(crate) sessions: std::vec::IntoIter<SessionRecord>,
    pub(crate) media: Vec<Arc<MediaDescription>>,
    pub(crate) hops: HopMap,
    /// Rooms on nodes that are not listed here.
    pub(crate) lost: Vec<RoomId>,
    /// Rooms whose reserve covers a zone or region.
    pub(crate) covered: BTreeSet<RoomId>,
    pub(crate) now: Instant,
}

/// A hop where the driver was asked to open the session and not yet to close it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LegRecord {
    /// The node, in one incarnation.
    pub hop: Hop,
    /// The driver has opened it. Otherwise the session is opened there again, or closed.
    pub open: bool,
}

/// Records that changed since the last ones were taken.
#[derive(Clone, Debug)]
pub struct ChangedRecords {
    /// Contains these rooms and sessions only. Nodes, regions and policies' memos are empty.
    pub core: GatewayRecord,
    /// Sessions that are gone. Some were never live.
    pub ended: Vec<SessionId>,
    /// Rooms without a record.
    pub dissolved: Vec<RoomId>,
    /// All records were taken at least once.
    pub whole: bool,
}

/// States of a policy itself.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct MemoRecord {
    pub(crate) policy: PolicyName,
    #[serde(flatten)]
    pub(crate) memos: Memos,
}

/// The hops of a gateway that continues the sessions of a record, by the hops in the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HopMap {
    hops: BTreeMap<Hop, Hop>,
    /// The nodes that both gateways list.
    nodes: BTreeMap<NodeId, NodeId>,
    /// Numbers from here are of nodes that this gateway does not list.
    unlisted: u32,
}

impl HopMap {
    pub(crate) fn new(unlisted: u32) -> HopMap {
        HopMap { hops: BTreeMap::new(), nodes: BTreeMap::new(), unlisted }
    }

    /// The node has another number here.
    pub(crate) fn renumber(&mut self, old: NodeId, new: NodeId) {
        self.nodes.insert(old, new);
    }

    /// The node's incarnation continues here.
    pub(crate) fn insert(&mut self, old: Hop, new: Hop) {
        self.hops.insert(old, new);
    }

    pub(crate) fn leads_to(&self, node: NodeId) -> bool {
        self.nodes.values().any(|new| *new == node)
    }

    /// `None` if the node is not listed any more, or the hop is of an earlier incarnation.
    pub fn map(&self, old: Hop) -> Option<Hop> {
        self.hops.get(&old).copied()
    }

    /// A hop for reports about the past. If it leads nowhere any more, its incarnation is 0, which no node has.
    pub(crate) fn past(&self, old: Hop) -> Hop {
        let of_node = self.nodes.get(&old.node).copied();
        let unlisted = || NodeId(old.node.0 % self.unlisted.max(1) + self.unlisted);
        let past = || Hop { node: of_node.unwrap_or_else(unlisted), incarnation: Incarnation(0) };
        self.map(old).unwrap_or_else(past)
    }
}

/// The reason why a record cannot be continued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// The gateway has sessions of its own.
    #[error("the gateway has sessions; restart it first")]
    HasSessions,
    /// The parts of the record do not belong together.
    #[error("the record contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl GatewayRecord {
    /// Takes the nodes of an earlier record, and all that is recorded together with them.
    #[must_use]
    pub fn with_nodes_of(self, earlier: GatewayRecord) -> GatewayRecord {
        let GatewayRecord { nodes, regions, client_breakers, provider_breakers, memos, .. } =
            earlier;
        GatewayRecord { nodes, regions, client_breakers, provider_breakers, memos, ..self }
    }

    /// Checks what the restore relies on.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let mut rooms: BTreeMap<RoomId, usize> =
            self.rooms.iter().map(|room| (room.id, 0)).collect();
        let names: BTreeSet<&str> = self.rooms.iter().map(|room| &*room.name).collect();
        let known_rooms = self.sessions.iter().all(|session| match rooms.get_mut(&session.room) {
            Some(sessions) => {
                *sessions += 1;
                true
            }
            None => false,
        });
        let placed = |room: &RoomRecord| {
            let places = usize::from(room.stranded.is_none())..=HOPS_MAX;
            room.version > 0 && places.contains(&room.hops.len())
        };
        let numbered = rooms.keys().all(|room| room.0 < self.next_room)
            && self.rooms.iter().all(|room| room.call.0 < self.next_room)
            && self.sessions.iter().all(|session| session.id.0 < self.next_session);
        let checks = [
            (known_rooms, "a session without its room"),
            (rooms.values().all(|sessions| *sessions > 0), "a room without a session"),
            (rooms.len() == self.rooms.len(), "two rooms with one number"),
            (names.len() == self.rooms.len(), "two rooms with one name"),
            (self.sessions.is_sorted_by(|one, next| one.id < next.id), "sessions out of order"),
            (numbered, "a number that was not given out yet"),
            (self.rooms.iter().all(placed), "a room without a route"),
            (
                self.sessions.iter().all(|session| (session.media as usize) < self.media.len()),
                "a session without its media",
            ),
            (self.sessions.iter().all(|session| session.share <= WHOLE), "a share above the whole"),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(RestoreError::Contradiction(what)),
            None => Ok(()),
        }
    }
}
