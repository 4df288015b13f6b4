//! The record of a gateway: all that another process needs to continue its sessions, as plain data.
//!
//! A record contains decisions and evidence. Everything that follows from them is computed again: the capacity ledger,
//! lists of rooms, votes about nodes. Moves in progress and sessions that are not live are not recorded; revisions of
//! policies have records of their own.
//!
//! Hops in a record are those of the gateway that wrote it. [`HopMap`](crate::HopMap) translates them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_breakers::{Breaker, ClientBreakerRecord};
use evenkeel_instant as instant;
use evenkeel_model::{Hop, MediaDescription, PolicyName, RoomId, SessionId};
use evenkeel_nodes::{NodeTrust, ProviderBreaker};
use evenkeel_revisions::Memos;
use evenkeel_slo::SloRecord;
use serde::{Deserialize, Serialize};

use crate::capacity::Gauge;
use crate::drains::NodeDrain;
use crate::hop_map::HopMap;
use crate::rooms::room::RoomRecord;
use crate::sessions::SessionRecord;

/// The record of a gateway.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct GatewayRecord {
    /// The listed nodes, also those that are being removed.
    pub nodes: Vec<NodeRecord>,
    /// Indexed by [`RegionId`](evenkeel_model::RegionId).
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

/// The automatic breakers that do not act as new ones, for a process that continues no session. Operators' decisions hold the others.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct BreakersRecord {
    pub(crate) regions: Vec<RegionBreakerRecord>,
    pub(crate) clients: Vec<ClientBreakerRecord>,
    pub(crate) providers: BTreeMap<Arc<str>, ProviderBreaker>,
}

/// The breaker of a region, or of a zone there.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct RegionBreakerRecord {
    pub(crate) region: Box<str>,
    pub(crate) zone: Option<Box<str>>,
    pub(crate) breaker: Breaker,
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
    sessions: std::vec::IntoIter<SessionRecord>,
    media: Vec<Arc<MediaDescription>>,
    hops: HopMap,
    /// Rooms on nodes that are not listed here.
    lost: Vec<RoomId>,
    /// Rooms whose reserve covers a zone or region.
    covered: BTreeSet<RoomId>,
    restored: Instant,
}

impl Unsettled {
    pub(crate) fn new(
        rooms: &[RoomRecord],
        sessions: Vec<SessionRecord>,
        media: Vec<Arc<MediaDescription>>,
        hops: HopMap,
        now: Instant,
    ) -> Unsettled {
        let lost = rooms.iter().filter(|room| room.lost_carrier(&hops)).map(|room| room.id);
        let covered = rooms.iter().filter(|room| room.is_covered()).map(|room| room.id);
        let (lost, covered) = (lost.collect(), covered.collect());
        Unsettled { sessions: sessions.into_iter(), media, hops, lost, covered, restored: now }
    }

    /// The next session to continue, with its streams.
    pub(crate) fn next_session(&mut self) -> Option<(SessionRecord, Arc<MediaDescription>)> {
        let session = self.sessions.next()?;
        let media = Arc::clone(&self.media[session.media as usize]);
        Some((session, media))
    }

    pub(crate) fn hops(&self) -> &HopMap {
        &self.hops
    }

    /// The time at which the rooms were restored.
    pub(crate) fn restored(&self) -> Instant {
        self.restored
    }

    pub(crate) fn covers(&self, room: RoomId) -> bool {
        self.covered.contains(&room)
    }

    /// Rooms on nodes that are not listed here.
    pub(crate) fn lost(&self) -> &[RoomId] {
        &self.lost
    }
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
        let numbered = self.rooms.iter().all(|room| room.largest_number() < self.next_room)
            && self.sessions.iter().all(|session| session.id.0 < self.next_session);
        let checks = [
            (known_rooms, "a session without its room"),
            (rooms.values().all(|sessions| *sessions > 0), "a room without a session"),
            (rooms.len() == self.rooms.len(), "two rooms with one number"),
            (names.len() == self.rooms.len(), "two rooms with one name"),
            (self.sessions.is_sorted_by(|one, next| one.id < next.id), "sessions out of order"),
            (numbered, "a number that was not given out yet"),
            (self.rooms.iter().all(RoomRecord::has_route), "a room without a route"),
            (
                self.sessions.iter().all(|session| (session.media as usize) < self.media.len()),
                "a session without its media",
            ),
            (
                self.sessions.iter().all(SessionRecord::has_share_within_whole),
                "a share above the whole",
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(RestoreError::Contradiction(what)),
            None => Ok(()),
        }
    }
}
