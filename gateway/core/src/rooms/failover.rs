//! Failover: rooms leave a dead node or a hop that does not carry them, and stranded rooms are rescued.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, Decider, Health, Hop, MoveCause, MoveOutcome, NodeId, NotStarted, RedundancyMode,
    RoomId, SessionId, StartPhase, Strike,
};

use super::moves::MoveStep;
use super::placement::Takes;
use super::{Room, Router};
use crate::timer::Timer;
use evenkeel_nodes::{Node, NodeChange, NodeTransition};

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

/// Silent sessions are kept this long while their room waits for a node: as long as the longest start may take.
const HELD_FOR: Duration = Duration::from_secs(600);

impl Router<'_> {
    /// Takes the changes of nodes. All dead nodes are marked down on the board before any room fails over, since a node
    /// that died in the same watch is no target.
    pub(crate) fn nodes_changed(&mut self, changes: Vec<NodeChange>, now: Instant) {
        for NodeChange { node, change, since, .. } in &changes {
            if let NodeTransition::Died { .. } = change {
                // Reserves kept for this death are assigned to it, unless another death uses them already.
                for standby in self.capacity.ledger().standbys_of(*node) {
                    self.nodes.spend_if_free(standby, *node);
                }
                self.nodes.mark_down(self.nodes[*node].hop(), *since);
            }
        }
        for change in changes {
            self.node_changed(change, now);
        }
    }

    fn node_changed(&mut self, changed: NodeChange, now: Instant) {
        let NodeChange { node: id, change, witnesses, .. } = changed;
        let node = &mut self.nodes[id];
        let last_heard = node.detector.last_heard();
        let (from, to) = match change {
            NodeTransition::Health { from, to } => (from, to),
            NodeTransition::Died { from } => (from, Health::Down),
            NodeTransition::Returned => (Health::Down, node.health()),
            NodeTransition::Started { to, .. } => (Health::Cold, to),
        };
        match change {
            NodeTransition::Health { .. } => {}
            NodeTransition::Died { .. } => {
                let hop = node.hop();
                node.detector.absolve();
                // A node that dies before it ran was ejected.
                self.nodes.start_failed(id, NotStarted::Ejected, now);
                self.effects.take(self.nodes);
                let place = self.effects.place();
                let rooms = self.fail_over(hop, now);
                let event = CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms };
                self.effects.insert(place, event);
                return;
            }
            NodeTransition::Returned | NodeTransition::Started { .. } => self.nodes.reincarnate(id),
        }
        let hop = self.nodes[id].hop();
        self.effects.event(CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms: 0 });
        if let NodeTransition::Started { after, .. } = change {
            self.started(id, after, now);
        }
        if matches!(change, NodeTransition::Returned | NodeTransition::Started { .. }) {
            // The node's request to drain was made by its previous incarnation.
            self.decide_drain(id, |node| node.leaving = false, now);
        }
        if matches!(to, Health::Wary | Health::Up) && from != Health::Suspect {
            self.want_reroute_of_short_rooms();
        }
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
            self.gate_unfit_reserves(standby);
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
        self.end_pending(id, cut, MoveOutcome::TargetLost, now);
        if stood_there {
            let next = route.first_usable(self.nodes.board()).map(|(hop, _)| hop);
            let others = route
                .hops
                .iter()
                .map(|(hop, _)| *hop)
                .filter(|hop| Some(*hop) != next && self.nodes.is_up(*hop));
            let hops: Vec<Hop> = next.into_iter().chain(others).collect();
            match next {
                Some(_) => self.admit_at(id, &hops, None),
                None => self.strand(id, (dead, died), &hops, now),
            }
            self.want_start(id, now);
            let cause = MoveCause::NodeDown;
            let step = MoveStep { cause, by: Decider::Native, from: dead, to: next, started: died };
            self.moved(id, step, now);
        } else {
            self.drop_spare(id, dead);
        }
        self.close_left_hops(id, now);
        if !self.stands_at_the_dead(id) {
            self.publish_pending_if_open(id, now);
        }
        self.want_reroute(id);
    }

    /// The room still waits to fail over from its dead node.
    fn stands_at_the_dead(&self, id: RoomId) -> bool {
        self.rooms.get(&id).filter(|room| room.stranded.is_none()).is_some_and(|room| {
            let first = room.route().hops.first().map(|(hop, _)| *hop);
            first.is_some_and(|hop| !self.nodes.is_up(hop))
        })
    }

    /// Removes this hop from the room's route, if it contains it.
    fn drop_spare(&mut self, id: RoomId, gone: Hop) {
        let route = self.rooms[&id].route();
        let leaving = route.leaving.filter(|(hop, _)| *hop != gone);
        let hops: Vec<Hop> =
            route.hops.iter().map(|(hop, _)| *hop).filter(|hop| *hop != gone).collect();
        if hops.len() < route.hops.len() {
            self.publish(id, &hops, leaving);
        } else {
            self.rooms.list(id);
            self.regrant(id);
        }
    }

    /// Gates second hops of other nodes' rooms whose reserves the new load has used, until those rooms have others.
    pub(crate) fn gate_unfit_reserves(&mut self, node: NodeId) {
        if self.capacity.ledger().fits(node, 0) {
            return;
        }
        let holders = self.rooms.at[node.0 as usize].iter().filter_map(|id| self.rooms.get(id));
        let mut holders: Vec<(i64, Reverse<RoomId>)> = holders
            .filter(|room| room.holding.reserve == Some(node))
            .map(|room| (room.priority, Reverse(room.id)))
            .collect();
        holders.sort_unstable();
        for (_, Reverse(id)) in holders {
            self.regrant(id);
            if self.rooms[&id].holding.reserve.is_none() {
                self.want_reroute(id);
            }
        }
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
        let stands = self.stands_at(id);
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.leads_to(hop)) else {
            return;
        };
        let news = room.keep_away(hop, now + KEEP_AWAY, now);
        let cut = room.cut_pending(hop);
        self.end_pending(id, cut, MoveOutcome::NotOpened, now);
        if news {
            let room_name = self.rooms.name_of(id);
            self.effects.event(CoreEvent::HopRemoved { room: id, room_name, hop, why, session });
            self.effects.set_if_idle(Timer::RoomDue(id), now + KEEP_AWAY);
            self.want_reroute(id);
        }
        if stands == Some(hop) {
            self.rooms.list(id);
            self.regrant(id);
            self.leave_carrying_hop(id, hop, why, now);
        } else {
            self.drop_spare(id, hop);
        }
        self.close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    /// The carrying hop does not carry all of the room although its node is up, so the room leaves it. Packets from it
    /// still pass for a while.
    fn leave_carrying_hop(&mut self, id: RoomId, hop: Hop, why: Strike, now: Instant) {
        if self.is_damped(id, now) {
            return;
        }
        let (cause, by) = (MoveCause::Link, Decider::Native);
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        if let Some(nodes) = self.own_next(id, Some(hop.node), now).filter(|_| ahead) {
            let hops = self.nodes.hops(&nodes);
            let until = now + self.settings.limits.leave_within;
            self.admit_at(id, &hops, (why == Strike::FlowLost).then_some((hop, until)));
            let to = hops.first().copied();
            self.moved(id, MoveStep { cause, by, from: hop, to, started: now }, now);
        } else if self.rooms[&id].pending.is_none() {
            let nodes = self.native_hops(id, &[], now);
            if nodes.is_empty() {
                self.want_start(id, now);
            }
            self.head_for(id, &nodes, cause, by, now);
        }
    }

    /// The route's hops in order, without `but`, starting with the first that has capacity for the room. `None` if none
    /// has.
    pub(crate) fn own_next(
        &mut self,
        id: RoomId,
        but: Option<NodeId>,
        now: Instant,
    ) -> Option<Vec<NodeId>> {
        let kbps = self.room_kbps(id);
        let shunned = self.shunned(id, now);
        let room = self.rooms.get(&id)?;
        let fit = |hop: &Hop| {
            self.nodes.is_up(*hop)
                && Some(hop.node) != but
                && !shunned.contains(&hop.node)
                && self.nodes.get(hop.node).is_some_and(Node::takes_rooms)
        };
        let mut nodes: Vec<NodeId> =
            room.route().hops.iter().filter(|(hop, _)| fit(hop)).map(|(hop, _)| hop.node).collect();
        let first = self.without_holding(id, |router| {
            nodes.iter().position(|&node| router.capacity.ledger().fits(node, kbps))
        })?;
        nodes[..=first].rotate_right(1);
        Some(nodes)
    }

    /// The room's policy asked for a review, or the room has avoided a refusing hop long enough. Requests a reroute and
    /// opens missing sessions.
    pub(crate) fn room_due(&mut self, id: RoomId, now: Instant) {
        self.rooms.changes.note(id);
        self.catch_up(id, now);
        if self.rooms.get(&id).is_some_and(Room::is_placed) {
            self.open_missing(id, now);
            self.want_reroute(id);
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
            none_left = none_left || self.rooms.paced && !self.has_free_node(1, &[]);
            if none_left || self.rooms.paced && !self.has_free_node_for(id, now) {
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

    /// Some node without a queue, and not in `shunned`, has capacity for this load in kbit/s.
    fn has_free_node(&self, kbps: u64, shunned: &[NodeId]) -> bool {
        self.nodes.iter().any(|node| {
            let (id, pace) = (node.id, self.nodes.pace(node.id));
            let open = node.welcomes_rooms() && !pace.is_busy() && !shunned.contains(&id);
            open && self.capacity.ledger().fits(id, kbps)
        })
    }

    /// Some node without a queue has capacity for this room; otherwise a search is useless.
    pub(crate) fn has_free_node_for(&self, id: RoomId, now: Instant) -> bool {
        self.has_free_node(self.room_kbps(id), &self.shunned(id, now))
    }

    /// Moves the room to a hop of its route where its sessions are open, which needs no queue. Returns true if it
    /// moved.
    fn take_own_hop(&mut self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode.opens_ahead());
        let Some(lost) = room.and_then(|room| room.stranded) else {
            return false;
        };
        let Some(nodes) = self.own_next(id, None, now) else {
            return false;
        };
        let before = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        self.end_pending(id, before, MoveOutcome::Superseded, now);
        let hops = self.nodes.hops(&nodes);
        self.admit_at(id, &hops, None);
        let (from, to) = (lost.lost, hops.first().copied());
        let (cause, by) = (MoveCause::NodeDown, Decider::Native);
        self.moved(id, MoveStep { cause, by, from, to, started: lost.since }, now);
        self.close_left_hops(id, now);
        self.want_reroute(id);
        true
    }

    /// Returns false if every node with capacity for the room has a full queue of openings.
    fn rescue(&mut self, id: RoomId, now: Instant) -> bool {
        match self.rooms.get(&id) {
            Some(room) if room.stranded.is_some() && room.pending.is_none() => {}
            Some(_) | None => return true,
        }
        let busy = self.nodes.busy();
        let mut nodes = self.native_hops_but(id, &[], &busy, now);
        if nodes.is_empty() && !self.native_hops(id, &[], now).is_empty() {
            return false;
        }
        if nodes.is_empty() {
            nodes = self.hops_of_reserves(id, &busy, now);
        }
        if nodes.is_empty() {
            nodes = self.place_with_less(id, &busy, now);
        }
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.head_for(id, &nodes, MoveCause::NodeDown, Decider::Native, now);
        if let Some(taken) = nodes.first() {
            self.gate_unfit_reserves(*taken);
        }
        true
    }

    /// The room's hops if reserves are ignored: a running call takes precedence over possible future deaths. Reserves
    /// assigned to a current death are excluded.
    fn hops_of_reserves(&mut self, id: RoomId, busy: &[NodeId], now: Instant) -> Vec<NodeId> {
        let mut but = busy.to_vec();
        but.extend(self.rooms.failover.iter().flat_map(|failover| &failover.standbys));
        self.native_hops_taking(id, Takes::Reserves, &but, now)
    }

    /// The room lost its node, must leave it, or found none. In cold mode this starts the node nearest to its region,
    /// if some session in the room is not silent.
    pub(crate) fn want_start(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold)
        else {
            return;
        };
        if !self.all_silent(room, now) {
            self.nodes.start_nearest(room.region, now);
            self.effects.take(self.nodes);
        }
    }

    fn all_silent(&self, room: &Room, now: Instant) -> bool {
        let mut sessions = room.sessions.iter().filter_map(|session| self.sessions.get(session));
        sessions.all(|session| session.is_silent(now, self.sessions.told_within))
    }

    /// The node is running, so stranded rooms are tried again.
    pub(crate) fn started(&mut self, id: NodeId, after: Option<Duration>, now: Instant) {
        self.effects.cancel(&Timer::StartLate(id));
        self.effects.set(Timer::Probe(id), now);
        if let Some(took) = after {
            self.effects.event(CoreEvent::Start { node: id, step: StartPhase::Done { took } });
        }
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now);
        }
    }

    /// Restarts the silence timeout of the room's sessions, since the room has a node again.
    pub(crate) fn renew_last_heard(&mut self, id: RoomId, now: Instant) {
        let sessions = self.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold);
        for session in sessions.into_iter().flat_map(|room| room.sessions.iter()) {
            if let Some(session) = self.sessions.get_mut(session) {
                session.last_heard = session.last_heard.max(now);
            }
        }
    }

    /// The room waits for a node to start, so its silent sessions are kept for a while.
    pub(crate) fn is_held(&self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold);
        room.and_then(|room| room.stranded)
            .is_some_and(|stranded| now.saturating_duration_since(stranded.since) < HELD_FOR)
    }
}
