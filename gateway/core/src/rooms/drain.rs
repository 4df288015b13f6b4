//! Drains: rooms leave a node make-before-break, paced, and before the deadline if there is one.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, Decider, MoveCause, NodeId, NodeSettings, RegionId, RoomId};
use serde::{Deserialize, Serialize};

use super::Router;
use crate::timer::Timer;
use crate::{AgentWord, Impossible};
use evenkeel_nodes::Node;

/// Maximum rooms that leave a draining node at once, so that one wake-up stays short and no node gets all at once.
const DRAINS_AT_ONCE: usize = 256;

/// Interval between batches of rooms that leave a draining node.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// Divisor of the time until the deadline: this part is reserved for the last moves to complete.
const KEPT_FOR_ARRIVAL: u32 = 5;

/// Legs at a left node are closed after `leave_within`, and gone for certain after this additional time.
const GONE_AFTER: Duration = Duration::from_millis(100);

/// Maximum rooms that leave a lossy node at once, so that one wake-up stays short and no node gets all at once.
const LEAVE_AT_ONCE: usize = 128;

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct NodeDrain {
    #[serde(with = "evenkeel_media::instant")]
    started: Instant,
    /// `None` if rooms leave as soon as other nodes can take them, and after the deadline's event was emitted.
    #[serde(with = "evenkeel_media::instant::option")]
    deadline: Option<Instant>,
    /// The last room that was moved away.
    last: RoomId,
    /// The event that reports the node empty was emitted.
    empty: bool,
}

impl Router<'_> {
    pub(crate) fn handle_drain(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let found = self.nodes.get_mut(node).ok_or(Impossible::NoSuchNode)?;
        if found.removed && !draining {
            return Err(Impossible::NodeLeaves);
        }
        found.draining = draining;
        // The node would repeat its request with its next answer.
        if found.leaving && !draining {
            return Err(Impossible::NodeDrains);
        }
        match within {
            // The node list may have set a deadline.
            None if draining && found.removed => self.drain(node, now),
            Some(_) | None => self.drains(node, draining, within, now),
        }
        Ok(())
    }

    /// Starts or ends the drain of a node.
    pub(crate) fn drains(
        &mut self,
        node: NodeId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) {
        self.effects.event(CoreEvent::Draining { node, draining });
        if draining {
            let deadline = within.map(|within| now + within);
            let drain = NodeDrain { started: now, deadline, last: RoomId(0), empty: false };
            self.rooms.drains.insert(node, drain);
            self.drain(node, now);
        } else {
            self.effects.cancel(&Timer::Drain(node));
            self.rooms.drains.remove(&node);
            self.want_reroute_of_short_rooms();
        }
    }

    /// Changes a reason to drain, and starts or ends the drain if the outcome changes.
    pub(crate) fn decide_drain(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut Node),
        now: Instant,
    ) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let before = node.drains();
        change(node);
        let drains = node.drains();
        if before != drains {
            self.drains(id, drains, None, now);
        }
    }

    /// Drains all present and future nodes of a region, or lets them take rooms again, except nodes that asked to be
    /// drained.
    pub(crate) fn handle_drain_region(
        &mut self,
        region: RegionId,
        draining: bool,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.nodes.check_region(region)?;
        let mut nodes: Vec<NodeId> = self.nodes.in_region(region).map(|node| node.id).collect();
        self.nodes.set_drained(region, draining);
        nodes.retain(|node| draining || !self.nodes[*node].removed);
        // All nodes are marked first, so that rooms do not move from one to another.
        for node in &nodes {
            self.nodes[*node].draining = draining;
        }
        for node in nodes {
            match self.handle_drain(node, draining, within, now) {
                Ok(()) | Err(Impossible::NodeDrains) => {}
                Err(impossible) => return Err(impossible),
            }
        }
        Ok(())
    }

    /// Moves the next rooms away from the node and schedules the rest.
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
            self.effects.event(CoreEvent::Drained { node, left, started });
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
        let asked = self.nodes.get(node).is_some_and(|node| node.draining || node.removed);
        let by = if asked { Decider::Operator } else { Decider::Node };
        if by == Decider::Node && stands == Some(node) && self.is_damped(id, now) {
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
                // The rescue will find a place, and knows that the node takes no rooms.
                None => Vec::new(),
            }
        };
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.head_for(id, &nodes, MoveCause::Drain, by, now);
    }

    /// Adds a node; see [`NodeTable::add`](evenkeel_nodes::NodeTable::add).
    pub(crate) fn handle_node_added(
        &mut self,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<NodeId, Impossible> {
        let kbps = settings.capacity_kbps;
        let (id, drained) = self.nodes.add(settings, now)?;
        self.effects.take(self.nodes);
        self.capacity.ledger_mut().add(id, kbps);
        if id.0 as usize == self.rooms.at.len() {
            self.rooms.at.push(BTreeSet::new());
        }
        if drained {
            self.decide_drain(id, |node| node.draining = true, now);
        }
        Ok(id)
    }

    pub(crate) fn handle_takes_place(
        &mut self,
        new: NodeId,
        old: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let before = self.nodes.get(old).ok_or(Impossible::NoSuchNode)?;
        let (draining, ejected) = (before.draining, before.ejected);
        self.nodes.get(new).ok_or(Impossible::NoSuchNode)?;
        if draining {
            self.decide_drain(new, |node| node.draining = true, now);
        }
        if ejected {
            self.handle_eject(new, now)?;
        }
        Ok(())
    }

    pub(crate) fn handle_eject(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let node = self.nodes.get(id).ok_or(Impossible::NoSuchNode)?;
        if node.ejected {
            return Err(Impossible::AlreadyEjected);
        }
        let change = self.nodes.eject(id, now);
        self.nodes_changed(change.into_iter().collect(), now);
        Ok(())
    }

    pub(crate) fn handle_same_machine(
        &mut self,
        new: NodeId,
        old: NodeId,
    ) -> Result<(), Impossible> {
        let there = [new, old].iter().all(|id| self.nodes.get(*id).is_some());
        if new == old || !there {
            return Err(Impossible::NoSuchNode);
        }
        self.capacity.ledger_mut().is_one_machine([new, old]);
        Ok(())
    }

    pub(crate) fn handle_node_changed(
        &mut self,
        id: NodeId,
        settings: NodeSettings,
        now: Instant,
    ) -> Result<(), Impossible> {
        let capacity = settings.capacity_kbps;
        let before = self.nodes.change(id, settings, now)?;
        self.effects.take(self.nodes);
        if before.capacity_kbps != capacity {
            self.capacity.ledger_mut().claim(id, capacity);
            self.gate_unfit_reserves(id);
        }
        self.want_reroute_of_short_rooms();
        Ok(())
    }

    pub(crate) fn handle_node_removed(
        &mut self,
        id: NodeId,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = self.nodes.get_mut(id).ok_or(Impossible::NoSuchNode)?;
        node.removed = true;
        match within {
            None if self.rooms.drains.contains_key(&id) => self.drain(id, now),
            Some(_) | None => self.drains(id, true, within, now),
        }
        Ok(())
    }

    pub(crate) fn handle_node_kept(&mut self, id: NodeId, now: Instant) -> Result<(), Impossible> {
        let removed = |node: &&Node| node.removed;
        self.nodes.get(id).filter(removed).ok_or(Impossible::NoSuchNode)?;
        self.effects.cancel(&Timer::Forget(id));
        self.decide_drain(id, |node| node.removed = false, now);
        Ok(())
    }

    /// Forgets the node after its legs had time to close, since no room leads there any more.
    fn forget_soon(&mut self, id: NodeId, now: Instant) {
        if self.nodes.get(id).is_some_and(|node| node.removed) {
            let after = self.settings.limits.leave_within + GONE_AFTER;
            self.effects.set(Timer::Forget(id), now + after);
        }
    }

    /// Forgets the node unless something leads there again. Returns true if it was forgotten.
    pub(crate) fn forget_node(&mut self, id: NodeId, now: Instant) -> bool {
        if !self.nodes.get(id).is_some_and(|node| node.removed) {
            return false;
        }
        if !self.rooms.at[id.0 as usize].is_empty() {
            self.drain(id, now);
            return false;
        }
        let mourned = self.rooms.failover.as_ref().is_some_and(|it| it.concerns(id));
        if self.nodes.pace(id).counts() != (0, 0) || mourned {
            self.forget_soon(id, now);
            return false;
        }
        self.rooms.drains.remove(&id);
        self.rooms.leave_cursors.remove(&id);
        self.capacity.ledger_mut().forget(id);
        self.nodes.forget(id, now);
        self.effects.take(self.nodes);
        true
    }

    /// Takes a node's own load in thousandths of its capacity.
    pub(crate) fn handle_load(&mut self, id: NodeId, permille: u16, now: Instant) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.handle_load(permille, now);
        if node.drains() {
            return self.capacity.ledger_mut().hold_capacity(id, now);
        }
        self.capacity.ledger_mut().handle_load(id, permille, now);
        self.gate_unfit_reserves(id);
    }

    pub(crate) fn handle_full(&mut self, id: NodeId, now: Instant) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if !node.drains() {
            self.capacity.ledger_mut().handle_full(id, now);
            self.gate_unfit_reserves(id);
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.handle_willing(false, now);
        }
    }

    pub(crate) fn handle_agent_word(&mut self, id: NodeId, word: AgentWord, now: Instant) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        if word == AgentWord::Gone {
            let change = self.nodes.handle_gone(id, now);
            return self.nodes_changed(change.into_iter().collect(), now);
        }
        node.detector.handle_agent(true, now);
        let leaving = word == AgentWord::Draining;
        self.decide_drain(id, |node| node.leaving = leaving, now);
    }

    /// The next rooms leave a node that loses more than others.
    pub(crate) fn leave_worse(&mut self, node: NodeId, now: Instant) {
        let last = self.rooms.leave_cursors.get(&node).copied().unwrap_or(RoomId(0));
        let after = (Bound::Excluded(last), Bound::Unbounded);
        let rooms = &self.rooms.at[node.0 as usize];
        let turn: Vec<RoomId> = rooms.range(after).take(LEAVE_AT_ONCE).copied().collect();
        let next = turn.last().filter(|_| turn.len() == LEAVE_AT_ONCE).copied();
        self.rooms.leave_cursors.insert(node, next.unwrap_or(RoomId(0)));
        for id in turn {
            self.catch_up(id, now);
            let stands = self.stands_at(id).is_some_and(|hop| hop.node == node);
            if !stands || self.rooms[&id].pending.is_some() || self.is_damped(id, now) {
                continue;
            }
            let nodes = self.native_hops(id, &[], now);
            let sound = |node: &NodeId| self.nodes.get(*node).is_some_and(Node::is_sound);
            if nodes.first().is_some_and(|first| *first != node && sound(first)) {
                self.head_for(id, &nodes, MoveCause::Link, Decider::Native, now);
            }
        }
    }
}

/// The number of rooms, out of `left`, that leave in this batch: with a deadline as few as suffice, else the maximum.
fn at_once(left: usize, drain: &NodeDrain, now: Instant) -> usize {
    let Some(deadline) = drain.deadline else {
        return DRAINS_AT_ONCE;
    };
    let last = deadline - (deadline - drain.started) / KEPT_FOR_ARRIVAL;
    let time = last.saturating_duration_since(now);
    let turns = (time.as_micros() / DRAIN_EVERY.as_micros()) as usize;
    left.div_ceil(turns.max(1)).clamp(1, DRAINS_AT_ONCE)
}
