//! Failback: once a node is trusted again, rooms return to their native place.

use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_model::{Decider, Health, MoveCause, NodeId, RegionId, RegionRole, RoomId};
use serde::{Deserialize, Serialize};

use super::{Room, Router};
use crate::Impossible;
use crate::timer::Timer;
use evenkeel_nodes::{Node, NodeTable};

/// Maximum rooms checked for one that can return, which bounds the call's duration.
const LOOKED_AT: usize = 64;

/// Interval of checks while no room can return.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub enum Failback {
    /// Rooms return to nodes that are Up and lose little, unless the room moved too often or the region accepts no new
    /// rooms.
    #[default]
    Auto,
    /// An operator forces the return: also to nodes that are Wary or lossy, regardless of the limit of moves and the
    /// region's breaker.
    Force,
    /// An operator forbids the return.
    Forbid,
}

impl Failback {
    pub const ALL: [Failback; 3] = [Failback::Auto, Failback::Force, Failback::Forbid];

    /// The setting's name in the API: `forbid`.
    pub fn name(self) -> &'static str {
        match self {
            Failback::Auto => "auto",
            Failback::Force => "force",
            Failback::Forbid => "forbid",
        }
    }
}

impl Room {
    /// The node is not the room's native place: it is in another region, or is a standby.
    pub(crate) fn is_away(&self, on: NodeId, nodes: &NodeTable) -> bool {
        let stands_by = nodes.get(on).is_some_and(|node| self.leaves_to_others(node));
        nodes.region_of(on) != self.region || stands_by
    }

    /// The node is a standby to be avoided while other nodes can take the room.
    pub(crate) fn leaves_to_others(&self, node: &Node) -> bool {
        self.mode.leaves_standbys() && node.settings.role == RegionRole::Standby
    }
}

impl Router<'_> {
    fn is_away(&self, id: RoomId, on: NodeId) -> bool {
        self.rooms.get(&id).is_some_and(|room| room.is_away(on, self.nodes))
    }

    pub(crate) fn handle_failback(
        &mut self,
        region: Option<RegionId>,
        failback: Failback,
        now: Instant,
    ) -> Result<(), Impossible> {
        match region {
            None => self.rooms.failbacks.fill(failback),
            Some(region) => {
                let found = self.rooms.failbacks.get_mut(region.0 as usize);
                *found.ok_or(Impossible::NoSuchRegion)? = failback;
            }
        }
        if !self.rooms.away.is_empty() {
            self.effects.set(Timer::Failback, now);
        }
        Ok(())
    }

    /// Notes that the room is away from its native place without anyone's choice, so that it returns when possible.
    pub(crate) fn note_away(&mut self, id: RoomId, on: Option<NodeId>, now: Instant) {
        let is_away = on.is_some_and(|on| self.is_away(id, on));
        self.rooms.set_away(id, is_away);
        if is_away {
            self.effects.set_if_idle(Timer::Failback, now + LOOK_AGAIN);
        }
    }

    /// Returns the next room to its native place, if one can go.
    pub(crate) fn failback(&mut self, now: Instant) {
        let after = (Bound::Excluded(self.rooms.failed_back_last), Bound::Unbounded);
        let turn: Vec<RoomId> = self.rooms.away.range(after).take(LOOKED_AT).copied().collect();
        let found = turn.iter().copied().find(|id| self.send_back(*id, now));
        let all = turn.len() < LOOKED_AT && found.is_none();
        self.rooms.failed_back_last =
            found.or(turn.last().copied()).filter(|_| !all).unwrap_or(RoomId(0));
        if !self.rooms.away.is_empty() {
            let every = Duration::from_secs(1) / self.settings.limits.failbacks_per_second.max(1);
            let next = if found.is_some() || !all { every } else { every.max(LOOK_AGAIN) };
            self.effects.set(Timer::Failback, now + next);
        }
    }

    /// Moves the room back make-before-break if its limits allow it and a node has capacity.
    fn send_back(&mut self, id: RoomId, now: Instant) -> bool {
        self.catch_up(id, now);
        let Some(room) = self.rooms.get(&id).filter(|room| room.pending.is_none()) else {
            return false;
        };
        let (region, stands) = (room.region, self.stands_at(id));
        if stands.is_some_and(|hop| !self.is_away(id, hop.node)) {
            self.rooms.set_away(id, false);
            return false;
        }
        let abroad = stands.is_some_and(|hop| self.nodes.region_of(hop.node) != region);
        let shut = abroad && !self.capacity.may_enter(id, region);
        let failback = self.rooms.failbacks[region.0 as usize];
        let by = match failback {
            Failback::Forbid => return false,
            Failback::Auto if shut || self.is_damped(id, now) => return false,
            Failback::Auto => Decider::Native,
            Failback::Force => Decider::Operator,
        };
        let forced = failback == Failback::Force;
        let trusted = |node: &Node| match node.health() {
            Health::Up => forced || !node.loses(),
            Health::Wary => forced,
            Health::Suspect | Health::Down | Health::Cold => false,
        };
        let unfit = |node: &&Node| {
            self.is_away(id, node.id) || !trusted(node) || self.nodes.pace(node.id).is_busy()
        };
        let but: Vec<NodeId> = self.nodes.iter().filter(unfit).map(|node| node.id).collect();
        if stands.is_none() || but.len() == self.nodes.count() {
            return false;
        }
        let Some(home) = self.native_hops_but(id, &[], &but, now).first().copied() else {
            return false;
        };
        let nodes = self.native_hops(id, &[home], now);
        self.head_for(id, &nodes, MoveCause::Failback, by, now);
        true
    }
}
