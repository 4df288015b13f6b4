//! Moves: pending routes, make-before-break, the record of each move, and failover. Rooms leave a dead node or a hop that does
//! not carry them, and stranded rooms are rescued.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, Decider, GuardRule, Hop, MoveCause, MoveOutcome, NodeId, PortMove, RedundancyMode,
    RoomId, SessionId, Strike,
};

use crate::effects::{GatewayEffect, RoomNotice, Timer};
use crate::record::MoveRecord;
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::room::{PendingRoute, Room};
use crate::rooms::routes::Routes;
use crate::rooms::{PORTS_EXPLAINED_WITHIN, PORTS_SETTLED_EVERY, RoomTable};

/// Interval of checks while no room can return to its native place.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The time for which a room avoids a hop that did not take it.
const KEEP_AWAY: Duration = Duration::from_secs(10);

/// Time after which a hop that a room cannot leave is asked again to open the room's sessions.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// Interval between batches of rooms that fail over, which leaves time for other work, such as finding another death.
pub(crate) const LOST_EVERY: Duration = Duration::from_micros(250);

const RESCUE_EVERY: Duration = Duration::from_millis(50);

/// Longest wait of a stranded room for the next search, which those of several batches share.
const RESCUE_WITHIN: Duration = Duration::from_millis(5);

/// Maximum stranded rooms per batch, so that one wake-up stays short.
const RESCUES_AT_ONCE: usize = 512;

pub(crate) struct MoveStep {
    pub(crate) cause: MoveCause,
    pub(crate) by: Decider,
    pub(crate) from: Hop,
    pub(crate) to: Option<Hop>,
    pub(crate) started: Instant,
}

/// Moves rooms to other routes, make-before-break, and off dead nodes and hops that do not carry them; rescues stranded
/// rooms.
pub(crate) struct Moves<'a>(pub(crate) &'a mut CoreTables);

impl Moves<'_> {
    /// Notes that the room is away from its native place without anyone's choice, so that it returns when possible.
    pub(crate) fn note_away(&mut self, id: RoomId, on: Option<NodeId>, now: Instant) {
        let is_away = on.is_some_and(|on| Placement(self.0).is_away(id, on));
        self.0.rooms.set_away(id, is_away);
        if is_away {
            self.0.effects.set_if_idle(Timer::Failback, now + LOOK_AGAIN);
        }
    }

    /// Gives the room this route: its sessions are opened at the new hops, and then the route is published. A moving
    /// room does not wait for its spares; if its mode opens none ahead, they are not opened. Does nothing if `nodes` is
    /// empty.
    pub(crate) fn head_for(
        &mut self,
        id: RoomId,
        nodes: &[NodeId],
        cause: MoveCause,
        by: Decider,
        now: Instant,
    ) {
        let hops = self.0.nodes.hops(nodes);
        if hops.is_empty() {
            return;
        }
        let moves = Placement(self.0).stands_at(id) != Some(hops[0]);
        let ahead = self.0.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        let opened = if ahead { hops.len() } else { 1 };
        let awaited: BTreeSet<Hop> =
            hops.iter().take(if moves { 1 } else { opened }).copied().collect();
        let before = self.0.rooms.get_mut(&id).and_then(|room| room.pending.take());
        let same = before.as_ref().filter(|before| before.hops[0] == hops[0]);
        let started = same.map_or(now, |before| before.started);
        let other = before.filter(|before| before.hops[0] != hops[0]);
        self.end_pending(id, other, MoveOutcome::Superseded, now);
        let Some(room) = self.0.rooms.get_mut(&id) else { return };
        let waiting = BTreeSet::new();
        let (to, of) = (hops[..opened].to_vec(), awaited.clone());
        let pending = PendingRoute { hops, awaited, waiting, cause, by, started };
        room.pending = Some(Box::new(pending));
        let waiting = Routes(self.0).open_all_at(id, &to, &of, now);
        if let Some(pending) = self.0.rooms.get_mut(&id).and_then(|room| room.pending.as_mut()) {
            pending.waiting = waiting;
        }
        self.0.rooms.list(id);
        Routes(self.0).regrant(id);
        Routes(self.0).close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    /// Make-before-break: publishes the pending route once all sessions are open. Packets from the old hop still pass.
    pub(crate) fn publish_pending_if_open(&mut self, id: RoomId, now: Instant) {
        let ready = |pending: &PendingRoute| pending.waiting.is_empty();
        if !self.0.rooms.get(&id).is_some_and(|room| room.pending.as_deref().is_some_and(ready)) {
            return;
        }
        let from = Placement(self.0).stands_at(id);
        let damped = self.is_damped(id, now);
        let Some(room) = self.0.rooms.get_mut(&id) else { return };
        let Some(pending) = room.pending.take() else { return };
        let (lost, since) = room.stranded().map(|stranded| (stranded.lost, stranded.since)).unzip();
        let route = room.route();
        let target = pending.hops[0];
        if from == Some(target) {
            let PendingRoute { hops, by, .. } = *pending;
            Routes(self.0).admit_at(id, &hops, route.leaving());
            self.0.effects.event(CoreEvent::Rerouted { room: id, hops, by });
            Routes(self.0).close_left_hops(id, now);
            Routes(self.0).activate_open(id, now);
            return;
        }
        if lost.is_none() && pending.by != Decider::Operator && damped {
            if let Decider::Policy { policy, .. } = &pending.by {
                let policy = policy.clone();
                self.0.effects.event(CoreEvent::Guarded {
                    policy,
                    guard: GuardRule::MovedTooOften,
                    times: 1,
                });
            }
            self.end_pending(id, Some(pending), MoveOutcome::Damped, now);
            self.0.rooms.list(id);
            Routes(self.0).regrant(id);
            Routes(self.0).close_left_hops(id, now);
            return;
        }
        let Some(left) = from.or(lost) else { return };
        let PendingRoute { hops, cause, by, started, .. } = *pending;
        let started = since.unwrap_or(started);
        self.0.rooms.set_placed_by(id, by.clone());
        let until = now + self.0.settings.limits.leave_within;
        Routes(self.0).admit_at(id, &hops, from.map(|from| (from, until)));
        let cause = lost.map_or(cause, |lost| self.loss_of(lost.node).0);
        self.moved(id, MoveStep { cause, by, from: left, to: Some(target), started }, now);
        Routes(self.0).close_left_hops(id, now);
    }

    /// Completes a move: asks the room's senders for key frames, and sets sessions live that waited for this hop.
    pub(crate) fn moved(&mut self, id: RoomId, step: MoveStep, now: Instant) {
        let MoveStep { cause, by, from, to, started } = step;
        let sessions = Placement(self.0).live_sessions(id);
        if to.is_some() && cause.is_loss() {
            Routes(self.0).renew_last_heard(id, now);
        }
        if to.is_some() && !sessions.is_empty() {
            self.0.effects.push(GatewayEffect::KeyFrame(sessions.clone()));
        }
        let room_name = self.0.rooms.name_of(id);
        let room = self.0.rooms.get(&id);
        let scenario = room.map(|room| Arc::clone(&room.scenario)).unwrap_or_default();
        let outcome = if to.is_some() { MoveOutcome::Done } else { MoveOutcome::Stranded };
        self.record(id, MoveStep { cause, by: by.clone(), from, to, started }, outcome, now);
        // A move by a policy or an operator is deliberate.
        let unchosen = cause.is_loss() || matches!(cause, MoveCause::Link | MoveCause::Drain);
        self.note_away(id, to.map(|to| to.node).filter(|_| unchosen), now);
        if let Some(session) = sessions.first() {
            self.0.effects.notice(RoomNotice::Enrol(*session));
        }
        let is_final = cause != MoveCause::Link || to.is_none() || {
            let (room_name, scenario) = (Arc::clone(&room_name), Arc::clone(&scenario));
            let (sessions, took) = (sessions.clone(), now.saturating_duration_since(started));
            let moved = PortMove { room: id, room_name, scenario, sessions, took };
            self.0.rooms.note_port_move(from, moved, now)
        };
        self.0.effects.event(CoreEvent::Moved {
            room: id,
            room_name,
            scenario,
            sessions,
            cause,
            by,
            from,
            to,
            started,
            is_final,
        });
        let counted_max = self.0.settings.limits.moves_per_minute;
        if let Some(room) = self.0.rooms.get_mut(&id)
            && !cause.is_loss()
        {
            room.note_move(now, counted_max);
            self.0.effects.notice(RoomNotice::MoveCounted(id));
        }
        Routes(self.0).activate_open(id, now);
    }

    /// The room has reached its limit of moves: only the death of its node, or a hop that did not open a live session, may move it.
    pub(crate) fn is_damped(&mut self, id: RoomId, now: Instant) -> bool {
        let limit = self.0.settings.limits.moves_per_minute;
        let reached = self.0.rooms.get_mut(&id).is_some_and(|room| room.recent_moves(now) >= limit);
        reached
            && Placement(self.0)
                .stands_at(id)
                .is_none_or(|hop| Placement(self.0).has_all_legs(id, hop))
    }

    /// Drops a pending route. Emits an event if it would have moved the room.
    pub(crate) fn end_pending(
        &mut self,
        id: RoomId,
        pending: Option<Box<PendingRoute>>,
        outcome: MoveOutcome,
        now: Instant,
    ) {
        let Some(PendingRoute { hops, cause, by, started, .. }) = pending.map(|pending| *pending)
        else {
            return;
        };
        let Some(room) = self.0.rooms.get(&id) else { return };
        let Some(from) = room.stood().filter(|from| *from != hops[0]) else { return };
        let to = hops[0];
        let room_name = self.0.rooms.name_of(id);
        let step = MoveStep { cause, by: by.clone(), from, to: Some(to), started };
        self.record(id, step, outcome, now);
        self.0.effects.event(CoreEvent::MoveEnded {
            room: id,
            room_name,
            cause,
            by,
            from,
            to,
            started,
            outcome,
        });
    }

    /// Adds the move to the room's record.
    pub(crate) fn record(
        &mut self,
        id: RoomId,
        step: MoveStep,
        outcome: MoveOutcome,
        now: Instant,
    ) {
        let MoveStep { cause, by, from, to, started } = step;
        let by = self.0.rooms.deciders.intern(by);
        self.0.rooms.changes.note(id);
        if let Some(room) = self.0.rooms.all.get_mut(id) {
            room.record(MoveRecord { cause, by, from, to, started, ended: now, outcome });
        }
    }

    /// Gives moves off the dead node for closed ports, a moment ago, its death as their cause. Returns them.
    pub(crate) fn explain_port_moves(&mut self, dead: Hop, now: Instant) -> Vec<PortMove> {
        match self.loss_of(dead.node).0 {
            MoveCause::NodeDown => self.0.rooms.explain_port_moves(dead, now),
            _ => Vec::new(),
        }
    }

    /// Moves for closed ports of nodes that did not die in time were due to the link.
    pub(crate) fn settle_port_moves(&mut self, now: Instant) {
        for (hop, moves) in self.0.rooms.take_settled_port_moves(now) {
            let cause = MoveCause::Link;
            self.0.effects.event(CoreEvent::MoveCauseFound { hop, cause, moves });
        }
        if !self.0.rooms.closed_ports.is_empty() {
            self.0.effects.set(Timer::ClosedPorts, now + PORTS_SETTLED_EVERY);
        }
    }

    /// Marks the node down: packets of its rooms take their second hops. The reserves for this death are load from now on.
    /// Before, second hops are gated at a standby that lacks capacity because it carries rooms of other dead nodes.
    pub(crate) fn mark_down(&mut self, dead: Hop, since: Instant, now: Instant) {
        let standbys = self.0.capacity.ledger().standbys_of(dead.node);
        self.0.capacity.ledger.dead.insert(dead.node);
        for standby in &standbys {
            self.gate_excess(*standby, dead.node);
        }
        self.0.nodes.mark_down(dead, since);
        let failover = self.0.rooms.failover.get_or_insert_default();
        failover.deaths.push((dead, now));
        failover.standbys.extend(standbys);
    }

    /// Gates second hops at the standby of rooms of the dead node, until the standby can carry the others.
    fn gate_excess(&mut self, standby: NodeId, dead: NodeId) {
        let carries = |tables: &CoreTables| tables.capacity.ledger().carries(standby, 0);
        if carries(self.0) {
            return;
        }
        for id in Routes(self.0).holders_of(standby) {
            if carries(self.0) {
                return;
            }
            if self.0.rooms[&id].holding.on == Some(dead) {
                Routes(self.0).regrant(id);
            }
        }
    }

    /// Fails the rooms of a dead node over in batches. Their packets have taken their second hops since the node was marked
    /// down. Returns the number of rooms that the node carried.
    pub(crate) fn fail_over(&mut self, dead: NodeId, now: Instant) -> u32 {
        let failover = self.0.rooms.failover.get_or_insert_default();
        failover.unlisted.push((dead, RoomId(0)));
        self.0.effects.set_if_idle(Timer::Failover, now);
        self.0.capacity.ledger().rooms(dead)
    }

    /// Fails over the next rooms of dead nodes. Between batches the control thread reads its inputs, which may report
    /// another death.
    pub(crate) fn fail_over_some(&mut self, now: Instant) {
        self.0.rooms.list_failing(self.0.nodes.board());
        for _ in 0..self.0.settings.limits.lost_at_once {
            let Some(failover) = &mut self.0.rooms.failover else { return };
            match failover.rooms.pop_first() {
                Some((.., id)) => self.leave_dead_hops(id, now),
                None if failover.unlisted.is_empty() => return self.end_failover(),
                None => break,
            }
        }
        self.0.effects.set(Timer::Failover, now + LOST_EVERY);
    }

    /// Returns the cause of moves off this node, which is lost, and their decider.
    fn loss_of(&self, node: NodeId) -> (MoveCause, Decider) {
        match self.0.nodes.get(node).is_some_and(|node| node.trust.ejected) {
            true => (MoveCause::Ejected, Decider::Operator),
            false => (MoveCause::NodeDown, Decider::Native),
        }
    }

    /// All rooms of the dead nodes have failed over.
    fn end_failover(&mut self) {
        let Some(failover) = self.0.rooms.failover.take() else { return };
        self.0.capacity.ledger.dead.clear();
        for standby in failover.standbys {
            Routes(self.0).gate_unfit_reserves(standby);
        }
    }

    /// Fails the room over now if it still waits for that, because something else is about to change it.
    pub(crate) fn catch_up(&mut self, id: RoomId, now: Instant) {
        let RoomTable { all, failover, .. } = &mut self.0.rooms;
        if let Some((failover, room)) = failover.as_mut().zip(all.get(id))
            && failover.deaths.iter().any(|(dead, _)| room.leads_to(*dead))
        {
            failover.unlist(room);
            self.leave_dead_hops(id, now);
        }
    }

    fn leave_dead_hops(&mut self, id: RoomId, now: Instant) {
        let failover = self.0.rooms.failover.as_ref();
        let deaths = failover.map(|failover| failover.deaths.clone()).unwrap_or_default();
        for death in deaths {
            self.fail_over_room(id, death, now);
        }
    }

    /// Moves the room off the dead hop. If it is at another hop that died meanwhile, it fails over with that one.
    fn fail_over_room(&mut self, id: RoomId, (dead, died): (Hop, Instant), now: Instant) {
        let Some(room) = self.0.rooms.get_mut(&id).filter(|room| room.leads_to(dead)) else {
            return;
        };
        let cut = room.cut_pending(dead);
        let stood_there = room.holding.on == Some(dead.node);
        let route = room.route();
        self.end_pending(id, cut, MoveOutcome::TargetLost, now);
        if stood_there {
            let next = route.first_usable(self.0.nodes.board()).map(|(hop, _)| hop);
            let others = route
                .hops
                .iter()
                .map(|(hop, _)| *hop)
                .filter(|hop| Some(*hop) != next && self.0.nodes.is_up(*hop));
            let hops: Vec<Hop> = next.into_iter().chain(others).collect();
            match next {
                Some(_) => Routes(self.0).admit_at(id, &hops, None),
                None => self.strand(id, (dead, died), &hops, now),
            }
            self.want_start(id, now);
            let (cause, by) = self.loss_of(dead.node);
            let step = MoveStep { cause, by, from: dead, to: next, started: died };
            self.moved(id, step, now);
        } else {
            Routes(self.0).drop_spare(id, dead);
        }
        Routes(self.0).close_left_hops(id, now);
        let first = self.0.rooms.get(&id).filter(|room| room.stranded().is_none());
        let first = first.and_then(|room| room.route().hops.first().map(|(hop, _)| *hop));
        // A room at another dead hop fails over with that one.
        if first.is_none_or(|hop| self.0.nodes.is_up(hop)) {
            self.publish_pending_if_open(id, now);
        }
        self.0.effects.want_reroute(id);
    }

    /// Marks the room stranded: no hop is left that its packets may take, and the core searches for one.
    fn strand(&mut self, id: RoomId, (lost, since): (Hop, Instant), hops: &[Hop], now: Instant) {
        self.0.rooms.strand(id, lost, since);
        Routes(self.0).publish(id, hops, None);
        let due = self.0.effects.timers.due(&Timer::Rescue);
        let next = due.map_or(now, |due| due.min(now + RESCUE_WITHIN));
        self.0.effects.set(Timer::Rescue, next);
    }

    /// The kernel reports that no process listens at a node's port for one room: that hop leaves the room's route.
    pub(crate) fn handle_port_closed(&mut self, session: SessionId, hop: Hop, now: Instant) {
        let Some(room) = self.0.sessions.get(&session).map(|session| session.room) else { return };
        self.catch_up(room, now);
        if !self.0.rooms[&room].leads_to(hop) {
            return;
        }
        if let Some(node) = self.0.nodes.get_mut(hop.node)
            && node.hop() == hop
        {
            node.handle_port_closed(room, now);
        }
        self.0.rooms.note_port_closed(room, hop, now);
        self.0.effects.set_if_idle(Timer::ClosedPorts, now + PORTS_EXPLAINED_WITHIN);
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
        let stands = Placement(self.0).stands_at(id);
        let Some(room) = self.0.rooms.get_mut(&id).filter(|room| room.leads_to(hop)) else {
            return;
        };
        let news = room.keep_away(hop, now + KEEP_AWAY, now);
        let cut = room.cut_pending(hop);
        self.end_pending(id, cut, MoveOutcome::NotOpened, now);
        if news {
            let room_name = self.0.rooms.name_of(id);
            self.0.effects.event(CoreEvent::HopRemoved { room: id, room_name, hop, why, session });
            self.0.effects.set_if_idle(Timer::RoomDue(id), now + KEEP_AWAY);
            self.0.effects.want_reroute(id);
        }
        if stands == Some(hop) {
            self.0.rooms.list(id);
            Routes(self.0).regrant(id);
            self.leave_carrying_hop(id, hop, why, now);
        } else {
            Routes(self.0).drop_spare(id, hop);
        }
        Routes(self.0).close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    /// The carrying hop does not carry all of the room although its node is up, so the room leaves it. Packets from it
    /// still pass for a while.
    fn leave_carrying_hop(&mut self, id: RoomId, hop: Hop, why: Strike, now: Instant) {
        if self.is_damped(id, now) {
            return;
        }
        let (cause, by) = (MoveCause::Link, Decider::Native);
        let ahead = self.0.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        if let Some(nodes) = Placement(self.0).own_next(id, Some(hop.node), now).filter(|_| ahead) {
            let hops = self.0.nodes.hops(&nodes);
            let until = now + self.0.settings.limits.leave_within;
            Routes(self.0).admit_at(id, &hops, (why == Strike::FlowLost).then_some((hop, until)));
            let to = hops.first().copied();
            self.moved(id, MoveStep { cause, by, from: hop, to, started: now }, now);
        } else if self.0.rooms[&id].pending.is_none() {
            let nodes = Placement(self.0).native_hops(id, &[], now);
            if nodes.is_empty() {
                self.want_start(id, now);
                let (timer, again) = (Timer::RoomDue(id), now + OPEN_AGAIN);
                if self.0.effects.timers.due(&timer).is_none_or(|due| due > again) {
                    self.0.effects.set(timer, again);
                }
            }
            self.head_for(id, &nodes, cause, by, now);
        }
    }

    /// The room's policy asked for a review, or the room has avoided a refusing hop long enough. Requests a reroute and
    /// opens missing sessions.
    pub(crate) fn room_due(&mut self, id: RoomId, now: Instant) {
        self.0.rooms.changes.note(id);
        self.catch_up(id, now);
        if self.0.rooms.get(&id).is_some_and(Room::is_placed) {
            Routes(self.0).open_missing(id, now);
            self.0.effects.want_reroute(id);
        }
    }

    /// Moves stranded rooms to a hop of their route where they are open, else natively to any node with capacity, at
    /// the pace at which it opens sessions. Rooms with the fewest attempts go first, then by priority. A room that
    /// waits for one node's queue does not block nodes without a queue: if a whole batch only waits, the next batch
    /// starts after it.
    pub(crate) fn rescue_stranded(&mut self, now: Instant) {
        self.0.rooms.paced = false;
        let continues = self.0.rooms.rescued_last.is_some();
        let after = self.0.rooms.rescued_last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.0.rooms.stranded.range((after, Bound::Unbounded)).take(RESCUES_AT_ONCE);
        let turn: Vec<(u32, Reverse<i64>, RoomId)> = turn.copied().collect();
        let mut none_left = false;
        for &(.., id) in &turn {
            if self.take_own_hop(id, now) {
                continue;
            }
            none_left = none_left || self.0.rooms.paced && !Placement(self.0).has_free_node(1, &[]);
            if none_left || self.0.rooms.paced && !Placement(self.0).has_free_node_for(id, now) {
                continue;
            }
            match self.rescue(id, now) {
                true => self.0.rooms.count_attempt(id),
                false => self.0.rooms.paced = true,
            }
        }
        // If only nodes with queues are left, the first rooms have the next turn.
        let goes_on = turn.len() == RESCUES_AT_ONCE && self.0.rooms.paced && !none_left;
        self.0.rooms.rescued_last = turn.last().copied().filter(|_| goes_on);
        // Rooms in front wait still.
        self.0.rooms.paced |= continues;
        if !self.0.rooms.stranded.is_empty() {
            self.0.effects.set(Timer::Rescue, now + RESCUE_EVERY);
        }
    }

    /// Moves the room to a hop of its route where its sessions are open, which needs no queue. Returns true if it
    /// moved.
    fn take_own_hop(&mut self, id: RoomId, now: Instant) -> bool {
        let room = self.0.rooms.get(&id).filter(|room| room.mode.opens_ahead());
        let Some(lost) = room.and_then(Room::stranded) else { return false };
        let Some(nodes) = Placement(self.0).own_next(id, None, now) else { return false };
        let before = self.0.rooms.get_mut(&id).and_then(|room| room.pending.take());
        self.end_pending(id, before, MoveOutcome::Superseded, now);
        let hops = self.0.nodes.hops(&nodes);
        Routes(self.0).admit_at(id, &hops, None);
        let (from, to) = (lost.lost, hops.first().copied());
        let (cause, by) = (self.loss_of(from.node).0, Decider::Native);
        self.moved(id, MoveStep { cause, by, from, to, started: lost.since }, now);
        Routes(self.0).close_left_hops(id, now);
        self.0.effects.want_reroute(id);
        true
    }

    /// Returns false if every node with capacity for the room has a full queue of openings.
    fn rescue(&mut self, id: RoomId, now: Instant) -> bool {
        match self.0.rooms.get(&id) {
            Some(room) if room.stranded().is_some() && room.pending.is_none() => {}
            Some(_) | None => return true,
        }
        let busy = self.0.nodes.busy();
        let mut nodes = Placement(self.0).native_hops_but(id, &[], &busy, now);
        if nodes.is_empty() && !Placement(self.0).native_hops(id, &[], now).is_empty() {
            return false;
        }
        if nodes.is_empty() {
            nodes = Placement(self.0).hops_of_reserves(id, &busy, now);
        }
        if nodes.is_empty() {
            nodes = Routes(self.0).place_with_less(id, &busy, now);
        }
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.head_for(id, &nodes, MoveCause::NodeDown, Decider::Native, now);
        if let Some(taken) = nodes.first() {
            Routes(self.0).gate_unfit_reserves(*taken);
        }
        true
    }

    /// The room lost its node, must leave it, or found none. In cold mode this starts the node nearest to its region,
    /// if some session in the room is not silent.
    pub(crate) fn want_start(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.0.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold)
        else {
            return;
        };
        let mut sessions = room.sessions.iter().filter_map(|id| self.0.sessions.get(id));
        if !sessions.all(|session| session.is_silent(now, self.0.sessions.told_within)) {
            self.0.nodes.start_nearest(room.region, now);
            self.0.effects.take(&mut self.0.nodes);
        }
    }
}
