//! Nodes and regions that are drained: their rooms leave make-before-break, paced, by a deadline if there is one; nobody
//! is hung up.

use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{Gateway, Impossible};
use crate::node::Node;
use crate::timer::Timer;
use crate::{Cause, Decider, Event, NodeId, RegionId, RoomId};

/// Rooms that leave a draining node together, so that one wake-up stays short and others see no herd.
const DRAINS_AT_ONCE: usize = 256;

/// Between two turns of rooms that leave a draining node.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// Of the time until the deadline, so much is kept for those that go last to arrive: a fifth.
const KEPT_FOR_ARRIVAL: u32 = 5;

/// A node that is being drained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    started: Instant,
    /// When it is to be empty. None: as soon as others can take its rooms; and once it was told of.
    deadline: Option<Instant>,
    /// The last room that was sent away.
    last: RoomId,
    /// It was told that nobody is left.
    empty: bool,
}

impl Gateway {
    /// A node takes no new rooms, and those it has move, within the time given if they fit elsewhere by then; or it takes
    /// them again. Rooms that fit nowhere else stay until they do. What is left at the deadline, or that nothing is, comes
    /// out by [`Event::Drained`].
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`]; where it is to take rooms, [`Impossible::NodeLeaves`] if it is to go, and
    /// [`Impossible::NodeDrains`] if it wishes to be drained itself.
    pub fn handle_drain_within(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let found = self.nodes.get_mut(node.0 as usize).ok_or(Impossible::NoSuchNode)?;
        if found.removed && !draining {
            return Err(Impossible::NodeLeaves);
        }
        found.draining = draining;
        // It would say so again with its next answer.
        if found.leaving && !draining {
            return Err(Impossible::NodeDrains);
        }
        match within {
            // The list may have said by when.
            None if draining && found.removed => self.drain(node, now),
            Some(_) | None => self.drains(node, draining, within, now),
        }
        Ok(())
    }

    /// The node drains from now on, or serves.
    pub(crate) fn drains(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) {
        self.effects.event(Event::Draining { node, draining });
        if draining {
            let deadline = within.map(|within| now + within);
            let drain = Drain { started: now, deadline, last: RoomId(0), empty: false };
            self.rooms.drains.insert(node, drain);
            self.drain(node, now);
        } else {
            self.effects.cancel(&Timer::Drain(node));
            self.rooms.drains.remove(&node);
            self.want_reroute_of_short_rooms(now);
        }
    }

    /// Somebody has another mind on whether the node drains: what follows, where that decides it.
    pub(crate) fn decide_drain(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut Node),
        now: Instant,
    ) {
        let Some(node) = self.nodes.get_mut(id.0 as usize) else {
            return;
        };
        let before = node.drains();
        change(node);
        let drains = node.drains();
        if before != drains {
            self.drains(id, drains, None, now);
        }
    }

    /// As [`handle_drain_within`](Gateway::handle_drain_within), without a deadline.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_drain(
        &mut self,
        node: NodeId,
        draining: bool,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.handle_drain_within(node, draining, None, now)
    }

    /// All nodes of a region are drained, and those that come there later; or they take rooms again, but for those that
    /// wish to be drained themselves.
    ///
    /// # Errors
    /// [`Impossible::NoSuchRegion`].
    pub fn handle_drain_region(
        &mut self,
        region: RegionId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let mut nodes = self.nodes_of(region)?;
        match draining {
            true => self.nodes.drained.insert(region),
            false => self.nodes.drained.remove(&region),
        };
        nodes.retain(|node| draining || !self.nodes[node.0 as usize].removed);
        // None of them is a way out for the others.
        for node in &nodes {
            self.nodes[node.0 as usize].draining = draining;
        }
        for node in nodes {
            match self.handle_drain_within(node, draining, within, now) {
                Ok(()) | Err(Impossible::NodeDrains) => {}
                Err(impossible) => return Err(impossible),
            }
        }
        Ok(())
    }

    pub(crate) fn nodes_of(&self, region: RegionId) -> Result<Vec<NodeId>, Impossible> {
        if region.0 as usize >= self.settings.regions.len() {
            return Err(Impossible::NoSuchRegion);
        }
        let ids = self.nodes.iter().map(|node| node.id);
        Ok(ids.filter(|node| self.region_of(*node) == region).collect())
    }

    /// The next rooms leave the node; the others follow in their turn.
    pub(crate) fn drain(&mut self, node: NodeId, now: Instant) {
        let Some(mut drain) = self.rooms.drains.get(&node).copied() else {
            return;
        };
        let there = &self.rooms.at[node.0 as usize];
        let (left, at_once) = (there.len(), at_once(there.len(), &drain, now));
        let after = (Bound::Excluded(drain.last), Bound::Unbounded);
        let turn: Vec<RoomId> = there.range(after).take(at_once).copied().collect();
        let next = turn.last().filter(|_| turn.len() == at_once).copied();
        drain.last = next.unwrap_or(RoomId(0));
        let is_late = drain.deadline.is_some_and(|deadline| deadline <= now);
        if left == 0 && !drain.empty || is_late {
            let (left, started) = (left as u32, drain.started);
            (drain.empty, drain.deadline) = (left == 0, None);
            self.effects.event(Event::Drained { node, left, started });
        }
        let next = now + DRAIN_EVERY;
        if left == 0 {
            self.forget_soon(node, now);
        } else {
            drain.empty = false;
            self.effects.set(Timer::Drain(node), drain.deadline.map_or(next, |at| at.min(next)));
        }
        self.rooms.drains.insert(node, drain);
        for id in turn {
            self.catch_up(id, now);
            self.leave_draining_node(id, node, now);
        }
    }

    fn leave_draining_node(&mut self, id: RoomId, node: NodeId, now: Instant) {
        let stands = self.stands_at(id).map(|hop| hop.node);
        let asked = self.node(node).is_some_and(|node| node.draining || node.removed);
        let by = if asked { Decider::Operator } else { Decider::Node };
        if by == Decider::Node && stands == Some(node) && self.moved_enough(id, now) {
            return;
        }
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let ahead = room.mode.opens_ahead();
        let heads_there = room.pending.as_ref().map(|p| p.hops.iter().any(|hop| hop.node == node));
        if heads_there == Some(false) {
            return;
        }
        let nodes = if stands == Some(node) {
            let own = self.own_next(id, Some(node), now).filter(|_| ahead);
            self.native_hops(id, &own.unwrap_or_default(), now)
        } else {
            let standing = self.rooms[&id].standing();
            let stays: Vec<NodeId> = standing.into_iter().filter(|on| *on != node).collect();
            match stands {
                Some(_) => self.native_hops(id, &stays, now),
                // The rescue finds a place, and knows that the node takes no rooms.
                None => Vec::new(),
            }
        };
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.head_for(id, &nodes, Cause::Drain, by, now);
    }
}

/// How many of `left` rooms leave with this turn: with a deadline as few as are enough, else as many as may.
fn at_once(left: usize, drain: &Drain, now: Instant) -> usize {
    let Some(deadline) = drain.deadline else {
        return DRAINS_AT_ONCE;
    };
    let last = deadline - (deadline - drain.started) / KEPT_FOR_ARRIVAL;
    let time = last.saturating_duration_since(now);
    let turns = (time.as_micros() / DRAIN_EVERY.as_micros()) as usize;
    left.div_ceil(turns.max(1)).clamp(1, DRAINS_AT_ONCE)
}
