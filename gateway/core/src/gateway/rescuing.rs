//! Rooms that have nowhere to go: a place is looked for until they have one, with what others only keep free if need be.

use std::cmp::Reverse;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::Gateway;
use super::standing::Step;
use crate::place::Takes;
use crate::timer::Timer;
use crate::{Cause, Decider, MoveOutcome, NodeId, RoomId};

/// How often rooms without a usable hop are looked at again.
const RESCUE_EVERY: Duration = Duration::from_millis(50);

/// Stranded rooms that are looked at together, so that one wake-up stays short.
const RESCUES_AT_ONCE: usize = 512;

impl Gateway {
    /// Rooms without a usable hop take one of their own where they are open, else whatever node has room for them,
    /// natively, at the pace at which it opens their sessions. First those looked at least often, by their priority. Who
    /// waits for its turn at a node keeps nobody from one where there is no such turn: where a whole look found only such,
    /// the next begins behind them.
    pub(super) fn rescue_stranded(&mut self, now: Instant) {
        self.rooms.paced = false;
        let continues = self.rooms.rescued_last.is_some();
        let after = self.rooms.rescued_last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.rooms.stranded.range((after, Bound::Unbounded)).take(RESCUES_AT_ONCE);
        let turn: Vec<(u32, Reverse<i64>, RoomId)> = turn.copied().collect();
        let mut none_left = false;
        for &(.., id) in &turn {
            if self.takes_its_own(id, now) {
                continue;
            }
            none_left = none_left || self.rooms.paced && !self.is_left(1, &[]);
            if none_left || self.rooms.paced && !self.is_left_for(id, now) {
                continue;
            }
            match self.rescue(id, now) {
                true => self.rooms.count_attempt(id),
                false => self.rooms.paced = true,
            }
        }
        // Where nothing is left that needs no turn, those in front have the next that is free.
        let goes_on = turn.len() == RESCUES_AT_ONCE && self.rooms.paced && !none_left;
        self.rooms.rescued_last = turn.last().copied().filter(|_| goes_on);
        // Those in front wait still.
        self.rooms.paced |= continues;
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now + RESCUE_EVERY);
        }
    }

    /// Whether some node at which nobody has to wait has room for so much, kbit/s, and is none of those that are shunned.
    fn is_left(&self, kbps: u64, shunned: &[NodeId]) -> bool {
        self.nodes.iter().any(|node| {
            let (id, pace) = (node.id, &self.nodes.paces[node.id.0 as usize]);
            let open = node.welcomes_rooms() && !pace.is_busy() && !shunned.contains(&id);
            open && self.capacity.ledger.fits(id, kbps)
        })
    }

    /// Whether such a node may be one for this room: else it is not worth looking for.
    pub(super) fn is_left_for(&self, id: RoomId, now: Instant) -> bool {
        self.is_left(self.room_kbps(id), &self.shunned(id, now))
    }

    /// Whether the room goes on at a hop of its own where its sessions are open: that needs no turn.
    fn takes_its_own(&mut self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode.opens_ahead());
        let Some(lost) = room.and_then(|room| room.stranded) else {
            return false;
        };
        let Some(nodes) = self.own_next(id, None, now) else {
            return false;
        };
        let before = self.rooms.get_mut(&id).and_then(|room| room.pending.take());
        self.given_up(id, before, MoveOutcome::Superseded, now);
        let hops = self.hops(&nodes);
        self.admit_at(id, &hops, None);
        let (from, to) = (lost.lost, hops.first().copied());
        let (cause, by) = (Cause::NodeDown, Decider::Native);
        self.moved(id, Step { cause, by, from, to, started: lost.since }, now);
        self.close_left_hops(id, now);
        self.want_reroute(id, now);
        true
    }

    /// Whether the room was looked at; else all who have room for it have enough to open already.
    fn rescue(&mut self, id: RoomId, now: Instant) -> bool {
        match self.rooms.get(&id) {
            Some(room) if room.stranded.is_some() && room.pending.is_none() => {}
            Some(_) | None => return true,
        }
        let busy = self.busy_nodes();
        let mut nodes = self.native_hops_but(id, &[], &busy, now);
        if nodes.is_empty() && !self.native_hops(id, &[], now).is_empty() {
            return false;
        }
        if nodes.is_empty() {
            nodes = self.hops_of_reserves(id, &busy, now);
        }
        if nodes.is_empty() {
            nodes = self.place_sparing(id, &busy, now);
        }
        if nodes.is_empty() {
            self.want_start(id, now);
        }
        self.head_for(id, &nodes, Cause::NodeDown, Decider::Native, now);
        if let Some(taken) = nodes.first() {
            self.gate_what_no_longer_fits(*taken, now);
        }
        true
    }

    /// Where the room would go if nothing were kept free for deaths to come: a call that goes on comes before them. What is
    /// being spent for a death just now is no longer free.
    fn hops_of_reserves(&mut self, id: RoomId, busy: &[NodeId], now: Instant) -> Vec<NodeId> {
        let mut but = busy.to_vec();
        but.extend(self.rooms.herd.iter().flat_map(|herd| &herd.standbys));
        self.native_hops_taking(id, Takes::Reserves, &but, now)
    }
}
