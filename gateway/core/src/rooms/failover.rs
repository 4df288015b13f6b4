//! Failover: rooms leave a dead node or a hop that does not carry them, and stranded rooms are rescued.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, CoreSettings, Decider, Hop, MoveCause, MoveOutcome, NodeId, RedundancyMode, RoomId,
    SessionId, Strike,
};
use evenkeel_nodes::NodeTable;

use super::moves::MoveStep;
use super::{Legs, Moves, Placement, Room, RoomTable, Routes};
use crate::capacity::Capacity;
use crate::effects::Effects;
use crate::sessions::SessionTable;
use crate::timer::Timer;

/// The time for which a room avoids a hop that did not take it.
const KEEP_AWAY: Duration = Duration::from_secs(10);

/// Interval between batches of rooms that fail over, which leaves time for other work.
const LOST_EVERY: Duration = Duration::from_millis(1);

/// Rooms that have not yet failed over from a dead node.
#[derive(Debug)]
pub(crate) struct PendingFailover {
    pub(crate) dead: Hop,
    died: Instant,
    /// Nodes whose reserves only these rooms may use meanwhile.
    pub(crate) standbys: Vec<NodeId>,
    pub(crate) rooms: BTreeSet<RoomId>,
}

impl PendingFailover {
    /// The node is the dead one, or its reserve is assigned to this failover.
    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.dead.node == node || self.standbys.contains(&node)
    }
}

const RESCUE_EVERY: Duration = Duration::from_millis(50);

/// Maximum stranded rooms per batch, so that one wake-up stays short.
const RESCUES_AT_ONCE: usize = 512;

/// Moves rooms off dead nodes and off hops that do not carry them, and rescues stranded rooms.
pub(crate) struct Failover<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) rooms: &'a mut RoomTable,
    pub(crate) nodes: &'a mut NodeTable,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
}

impl Failover<'_> {
    pub(crate) fn placement(&self) -> Placement<'_> {
        let Self { settings, sessions, rooms, nodes, capacity, .. } = self;
        Placement { settings, sessions, rooms, nodes, capacity }
    }

    pub(crate) fn routes(&mut self) -> Routes<'_> {
        lend!(Routes of self)
    }

    pub(crate) fn legs(&mut self) -> Legs<'_> {
        lend!(Legs of self)
    }

    pub(crate) fn moves(&mut self) -> Moves<'_> {
        lend!(Moves of self)
    }

    /// Fails the rooms of a dead node over. Their packets have taken their second hops since the node was marked down.
    /// Returns the number of rooms that the node carried.
    pub(crate) fn fail_over(&mut self, dead: Hop, now: Instant) -> u32 {
        // A standby's reserve is assigned to one death at a time. Until the previous failover has failed over, packets of
        // this one take second hops that are not assigned to it; no other room takes those reserves meanwhile.
        while self.rooms.failover.is_some() {
            self.fail_over_some(now);
        }
        let stood_there = self.capacity.ledger().rooms(dead.node);
        for standby in self.capacity.ledger().standbys_of(dead.node) {
            self.nodes.spend(standby, Some(dead.node));
        }
        let standbys = self.nodes.spent_for(dead.node);
        let rooms = self.rooms.at[dead.node.0 as usize].clone();
        self.rooms.failover = Some(PendingFailover { dead, died: now, standbys, rooms });
        self.fail_over_some(now);
        stood_there
    }

    /// Fails over the next rooms of a dead node. Batches let the control thread do other work in between; the rooms'
    /// packets already take other hops.
    pub(crate) fn fail_over_some(&mut self, now: Instant) {
        for _ in 0..self.settings.limits.lost_at_once {
            let Some(failover) = &mut self.rooms.failover else {
                return;
            };
            let dead = (failover.dead, failover.died);
            match failover.rooms.pop_first() {
                Some(id) => self.fail_over_room(id, dead, now),
                None => return self.free_standbys(),
            }
        }
        self.effects.set(Timer::Failover, now + LOST_EVERY);
    }

    /// Frees the standbys after all rooms of the dead node failed over.
    fn free_standbys(&mut self) {
        let Some(PendingFailover { standbys, .. }) = self.rooms.failover.take() else {
            return;
        };
        self.effects.cancel(&Timer::Failover);
        for standby in standbys {
            self.routes().gate_unfit_reserves(standby);
            self.nodes.spend(standby, None);
        }
    }

    /// Fails the room over now if it still waits for that, because something else is about to change it.
    pub(crate) fn catch_up(&mut self, id: RoomId, now: Instant) {
        if let Some(failover) = &mut self.rooms.failover
            && failover.rooms.remove(&id)
        {
            let dead = (failover.dead, failover.died);
            self.fail_over_room(id, dead, now);
        }
    }

    /// Moves the room off the dead hop. If it is at another hop that died meanwhile, it fails over with that one.
    fn fail_over_room(&mut self, id: RoomId, (dead, died): (Hop, Instant), now: Instant) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.leads_to(dead)) else {
            return;
        };
        let cut = room.cut_pending(dead);
        let stood_there = room.holding.on == Some(dead.node);
        let route = room.route();
        self.moves().end_pending(id, cut, MoveOutcome::TargetLost, now);
        if stood_there {
            let next = route.first_usable(self.nodes.board()).map(|(hop, _)| hop);
            let others = route
                .hops
                .iter()
                .map(|(hop, _)| *hop)
                .filter(|hop| Some(*hop) != next && self.nodes.is_up(*hop));
            let hops: Vec<Hop> = next.into_iter().chain(others).collect();
            match next {
                Some(_) => self.routes().admit_at(id, &hops, None),
                None => self.routes().strand(id, (dead, died), &hops, now),
            }
            self.want_start(id, now);
            let cause = MoveCause::NodeDown;
            let step = MoveStep { cause, by: Decider::Native, from: dead, to: next, started: died };
            self.moves().moved(id, step, now);
        } else {
            self.routes().drop_spare(id, dead);
        }
        self.legs().close_left_hops(id, now);
        if !self.placement().stands_at_the_dead(id) {
            self.moves().publish_pending_if_open(id, now);
        }
        self.effects.want_reroute(id);
    }

    /// The kernel reports that no process listens at a node's port for one room: that hop leaves the room's route.
    pub(crate) fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        let Some(room) = self.sessions.get(&session).map(|session| session.room) else {
            return;
        };
        self.catch_up(room, now);
        if !self.rooms[&room].leads_to(hop) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(hop.node)
            && node.hop() == hop
        {
            node.handle_port_closed(room, now);
        }
        self.drop_hop(room, hop, (Strike::PortClosed, Some(session)), now);
    }

    /// The hop does not carry the room although its node is up: it leaves the room's route if there is another hop.
    pub(crate) fn drop_hop(
        &mut self,
        id: RoomId,
        hop: Hop,
        (why, session): (Strike, Option<SessionId>),
        now: Instant,
    ) {
        let stands = self.placement().stands_at(id);
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.leads_to(hop)) else {
            return;
        };
        let news = room.keep_away(hop, now + KEEP_AWAY, now);
        let cut = room.cut_pending(hop);
        self.moves().end_pending(id, cut, MoveOutcome::NotOpened, now);
        if news {
            let room_name = self.rooms.name_of(id);
            self.effects.event(CoreEvent::HopRemoved { room: id, room_name, hop, why, session });
            self.effects.set_if_idle(Timer::RoomDue(id), now + KEEP_AWAY);
            self.effects.want_reroute(id);
        }
        if stands == Some(hop) {
            self.rooms.list(id);
            self.routes().regrant(id);
            self.leave_carrying_hop(id, hop, why, now);
        } else {
            self.routes().drop_spare(id, hop);
        }
        self.legs().close_left_hops(id, now);
        self.moves().publish_pending_if_open(id, now);
    }

    /// The carrying hop does not carry all of the room although its node is up, so the room leaves it. Packets from it
    /// still pass for a while.
    fn leave_carrying_hop(&mut self, id: RoomId, hop: Hop, why: Strike, now: Instant) {
        if self.moves().is_damped(id, now) {
            return;
        }
        let (cause, by) = (MoveCause::Link, Decider::Native);
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        if let Some(nodes) = self.placement().own_next(id, Some(hop.node), now).filter(|_| ahead) {
            let hops = self.nodes.hops(&nodes);
            let until = now + self.settings.limits.leave_within;
            self.routes().admit_at(id, &hops, (why == Strike::FlowLost).then_some((hop, until)));
            let to = hops.first().copied();
            self.moves().moved(id, MoveStep { cause, by, from: hop, to, started: now }, now);
        } else if self.rooms[&id].pending.is_none() {
            let nodes = self.placement().native_hops(id, &[], now);
            if nodes.is_empty() {
                self.want_start(id, now);
            }
            self.moves().head_for(id, &nodes, cause, by, now);
        }
    }

    /// The room's policy asked for a review, or the room has avoided a refusing hop long enough. Requests a reroute and
    /// opens missing sessions.
    pub(crate) fn room_due(&mut self, id: RoomId, now: Instant) {
        self.rooms.changes.note(id);
        self.catch_up(id, now);
        if self.rooms.get(&id).is_some_and(Room::is_placed) {
            self.legs().open_missing(id, now);
            self.effects.want_reroute(id);
        }
    }

    /// Moves stranded rooms to a hop of their route where they are open, else natively to any node with capacity, at
    /// the pace at which it opens sessions. Rooms with the fewest attempts go first, then by priority. A room that
    /// waits for one node's queue does not block nodes without a queue: if a whole batch only waits, the next batch
    /// starts after it.
    pub(crate) fn rescue_stranded(&mut self, now: Instant) {
        self.rooms.paced = false;
        let continues = self.rooms.rescued_last.is_some();
        let after = self.rooms.rescued_last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.rooms.stranded.range((after, Bound::Unbounded)).take(RESCUES_AT_ONCE);
        let turn: Vec<(u32, Reverse<i64>, RoomId)> = turn.copied().collect();
        let mut none_left = false;
        for &(.., id) in &turn {
            if self.take_own_hop(id, now) {
                continue;
            }
            none_left = none_left || self.rooms.paced && !self.placement().has_free_node(1, &[]);
            if none_left || self.rooms.paced && !self.placement().has_free_node_for(id, now) {
                continue;
            }
            match self.rescue(id, now) {
                true => self.rooms.count_attempt(id),
                false => self.rooms.paced = true,
            }
        }
        // If only nodes with queues are left, the first rooms have the next turn.
        let goes_on = turn.len() == RESCUES_AT_ONCE && self.rooms.paced && !none_left;
        self.rooms.rescued_last = turn.last().copied().filter(|_| goes_on);
        // Rooms in front wait still.
        self.rooms.paced |= continues;
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now + RESCUE_EVERY);
        }
    }

    /// Moves the room to a hop of its route where its sessions are open, which needs no queue. Returns true if it
    /// moved.
    fn take_own_hop(&mut self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode.opens_ahead());
        let Some(lost) = room.and_then(|room| room.stranded) else {
            return false;
        };
        let Some(nodes) = self.placement().own_next(id, None, now) else {
            return false;
        };
        let before = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        self.moves().end_pending(id, before, MoveOutcome::Superseded, now);
        let hops = self.nodes.hops(&nodes);
        self.routes().admit_at(id, &hops, None);
        let (from, to) = (lost.lost, hops.first().copied());
        let (cause, by) = (MoveCause::NodeDown, Decider::Native);
        self.moves().moved(id, MoveStep { cause, by, from, to, started: lost.since }, now);
        self.legs().close_left_hops(id, now);
        self.effects.want_reroute(id);
        true
    }

    /// Returns false if every node with capacity for the room has a full queue of openings.
    fn rescue(&mut self, id: RoomId, now: Instant) -> bool {
        match self.rooms.get(&id) {
            Some(room) if room.stranded.is_some() && room.pending.is_none() => {}
            Some(_) | None => return true,
        }
        let busy = self.nodes.busy();
        let mut nodes = self.placement().native_hops_but(id, &[], &busy, now);
        if nodes.is_empty() && !self.placement().native_hops(id, &[], now).is_empty() {
            return false;
        }
        if nodes.is_empty() {
            nodes = self.placement().hops_of_reserves(id, &busy, now);
        }
        if nodes.is_empty() {
            nodes = self.routes().place_with_less(id, &busy, now);
        }
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.moves().head_for(id, &nodes, MoveCause::NodeDown, Decider::Native, now);
        if let Some(taken) = nodes.first() {
            self.routes().gate_unfit_reserves(*taken);
        }
        true
    }

    /// The room lost its node, must leave it, or found none. In cold mode this starts the node nearest to its region,
    /// if some session in the room is not silent.
    pub(crate) fn want_start(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold)
        else {
            return;
        };
        if !self.placement().all_silent(room, now) {
            self.nodes.start_nearest(room.region, now);
            self.effects.take(self.nodes);
        }
    }
}
