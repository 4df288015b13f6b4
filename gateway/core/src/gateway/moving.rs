//! Routes under way: make-before-break, by policy, by an operator, off a draining node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::standing::Step;
use super::{Gateway, Impossible};
use crate::room::Pending;
use crate::session::{Leg, Phase};
use crate::timer::Timer;
use crate::{Cause, Decider, Event, Guard, Hop, NodeId, RoomId, SessionId};

/// Rooms that leave a draining node together, so that one wake-up stays short and others see no herd.
const DRAINS_AT_ONCE: usize = 256;

/// Between two turns of rooms that leave a draining node.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

impl Gateway {
    /// The room shall have this route: its sessions are opened where they are not yet, then it is published. A room
    /// that moves does not wait for its spares. Nothing happens where there is no node.
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
        let opening = |id: &SessionId| {
            self.sessions.get(id).is_some_and(|session| session.phase >= Phase::Opening)
        };
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
        let sessions: Vec<SessionId> = sessions.copied().filter(opening).collect();
        let ahead = self.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead());
        let moves = self.stands_at(id) != Some(hops[0]);
        let awaited: BTreeSet<Hop> =
            hops.iter().take(if moves || !ahead { 1 } else { hops.len() }).copied().collect();
        let mut waiting = BTreeSet::new();
        for session in sessions {
            for &hop in hops.iter().take(if ahead { hops.len() } else { 1 }) {
                if self.open_at(session, hop, now) != Some(Leg::Open) && awaited.contains(&hop) {
                    waiting.insert((session, hop));
                }
            }
        }
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let pending = Pending { hops, awaited, waiting, cause, by, started: now };
        room.pending = Some(Box::new(pending));
        self.list(id);
        self.regrant(id);
        self.close_left_hops(id, now);
        self.publish_pending_if_open(id, now);
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
        let Pending { hops, cause, by, started, .. } = *pending;
        let target = hops[0];
        let lost = room.stranded.map(|stranded| stranded.lost);
        let started = room.stranded.map_or(started, |stranded| stranded.since);
        let route = room.route();
        if from == Some(target) {
            self.admit_at(id, &hops, route.leaving);
            self.event(Event::Rerouted { room: id, hops, by });
            self.close_left_hops(id, now);
            self.welcome(id, now);
            return;
        }
        if lost.is_none() && by != Decider::Operator && moved_enough {
            if let Decider::Policy { policy, .. } = by {
                self.event(Event::Guarded { policy, guard: Guard::MovedTooOften });
            }
            self.list(id);
            self.regrant(id);
            self.close_left_hops(id, now);
            return;
        }
        let Some(left) = from.or(lost) else {
            return;
        };
        room.placed_by = self.deciders.share(by.clone());
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
        let id = *self.rooms_by_name.get(name).ok_or(Impossible::NoSuchRoom)?;
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

    /// A node takes no new rooms, and those it has move; or it takes them again.
    ///
    /// Rooms that fit nowhere else stay until they do.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_drain(
        &mut self,
        node: NodeId,
        draining: bool,
        now: Instant,
    ) -> Result<(), Impossible> {
        let found = self.nodes.get_mut(node.0 as usize).ok_or(Impossible::NoSuchNode)?;
        found.draining = draining;
        found.leaving &= draining;
        self.drains(node, draining, now);
        Ok(())
    }

    /// The node drains from now on, or serves.
    pub(super) fn drains(&mut self, node: NodeId, draining: bool, now: Instant) {
        self.event(Event::Draining { node, draining });
        if draining {
            self.drain(node, now);
        } else {
            self.timers.cancel(&Timer::Drain(node));
            self.drain_cursors.remove(&node);
            self.want_reroute_of_short_rooms(now);
        }
    }

    /// The next rooms leave the node; the others follow in their turn.
    pub(super) fn drain(&mut self, node: NodeId, now: Instant) {
        if self.rooms_at[node.0 as usize].is_empty() {
            return;
        }
        self.timers.set(Timer::Drain(node), now + DRAIN_EVERY);
        let last = self.drain_cursors.get(&node).copied().unwrap_or(RoomId(0));
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let turn: Vec<RoomId> =
            self.rooms_at[node.0 as usize].range(after).take(DRAINS_AT_ONCE).copied().collect();
        let next = turn.last().filter(|_| turn.len() == DRAINS_AT_ONCE).copied();
        self.drain_cursors.insert(node, next.unwrap_or(RoomId(0)));
        for id in turn {
            self.catch_up(id, now);
            self.leave_draining_node(id, node, now);
        }
    }

    fn leave_draining_node(&mut self, id: RoomId, node: NodeId, now: Instant) {
        let stands = self.stands_at(id).map(|hop| hop.node);
        let asked = self.node(node).is_some_and(|node| node.draining);
        let by = if asked { Decider::Operator } else { Decider::Node };
        if by == Decider::Node && stands == Some(node) && self.moved_enough(id, now) {
            return;
        }
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let heads_there = room.pending.as_ref().map(|p| p.hops.iter().any(|hop| hop.node == node));
        if heads_there == Some(false) {
            return;
        }
        let nodes = if stands == Some(node) {
            let own = self.own_next(id, Some(node), now).unwrap_or_default();
            self.native_hops(id, &own, now)
        } else {
            let standing = self.rooms[&id].standing();
            let stays: Vec<NodeId> = standing.into_iter().filter(|on| *on != node).collect();
            match stands {
                Some(_) => self.native_hops(id, &stays, now),
                // The rescue finds a place, and knows that the node takes no rooms.
                None => Vec::new(),
            }
        };
        self.head_for(id, &nodes, Cause::Drain, by, now);
    }
}
