//! Moves of rooms off hops that work: asked for by policies, operators, loss, failback and changed modes.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, CoreSettings, Decider, GuardRule, Health, Hop, ModeChange, MoveCause, NodeId,
    RedundancyMode, RegionId, RoomId, RoutingMove, SessionId,
};
use evenkeel_nodes::{Node, NodeTable};

use super::failback::LOOK_AGAIN;
use super::{Failback, Failover, Moves, Placement, RoomTable};
use crate::Impossible;
use crate::capacity::Capacity;
use crate::effects::Effects;
use crate::policy::PartOutcome;
use crate::sessions::SessionTable;
use crate::timer::Timer;

/// Maximum rooms checked for one that can return, which bounds the call's duration.
const LOOKED_AT: usize = 64;

/// Maximum rooms that leave a lossy node at once, so that one wake-up stays short and no node gets all at once.
const LEAVE_AT_ONCE: usize = 128;

/// Maximum rooms per batch that take changed scenario settings, so that one wake-up stays short.
const CHANGED_AT_ONCE: usize = 256;

/// Interval between batches, which leaves time for other work.
const CHANGE_EVERY: Duration = Duration::from_millis(1);

impl RoomTable {
    /// Schedules the scenario's rooms to take its changed settings, in batches.
    pub(crate) fn scenario_changed(&mut self, name: &str, spares: Option<u8>) {
        for room in self.all.values_mut().filter(|room| *room.scenario == *name) {
            if let Some(spares) = spares {
                room.spares = spares;
            }
            self.changes.note(room.id);
            self.changing.insert(room.id);
        }
    }
}

/// Applies the moves that policies, operators, loss, failback and changed modes ask for.
pub(crate) struct Reroutes<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) rooms: &'a mut RoomTable,
    pub(crate) nodes: &'a mut NodeTable,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
}

impl Reroutes<'_> {
    pub(crate) fn placement(&self) -> Placement<'_> {
        let Self { settings, sessions, rooms, nodes, capacity, .. } = self;
        Placement { settings, sessions, rooms, nodes, capacity }
    }

    fn moves(&mut self) -> Moves<'_> {
        lend!(Moves of self)
    }

    fn failover(&mut self) -> Failover<'_> {
        lend!(Failover of self)
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
            self.failover().catch_up(id, now);
            let stands = self.placement().stands_at(id).is_some_and(|hop| hop.node == node);
            if !stands || self.rooms[&id].pending.is_some() || self.moves().is_damped(id, now) {
                continue;
            }
            let nodes = self.placement().native_hops(id, &[], now);
            let sound = |node: &NodeId| self.nodes.get(*node).is_some_and(Node::is_sound);
            if nodes.first().is_some_and(|first| *first != node && sound(first)) {
                self.moves().head_for(id, &nodes, MoveCause::Link, Decider::Native, now);
            }
        }
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
        self.failover().catch_up(id, now);
        let Some(room) = self.rooms.get(&id).filter(|room| room.pending.is_none()) else {
            return false;
        };
        let (region, stands) = (room.region, self.placement().stands_at(id));
        if stands.is_some_and(|hop| !self.placement().is_away(id, hop.node)) {
            self.rooms.set_away(id, false);
            return false;
        }
        let abroad = stands.is_some_and(|hop| self.nodes.region_of(hop.node) != region);
        let shut = abroad && !self.capacity.may_enter(id, region);
        let failback = self.rooms.failbacks[region.0 as usize];
        let by = match failback {
            Failback::Forbid => return false,
            Failback::Auto if shut || self.moves().is_damped(id, now) => return false,
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
            self.placement().is_away(id, node.id)
                || !trusted(node)
                || self.nodes.pace(node.id).is_busy()
        };
        let but: Vec<NodeId> = self.nodes.iter().filter(unfit).map(|node| node.id).collect();
        if stands.is_none() || but.len() == self.nodes.count() {
            return false;
        }
        let Some(home) = self.placement().native_hops_but(id, &[], &but, now).first().copied()
        else {
            return false;
        };
        let nodes = self.placement().native_hops(id, &[home], now);
        self.moves().head_for(id, &nodes, MoveCause::Failback, by, now);
        true
    }

    pub(crate) fn change_some(&mut self, now: Instant) {
        for _ in 0..CHANGED_AT_ONCE {
            let Some(id) = self.rooms.changing.pop_first() else {
                return;
            };
            self.failover().catch_up(id, now);
            self.change(id, now);
        }
        self.effects.set(Timer::Change, now + CHANGE_EVERY);
    }

    /// Applies the scenario's current mode to the room: spares are opened before packets may take them, and closed when
    /// they may not.
    fn change(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let Some(mode) = self.placement().scenario_of(room).map(|scenario| scenario.mode) else {
            return;
        };
        self.failover().legs().renew_last_heard(id, now);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        if room.mode != mode {
            room.take_mode(mode);
        }
        room.await_what_is_opened();
        if room.is_placed() {
            let unchosen = *room.placed_by == Decider::Native;
            self.renew(id, ModeChange::Scenario, now);
            self.moves().publish_pending_if_open(id, now);
            self.effects.want_reroute(id);
            if let Some(hop) = self.placement().stands_at(id).filter(|_| unchosen) {
                self.moves().note_away(id, Some(hop.node), now);
            }
        }
    }

    /// Applies another mode to the same hops. Hops behind the first that were not opened ahead are removed, since
    /// packets may not take a hop that is not open; a reroute adds spares again. Packets from the second hop of a
    /// hitless room pass for a moment.
    fn renew(&mut self, id: RoomId, why: ModeChange, now: Instant) {
        let room = &self.rooms[&id];
        let before = room.route();
        let mut hops: Vec<Hop> = before.hops.iter().map(|(hop, _)| *hop).collect();
        if room.mode.opens_ahead() && !before.mode.opens_ahead() {
            hops.truncate(1);
        }
        let stops = |twin| {
            room.mode_over(&hops) != RedundancyMode::Hitless && room.holding.on != Some(twin)
        };
        let twin = room.holding.twin.filter(|twin| stops(*twin));
        let twin = hops.iter().find(|hop| Some(hop.node) == twin).copied();
        let until = now + self.settings.limits.leave_within;
        let leaving = before.leaving.filter(|(_, until)| now < *until);
        self.failover().routes().publish(id, &hops, leaving.or(twin.map(|twin| (twin, until))));
        self.failover().legs().close_left_hops(id, now);
        let room = &self.rooms[&id];
        let (from, to) = (before.mode, room.route().mode);
        if from != to {
            let room_name = room.name.clone();
            self.effects.event(CoreEvent::Mode { room: id, room_name, from, to, why });
            self.failover().routes().report_kept(id, RedundancyMode::Hitless);
        }
    }

    /// A worker found that the packets of two hops are no copies of each other. The room continues as in hot mode with
    /// the first hop of its route, while it is on these two hops.
    pub(crate) fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
        let Some(id) = self.sessions.get(&session).map(|session| session.room) else {
            return;
        };
        self.failover().catch_up(id, now);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let carries = |hop: &Hop| {
            let nodes = [room.holding.on, room.holding.twin];
            room.route().holds(*hop) && nodes.contains(&Some(hop.node))
        };
        if room.route().mode == RedundancyMode::Hitless
            && hops.iter().all(carries)
            && room.note_unalike(hops)
        {
            self.renew(id, ModeChange::CopiesDiffer { hops }, now);
        }
    }

    pub(crate) fn handle_move(
        &mut self,
        name: &Arc<str>,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let (_, id) = self.rooms.named(name).ok_or(Impossible::NoSuchRoom)?;
        self.failover().catch_up(id, now);
        if !self.rooms[&id].is_placed() {
            return Err(Impossible::NoSuchRoom);
        }
        let node = self.nodes.get(to).ok_or(Impossible::NoSuchNode)?;
        if self.placement().stands_at(id).is_some_and(|hop| hop.node == to) {
            return Err(Impossible::AlreadyThere);
        }
        if !node.takes_rooms() || !self.placement().fits(id, to) {
            return Err(Impossible::NodeUnfit);
        }
        let nodes = self.placement().native_hops(id, &[to], now);
        self.moves().head_for(id, &nodes, MoveCause::Manual, Decider::Operator, now);
        Ok(())
    }

    /// Applies a policy's move. Moves off a dead node bypass damping.
    pub(crate) fn take_move(
        &mut self,
        id: RoomId,
        step: &RoutingMove,
        by: &Decider,
        now: Instant,
    ) -> Result<PartOutcome, GuardRule> {
        self.placement().check_hops(id, &step.hops, now)?;
        let room = &self.rooms[&id];
        let (stranded, heads) = (room.stranded.is_some(), room.pending.as_ref());
        let heads = heads.and_then(|pending| Some(pending.hops.first()?.node));
        let stands = self.placement().stands_at(id).map(|hop| hop.node);
        // A repeated decision for the hop that the room is already moving to counts as one move.
        if ![stands, heads].contains(&step.hops.first().copied()) {
            self.placement().check_placement(id, &step.hops, now)?;
            if !stranded {
                if self.moves().is_damped(id, now) {
                    return Err(GuardRule::MovedTooOften);
                }
                let sessions = self.rooms[&id].sessions.len();
                let percent = self.settings.limits.churn_percent as usize;
                let allowed = self.sessions.live() * percent / 100;
                self.capacity.check_churn(sessions, allowed, now)?;
                self.capacity.note_churn(sessions, now);
            }
        }
        let Some(room) = self.rooms.get_mut(&id) else {
            return Ok(PartOutcome::Kept);
        };
        room.ttl_ms = step.ttl_ms;
        let heading = room.pending.as_ref().map(|pending| pending.hops.iter().map(|h| h.node));
        let same = heading
            .map_or_else(|| room.standing() == step.hops, |to| to.eq(step.hops.iter().copied()));
        if same {
            return Ok(PartOutcome::Kept);
        }
        let differs = step.hops != self.placement().native_route(id, now);
        let cause = if stranded { MoveCause::NodeDown } else { MoveCause::Quality };
        self.moves().head_for(id, &step.hops, cause, by.clone(), now);
        Ok(PartOutcome::Applied { differs })
    }

    /// The native default never moves a placed room and keeps its spares. It adds spares, and puts one that reserves
    /// capacity before those that do not.
    pub(crate) fn reroute_natively(&mut self, id: RoomId, now: Instant) {
        self.failover().catch_up(id, now);
        if self.placement().stands_at(id).is_none() || self.rooms[&id].pending.is_some() {
            return;
        }
        let nodes = self.placement().native_route(id, now);
        if self.rooms[&id].standing() != nodes {
            self.moves().head_for(id, &nodes, MoveCause::Quality, Decider::Native, now);
        }
    }

    /// The policy answered about the room. `apart`: it failed, or left this room out.
    pub(crate) fn answered(&mut self, id: RoomId, apart: bool, now: Instant) {
        if self.rooms.contains_key(&id) {
            self.failover().routes().set_due(id, now);
            if apart || self.placement().is_bare(id) {
                self.reroute_natively(id, now);
            }
        }
    }
}
