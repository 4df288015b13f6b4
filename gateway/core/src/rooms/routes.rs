//! Current routes: the capacity that their rooms use, and what packets may do at each hop.
//! When capacity is short, sessions that obey caps get smaller shares before new ones are refused.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, CoreSettings, Decider, Hop, HopGrant, ModeChange, NodeId, Op, RedundancyMode,
    RoomId, Route, SessionId,
};
use evenkeel_nodes::NodeTable;

use super::{Placement, Room, RoomTable};
use crate::GatewayEffect;
use crate::capacity::{Capacity, Holding};
use crate::effects::Effects;
use crate::sessions::{SessionPhase, SessionTable, WHOLE};
use crate::timer::Timer;

/// Interval at which rooms without a reserve are weighed again.
pub(crate) const WEIGH_EVERY: Duration = Duration::from_millis(500);

/// Maximum rooms weighed again per batch, which bounds the call's duration.
const WEIGHED_AGAIN_MAX: usize = 256;

/// Interval to the next batch if there are many rooms and weighing helps.
const WEIGH_GOES_ON: Duration = Duration::from_millis(50);

/// Minimum interval of questions about one room, whatever its policy requests.
const TTL_MIN: Duration = Duration::from_millis(100);

/// Rooms due within this time are asked about together.
const DUE_GRAIN_MAX: Duration = Duration::from_millis(100);

/// Steps of reduction: shares of a session's need above its scenario's floor, in thousandths.
const STEPS: [u16; 2] = [500, 0];

/// Minimum time before a reduced session is raised again.
const RAISED_AFTER: Duration = Duration::from_secs(8);

/// Publishes the routes of rooms, and holds the capacity that they use.
pub(crate) struct Routes<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) rooms: &'a mut RoomTable,
    pub(crate) nodes: &'a mut NodeTable,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
}

impl Routes<'_> {
    pub(crate) fn placement(&self) -> Placement<'_> {
        let Self { settings, sessions, rooms, nodes, capacity, .. } = self;
        Placement { settings, sessions, rooms, nodes, capacity }
    }

    /// Removes this hop from the room's route, if it contains it.
    pub(crate) fn drop_spare(&mut self, id: RoomId, gone: Hop) {
        let route = self.rooms[&id].route();
        let leaving = route.leaving.filter(|(hop, _)| *hop != gone);
        let hops: Vec<Hop> =
            route.hops.iter().map(|(hop, _)| *hop).filter(|hop| *hop != gone).collect();
        if hops.len() < route.hops.len() {
            self.publish(id, &hops, leaving);
        } else {
            self.rooms.list(id);
            self.regrant(id);
        }
    }

    /// Gates second hops of other nodes' rooms whose reserves the new load has used, until those rooms have others.
    pub(crate) fn gate_unfit_reserves(&mut self, node: NodeId) {
        if self.capacity.ledger().fits(node, 0) {
            return;
        }
        let holders = self.rooms.at[node.0 as usize].iter().filter_map(|id| self.rooms.get(id));
        let mut holders: Vec<(i64, Reverse<RoomId>)> = holders
            .filter(|room| room.holding.reserve == Some(node))
            .map(|room| (room.priority, Reverse(room.id)))
            .collect();
        holders.sort_unstable();
        for (_, Reverse(id)) in holders {
            self.regrant(id);
            if self.rooms[&id].holding.reserve.is_none() {
                self.effects.want_reroute(id);
            }
        }
    }

    /// In a room of two, each session receives what the other sends, so a cap limits both. In a larger room, senders
    /// are not limited for one listener.
    pub(crate) fn settle_peer_caps(&mut self, room: RoomId) {
        let live = self.placement().live_sessions(room);
        let cap = |id: &SessionId| self.sessions[id].plan_now().cap_kbps;
        let peer_caps: Vec<u32> = match &*live {
            [first, second] => vec![cap(second), cap(first)],
            others => vec![0; others.len()],
        };
        for (id, peer_cap_kbps) in live.into_iter().zip(peer_caps) {
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            if session.plan.peer_cap_kbps != peer_cap_kbps {
                session.plan.peer_cap_kbps = peer_cap_kbps;
                let plan = session.plan_now();
                self.effects.push(GatewayEffect::Plan { session: id, plan });
            }
        }
    }

    /// Sets the time of the policy's next review of the room, delayed by up to an eighth, so that thousands of due
    /// rooms need few questions.
    pub(crate) fn set_due(&mut self, id: RoomId, now: Instant) {
        let ttl = self.rooms.get(&id).map_or(0, |room| room.ttl_ms);
        if ttl > 0 {
            let ttl = Duration::from_millis(u64::from(ttl)).max(TTL_MIN);
            let grain = (ttl / 8).min(DUE_GRAIN_MAX).as_micros() as u64;
            let due = (now + ttl).saturating_duration_since(self.rooms.started).as_micros() as u64;
            let late = Duration::from_micros(due.next_multiple_of(grain) - due);
            self.effects.set(Timer::RoomDue(id), now + ttl + late);
        }
    }

    /// Places the room at the first of these hops. The caller has checked or reserved the capacity.
    pub(crate) fn admit_at(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        self.rooms.unstrand(id);
        self.publish(id, hops, leaving);
    }

    /// Marks the room stranded: no hop is left that its packets may take, and the core searches for one.
    pub(crate) fn strand(
        &mut self,
        id: RoomId,
        (lost, since): (Hop, Instant),
        hops: &[Hop],
        now: Instant,
    ) {
        self.rooms.strand(id, lost, since);
        self.publish(id, hops, None);
        self.effects.set(Timer::Rescue, now);
    }

    /// Publishes a route, or for a stranded room what remains of its route.
    pub(crate) fn publish(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        let grants = self.weigh(id, hops);
        let lead = leaving
            .zip(hops.first())
            .map(|((left, _), to)| self.placement().lead(left.node, to.node));
        self.rooms.changes.note(id);
        let Some(room) = self.rooms.all.get_mut(&id) else {
            return;
        };
        self.rooms.placed += usize::from(!room.is_placed());
        let version = room.route().version + 1;
        let mode = room.mode_over(hops);
        let hops = hops.iter().copied().zip(grants).collect();
        let before = room.route();
        room.cell.publish(Route { version, mode, hops, leaving, lead: lead.unwrap_or_default() });
        self.report_kept_since(id, &before);
        if let Some((_, until)) = leaving {
            self.effects.set(Timer::LeavingEnds(id), until);
        }
        self.rooms.list(id);
    }

    /// Reports the start and end of a time in which one hop alone carries a hitless room.
    fn report_kept_since(&mut self, id: RoomId, before: &Route) {
        match (before.version, before.mode) {
            (0, _) => self.report_kept(id, RedundancyMode::Hitless),
            (_, RedundancyMode::Hitless) => self.report_kept(id, before.kept()),
            // The change to hitless emits its own event first.
            _ => {}
        }
    }

    pub(crate) fn report_kept(&mut self, id: RoomId, from: RedundancyMode) {
        let Some((room, route)) = self.rooms.get(&id).map(|room| (room, room.route())) else {
            return;
        };
        let to = route.kept();
        if route.mode == RedundancyMode::Hitless && from != to {
            let (room_name, why) = (room.name.clone(), ModeChange::Capacity);
            self.effects.event(CoreEvent::Mode { room: id, room_name, from, to, why });
        }
    }

    /// Updates the room's holding and returns the grant of each hop. The first is admitted; the second is reserved if
    /// capacity is kept for it. In hitless mode both are admitted if both can carry the room. Spares that are not
    /// opened ahead are gated.
    fn weigh(&mut self, id: RoomId, hops: &[Hop]) -> Vec<HopGrant> {
        let kbps = self.placement().room_kbps(id);
        // A stranded room may use capacity reserved for future deaths.
        let keeps_new = !self.rooms.stranded_go_first();
        let Some(room) = self.rooms.get_mut(&id) else {
            return Vec::new();
        };
        let mode = room.mode_over(hops);
        let before = room.holding;
        self.capacity.ledger_mut().release(before);
        let on = hops.first().map(|hop| hop.node).filter(|_| room.stranded.is_none());
        let heading = room.pending.as_ref().map(|pending| pending.hops[0].node);
        let second = hops.get(1).filter(|_| mode.opens_ahead()).map(|hop| hop.node);
        let twin =
            second.filter(|_| mode == RedundancyMode::Hitless && on.is_some()).filter(|second| {
                let had = before.twin == Some(*second);
                let fits = (had || keeps_new) && self.capacity.ledger().fits(*second, kbps);
                heading == Some(*second) || fits
            });
        let reserve = on.zip(second).filter(|_| twin.is_none()).and_then(|(on, second)| {
            let had = before.reserve == Some(second) && before.on == Some(on);
            let fits = (had || keeps_new) && self.capacity.ledger().fits_reserve(second, on, kbps);
            (heading == Some(second) || fits).then_some(second)
        });
        room.holding = Holding { on, reserve, heading, twin, kbps };
        self.capacity.ledger_mut().hold(room.holding);
        let provided = if mode == RedundancyMode::Hitless { twin } else { reserve };
        if on.is_some() && mode.opens_ahead() && provided.is_none() {
            self.rooms.unreserved.insert(id);
        } else {
            self.rooms.unreserved.remove(&id);
        }
        let grant = |place| match place {
            0 if on.is_some() => HopGrant::Admitted,
            1 if twin.is_some() => HopGrant::Admitted,
            1 if reserve.is_some() => HopGrant::Reserved,
            _ => HopGrant::Gated,
        };
        (0..hops.len()).map(grant).collect()
    }

    /// Weighs the same hops again, because the room's sessions, its target or the capacity of its nodes changed.
    pub(crate) fn regrant(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.is_placed()) else {
            return;
        };
        let route = room.route();
        let hops: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
        let after = self.weigh(id, &hops);
        if route.hops.iter().map(|(_, grant)| *grant).ne(after.iter().copied()) {
            let hops = hops.into_iter().zip(after).collect();
            let next = Route { version: route.version + 1, hops, ..(*route).clone() };
            self.rooms[&id].cell.publish(next);
            self.report_kept_since(id, &route);
        }
    }

    /// Capacity may have become free: weighs the next rooms whose second hop packets may not take.
    pub(crate) fn weigh_unreserved(&mut self, now: Instant) {
        let after =
            (std::ops::Bound::Excluded(self.rooms.weighed_last), std::ops::Bound::Unbounded);
        let turn: Vec<RoomId> =
            self.rooms.unreserved.range(after).take(WEIGHED_AGAIN_MAX).copied().collect();
        let goes_on = turn.last().filter(|_| turn.len() == WEIGHED_AGAIN_MAX).copied();
        self.rooms.weighed_last = goes_on.unwrap_or(RoomId(0));
        self.capacity.ledger_mut().recover(now);
        self.raise_shares(now);
        let before = self.rooms.unreserved.len();
        for id in turn {
            self.regrant(id);
            if self.rooms.unreserved.contains(&id) && self.placement().can_gain_reserve(id, now) {
                self.effects.want_reroute(id);
            }
        }
        let helps = goes_on.is_some() && self.rooms.unreserved.len() < before;
        let next = if helps { WEIGH_GOES_ON } else { WEIGH_EVERY };
        self.effects.set(Timer::Weigh, now + next);
    }

    /// The native placement. If no node has enough capacity, the room's sessions are reduced to smaller shares.
    pub(crate) fn place_with_less(
        &mut self,
        id: RoomId,
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let before = self.placement().shares(id);
        for share in STEPS {
            if self.reduce(&before, share) {
                let nodes = self.placement().native_hops_but(id, &[], but, now);
                if !nodes.is_empty() {
                    self.report_shares(&before, now);
                    return nodes;
                }
            }
        }
        self.set_shares(&before);
        Vec::new()
    }

    /// Frees capacity for the new session at its room's current and pending nodes, with smaller shares if necessary.
    pub(crate) fn make_room_for(&mut self, id: SessionId, now: Instant) -> bool {
        if self.placement().fits_its_room(id) {
            return true;
        }
        let before = [(id, WHOLE)];
        for share in STEPS {
            if self.reduce(&before, share) && self.placement().fits_its_room(id) {
                self.report_share(id, now);
                return true;
            }
        }
        self.set_shares(&before);
        false
    }

    fn set_shares(&mut self, shares: &[(SessionId, u16)]) {
        for (id, share) in shares {
            if let Some(session) = self.sessions.get_mut(id) {
                session.share = *share;
            }
        }
    }

    /// Reduces the sessions to a share. Returns true if any of them could be reduced.
    fn reduce(&mut self, sessions: &[(SessionId, u16)], share: u16) -> bool {
        let mut any = false;
        for (id, _) in sessions {
            if let Some(session) = self.sessions.get_mut(id)
                && session.can_do_with_less()
                && session.share > share
            {
                session.share = share;
                any = true;
            }
        }
        any
    }

    fn report_shares(&mut self, before: &[(SessionId, u16)], now: Instant) {
        for (id, share) in before {
            if self.sessions.get(id).is_some_and(|session| session.share != *share) {
                self.report_share(*id, now);
            }
        }
    }

    pub(crate) fn report_share(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (room, plan) = (session.room, session.plan_now());
        let reduced = session.share < WHOLE;
        self.capacity.set_reduced(id, reduced.then_some(now));
        if session.phase >= SessionPhase::Opening {
            self.effects.push(GatewayEffect::Plan { session: id, plan });
        }
        let (op, arg, rung) = (Op::Cap, u64::from(plan.cap_kbps), plan.rung());
        let (room_name, by) = (self.rooms.name_of(room), Decider::Native);
        self.effects.event(CoreEvent::Degraded { session: id, room_name, op, arg, rung, by });
        self.settle_peer_caps(room);
    }

    /// Raises sessions that were reduced long enough ago by one step, if no room is stranded.
    pub(crate) fn raise_shares(&mut self, now: Instant) {
        if self.rooms.stranded.is_empty() && self.rooms.failover.is_none() {
            for id in self.capacity.next_reduced(RAISED_AFTER, now) {
                self.raise_share(id, now);
            }
        }
    }

    fn raise_share(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.share < WHOLE)
        else {
            return;
        };
        let (before, had) = (session.share, session.kbps());
        let up = STEPS.into_iter().filter(|step| *step > before).min();
        session.share = up.unwrap_or(WHOLE);
        let (room, more) = (session.room, session.kbps() - had);
        if self.placement().leaves_room_for(room, more) {
            self.regrant(room);
            self.report_share(id, now);
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.share = before;
        }
    }

    pub(crate) fn weigh_breakers(&mut self, now: Instant) {
        if self.capacity.weigh_breakers(self.nodes, now, self.effects) {
            self.want_reroute_of_short_rooms();
        }
    }

    /// A node may take spares again, so rooms with too few are rerouted.
    pub(crate) fn want_reroute_of_short_rooms(&mut self) {
        let short =
            |room: &&Room| room.is_placed() && room.route().hops.len() <= usize::from(room.spares);
        let short: Vec<RoomId> = self.rooms.values().filter(short).map(|room| room.id).collect();
        for room in short {
            self.effects.want_reroute(room);
        }
    }
}
