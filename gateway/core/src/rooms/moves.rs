//! Moves: pending routes, make-before-break, and the record of each move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    CoreEvent, CoreSettings, Decider, GuardRule, Hop, MoveCause, MoveOutcome, NodeId, RoomId,
    SessionId,
};
use evenkeel_nodes::NodeTable;
use serde::{Deserialize, Serialize};

use super::failback::LOOK_AGAIN;
use super::{Legs, PendingRoute, Placement, RoomTable, Routes};
use crate::GatewayEffect;
use crate::capacity::Capacity;
use crate::effects::{Effects, RoomNotice};
use crate::sessions::SessionTable;
use crate::timer::Timer;

/// One entry in a room's record of moves.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct MoveRecord {
    pub cause: MoveCause,
    pub by: Arc<Decider>,
    pub from: Hop,
    /// `None`: no hop was left for the room.
    pub to: Option<Hop>,
    #[serde(with = "evenkeel_media::instant")]
    pub started: Instant,
    #[serde(with = "evenkeel_media::instant")]
    pub ended: Instant,
    pub outcome: MoveOutcome,
}

#[derive(Clone, PartialEq, Debug)]
pub struct MoveUnderWay {
    pub room: RoomId,
    pub cause: MoveCause,
    pub by: Decider,
    /// The hop that carries the room, or carried it before it died.
    pub from: Hop,
    pub to: Hop,
    pub started: Instant,
}

pub(crate) struct MoveStep {
    pub(crate) cause: MoveCause,
    pub(crate) by: Decider,
    pub(crate) from: Hop,
    pub(crate) to: Option<Hop>,
    pub(crate) started: Instant,
}

impl RoomTable {
    /// All moves in progress, by room. Each ends with a [`CoreEvent::Moved`] to its target or an [`CoreEvent::MoveEnded`].
    pub(crate) fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.values().filter_map(|room| {
            let PendingRoute { hops, cause, by, started, .. } = room.pending.as_deref()?;
            let (to, from) = (hops[0], room.stood().filter(|from| *from != hops[0])?);
            let (cause, by, started) = (*cause, by.clone(), *started);
            Some(MoveUnderWay { room: room.id, cause, by, from, to, started })
        })
    }
}

/// Moves rooms to other routes, make-before-break.
pub(crate) struct Moves<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) rooms: &'a mut RoomTable,
    pub(crate) nodes: &'a mut NodeTable,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
}

impl Moves<'_> {
    pub(crate) fn placement(&self) -> Placement<'_> {
        let Self { settings, sessions, rooms, nodes, capacity, .. } = self;
        Placement { settings, sessions, rooms, nodes, capacity }
    }

    fn routes(&mut self) -> Routes<'_> {
        lend!(Routes of self)
    }

    fn legs(&mut self) -> Legs<'_> {
        lend!(Legs of self)
    }

    /// Notes that the room is away from its native place without anyone's choice, so that it returns when possible.
    pub(crate) fn note_away(&mut self, id: RoomId, on: Option<NodeId>, now: Instant) {
        let is_away = on.is_some_and(|on| self.placement().is_away(id, on));
        self.rooms.set_away(id, is_away);
        if is_away {
            self.effects.set_if_idle(Timer::Failback, now + LOOK_AGAIN);
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
        let hops = self.nodes.hops(nodes);
        if hops.is_empty() {
            return;
        }
        let moves = self.placement().stands_at(id) != Some(hops[0]);
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        let opened = if ahead { hops.len() } else { 1 };
        let awaited: BTreeSet<Hop> =
            hops.iter().take(if moves { 1 } else { opened }).copied().collect();
        let before = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        let same = before.as_ref().filter(|before| before.hops[0] == hops[0]);
        let started = same.map_or(now, |before| before.started);
        let other = before.filter(|before| before.hops[0] != hops[0]);
        self.end_pending(id, other, MoveOutcome::Superseded, now);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let waiting = BTreeSet::new();
        let (to, of) = (hops[..opened].to_vec(), awaited.clone());
        let pending = PendingRoute { hops, awaited, waiting, cause, by, started };
        room.pending = Some(Box::new(pending));
        let waiting = self.legs().open_all_at(id, &to, &of, now);
        if let Some(pending) = self.rooms.get_mut(&id).and_then(|room| room.pending.as_mut()) {
            pending.waiting = waiting;
        }
        self.rooms.list(id);
        self.routes().regrant(id);
        self.legs().close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    pub(crate) fn pending_opened(
        &mut self,
        id: RoomId,
        session: SessionId,
        hop: Hop,
        now: Instant,
    ) {
        if let Some(pending) = self.rooms.get_mut(&id).and_then(|room| room.pending.as_mut()) {
            pending.waiting.remove(&(session, hop));
            self.publish_pending_if_open(id, now);
        }
    }

    /// Make-before-break: publishes the pending route once all sessions are open. Packets from the old hop still pass.
    pub(crate) fn publish_pending_if_open(&mut self, id: RoomId, now: Instant) {
        let ready = |pending: &PendingRoute| pending.waiting.is_empty();
        if !self.rooms.get(&id).is_some_and(|room| room.pending.as_deref().is_some_and(ready)) {
            return;
        }
        let from = self.placement().stands_at(id);
        let damped = self.is_damped(id, now);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let Some(pending) = room.pending.take() else {
            return;
        };
        let (lost, since) = room.stranded.map(|stranded| (stranded.lost, stranded.since)).unzip();
        let route = room.route();
        let target = pending.hops[0];
        if from == Some(target) {
            let PendingRoute { hops, by, .. } = *pending;
            self.routes().admit_at(id, &hops, route.leaving);
            self.effects.event(CoreEvent::Rerouted { room: id, hops, by });
            self.legs().close_left_hops(id, now);
            self.legs().activate_open(id, now);
            return;
        }
        if lost.is_none() && pending.by != Decider::Operator && damped {
            if let Decider::Policy { policy, .. } = &pending.by {
                let policy = policy.clone();
                self.effects.event(CoreEvent::Guarded {
                    policy,
                    guard: GuardRule::MovedTooOften,
                    times: 1,
                });
            }
            self.end_pending(id, Some(pending), MoveOutcome::Damped, now);
            self.rooms.list(id);
            self.routes().regrant(id);
            self.legs().close_left_hops(id, now);
            return;
        }
        let Some(left) = from.or(lost) else {
            return;
        };
        let PendingRoute { hops, cause, by, started, .. } = *pending;
        let started = since.unwrap_or(started);
        self.rooms.set_placed_by(id, by.clone());
        let until = now + self.settings.limits.leave_within;
        self.routes().admit_at(id, &hops, from.map(|from| (from, until)));
        let cause = if lost.is_some() { MoveCause::NodeDown } else { cause };
        self.moved(id, MoveStep { cause, by, from: left, to: Some(target), started }, now);
        self.legs().close_left_hops(id, now);
    }

    /// Completes a move: asks the room's senders for key frames, and sets sessions live that waited for this hop.
    pub(crate) fn moved(&mut self, id: RoomId, step: MoveStep, now: Instant) {
        let MoveStep { cause, by, from, to, started } = step;
        let sessions = self.placement().live_sessions(id);
        if to.is_some() && cause == MoveCause::NodeDown {
            self.legs().renew_last_heard(id, now);
        }
        if to.is_some() && !sessions.is_empty() {
            self.effects.push(GatewayEffect::KeyFrame { sessions: sessions.clone() });
        }
        let room_name = self.rooms.name_of(id);
        let outcome = if to.is_some() { MoveOutcome::Done } else { MoveOutcome::Stranded };
        self.record(id, MoveStep { cause, by: by.clone(), from, to, started }, outcome, now);
        // A move by a policy or an operator is deliberate.
        let unchosen = matches!(cause, MoveCause::NodeDown | MoveCause::Link | MoveCause::Drain);
        self.note_away(id, to.map(|to| to.node).filter(|_| unchosen), now);
        if let Some(session) = sessions.first() {
            self.effects.notice(RoomNotice::Enrol(*session));
        }
        let moved =
            CoreEvent::Moved { room: id, room_name, sessions, cause, by, from, to, started };
        self.effects.event(moved);
        let counted_max = self.settings.limits.moves_per_minute;
        if let Some(room) = self.rooms.get_mut(&id)
            && cause != MoveCause::NodeDown
        {
            room.note_move(now, counted_max);
            self.effects.notice(RoomNotice::MoveCounted(id));
        }
        self.legs().activate_open(id, now);
    }

    /// The room has reached its limit of moves: only the death of its node may move it.
    pub(crate) fn is_damped(&mut self, id: RoomId, now: Instant) -> bool {
        let limit = self.settings.limits.moves_per_minute;
        self.rooms.get_mut(&id).is_some_and(|room| room.recent_moves(now) >= limit)
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
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let Some(from) = room.stood().filter(|from| *from != hops[0]) else {
            return;
        };
        let to = hops[0];
        let room_name = self.rooms.name_of(id);
        let step = MoveStep { cause, by: by.clone(), from, to: Some(to), started };
        self.record(id, step, outcome, now);
        self.effects.event(CoreEvent::MoveEnded {
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
        let by = self.rooms.deciders.intern(by);
        self.rooms.changes.note(id);
        if let Some(room) = self.rooms.all.get_mut(&id) {
            room.record(MoveRecord { cause, by, from, to, started, ended: now, outcome });
        }
    }
}
