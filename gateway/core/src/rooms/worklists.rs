//! Lists of rooms that wait for something: to fail over, for a node, for capacity, for their return, for changed settings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{Board, Hop, IdSet, NodeId, PortMove, RegionId, RoomId};

use crate::collections::Changes;
use crate::record::Failback;
use crate::rooms::room::{PortMoveRecord, Protection, RescueChange, Room};

/// Rooms of dead nodes that are listed at once, which bounds the call's duration.
const LISTED_AT_ONCE: usize = 256;

/// Maximum stranded rooms per batch, so that one wake-up stays short.
const RESCUES_AT_ONCE: usize = 512;

/// Maximum rooms checked for one that can return, which bounds the call's duration.
const LOOKED_AT: usize = 64;

/// Maximum rooms that leave a lossy node at once, so that one wake-up stays short and no node gets all at once.
const LEAVE_AT_ONCE: usize = 128;

/// A node that dies within this time after its ports were closed was dead then: detection by one kind of evidence takes up to
/// 500 ms by default.
pub(crate) const PORTS_EXPLAINED_WITHIN: Duration = Duration::from_secs(2);

/// All lists of rooms. A room is in each at most once.
#[derive(Debug)]
pub(crate) struct Worklists {
    pub(crate) by_node: RoomsByNode,
    pub(crate) failover: Failover,
    pub(crate) stranded: StrandedRooms,
    /// Rooms that the death of their node would strand.
    pub(crate) unreserved: RoomTurns,
    /// Rooms with a reserve for the death of their node, and without one for that of the zone or region, which their scenario wants.
    pub(crate) uncovered: RoomTurns,
    pub(crate) away: AwayRooms,
    /// Rooms that have not yet taken the changed settings of their scenarios.
    pub(crate) changing: BTreeSet<RoomId>,
    pub(crate) closed_ports: ClosedPorts,
    /// Rooms with another record.
    pub(crate) changed: Changes<RoomId>,
    /// The number of rooms that a node carries, or carried before it died.
    placed: usize,
}

impl Worklists {
    pub(crate) fn new(nodes: usize, regions: usize) -> Worklists {
        Worklists {
            by_node: RoomsByNode { rooms: vec![IdSet::default(); nodes], left: BTreeMap::new() },
            failover: Failover::default(),
            stranded: StrandedRooms::default(),
            unreserved: RoomTurns::default(),
            uncovered: RoomTurns::default(),
            away: AwayRooms {
                rooms: BTreeSet::new(),
                by_region: vec![0; regions],
                last: RoomId(0),
                failbacks: vec![Failback::default(); regions],
            },
            changing: BTreeSet::new(),
            closed_ports: ClosedPorts::default(),
            changed: Changes::default(),
            placed: 0,
        }
    }

    /// The number of rooms that a node carries, or carried before it died.
    pub(crate) fn placed(&self) -> usize {
        self.placed
    }

    /// A room has its first route.
    pub(crate) fn note_placed(&mut self) {
        self.placed += 1;
    }

    pub(crate) fn set_protection(&mut self, id: RoomId, protection: Protection) {
        self.unreserved.set(id, protection == Protection::Unreserved);
        self.uncovered.set(id, protection == Protection::Uncovered);
    }

    /// The number of rooms whose mode opens spares ahead and that are not covered.
    pub(crate) fn unprotected(&self) -> usize {
        self.unreserved.rooms.len() + self.uncovered.rooms.len()
    }

    /// The rooms that [`Self::unprotected`] counts.
    pub(crate) fn unprotected_rooms(&self) -> impl Iterator<Item = RoomId> {
        self.unreserved.rooms.iter().chain(&self.uncovered.rooms).copied()
    }

    pub(crate) fn is_unprotected(&self, id: RoomId) -> bool {
        self.unreserved.rooms.contains(&id) || self.uncovered.rooms.contains(&id)
    }

    /// Removes the room from every list.
    pub(crate) fn forget(&mut self, room: &Room) {
        let id = room.id();
        self.stranded.forget(room);
        self.away.set(room, false);
        self.set_protection(id, Protection::Whole);
        self.by_node.forget(room);
        self.changing.remove(&id);
        self.failover.unlist(room);
        self.placed -= usize::from(room.is_placed());
    }

    /// Empties the lists of rooms that go on at another process.
    pub(crate) fn forget_restored(&mut self) {
        self.changing.clear();
        self.stranded.rooms.clear();
        self.away.rooms.clear();
        self.away.by_region.fill(0);
        self.placed = 0;
    }

    /// Length of the longest list.
    pub(crate) fn longest(&self) -> usize {
        let lists = [
            self.changing.len(),
            self.stranded.rooms.len(),
            self.unreserved.rooms.len(),
            self.uncovered.rooms.len(),
            self.away.rooms.len(),
            self.failover.pending.as_ref().map_or(0, |pending| pending.rooms.len()),
        ];
        lists.into_iter().chain(self.by_node.rooms.iter().map(IdSet::len)).max().unwrap_or(0)
    }
}

/// The rooms whose current or pending route contains a node.
#[derive(Debug)]
pub(crate) struct RoomsByNode {
    /// Indexed by node.
    rooms: Vec<IdSet<RoomId>>,
    /// The room that left last, for each node that loses more than others.
    left: BTreeMap<NodeId, RoomId>,
}

impl RoomsByNode {
    pub(crate) fn add_node(&mut self, node: NodeId) {
        if node.0 as usize == self.rooms.len() {
            self.rooms.push(IdSet::default());
        }
    }

    pub(crate) fn forget_node(&mut self, node: NodeId) {
        self.left.remove(&node);
    }

    pub(crate) fn at(&self, node: NodeId) -> &IdSet<RoomId> {
        &self.rooms[node.0 as usize]
    }

    /// The next rooms at the node, after this one.
    pub(crate) fn after(&self, node: NodeId, last: RoomId, most: usize) -> Vec<RoomId> {
        self.at(node).range((Bound::Excluded(last), Bound::Unbounded)).take(most).collect()
    }

    /// The next rooms to leave a node that loses more than others.
    pub(crate) fn next_to_leave(&mut self, node: NodeId) -> Vec<RoomId> {
        let last = self.left.get(&node).copied().unwrap_or(RoomId(0));
        let turn = self.after(node, last, LEAVE_AT_ONCE);
        let next = turn.last().filter(|_| turn.len() == LEAVE_AT_ONCE).copied();
        self.left.insert(node, next.unwrap_or(RoomId(0)));
        turn
    }

    /// Hops of the room's current or pending route differ.
    pub(crate) fn relist(&mut self, room: &mut Room) {
        let Some(before) = room.relist() else { return };
        let after = room.listed_at();
        for gone in before.iter().filter(|node| !after.contains(node)) {
            self.rooms[gone.0 as usize].remove(room.id());
        }
        for new in after.iter().filter(|node| !before.contains(node)) {
            self.rooms[new.0 as usize].insert(room.id());
        }
    }

    fn forget(&mut self, room: &Room) {
        for node in room.listed_at() {
            self.rooms[node.0 as usize].remove(room.id());
        }
    }
}

/// Order in which rooms fail over; in each, those of higher priority come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum FailoverTurn {
    /// The room's packets have no hop.
    NoHop,
    /// The room's packets take another hop. Its senders are asked for key frames once it moves there.
    Carried,
    /// The room loses a spare.
    Spare,
}

/// The death of a node, at its hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Death {
    hop: Hop,
    at: Instant,
}

impl Death {
    pub(crate) fn new(hop: Hop, at: Instant) -> Death {
        Death { hop, at }
    }

    pub(crate) fn hop(&self) -> Hop {
        self.hop
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

/// Rooms that have not yet failed over from dead nodes.
#[derive(Default, Debug)]
pub(crate) struct Failover {
    pending: Option<PendingFailover>,
}

#[derive(Default, Debug)]
struct PendingFailover {
    deaths: Vec<Death>,
    /// Nodes that reserved capacity for these deaths.
    standbys: BTreeSet<NodeId>,
    /// Dead nodes with rooms that are not listed yet, after this one.
    unlisted: Vec<(NodeId, RoomId)>,
    rooms: BTreeSet<(FailoverTurn, Reverse<i64>, RoomId)>,
}

impl Failover {
    pub(crate) fn is_under_way(&self) -> bool {
        self.pending.is_some()
    }

    /// A node died for whose death these standbys reserved capacity.
    pub(crate) fn note_death(&mut self, death: Death, standbys: Vec<NodeId>) {
        let pending = self.pending.get_or_insert_default();
        pending.deaths.push(death);
        pending.standbys.extend(standbys);
    }

    /// The rooms of the dead node are listed from now on.
    pub(crate) fn begin(&mut self, dead: NodeId) {
        self.pending.get_or_insert_default().unlisted.push((dead, RoomId(0)));
    }

    pub(crate) fn deaths(&self) -> Vec<Death> {
        self.pending.as_ref().map_or_else(Vec::new, |pending| pending.deaths.clone())
    }

    /// The node is dead, or reserved capacity for a death.
    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.is_dead(node) || pending.standbys.contains(&node))
    }

    /// The room leads to a dead hop.
    pub(crate) fn waits(&self, room: &Room) -> bool {
        let deaths = self.pending.iter().flat_map(|pending| &pending.deaths);
        deaths.into_iter().any(|death| room.leads_to(death.hop))
    }

    /// Lists the next rooms of dead nodes.
    pub(crate) fn list_next<'a>(
        &mut self,
        at: &RoomsByNode,
        room: impl Fn(RoomId) -> Option<&'a Room>,
        board: &Board,
    ) {
        let Some(pending) = &mut self.pending else { return };
        let mut left = LISTED_AT_ONCE;
        while left > 0
            && let Some((dead, mut last)) = pending.unlisted.pop()
        {
            for id in at.after(dead, last, left) {
                (left, last) = (left - 1, id);
                if let Some(room) = room(id) {
                    pending.list(room, board);
                }
            }
            if left == 0 {
                pending.unlisted.push((dead, last));
            }
        }
    }

    /// The next listed room.
    pub(crate) fn next(&mut self) -> Option<RoomId> {
        self.pending.as_mut()?.rooms.pop_first().map(|(.., id)| id)
    }

    /// All rooms of dead nodes are listed.
    pub(crate) fn is_listed(&self) -> bool {
        self.pending.as_ref().is_none_or(|pending| pending.unlisted.is_empty())
    }

    /// All rooms have failed over. Returns the nodes that reserved capacity for the deaths.
    pub(crate) fn end(&mut self) -> BTreeSet<NodeId> {
        self.pending.take().map(|pending| pending.standbys).unwrap_or_default()
    }

    pub(crate) fn unlist(&mut self, room: &Room) {
        if let Some(pending) = &mut self.pending {
            pending.unlist(room);
        }
    }
}

impl PendingFailover {
    fn is_dead(&self, node: NodeId) -> bool {
        self.deaths.iter().any(|death| death.hop.node == node)
    }

    fn list(&mut self, room: &Room, board: &Board) {
        self.unlist(room);
        let on = room.holding().on;
        let turn = match room.stands_at(board) {
            None => FailoverTurn::NoHop,
            Some(_) if on.is_some_and(|on| self.is_dead(on)) => FailoverTurn::Carried,
            Some(_) => FailoverTurn::Spare,
        };
        self.rooms.insert((turn, Reverse(room.priority()), room.id()));
    }

    fn unlist(&mut self, room: &Room) {
        for turn in [FailoverTurn::NoHop, FailoverTurn::Carried, FailoverTurn::Spare] {
            self.rooms.remove(&(turn, Reverse(room.priority()), room.id()));
        }
    }
}

/// A stranded room by the number of failed attempts, priority and id.
type RescueTurn = (u32, Reverse<i64>, RoomId);

/// Rooms without a usable hop. Those with the fewest attempts go first, then by priority.
#[derive(Default, Debug)]
pub(crate) struct StrandedRooms {
    rooms: BTreeSet<RescueTurn>,
    /// The next search continues after this entry.
    last: Option<RescueTurn>,
    /// The rooms wait until a node has finished opening sessions of other rooms.
    is_paced: bool,
}

/// A batch of stranded rooms to search a node for.
#[derive(Debug)]
pub(crate) struct RescueBatch {
    turns: Vec<RescueTurn>,
    /// Rooms of an earlier batch wait still.
    continues: bool,
}

impl RescueBatch {
    pub(crate) fn rooms(&self) -> impl Iterator<Item = RoomId> {
        self.turns.iter().map(|(.., id)| *id)
    }
}

impl StrandedRooms {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub(crate) fn is_paced(&self) -> bool {
        self.is_paced
    }

    /// Stranded rooms are ready for their turn, so new rooms wait behind them.
    pub(crate) fn go_first(&self) -> bool {
        self.rooms.first().is_some_and(|(attempts, ..)| *attempts == 0)
    }

    /// The same of rooms other than this one.
    pub(crate) fn go_before(&self, room: RoomId) -> bool {
        let first = self.rooms.iter().find(|(.., id)| *id != room);
        first.is_some_and(|(attempts, ..)| *attempts == 0)
    }

    pub(crate) fn apply(&mut self, room: &Room, change: RescueChange) {
        let turn = |attempts| (attempts, Reverse(room.priority()), room.id());
        if let Some(before) = change.before() {
            self.rooms.remove(&turn(before));
        }
        if let Some(after) = change.after() {
            self.rooms.insert(turn(after));
        }
    }

    fn forget(&mut self, room: &Room) {
        let before = room.stranded().map(|stranded| stranded.attempts());
        self.apply(room, RescueChange::new(before, None));
    }

    /// The next rooms to search a node for.
    pub(crate) fn begin_batch(&mut self) -> RescueBatch {
        self.is_paced = false;
        let continues = self.last.is_some();
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turns = self.rooms.range((after, Bound::Unbounded)).take(RESCUES_AT_ONCE).copied();
        RescueBatch { turns: turns.collect(), continues }
    }

    /// The nodes with capacity for a room have full queues of openings.
    pub(crate) fn pace(&mut self) {
        self.is_paced = true;
    }

    /// The next batch continues after this one if this one only waits. `none_left`: no node has a free queue, so the first
    /// rooms have the next turn.
    pub(crate) fn end_batch(&mut self, batch: &RescueBatch, none_left: bool) {
        let goes_on = batch.turns.len() == RESCUES_AT_ONCE && self.is_paced && !none_left;
        self.last = batch.turns.last().copied().filter(|_| goes_on);
        self.is_paced |= batch.continues;
    }

    /// A node has a free queue. Returns true if rooms waited for that; the turn belongs to those with the fewest attempts.
    pub(crate) fn take_free_queue(&mut self) -> bool {
        if self.is_paced {
            self.last = None;
        }
        std::mem::take(&mut self.is_paced)
    }
}

/// Rooms that are visited in turns.
#[derive(Default, Debug)]
pub(crate) struct RoomTurns {
    rooms: BTreeSet<RoomId>,
    /// The last room of the turn before; `None` at the beginning.
    last: Option<RoomId>,
}

impl RoomTurns {
    fn set(&mut self, id: RoomId, is_in: bool) {
        if is_in {
            self.rooms.insert(id);
        } else {
            self.rooms.remove(&id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// The next rooms, from the beginning again after the end.
    pub(crate) fn next(&mut self, most: usize) -> Vec<RoomId> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let turn: Vec<RoomId> =
            self.rooms.range((after, Bound::Unbounded)).take(most).copied().collect();
        self.last = turn.last().filter(|_| turn.len() == most).copied();
        turn
    }
}

/// Rooms outside their native place that neither a policy nor an operator put there, and how they return.
#[derive(Debug)]
pub(crate) struct AwayRooms {
    rooms: BTreeSet<RoomId>,
    /// Indexed by region: the number of those rooms that belong in it.
    by_region: Vec<usize>,
    /// The last room that was checked for its return.
    last: RoomId,
    /// Indexed by region.
    failbacks: Vec<Failback>,
}

impl AwayRooms {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub(crate) fn contains(&self, id: RoomId) -> bool {
        self.rooms.contains(&id)
    }

    pub(crate) fn of_region(&self, region: RegionId) -> usize {
        self.by_region[region.0 as usize]
    }

    pub(crate) fn set(&mut self, room: &Room, is_away: bool) {
        let id = room.id();
        let changes = if is_away { self.rooms.insert(id) } else { self.rooms.remove(&id) };
        if changes {
            let count = &mut self.by_region[room.region().0 as usize];
            *count = if is_away { *count + 1 } else { *count - 1 };
        }
    }

    pub(crate) fn failback(&self, region: RegionId) -> Failback {
        self.failbacks[region.0 as usize]
    }

    /// Sets how rooms return to a region, or to all. Returns false if there is no such region.
    pub(crate) fn set_failback(&mut self, region: Option<RegionId>, failback: Failback) -> bool {
        let Some(region) = region else {
            self.failbacks.fill(failback);
            return true;
        };
        let found = self.failbacks.get_mut(region.0 as usize);
        found.map(|found| *found = failback).is_some()
    }

    /// The next rooms to check for one that can return.
    pub(crate) fn turn(&self) -> Vec<RoomId> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        self.rooms.range(after).take(LOOKED_AT).copied().collect()
    }

    /// `found`: the room of the turn that returns. Returns true if no room of the list can return at this time.
    pub(crate) fn end_turn(&mut self, turn: &[RoomId], found: Option<RoomId>) -> bool {
        let is_whole = turn.len() < LOOKED_AT && found.is_none();
        let last = found.or(turn.last().copied()).filter(|_| !is_whole);
        self.last = last.unwrap_or(RoomId(0));
        is_whole
    }
}

/// A room's port at a hop was closed.
#[derive(Debug)]
struct ClosedPort {
    at: Instant,
    /// The move that it caused. Its cause is the death of the node if that is found in time, else the link.
    moved: Option<PortMove>,
}

/// Closed ports of the last two seconds, one for a room and hop.
#[derive(Default, Debug)]
pub(crate) struct ClosedPorts {
    ports: BTreeMap<(Hop, RoomId), ClosedPort>,
}

impl ClosedPorts {
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    pub(crate) fn note(&mut self, id: RoomId, hop: Hop, now: Instant) {
        let port = self.ports.entry((hop, id));
        port.or_insert(ClosedPort { at: now, moved: None }).at = now;
    }

    /// Notes the room's move off the hop. Returns false if the room's port was closed there a moment ago: the cause may change.
    pub(crate) fn note_move(&mut self, hop: Hop, moved: PortMove, now: Instant) -> bool {
        let port = self.ports.get_mut(&(hop, moved.room));
        match port.filter(|port| now.duration_since(port.at) < PORTS_EXPLAINED_WITHIN) {
            Some(port) => {
                port.moved = Some(moved);
                false
            }
            None => true,
        }
    }

    /// The room's moves without a final cause.
    pub(crate) fn records(&self, room: &Room) -> Vec<PortMoveRecord> {
        let mut left: Vec<Hop> = Vec::new();
        for moved in room.records() {
            if !left.contains(&moved.from) {
                left.push(moved.from);
            }
        }
        let ports = left.into_iter().filter_map(|hop| {
            let ClosedPort { at, moved } = self.ports.get(&(hop, room.id()))?;
            Some(PortMoveRecord::new(hop, *at, moved.as_ref()?))
        });
        ports.collect()
    }

    /// Continues a move of another process's record.
    pub(crate) fn restore(&mut self, room: &Room, record: PortMoveRecord) {
        let port = (record.hop(), room.id());
        let (at, moved) = (record.closed_at(), Some(record.into_move(room)));
        self.ports.insert(port, ClosedPort { at, moved });
    }

    /// The node is dead: takes the moves of rooms that left it for closed ports a moment ago.
    pub(crate) fn take_explained(&mut self, dead: Hop, now: Instant) -> Vec<PortMove> {
        let of_node = (dead, RoomId(0))..=(dead, RoomId(u64::MAX));
        let ports = self
            .ports
            .extract_if(of_node, |_, port| now.duration_since(port.at) < PORTS_EXPLAINED_WITHIN);
        ports.filter_map(|(_, port)| port.moved).collect()
    }

    /// Takes the moves for closed ports of nodes that did not die in time.
    pub(crate) fn take_settled(&mut self, now: Instant) -> BTreeMap<Hop, Vec<PortMove>> {
        let is_old =
            |_: &_, port: &mut ClosedPort| now.duration_since(port.at) >= PORTS_EXPLAINED_WITHIN;
        let mut settled: BTreeMap<Hop, Vec<PortMove>> = BTreeMap::new();
        for ((hop, _), port) in self.ports.extract_if(.., is_old) {
            if let Some(moved) = port.moved {
                settled.entry(hop).or_default().push(moved);
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests;
