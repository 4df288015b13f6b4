//! Rooms: the unit of placement and moves, and the route that a room's sessions share. Calls with one room per session: nodes
//! see one room, the gateway has a room for each session.

pub(crate) mod moves;
pub(crate) mod node_controller;
pub(crate) mod openings;
pub(crate) mod placement;
pub(crate) mod reroutes;
pub(crate) mod room;
pub(crate) mod routes;
pub(crate) mod stops;
pub(crate) mod streams;
pub(crate) mod survey;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Index};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Affinity, Board, CoreSettings, Decider, Hop, IdMap, IdSet, NodeId, Offer, OfferRefusal,
    PortMove, RegionId, RoomId, Scenario, SessionId,
};

use crate::collections::{Changes, Interner};
use crate::effects::{Effects, Timer};
use crate::record::{Failback, NodeDrain, Stranded, Unsettled};
use crate::rooms::room::{MoveUnderWay, PendingRoute, Room};

/// A node that dies within this time after its ports were closed was dead then: detection by one kind of evidence takes up to
/// 500 ms by default.
const PORTS_EXPLAINED_WITHIN: Duration = Duration::from_secs(2);

/// Interval at which moves off nodes that did not die get their final cause.
const PORTS_SETTLED_EVERY: Duration = Duration::from_millis(100);

/// Separates the name of a call from the session in the name of a session's own room. It needs no escaping in paths or
/// queries.
pub(super) const APART: char = '~';

#[derive(Debug)]
pub(super) struct CallRooms {
    /// The room's number at nodes.
    pub(super) number: RoomId,
    /// Rooms of different scenarios are different rooms, even with the same name.
    pub(super) scenario: Arc<str>,
    pub(super) rooms: u32,
}

pub(crate) fn session_room_name(call: &str, session: SessionId) -> Arc<str> {
    format!("{call}{APART}{session}").into()
}

/// Tells if a room's name has the form of a session's own room, `conf~s4k7mq2-7`. Clients may not request such names, since
/// they could take another session's place.
#[must_use]
pub fn is_session_room_name(room: &str) -> bool {
    room.rsplit_once(APART).is_some_and(|(_, session)| SessionId::parse(session).is_some())
}

/// The name of the room that clients requested: without the session, for a session's own room.
#[must_use]
pub fn requested_room_name(room: &str) -> &str {
    let own = room.rsplit_once(APART).filter(|_| is_session_room_name(room));
    own.map_or(room, |(call, _)| call)
}

/// Rooms of dead nodes that are listed at once, which bounds the call's duration.
const LISTED_AT_ONCE: usize = 256;

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

/// Rooms that have not yet failed over from dead nodes.
#[derive(Default, Debug)]
pub(crate) struct PendingFailover {
    /// Dead hops with the times of death.
    deaths: Vec<(Hop, Instant)>,
    /// Nodes that reserved capacity for these deaths.
    standbys: BTreeSet<NodeId>,
    /// Dead nodes with rooms that are not listed yet, after this one.
    unlisted: Vec<(NodeId, RoomId)>,
    rooms: BTreeSet<(FailoverTurn, Reverse<i64>, RoomId)>,
}

impl PendingFailover {
    /// The node is dead, or reserved capacity for a death.
    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.deaths.iter().any(|(dead, _)| dead.node == node) || self.standbys.contains(&node)
    }

    fn list(&mut self, room: &Room, board: &Board) {
        self.unlist(room);
        let is_dead = |on| self.deaths.iter().any(|(dead, _)| dead.node == on);
        let turn = match (room.stands_at(board), room.holding.on) {
            (None, _) => FailoverTurn::NoHop,
            (Some(_), on) if on.is_some_and(is_dead) => FailoverTurn::Carried,
            (Some(_), _) => FailoverTurn::Spare,
        };
        self.rooms.insert((turn, Reverse(room.priority), room.id));
    }

    fn unlist(&mut self, room: &Room) {
        for turn in [FailoverTurn::NoHop, FailoverTurn::Carried, FailoverTurn::Spare] {
            self.rooms.remove(&(turn, Reverse(room.priority), room.id));
        }
    }
}

/// A room's port at a hop was closed.
#[derive(Debug)]
struct ClosedPort {
    at: Instant,
    /// The move that it caused. Its cause is the death of the node if that is found in time, else the link.
    moved: Option<PortMove>,
}

/// Rooms that are visited in turns.
#[derive(Default, Debug)]
struct RoomTurns {
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

    /// The next rooms, from the beginning again after the end.
    fn next(&mut self, most: usize) -> Vec<RoomId> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let turn: Vec<RoomId> =
            self.rooms.range((after, Bound::Unbounded)).take(most).copied().collect();
        self.last = turn.last().filter(|_| turn.len() == most).copied();
        turn
    }
}

#[derive(Debug)]
pub(crate) struct RoomTable {
    pub(crate) all: IdMap<RoomId, Box<Room>>,
    pub(crate) next: u64,
    by_name: BTreeMap<Arc<str>, RoomId>,
    /// Calls with one room per session, by name.
    pub(crate) calls: BTreeMap<Arc<str>, CallRooms>,
    /// Rooms that have not yet taken the changed settings of their scenarios.
    pub(crate) changing: BTreeSet<RoomId>,
    /// Number of rooms that a node carries.
    pub(crate) placed: usize,
    /// Indexed by node: rooms whose current or pending route contains it.
    pub(crate) at: Vec<IdSet<RoomId>>,
    pub(crate) failover: Option<PendingFailover>,
    /// Rooms without a usable hop, by number of failed attempts, priority and id.
    pub(crate) stranded: BTreeSet<(u32, Reverse<i64>, RoomId)>,
    /// The next rescue continues after this entry.
    rescued_last: Option<(u32, Reverse<i64>, RoomId)>,
    /// Stranded rooms wait until a node has finished opening sessions of other rooms.
    paced: bool,
    /// Rooms that the death of their node would strand.
    unreserved: RoomTurns,
    /// Rooms whose reserve covers the death of their node, and not that of the zone or region which their scenario names.
    uncovered: RoomTurns,
    /// Indexed by region.
    pub(crate) failbacks: Vec<Failback>,
    /// Rooms outside their native place that neither a policy nor an operator put there.
    pub(crate) away: BTreeSet<RoomId>,
    /// Indexed by region: the number of those rooms that belong in it.
    away_by_region: Vec<usize>,
    failed_back_last: RoomId,
    pub(crate) drains: BTreeMap<NodeId, NodeDrain>,
    /// The room that left last, for each node that loses more than others.
    leave_cursors: BTreeMap<NodeId, RoomId>,
    deciders: Interner<Decider>,
    /// Closed ports of the last two seconds, one for a room and hop.
    closed_ports: BTreeMap<(Hop, RoomId), ClosedPort>,
    pub(crate) unsettled: Option<Box<Unsettled>>,
    started: Instant,
    /// Rooms with another record.
    pub(crate) changes: Changes<RoomId>,
}

impl RoomTable {
    pub(crate) fn new(settings: &CoreSettings, now: Instant) -> RoomTable {
        RoomTable {
            all: IdMap::default(),
            next: 1,
            by_name: BTreeMap::new(),
            calls: BTreeMap::new(),
            changing: BTreeSet::new(),
            placed: 0,
            at: vec![IdSet::default(); settings.nodes.len()],
            failover: None,
            stranded: BTreeSet::new(),
            rescued_last: None,
            paced: false,
            unreserved: RoomTurns::default(),
            uncovered: RoomTurns::default(),
            failbacks: vec![Failback::default(); settings.regions.len()],
            away: BTreeSet::new(),
            away_by_region: vec![0; settings.regions.len()],
            failed_back_last: RoomId(0),
            drains: BTreeMap::new(),
            leave_cursors: BTreeMap::new(),
            deciders: Interner::default(),
            closed_ports: BTreeMap::new(),
            unsettled: None,
            started: now,
            changes: Changes::default(),
        }
    }

    pub(crate) fn follow(&mut self) {
        self.changes.follow(self.all.keys());
    }

    pub(crate) fn get(&self, id: &RoomId) -> Option<&Room> {
        self.all.get(*id).map(|room| &**room)
    }

    /// For a change of the room's record.
    pub(crate) fn get_mut(&mut self, id: &RoomId) -> Option<&mut Room> {
        self.changes.note(*id);
        self.unrecorded_mut(id)
    }

    /// For votes about the room's hop, which are not in its record.
    pub(crate) fn unrecorded_mut(&mut self, id: &RoomId) -> Option<&mut Room> {
        self.all.get_mut(*id).map(|room| &mut **room)
    }

    pub(crate) fn contains_key(&self, id: &RoomId) -> bool {
        self.all.contains_key(*id)
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

    /// The number of rooms whose mode opens spares ahead and that are not covered.
    pub(crate) fn unprotected(&self) -> usize {
        self.unreserved.rooms.len() + self.uncovered.rooms.len()
    }

    /// Returns the rooms that [`Self::unprotected`] counts.
    pub(crate) fn unprotected_rooms(&self) -> impl Iterator<Item = &Room> {
        let rooms = self.unreserved.rooms.iter().chain(&self.uncovered.rooms);
        rooms.filter_map(|id| self.get(id))
    }

    pub(crate) fn named(&self, name: &str) -> Option<(&Arc<str>, RoomId)> {
        self.by_name.get_key_value(name).map(|(name, id)| (name, *id))
    }

    pub(crate) fn away_from(&self, region: RegionId) -> usize {
        self.away_by_region[region.0 as usize]
    }

    pub(crate) fn set_away(&mut self, id: RoomId, is_away: bool) {
        let Some(region) = self.get(&id).map(|room| room.region) else { return };
        self.changes.note(id);
        let changes = if is_away { self.away.insert(id) } else { self.away.remove(&id) };
        if changes {
            let count = &mut self.away_by_region[region.0 as usize];
            *count = if is_away { *count + 1 } else { *count - 1 };
        }
    }

    /// Length of the longest list of rooms.
    pub(crate) fn most_listed(&self) -> usize {
        let lists = [
            self.by_name.len(),
            self.changing.len(),
            self.stranded.len(),
            self.unreserved.rooms.len(),
            self.uncovered.rooms.len(),
            self.away.len(),
            self.failover.as_ref().map_or(0, |failover| failover.rooms.len()),
        ];
        lists.into_iter().chain(self.at.iter().map(IdSet::len)).max().unwrap_or(0)
    }

    /// Lists the next rooms of dead nodes.
    fn list_failing(&mut self, board: &Board) {
        let Some(failover) = &mut self.failover else { return };
        let mut left = LISTED_AT_ONCE;
        while left > 0
            && let Some((dead, mut last)) = failover.unlisted.pop()
        {
            let after = (Bound::Excluded(last), Bound::Unbounded);
            for id in self.at[dead.0 as usize].range(after).take(left) {
                (left, last) = (left - 1, id);
                if let Some(room) = self.all.get(id) {
                    failover.list(room, board);
                }
            }
            if left == 0 {
                failover.unlisted.push((dead, last));
            }
        }
    }

    fn note_port_closed(&mut self, id: RoomId, hop: Hop, now: Instant) {
        let port = self.closed_ports.entry((hop, id));
        port.or_insert(ClosedPort { at: now, moved: None }).at = now;
    }

    /// Notes the room's move off the hop. Returns false if the room's port was closed there a moment ago: the cause may change.
    fn note_port_move(&mut self, hop: Hop, moved: PortMove, now: Instant) -> bool {
        let port = self.closed_ports.get_mut(&(hop, moved.room));
        match port.filter(|port| now.duration_since(port.at) < PORTS_EXPLAINED_WITHIN) {
            Some(port) => {
                port.moved = Some(moved);
                false
            }
            None => true,
        }
    }

    /// The node is dead: rooms that left it for closed ports a moment ago left it for that. Returns their moves.
    fn explain_port_moves(&mut self, dead: Hop, now: Instant) -> Vec<PortMove> {
        let of_node = (dead, RoomId(0))..=(dead, RoomId(u64::MAX));
        let ports = self
            .closed_ports
            .extract_if(of_node, |_, port| now.duration_since(port.at) < PORTS_EXPLAINED_WITHIN);
        let moves: Vec<PortMove> = ports.filter_map(|(_, port)| port.moved).collect();
        for PortMove { room, .. } in &moves {
            self.changes.note(*room);
            self.all.get_mut(*room).into_iter().for_each(|it| it.explain_port_move(dead));
        }
        moves
    }

    /// Takes the moves for closed ports of nodes that did not die in time.
    fn take_settled_port_moves(&mut self, now: Instant) -> BTreeMap<Hop, Vec<PortMove>> {
        let is_old =
            |_: &_, port: &mut ClosedPort| now.duration_since(port.at) >= PORTS_EXPLAINED_WITHIN;
        let mut settled: BTreeMap<Hop, Vec<PortMove>> = BTreeMap::new();
        for ((hop, _), port) in self.closed_ports.extract_if(.., is_old) {
            if let Some(moved) = port.moved {
                settled.entry(hop).or_default().push(moved);
            }
        }
        settled
    }

    fn set_placed_by(&mut self, id: RoomId, by: Decider) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(id) {
            room.placed_by = self.deciders.intern(by);
        }
    }

    fn strand(&mut self, id: RoomId, lost: Hop, since: Instant) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(id) {
            room.set_stranded(Some(Stranded { lost, since, attempts: 0 }));
            self.stranded.insert((0, Reverse(room.priority), id));
        }
    }

    fn unstrand(&mut self, id: RoomId) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(id)
            && let Some(Stranded { attempts, .. }) = room.stranded()
        {
            room.set_stranded(None);
            self.stranded.remove(&(attempts, Reverse(room.priority), id));
        }
    }

    /// Counts a failed attempt. Rooms with fewer attempts go first.
    fn count_attempt(&mut self, id: RoomId) {
        self.changes.note(id);
        if let Some(room) = self.all.get_mut(id)
            && let Some(stranded) = room.stranded()
        {
            self.stranded.remove(&(stranded.attempts, Reverse(room.priority), id));
            let attempts = stranded.attempts.saturating_add(1);
            room.set_stranded(Some(Stranded { attempts, ..stranded }));
            self.stranded.insert((attempts, Reverse(room.priority), id));
        }
    }

    /// Lists the room under every node of its current and pending routes.
    fn list(&mut self, id: RoomId) {
        let Some(room) = self.all.get_mut(id) else { return };
        let route = room.route();
        let pending = room.pending.iter().flat_map(|pending| &pending.hops);
        let hops = route.hops.iter().map(|(hop, _)| hop).chain(pending);
        let mut nodes: Vec<NodeId> = hops.map(|hop| hop.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if *nodes == *room.nodes {
            return;
        }
        for gone in room.nodes.iter().filter(|node| !nodes.contains(node)) {
            self.at[gone.0 as usize].remove(id);
        }
        for new in nodes.iter().filter(|node| !room.nodes.contains(node)) {
            self.at[new.0 as usize].insert(id);
        }
        room.nodes = nodes.into();
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

    /// The room that the session joins, created if it does not exist. With session affinity, a room of the session's
    /// own.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        offer: &Offer,
        scenario: &Scenario,
        region: RegionId,
    ) -> Result<RoomId, OfferRefusal> {
        let name = match scenario.affinity {
            Affinity::Room => offer.room.clone(),
            Affinity::Session => session_room_name(&offer.room, session),
        };
        if let Some(&room) = self.by_name.get(&name) {
            let room = self.all.get_mut(room).expect("names are of rooms that are there");
            if room.scenario != offer.scenario {
                return Err(OfferRefusal::ScenarioOfRoom(room.scenario.clone()));
            }
            room.sessions.insert(session);
            self.changes.note(room.id);
            return Ok(room.id);
        }
        let id = RoomId(self.next);
        let call = self.enter_call(&offer.room, &offer.scenario, id, scenario.affinity)?;
        self.next += 1;
        let (kind, labels) = (offer.scenario.clone(), offer.labels.clone());
        let mut room = Box::new(Room::new(id, name.clone(), kind, labels, region, call));
        (room.spares, room.mode, room.priority) =
            (scenario.spares, scenario.mode, scenario.priority);
        self.by_name.insert(name, id);
        room.sessions.insert(session);
        self.all.insert(id, room);
        Ok(id)
    }

    /// Removes the room from every list.
    pub(super) fn remove(&mut self, id: RoomId) -> Option<Box<Room>> {
        self.unstrand(id);
        self.set_away(id, false);
        let room = self.all.remove(id)?;
        self.changes.note(id);
        self.placed -= usize::from(room.is_placed());
        self.unreserved.set(id, false);
        self.uncovered.set(id, false);
        for node in &room.nodes {
            self.at[node.0 as usize].remove(id);
        }
        self.by_name.remove(&room.name);
        self.leave_call(&room);
        self.changing.remove(&id);
        if let Some(failover) = &mut self.failover {
            failover.unlist(&room);
        }
        Some(room)
    }

    /// The room's number at nodes: that of its call with session affinity, else its own.
    ///
    /// # Errors
    ///
    /// Another scenario's room has the name.
    pub(super) fn enter_call(
        &mut self,
        name: &Arc<str>,
        scenario: &Arc<str>,
        id: RoomId,
        affinity: Affinity,
    ) -> Result<RoomId, OfferRefusal> {
        let call = self.calls.get(name).map(|call| (call.number, &call.scenario));
        let room = self.by_name.get(name).and_then(|room| self.all.get(*room));
        let known = call.or(room.map(|room| (room.call, &room.scenario)));
        if let Some((_, of)) = known.filter(|(_, of)| *of != scenario) {
            return Err(OfferRefusal::ScenarioOfRoom(of.clone()));
        }
        let number = known.map_or(id, |(number, _)| number);
        if affinity == Affinity::Session {
            let new = || CallRooms { number, scenario: scenario.clone(), rooms: 0 };
            self.calls.entry(name.clone()).or_insert_with(new).rooms += 1;
        }
        Ok(number)
    }

    pub(super) fn leave_call(&mut self, room: &Room) {
        let Some((name, _)) = room.name.rsplit_once(APART) else { return };
        if let Some(call) = self.calls.get_mut(name)
            && call.number == room.call
        {
            call.rooms -= 1;
            if call.rooms == 0 {
                self.calls.remove(name);
            }
        }
    }

    /// Schedules the scenario's rooms to take its changed settings, in batches.
    pub(crate) fn scenario_changed(&mut self, name: &str, spares: Option<u8>) {
        for room in self.all.values_mut().filter(|room| *room.scenario == *name) {
            if let Some(spares) = spares {
                room.spares = spares;
            }
            self.changes.note(room.id);
            self.changing.insert(room.id);
        }
    }

    /// All moves in progress, by room. Each ends with a [`CoreEvent::Moved`] to its target or an [`CoreEvent::MoveEnded`].
    pub(crate) fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.values().filter_map(|room| {
            let PendingRoute { hops, cause, by, started, .. } = room.pending.as_deref()?;
            let (to, from) = (hops[0], room.stood().filter(|from| *from != hops[0])?);
            let (cause, by, started) = (*cause, by.clone(), *started);
            Some(MoveUnderWay { room: room.id, cause, by, from, to, started })
        })
    }

    /// Continues the numbers of another process.
    pub(crate) fn resume_numbers(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Adds a placed room of another process under its own number.
    pub(crate) fn restore(&mut self, room: Room) {
        let id = room.id;
        self.placed += 1;
        self.by_name.insert(Arc::clone(&room.name), id);
        if let Some((call, _)) = room.name.rsplit_once(APART)
            && is_session_room_name(&room.name)
        {
            let new =
                || CallRooms { number: room.call, scenario: Arc::clone(&room.scenario), rooms: 0 };
            self.calls.entry(call.into()).or_insert_with(new).rooms += 1;
        }
        if let Some(stranded) = room.stranded() {
            self.stranded.insert((stranded.attempts, Reverse(room.priority), id));
        }
        self.all.insert(id, Box::new(room));
    }

    /// Removes all rooms, which go on at another process. Their routes were not published here.
    pub(crate) fn forget_restored(&mut self, effects: &mut Effects) {
        self.all.keys().for_each(|id| effects.cancel(&Timer::RoomDue(id)));
        // Their owner drains the nodes.
        self.drains.keys().for_each(|node| effects.cancel(&Timer::Drain(*node)));
        self.drains.clear();
        self.all.clear();
        self.by_name.clear();
        self.calls.clear();
        self.changing.clear();
        self.stranded.clear();
        self.away.clear();
        self.away_by_region.fill(0);
        self.placed = 0;
        self.unsettled = None;
    }
}

impl Index<&RoomId> for RoomTable {
    type Output = Room;

    fn index(&self, id: &RoomId) -> &Room {
        &self.all[*id]
    }
}

#[cfg(test)]
mod tests;
