//! Moves of rooms off hops that work: asked for by policies, operators, loss, failback and changed modes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, Decider, FailureDomain, GuardRule, Health, Hook, Hop, Impossible, ModeChange,
    MoveCause, NodeId, RedundancyMode, RegionId, RoomId, RoutingMove, Scenario, SessionId,
};
use evenkeel_nodes::Node;

use crate::effects::Timer;
use crate::policy::questions::{PartOutcome, UsableNodes};
use crate::record::Failback;
use crate::rooms::moves::{LOOK_AGAIN, Moves};
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::routes::Routes;

/// Maximum rooms checked for one that can return, which bounds the call's duration.
const LOOKED_AT: usize = 64;

/// Maximum rooms that leave a lossy node at once, so that one wake-up stays short and no node gets all at once.
const LEAVE_AT_ONCE: usize = 128;

/// Maximum rooms per batch that take changed scenario settings, so that one wake-up stays short.
const CHANGED_AT_ONCE: usize = 256;

/// Interval between batches, which leaves time for other work.
const CHANGE_EVERY: Duration = Duration::from_millis(1);

/// Applies the moves that policies, operators, loss, failback and changed modes ask for.
pub(crate) struct Reroutes<'a>(pub(crate) &'a mut CoreTables);

impl Reroutes<'_> {
    /// The next rooms leave a node that loses more than others.
    pub(crate) fn leave_worse(&mut self, node: NodeId, now: Instant) {
        let last = self.0.rooms.leave_cursors.get(&node).copied().unwrap_or(RoomId(0));
        let after = (Bound::Excluded(last), Bound::Unbounded);
        let rooms = &self.0.rooms.at[node.0 as usize];
        let turn: Vec<RoomId> = rooms.range(after).take(LEAVE_AT_ONCE).collect();
        let next = turn.last().filter(|_| turn.len() == LEAVE_AT_ONCE).copied();
        self.0.rooms.leave_cursors.insert(node, next.unwrap_or(RoomId(0)));
        for id in turn {
            Moves(self.0).catch_up(id, now);
            let stands = Placement(self.0).stands_at(id).is_some_and(|hop| hop.node == node);
            if !stands || self.0.rooms[&id].pending.is_some() || Moves(self.0).is_damped(id, now) {
                continue;
            }
            let nodes = Placement(self.0).native_hops(id, &[], now);
            let sound = |node: &NodeId| self.0.nodes.get(*node).is_some_and(Node::is_sound);
            if nodes.first().is_some_and(|first| *first != node && sound(first)) {
                Moves(self.0).head_for(id, &nodes, MoveCause::Link, Decider::Native, now);
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
            None => self.0.rooms.failbacks.fill(failback),
            Some(region) => {
                let found = self.0.rooms.failbacks.get_mut(region.0 as usize);
                *found.ok_or(Impossible::NoSuchRegion)? = failback;
            }
        }
        if !self.0.rooms.away.is_empty() {
            self.0.effects.set(Timer::Failback, now);
        }
        Ok(())
    }

    /// Returns the next room to its native place, if one can go.
    pub(crate) fn failback(&mut self, now: Instant) {
        let after = (Bound::Excluded(self.0.rooms.failed_back_last), Bound::Unbounded);
        let turn: Vec<RoomId> = self.0.rooms.away.range(after).take(LOOKED_AT).copied().collect();
        let found = turn.iter().copied().find(|id| self.send_back(*id, now));
        let all = turn.len() < LOOKED_AT && found.is_none();
        self.0.rooms.failed_back_last =
            found.or(turn.last().copied()).filter(|_| !all).unwrap_or(RoomId(0));
        if !self.0.rooms.away.is_empty() {
            let every = Duration::from_secs(1) / self.0.settings.limits.failbacks_per_second.max(1);
            let next = if found.is_some() || !all { every } else { every.max(LOOK_AGAIN) };
            self.0.effects.set(Timer::Failback, now + next);
        }
    }

    /// Moves the room back make-before-break if its limits allow it and a node has capacity.
    fn send_back(&mut self, id: RoomId, now: Instant) -> bool {
        Moves(self.0).catch_up(id, now);
        let Some(room) = self.0.rooms.get(&id).filter(|room| room.pending.is_none()) else {
            return false;
        };
        let (region, stands) = (room.region, Placement(self.0).stands_at(id));
        if stands.is_some_and(|hop| !Placement(self.0).is_away(id, hop.node)) {
            self.0.rooms.set_away(id, false);
            return false;
        }
        let abroad = stands.is_some_and(|hop| self.0.nodes.region_of(hop.node) != region);
        let home = FailureDomain::Region(region);
        let shut = abroad && !self.0.capacity.domain_breakers.admits(home, id.0);
        let failback = self.0.rooms.failbacks[region.0 as usize];
        let by = match failback {
            Failback::Forbid => return false,
            Failback::Auto if shut || Moves(self.0).is_damped(id, now) => return false,
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
            Placement(self.0).is_away(id, node.id)
                || !trusted(node)
                || self.0.nodes.pace(node.id).is_busy()
        };
        let but: Vec<NodeId> = self.0.nodes.iter().filter(unfit).map(|node| node.id).collect();
        if stands.is_none() || but.len() == self.0.nodes.count() {
            return false;
        }
        let Some(home) = Placement(self.0).native_hops_but(id, &[], &but, now).first().copied()
        else {
            return false;
        };
        let nodes = Placement(self.0).native_hops(id, &[home], now);
        Moves(self.0).head_for(id, &nodes, MoveCause::Failback, by, now);
        true
    }

    /// Applies changed settings of scenarios and adds new ones. Rooms follow in batches with their mode, regions and spares;
    /// bit rates, silence and priority are those of the rooms and sessions that open later.
    pub(crate) fn take_scenarios(
        &mut self,
        scenarios: &BTreeMap<Arc<str>, Scenario>,
        now: Instant,
    ) {
        for (name, new) in scenarios {
            let old = self.0.settings.scenarios.insert(Arc::clone(name), new.clone());
            if new.binds(Hook::Degradation) {
                let policy = Arc::new(new.policy(Hook::Degradation));
                let next = now + self.0.settings.limits.tick_every;
                self.0.effects.set_if_idle(Timer::Tick(policy), next);
            }
            let Some(old) = old else { continue };
            let redundancy = |it: &Scenario| {
                (it.mode, it.regions.clone(), it.spares, it.reserve, it.spares_outside)
            };
            if redundancy(&old) != redundancy(new) {
                let changed = (old.spares != new.spares).then_some(new.spares);
                self.0.rooms.scenario_changed(name, changed);
            }
        }
        self.change_some(now);
    }

    pub(crate) fn change_some(&mut self, now: Instant) {
        for _ in 0..CHANGED_AT_ONCE {
            let Some(id) = self.0.rooms.changing.pop_first() else { return };
            Moves(self.0).catch_up(id, now);
            self.change(id, now);
        }
        self.0.effects.set(Timer::Change, now + CHANGE_EVERY);
    }

    /// Applies the scenario's current mode to the room: spares are opened before packets may take them, and closed when
    /// they may not.
    fn change(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.0.rooms.get(&id) else { return };
        let Some(mode) = Placement(self.0).scenario_of(room).map(|scenario| scenario.mode) else {
            return;
        };
        Routes(self.0).renew_last_heard(id, now);
        let Some(room) = self.0.rooms.get_mut(&id) else { return };
        if room.mode != mode {
            room.take_mode(mode);
        }
        room.await_what_is_opened();
        if room.is_placed() {
            let unchosen = *room.placed_by == Decider::Native;
            self.renew(id, ModeChange::Scenario, now);
            Moves(self.0).publish_pending_if_open(id, now);
            self.0.effects.want_reroute(id);
            if let Some(hop) = Placement(self.0).stands_at(id).filter(|_| unchosen) {
                Moves(self.0).note_away(id, Some(hop.node), now);
            }
        }
    }

    /// Applies another mode to the same hops. Hops behind the first that were not opened ahead are removed, since
    /// packets may not take a hop that is not open; a reroute adds spares again. Packets from the second hop of a
    /// hitless room pass for a moment.
    fn renew(&mut self, id: RoomId, why: ModeChange, now: Instant) {
        let room = &self.0.rooms[&id];
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
        let until = now + self.0.settings.limits.leave_within;
        let leaving = before.leaving().filter(|(_, until)| now < *until);
        Routes(self.0).publish(id, &hops, leaving.or(twin.map(|twin| (twin, until))));
        Routes(self.0).close_left_hops(id, now);
        let room = &self.0.rooms[&id];
        let (from, to) = (before.mode, room.route().mode);
        if from != to {
            let room_name = room.name.clone();
            self.0.effects.event(CoreEvent::Mode { room: id, room_name, from, to, why });
            Routes(self.0).report_kept(id, RedundancyMode::Hitless);
        }
    }

    /// A worker found that the packets of two hops are no copies of each other. The room continues as in hot mode with
    /// the first hop of its route, while it is on these two hops.
    pub(crate) fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
        let Some(id) = self.0.sessions.get(&session).map(|session| session.room) else { return };
        Moves(self.0).catch_up(id, now);
        let Some(room) = self.0.rooms.get_mut(&id) else { return };
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
        let (_, id) = self.0.rooms.named(name).ok_or(Impossible::NoSuchRoom)?;
        Moves(self.0).catch_up(id, now);
        if !self.0.rooms[&id].is_placed() {
            return Err(Impossible::NoSuchRoom);
        }
        let node = self.0.nodes.get(to).ok_or(Impossible::NoSuchNode)?;
        if Placement(self.0).stands_at(id).is_some_and(|hop| hop.node == to) {
            return Err(Impossible::AlreadyThere);
        }
        if !node.takes_rooms() || !Placement(self.0).fits(id, to) {
            return Err(Impossible::NodeUnfit);
        }
        let nodes = Placement(self.0).native_hops(id, &[to], now);
        Moves(self.0).head_for(id, &nodes, MoveCause::Manual, Decider::Operator, now);
        Ok(())
    }

    /// Applies a policy's move. Moves off a dead node bypass damping.
    pub(crate) fn take_move(
        &mut self,
        id: RoomId,
        step: &RoutingMove,
        shown: &UsableNodes,
        by: &Decider,
        now: Instant,
    ) -> Result<PartOutcome, GuardRule> {
        Placement(self.0).check_hops(id, &step.hops, shown, now)?;
        let room = &self.0.rooms[&id];
        let (stranded, heads) = (room.stranded().is_some(), room.pending.as_ref());
        let heads = heads.and_then(|pending| Some(pending.hops.first()?.node));
        let stands = Placement(self.0).stands_at(id).map(|hop| hop.node);
        // A repeated decision for the hop that the room is already moving to counts as one move.
        if ![stands, heads].contains(&step.hops.first().copied()) {
            Placement(self.0).check_placement(id, &step.hops, shown, now)?;
            if !stranded {
                if Moves(self.0).is_damped(id, now) {
                    return Err(GuardRule::MovedTooOften);
                }
                let sessions = self.0.rooms[&id].sessions.len();
                let percent = self.0.settings.limits.churn_percent as usize;
                let allowed = self.0.sessions.live() * percent / 100;
                self.0.capacity.count_churn(sessions, allowed, now)?;
            }
        }
        let hops = Placement(self.0).without_inside_spares(id, &step.hops, |node| *node);
        let Some(room) = self.0.rooms.get_mut(&id) else { return Ok(PartOutcome::Kept) };
        room.ttl_ms = step.ttl_ms;
        let heading = room.pending.as_ref().map(|pending| pending.hops.iter().map(|h| h.node));
        let same =
            heading.map_or_else(|| room.nodes_of_route() == hops, |to| to.eq(hops.iter().copied()));
        if same {
            return Ok(PartOutcome::Kept);
        }
        let differs = hops != Placement(self.0).native_route(id, now);
        let cause = if stranded { MoveCause::NodeDown } else { MoveCause::Quality };
        Moves(self.0).head_for(id, &hops, cause, by.clone(), now);
        Ok(PartOutcome::Applied { differs })
    }

    /// The native default never moves a placed room and keeps its spares. It adds spares, and puts one that reserves
    /// capacity before those that do not.
    pub(crate) fn reroute_natively(&mut self, id: RoomId, now: Instant) {
        Moves(self.0).catch_up(id, now);
        if Placement(self.0).stands_at(id).is_none() || self.0.rooms[&id].pending.is_some() {
            return;
        }
        let nodes = Placement(self.0).native_route(id, now);
        if self.0.rooms[&id].nodes_of_route() != nodes {
            Moves(self.0).head_for(id, &nodes, MoveCause::Quality, Decider::Native, now);
        }
    }

    /// The policy answered about the room. `apart`: it failed, or left this room out.
    pub(crate) fn answered(&mut self, id: RoomId, apart: bool, now: Instant) {
        if self.0.rooms.contains_key(&id) {
            Routes(self.0).set_due(id, now);
            if apart || Placement(self.0).is_bare(id) {
                self.reroute_natively(id, now);
            }
        }
    }
}
