//! Routes under way: make-before-break, whoever wants it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::standing::Step;
use super::{Gateway, Impossible};
use crate::room::Pending;
use crate::session::{Leg, Phase};
use crate::{Cause, Decider, Event, Guard, Hop, MoveOutcome, NodeId, RoomId, SessionId};

impl Gateway {
    /// The room shall have this route: its sessions are opened where they are not yet, then it is published. A room
    /// that moves does not wait for its spares, and where its mode opens none ahead, none are opened. Nothing happens
    /// where there is no node.
    pub(super) fn head_for(
        &mut self,
        id: RoomId,
        nodes: &[NodeId],
        cause: Cause,
        by: Decider,
        now: Instant,
    ) {
        let hops = self.hops(nodes);
        if hops.is_empty() {
            return;
        }
        let moves = self.stands_at(id) != Some(hops[0]);
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        let opened = if ahead { hops.len() } else { 1 };
        let awaited: BTreeSet<Hop> =
            hops.iter().take(if moves { 1 } else { opened }).copied().collect();
        let before = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        let same = before.as_ref().filter(|before| before.hops[0] == hops[0]);
        let started = same.map_or(now, |before| before.started);
        let other = before.filter(|before| before.hops[0] != hops[0]);
        self.given_up(id, other, MoveOutcome::Superseded, now);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let waiting = BTreeSet::new();
        let (to, of) = (hops[..opened].to_vec(), awaited.clone());
        let pending = Pending { hops, awaited, waiting, cause, by, started };
        room.pending = Some(Box::new(pending));
        let waiting = self.open_all_at(id, &to, &of, now);
        if let Some(pending) = self.rooms.get_mut(&id).and_then(|room| room.pending.as_mut()) {
            pending.waiting = waiting;
        }
        self.rooms.list(id);
        self.regrant(id);
        self.close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
    }

    /// Has the room's sessions opened at these hops. Those that are not open yet where that is awaited.
    fn open_all_at(
        &mut self,
        id: RoomId,
        hops: &[Hop],
        awaited: &BTreeSet<Hop>,
        now: Instant,
    ) -> BTreeSet<(SessionId, Hop)> {
        let opening = |id: &SessionId| {
            self.sessions.get(id).is_some_and(|session| session.phase >= Phase::Opening)
        };
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
        let sessions: Vec<SessionId> = sessions.copied().filter(opening).collect();
        let mut waiting = BTreeSet::new();
        for session in sessions {
            for &hop in hops {
                if self.open_at(session, hop, now) != Some(Leg::Open) && awaited.contains(&hop) {
                    waiting.insert((session, hop));
                }
            }
        }
        waiting
    }

    pub(super) fn pending_opened(
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

    /// Make-before-break: everybody is open there, so everybody goes there; what the old hop still delivers passes.
    pub(super) fn publish_pending_if_open(&mut self, id: RoomId, now: Instant) {
        let ready = |pending: &Pending| pending.waiting.is_empty();
        if !self.rooms.get(&id).is_some_and(|room| room.pending.as_deref().is_some_and(ready)) {
            return;
        }
        let from = self.stands_at(id);
        let moved_enough = self.moved_enough(id, now);
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
            let Pending { hops, by, .. } = *pending;
            self.admit_at(id, &hops, route.leaving);
            self.effects.event(Event::Rerouted { room: id, hops, by });
            self.close_left_hops(id, now);
            self.welcome(id, now);
            return;
        }
        if lost.is_none() && pending.by != Decider::Operator && moved_enough {
            if let Decider::Policy { policy, .. } = &pending.by {
                let policy = policy.clone();
                self.effects.event(Event::Guarded {
                    policy,
                    guard: Guard::MovedTooOften,
                    times: 1,
                });
            }
            self.given_up(id, Some(pending), MoveOutcome::Damped, now);
            self.rooms.list(id);
            self.regrant(id);
            self.close_left_hops(id, now);
            return;
        }
        let Some(left) = from.or(lost) else {
            return;
        };
        let Pending { hops, cause, by, started, .. } = *pending;
        let started = since.unwrap_or(started);
        self.rooms.set_placed_by(id, by.clone());
        let until = now + self.settings.limits.leave_within;
        self.admit_at(id, &hops, from.map(|from| (from, until)));
        let cause = if lost.is_some() { Cause::NodeDown } else { cause };
        self.moved(id, Step { cause, by, from: left, to: Some(target), started }, now);
        self.close_left_hops(id, now);
    }

    /// Whether only the death of its node may move the room for now.
    pub(super) fn moved_enough(&mut self, id: RoomId, now: Instant) -> bool {
        let limit = self.settings.limits.moves_per_minute;
        self.rooms.get_mut(&id).is_some_and(|room| room.recent_moves(now) >= limit)
    }

    /// Moves a room by hand, make-before-break.
    ///
    /// # Errors
    /// Where there is no such room or node, it stands there, or the node cannot take it.
    pub fn handle_move(
        &mut self,
        name: &Arc<str>,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let id = *self.rooms.by_name.get(name).ok_or(Impossible::NoSuchRoom)?;
        self.catch_up(id, now);
        if !self.rooms[&id].is_placed() {
            return Err(Impossible::NoSuchRoom);
        }
        let node = self.node(to).ok_or(Impossible::NoSuchNode)?;
        if self.stands_at(id).is_some_and(|hop| hop.node == to) {
            return Err(Impossible::AlreadyThere);
        }
        if !node.takes_rooms() || !self.fits(id, to) {
            return Err(Impossible::NodeUnfit);
        }
        let nodes = self.native_hops(id, &[to], now);
        self.head_for(id, &nodes, Cause::Manual, Decider::Operator, now);
        Ok(())
    }
}
