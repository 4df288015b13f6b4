//! Rooms: the unit of placement and moves, and the route that a room's sessions share.

/// Lends the tables to an owner of methods over them.
macro_rules! lend {
    ($owner:ident of $from:expr) => {
        $owner {
            settings: &$from.settings,
            sessions: &mut $from.sessions,
            rooms: &mut $from.rooms,
            nodes: &mut $from.nodes,
            capacity: &mut $from.capacity,
            effects: &mut $from.effects,
        }
    };
}
pub(crate) use lend;

mod calls;
mod failback;
mod failover;
mod legs;
mod moves;
mod node_controller;
mod openings;
mod placement;
mod reroutes;
mod restore;
mod room;
mod routes;
mod survey;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Index};
use std::sync::Arc;
use std::time::Instant;

use calls::CallRooms;
pub use calls::{is_session_room_name, requested_room_name};
use evenkeel_model::{CoreSettings, Decider, Hop, NodeId, RegionId, RoomId};
pub use failback::Failback;
pub(crate) use failover::Failover;
use failover::PendingFailover;
pub(crate) use legs::Legs;
pub(crate) use moves::Moves;
pub use moves::{MoveRecord, MoveUnderWay};
pub use node_controller::NodeController;
pub(crate) use node_controller::NodeDrain;
pub use openings::NotOpened;
pub(crate) use openings::Openings;
pub(crate) use placement::Placement;
pub(crate) use reroutes::Reroutes;
pub(crate) use restore::Restoration;
use restore::Unsettled;
pub(crate) use room::{PendingRoute, Room, Stranded};
pub(crate) use routes::{Routes, WEIGH_EVERY};

use crate::interner::Interner;
use crate::record::changes::Changes;
use crate::small::SmallSet;

#[derive(Debug)]
pub(crate) struct RoomTable {
    all: BTreeMap<RoomId, Box<Room>>,
    next: u64,
    by_name: BTreeMap<Arc<str>, RoomId>,
    /// Calls with one room per session, by name.
    calls: BTreeMap<Arc<str>, CallRooms>,
    /// Rooms that have not yet taken the changed settings of their scenarios.
    changing: BTreeSet<RoomId>,
    placed: usize,
    /// Indexed by node: rooms whose current or pending route contains it.
    at: Vec<BTreeSet<RoomId>>,
    /// Rooms of the node that died last, while some have not failed over yet.
    failover: Option<PendingFailover>,
    /// Rooms without a usable hop, by number of failed attempts, priority and id.
    stranded: BTreeSet<(u32, Reverse<i64>, RoomId)>,
    /// The next rescue continues after this entry.
    rescued_last: Option<(u32, Reverse<i64>, RoomId)>,
    /// Stranded rooms wait until a node has finished opening sessions of other rooms.
    paced: bool,
    /// Rooms that the death of their node would strand.
    unreserved: BTreeSet<RoomId>,
    weighed_last: RoomId,
    /// Indexed by region.
    failbacks: Vec<Failback>,
    /// Rooms outside their native place that neither a policy nor an operator put there.
    away: BTreeSet<RoomId>,
    /// Indexed by region: the number of those rooms that belong in it.
    away_by_region: Vec<usize>,
    failed_back_last: RoomId,
    drains: BTreeMap<NodeId, NodeDrain>,
    /// The room that left last, for each node that loses more than others.
    leave_cursors: BTreeMap<NodeId, RoomId>,
    deciders: Interner<Decider>,
    unsettled: Option<Box<Unsettled>>,
    started: Instant,
    /// Rooms with another record.
    pub(crate) changes: Changes<RoomId>,
}

impl RoomTable {
    pub(crate) fn new(settings: &CoreSettings, now: Instant) -> RoomTable {
        RoomTable {
            all: BTreeMap::new(),
            next: 1,
            by_name: BTreeMap::new(),
            calls: BTreeMap::new(),
            changing: BTreeSet::new(),
            placed: 0,
            at: vec![BTreeSet::new(); settings.nodes.len()],
            failover: None,
            stranded: BTreeSet::new(),
            rescued_last: None,
            paced: false,
            unreserved: BTreeSet::new(),
            weighed_last: RoomId(0),
            failbacks: vec![Failback::default(); settings.regions.len()],
            away: BTreeSet::new(),
            away_by_region: vec![0; settings.regions.len()],
            failed_back_last: RoomId(0),
            drains: BTreeMap::new(),
            leave_cursors: BTreeMap::new(),
            deciders: Interner::default(),
            unsettled: None,
            started: now,
            changes: Changes::default(),
        }
    }

    pub(crate) fn follow(&mut self) {
        self.changes.follow(self.all.keys().copied());
    }

    pub(crate) fn get(&self, id: &RoomId) -> Option<&Room> {
        self.all.get(id).map(|room| &**room)
    }

    /// For a change of the room's record.
    pub(crate) fn get_mut(&mut self, id: &RoomId) -> Option<&mut Room> {
        self.changes.note(*id);
        self.unrecorded_mut(id)
    }

    /// For votes about the room's hop, which are not in its record.
    pub(crate) fn unrecorded_mut(&mut self, id: &RoomId) -> Option<&mut Room> {
        self.all.get_mut(id).map(|room| &mut **room)
    }

    pub(crate) fn contains_key(&self, id: &RoomId) -> bool {
        self.all.contains_key(id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Room> {
        self.all.values().map(|room| &**room)
    }

    pub(crate) fn after(&self, after: RoomId) -> impl Iterator<Item = &Room> {
        let rest = (Bound::Excluded(after), Bound::Unbounded);
        self.all.range(rest).map(|(_, room)| &**room)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Number of rooms that a node carries.
    pub(crate) fn placed(&self) -> usize {
        self.placed
    }

    pub(crate) fn named(&self, name: &str) -> Option<(&Arc<str>, RoomId)> {
        self.by_name.get_key_value(name).map(|(name, id)| (name, *id))
    }

    pub(crate) fn away_from(&self, region: RegionId) -> usize {
        self.away_by_region[region.0 as usize]
    }

    fn set_away(&mut self, id: RoomId, is_away: bool) {
        let Some(region) = self.get(&id).map(|room| room.region) else { return };
        self.changes.note(id);
        let changes = if is_away { self.away.insert(id) } else { self.away.remove(&id) };
        if changes {
            let count = &mut self.away_by_region[region.0 as usize];
            *count = if is_away { *count + 1 } else { *count - 1 };
        }
    }

    pub(crate) fn failback(&self, region: RegionId) -> Failback {
        self.failbacks[region.0 as usize]
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn drains(&self) -> usize {
        self.drains.len()
    }

    /// Length of the longest list of rooms.
    pub(crate) fn most_listed(&self) -> usize {
        let lists = [
            self.by_name.len(),
            self.changing.len(),
            self.stranded.len(),
            self.unreserved.len(),
            self.away.len(),
            self.failover.as_ref().map_or(0, |failover| failover.rooms.len()),
        ];
        lists.into_iter().chain(self.at.iter().map(BTreeSet::len)).max().unwrap_or(0)
    }

    fn set_placed_by(&mut self, id: RoomId, by: Decider) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(&id) {
            room.placed_by = self.deciders.intern(by);
        }
    }

    fn strand(&mut self, id: RoomId, lost: Hop, since: Instant) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(&id) {
            room.stranded = Some(Stranded { lost, since, attempts: 0 });
            self.stranded.insert((0, Reverse(room.priority), id));
        }
    }

    fn unstrand(&mut self, id: RoomId) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(&id)
            && let Some(Stranded { attempts, .. }) = room.stranded.take()
        {
            self.stranded.remove(&(attempts, Reverse(room.priority), id));
        }
    }

    /// Counts a failed attempt. Rooms with fewer attempts go first.
    fn count_attempt(&mut self, id: RoomId) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(&id)
            && let Some(Stranded { attempts, .. }) = &mut room.stranded
        {
            self.stranded.remove(&(*attempts, Reverse(room.priority), id));
            *attempts = attempts.saturating_add(1);
            self.stranded.insert((*attempts, Reverse(room.priority), id));
        }
    }

    /// Lists the room under every node of its current and pending routes.
    fn list(&mut self, id: RoomId) {
        let Some(room) = self.all.get_mut(&id) else {
            return;
        };
        let route = room.route();
        let pending = room.pending.iter().flat_map(|pending| &pending.hops);
        let nodes: SmallSet<NodeId> =
            route.hops.iter().map(|(hop, _)| hop).chain(pending).map(|hop| hop.node).collect();
        if nodes == room.listed {
            return;
        }
        for gone in room.listed.iter().filter(|node| !nodes.contains(node)) {
            self.at[gone.0 as usize].remove(&id);
        }
        for new in nodes.iter().filter(|node| !room.listed.contains(node)) {
            self.at[new.0 as usize].insert(id);
        }
        room.listed = nodes;
    }

    /// The room's name; its number if the room is gone.
    pub(crate) fn name_of(&self, room: RoomId) -> Arc<str> {
        let name = self.get(&room).map(|room| Arc::clone(&room.name));
        name.unwrap_or_else(|| room.to_string().into())
    }

    /// Stranded rooms are ready for their turn, so new rooms wait behind them.
    pub(crate) fn stranded_go_first(&self) -> bool {
        self.stranded.first().is_some_and(|(attempts, ..)| *attempts == 0)
    }

    /// Stranded rooms wait for a node's queue of openings.
    pub(crate) fn is_paced(&self) -> bool {
        self.paced
    }
}

impl Index<&RoomId> for RoomTable {
    type Output = Room;

    fn index(&self, id: &RoomId) -> &Room {
        &self.all[id]
    }
}

#[cfg(test)]
mod tests;
