//! Current routes: the capacity that their rooms use, what packets may do at each hop, and the legs: a session's openings
//! at the hops, at the pace of each node. When capacity is short, sessions that obey caps get smaller shares before new ones
//! are refused.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AcceptedOffer, CoreEvent, Decider, FailureDomain, Hop, HopGrant, LeftHop, ModeChange, NodeId,
    Op, RedundancyMode, RoomId, Route, SessionId,
};
use evenkeel_nodes::ANSWERED_IN_TIME;

use crate::capacity::Holding;
use crate::effects::{GatewayEffect, RoomNotice, Timer};
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::room::Room;
use crate::sessions::{LegState, Session, SessionOpening, SessionPhase, WHOLE};

/// Interval at which rooms without a reserve are weighed again.
pub(crate) const WEIGH_EVERY: Duration = Duration::from_millis(500);

/// Maximum rooms weighed again per batch, which bounds the call's duration.
const WEIGHED_AGAIN_MAX: usize = 256;

/// Maximum rooms per batch whose reserve covers less than their scenario wants. Without a node elsewhere these are all rooms.
const COVERED_AGAIN_MAX: usize = 64;

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

/// Publishes the routes of rooms, holds the capacity that they use, and opens and closes sessions at their hops.
pub(crate) struct Routes<'a>(pub(crate) &'a mut CoreTables);

impl Routes<'_> {
    /// Removes this hop from the room's route, if it contains it.
    pub(crate) fn drop_spare(&mut self, id: RoomId, gone: Hop) {
        let route = self.0.rooms[&id].route();
        let leaving = route.leaving().filter(|(hop, _)| *hop != gone);
        let hops: Vec<Hop> =
            route.hops.iter().map(|(hop, _)| *hop).filter(|hop| *hop != gone).collect();
        if hops.len() < route.hops.len() {
            self.publish(id, &hops, leaving);
        } else {
            self.0.rooms.list(id);
            self.regrant(id);
        }
    }

    /// Rooms of other nodes with a reserve at this one, lowest priority first.
    pub(crate) fn holders_of(&self, node: NodeId) -> Vec<RoomId> {
        let there = self.0.rooms.at[node.0 as usize].iter();
        let holders = there.filter_map(|id| self.0.rooms.get(&id));
        let mut holders: Vec<(i64, Reverse<RoomId>)> = holders
            .filter(|room| room.holding.reserve == Some(node))
            .map(|room| (room.priority, Reverse(room.id)))
            .collect();
        holders.sort_unstable();
        holders.into_iter().map(|(_, Reverse(id))| id).collect()
    }

    /// Gates second hops of other nodes' rooms as far as the new load has used their reserves, until those rooms have others. A node
    /// to which rooms fail over is checked once all have arrived.
    pub(crate) fn gate_unfit_reserves(&mut self, node: NodeId) {
        let failover = self.0.rooms.failover.as_ref();
        if failover.is_some_and(|it| it.concerns(node)) || self.0.capacity.ledger().fits(node, 0) {
            return;
        }
        for id in self.holders_of(node) {
            self.regrant(id);
            if self.0.rooms[&id].holding.reserve.is_none() {
                self.0.effects.want_reroute(id);
            }
        }
    }

    /// In a room of two, each session receives what the other sends, so the limit of either limits what the other sends. In a larger
    /// room, senders are not limited for one listener.
    pub(crate) fn settle_peer_caps(&mut self, room: RoomId) {
        let live = Placement(self.0).live_sessions(room);
        let cap = |id: &SessionId| self.0.sessions[id].receives_kbps();
        let peer_caps: Vec<u32> = match &*live {
            [first, second] => vec![cap(second), cap(first)],
            others => vec![0; others.len()],
        };
        for (id, peer_cap_kbps) in live.into_iter().zip(peer_caps) {
            let Some(session) = self.0.sessions.get_mut(&id) else { continue };
            if session.plan.peer_cap_kbps != peer_cap_kbps {
                session.plan.peer_cap_kbps = peer_cap_kbps;
                let plan = session.plan_in_force();
                self.0.effects.push(GatewayEffect::Plan { session: id, plan });
            }
        }
    }

    /// Sets the time of the policy's next review of the room, delayed by up to an eighth, so that thousands of due
    /// rooms need few questions.
    pub(crate) fn set_due(&mut self, id: RoomId, now: Instant) {
        let ttl = self.0.rooms.get(&id).map_or(0, |room| room.ttl_ms);
        if ttl > 0 {
            let ttl = Duration::from_millis(u64::from(ttl)).max(TTL_MIN);
            let grain = (ttl / 8).min(DUE_GRAIN_MAX).as_nanos() as u64;
            let due = (now + ttl).saturating_duration_since(self.0.rooms.started).as_nanos() as u64;
            let late = Duration::from_nanos(due.next_multiple_of(grain) - due);
            self.0.effects.set(Timer::RoomDue(id), now + ttl + late);
        }
    }

    /// Places the room at the first of these hops. The caller has checked or reserved the capacity.
    pub(crate) fn admit_at(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        self.0.rooms.unstrand(id);
        self.publish(id, hops, leaving);
    }

    /// Publishes a route, or for a stranded room what remains of its route.
    pub(crate) fn publish(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        let hops = &Placement(self.0).without_inside_spares(id, hops, |hop| hop.node);
        let grants = self.weigh(id, hops);
        let left = leaving.map(|(hop, until)| {
            let to = hops.first();
            let lead = to.map(|to| Placement(self.0).lead(hop.node, to.node)).unwrap_or_default();
            Box::new(LeftHop { hop, until, lead })
        });
        self.0.rooms.changes.note(id);
        let Some(room) = self.0.rooms.all.get_mut(id) else { return };
        self.0.rooms.placed += usize::from(!room.is_placed());
        let version = room.route().version + 1;
        let mode = room.mode_over(hops);
        let hops = hops.iter().copied().zip(grants).collect();
        let before = room.route();
        room.cell.publish(Route { version, mode, hops, left });
        self.report_kept_since(id, &before);
        if let Some((_, until)) = leaving {
            self.0.effects.set(Timer::LeavingEnds(id), until);
        }
        self.0.rooms.list(id);
    }

    /// Reports the start and end of a time in which one hop alone carries a hitless room.
    fn report_kept_since(&mut self, id: RoomId, before: &Route) {
        match (before.version, before.mode) {
            (0, _) => self.report_kept(id, RedundancyMode::Hitless),
            (_, RedundancyMode::Hitless) => self.report_kept(id, before.effective_mode()),
            // The change to hitless emits its own event first.
            _ => {}
        }
    }

    pub(crate) fn report_kept(&mut self, id: RoomId, from: RedundancyMode) {
        let Some((room, route)) = self.0.rooms.get(&id).map(|room| (room, room.route())) else {
            return;
        };
        let to = route.effective_mode();
        if route.mode == RedundancyMode::Hitless && from != to {
            let (room_name, why) = (room.name.clone(), ModeChange::Capacity);
            self.0.effects.event(CoreEvent::Mode { room: id, room_name, from, to, why });
        }
    }

    /// Updates the room's holding and returns the grant of each hop. The first is admitted; the second is reserved if
    /// capacity is kept for it. In hitless mode both are admitted if both can carry the room. Spares that are not
    /// opened ahead are gated.
    fn weigh(&mut self, id: RoomId, hops: &[Hop]) -> Vec<HopGrant> {
        let kbps = Placement(self.0).room_kbps(id);
        // A stranded room may use capacity reserved for future deaths.
        let keeps_new = !self.0.rooms.stranded_go_first();
        let Some(room) = self.0.rooms.unrecorded_mut(&id) else { return Vec::new() };
        let mode = room.mode_over(hops);
        let before = room.holding;
        self.0.capacity.ledger.release(before);
        let on = hops.first().map(|hop| hop.node).filter(|_| room.stranded().is_none());
        let heading = room.pending.as_ref().map(|pending| pending.hops[0].node);
        let second = hops.get(1).filter(|_| mode.opens_ahead()).map(|hop| hop.node);
        let twin =
            second.filter(|_| mode == RedundancyMode::Hitless && on.is_some()).filter(|second| {
                let had = before.twin == Some(*second);
                let fits = (had || keeps_new) && self.0.capacity.ledger().fits(*second, kbps);
                heading == Some(*second) || fits
            });
        let reserved = on.zip(second).filter(|_| twin.is_none()).and_then(|(on, second)| {
            let had = before.reserve == Some(second) && before.on == Some(on);
            let fits = |covers: Option<FailureDomain>| {
                let ledger = self.0.capacity.ledger();
                let had = had && (covers.is_none() || covers == before.covers);
                let fits = (had || keeps_new) && ledger.fits_reserve(second, on, covers, kbps);
                heading == Some(second) || fits
            };
            // The death of the node alone is covered if capacity for that of its zone is missing.
            let wanted = Placement(self.0).covers(&self.0.rooms[&id], on, second);
            let covers = wanted.filter(|wanted| fits(Some(*wanted)));
            (covers.is_some() || fits(None)).then_some((second, covers))
        });
        let (reserve, covers) = (reserved.map(|(at, _)| at), reserved.and_then(|(_, it)| it));
        if covers != before.covers {
            self.0.rooms.changes.note(id);
        }
        let Some(room) = self.0.rooms.unrecorded_mut(&id) else { return Vec::new() };
        room.holding = Holding { on, reserve, covers, heading, twin, kbps };
        self.0.capacity.ledger.hold(room.holding);
        let provided = if mode == RedundancyMode::Hitless { twin } else { reserve };
        let opens_ahead = on.is_some() && mode.opens_ahead();
        let is_covered = Placement(self.0).is_covered(&self.0.rooms[&id]);
        self.0.rooms.unreserved.set(id, opens_ahead && provided.is_none());
        self.0.rooms.uncovered.set(id, opens_ahead && provided.is_some() && !is_covered);
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
        let Some(room) = self.0.rooms.get(&id).filter(|room| room.is_placed()) else { return };
        let route = room.route();
        let hops: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
        let after = self.weigh(id, &hops);
        if route.hops.iter().map(|(_, grant)| *grant).ne(after.iter().copied()) {
            let hops = hops.into_iter().zip(after).collect();
            let next = Route { version: route.version + 1, hops, ..(*route).clone() };
            self.0.rooms.changes.note(id);
            self.0.rooms[&id].cell.publish(next);
            self.report_kept_since(id, &route);
        }
    }

    /// Capacity may have become free: weighs the next rooms whose second hop packets may not take, and some of those whose
    /// reserve covers less than their scenario wants.
    pub(crate) fn weigh_unreserved(&mut self, now: Instant) {
        let turn = self.0.rooms.unreserved.next(WEIGHED_AGAIN_MAX);
        let uncovered = self.0.rooms.uncovered.next(COVERED_AGAIN_MAX);
        let goes_on = turn.len() == WEIGHED_AGAIN_MAX;
        self.0.capacity.ledger.recover(now);
        self.raise_shares(now);
        let before = self.0.rooms.unreserved.rooms.len();
        for id in turn.into_iter().chain(uncovered) {
            self.regrant(id);
            let rooms = &self.0.rooms;
            let is_short =
                rooms.unreserved.rooms.contains(&id) || rooms.uncovered.rooms.contains(&id);
            if is_short && Placement(self.0).can_gain_reserve(id, now) {
                self.0.effects.want_reroute(id);
            }
        }
        let helps = goes_on && self.0.rooms.unreserved.rooms.len() < before;
        let next = if helps { WEIGH_GOES_ON } else { WEIGH_EVERY };
        self.0.effects.set(Timer::Weigh, now + next);
    }

    /// The native placement. If no node has enough capacity, the room's sessions are reduced to smaller shares.
    pub(crate) fn place_with_less(
        &mut self,
        id: RoomId,
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let before = Placement(self.0).shares(id);
        for share in STEPS {
            if self.reduce(&before, share) {
                let nodes = Placement(self.0).native_hops_but(id, &[], but, now);
                if !nodes.is_empty() {
                    for (id, share) in &before {
                        if self.0.sessions.get(id).is_some_and(|session| session.share != *share) {
                            self.report_share(*id, now);
                        }
                    }
                    return nodes;
                }
            }
        }
        self.set_shares(&before);
        Vec::new()
    }

    /// Frees capacity for the new session at its room's current and pending nodes, with smaller shares if necessary.
    pub(crate) fn make_room_for(&mut self, id: SessionId, now: Instant) -> bool {
        if Placement(self.0).fits_its_room(id) {
            return true;
        }
        let before = [(id, WHOLE)];
        for share in STEPS {
            if self.reduce(&before, share) && Placement(self.0).fits_its_room(id) {
                self.report_share(id, now);
                return true;
            }
        }
        self.set_shares(&before);
        false
    }

    fn set_shares(&mut self, shares: &[(SessionId, u16)]) {
        for (id, share) in shares {
            if let Some(session) = self.0.sessions.get_mut(id) {
                session.share = *share;
            }
        }
    }

    /// Reduces the sessions to a share. Returns true if any of them could be reduced.
    fn reduce(&mut self, sessions: &[(SessionId, u16)], share: u16) -> bool {
        let mut any = false;
        for (id, _) in sessions {
            if let Some(session) = self.0.sessions.get_mut(id)
                && session.can_do_with_less()
                && session.share > share
            {
                session.share = share;
                any = true;
            }
        }
        any
    }

    pub(crate) fn report_share(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.0.sessions.get(&id) else { return };
        let (room, plan) = (session.room, session.plan_now());
        let reduced = session.share < WHOLE;
        self.0.capacity.set_reduced(id, reduced.then_some(now));
        if session.phase >= SessionPhase::Opening {
            let in_force = session.plan_in_force();
            self.0.effects.push(GatewayEffect::Plan { session: id, plan: in_force });
        }
        let (op, arg, rung) = (Op::Cap, u64::from(plan.cap_kbps), plan.rung());
        let (room_name, by) = (self.0.rooms.name_of(room), Decider::Native);
        self.0.effects.event(CoreEvent::Degraded { session: id, room_name, op, arg, rung, by });
        self.settle_peer_caps(room);
    }

    /// Raises sessions that were reduced long enough ago by one step, if no room is stranded.
    pub(crate) fn raise_shares(&mut self, now: Instant) {
        if self.0.rooms.stranded.is_empty() && self.0.rooms.failover.is_none() {
            for id in self.0.capacity.next_reduced(RAISED_AFTER, now) {
                self.raise_share(id, now);
            }
        }
    }

    fn raise_share(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.0.sessions.get_mut(&id).filter(|session| session.share < WHOLE)
        else {
            return;
        };
        let (before, had) = (session.share, session.kbps());
        let up = STEPS.into_iter().filter(|step| *step > before).min();
        session.share = up.unwrap_or(WHOLE);
        let (room, more) = (session.room, session.kbps() - had);
        if Placement(self.0).leaves_room_for(room, more) {
            self.regrant(room);
            self.report_share(id, now);
        } else if let Some(session) = self.0.sessions.get_mut(&id) {
            session.share = before;
        }
    }

    pub(crate) fn weigh_breakers(&mut self, now: Instant) {
        if self.0.capacity.weigh_breakers(&self.0.nodes, now, &mut self.0.effects) {
            self.want_reroute_of_short_rooms();
        }
    }

    /// A node may take spares again, so rooms with too few are rerouted.
    pub(crate) fn want_reroute_of_short_rooms(&mut self) {
        let short =
            |room: &&Room| room.is_placed() && room.route().hops.len() <= usize::from(room.spares);
        let short: Vec<RoomId> = self.0.rooms.values().filter(short).map(|room| room.id).collect();
        for room in short {
            self.0.effects.want_reroute(room);
        }
    }

    /// Restarts the silence timeout of the room's sessions, since the room has a node again.
    pub(crate) fn renew_last_heard(&mut self, id: RoomId, now: Instant) {
        let sessions = self.0.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold);
        for session in sessions.into_iter().flat_map(|room| room.sessions.iter()) {
            if let Some(session) = self.0.sessions.get_mut(session) {
                session.last_heard = session.last_heard.max(now);
            }
        }
    }

    /// Opens the room's sessions at every hop where its mode requires it.
    pub(crate) fn open_missing(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.0.rooms.get(&id) else { return };
        let hops = room.hops_to_open();
        for session in Placement(self.0).sessions_from(id, SessionPhase::Opening) {
            for &hop in &hops {
                self.open_at(session, hop, now);
            }
        }
    }

    /// Opens the room's sessions at these hops. Returns the openings to wait for.
    pub(crate) fn open_all_at(
        &mut self,
        id: RoomId,
        hops: &[Hop],
        awaited: &BTreeSet<Hop>,
        now: Instant,
    ) -> BTreeSet<(SessionId, Hop)> {
        let mut waiting = BTreeSet::new();
        for session in Placement(self.0).sessions_from(id, SessionPhase::Opening) {
            for &hop in hops {
                if self.open_at(session, hop, now) != Some(LegState::Open) && awaited.contains(&hop)
                {
                    waiting.insert((session, hop));
                }
            }
        }
        waiting
    }

    /// Sets the session live if it is open at the hop that carries its room.
    pub(crate) fn live_if_open(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.0.sessions.get(&id).filter(|s| s.phase == SessionPhase::Opening)
        else {
            return;
        };
        let is_open = |hop: &Hop| session.legs.get(hop) == Some(&LegState::Open);
        let Some(hop) = Placement(self.0).stands_at(session.room).filter(is_open) else { return };
        let room = &self.0.rooms[&session.room];
        let accepted = AcceptedOffer {
            session: id,
            room: room.id,
            route: room.cell.clone(),
            plan: session.plan_in_force(),
            admitted_by: (*session.admitted_by).clone(),
            routed_by: (*room.placed_by).clone(),
        };
        let opened = CoreEvent::Opened {
            session: id,
            room: room.id,
            room_name: room.name.clone(),
            scenario: room.scenario.clone(),
            hop,
            offered: session.offered,
            admitted_by: (*session.admitted_by).clone(),
            routed_by: (*room.placed_by).clone(),
        };
        let took = now.saturating_duration_since(session.offered);
        self.0.slos.note_opened(&room.scenario, took, &self.0.settings, now);
        self.0.effects.event(opened);
        if let Some(session) = self.0.sessions.get_mut(&id) {
            if let Some(SessionOpening { offer, .. }) = session.opening.take().as_deref() {
                let (offer, result) = (offer.id, Ok(accepted));
                self.0.effects.push(GatewayEffect::Reply { offer, result });
            }
            session.last_heard = now;
            let room = session.room;
            let ticks = Placement(self.0).ticks(id);
            self.0.sessions.set_live(id, ticks);
            // A room is recorded from its first live session on.
            self.0.rooms.changes.note(room);
            self.settle_peer_caps(room);
            self.0.effects.notice(RoomNotice::Enrol(id));
        }
    }

    /// Opens the session at a hop as soon as the node's window allows it, unless this was requested before. Returns the
    /// state of the leg.
    pub(crate) fn open_at(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let turn = Placement(self.0).turn(self.0.sessions.get(&id)?, hop);
        let session = self.0.sessions.get_mut(&id)?;
        if let Some(leg) = session.legs.get(&hop) {
            return Some(*leg);
        }
        session.legs.insert(hop, LegState::Waiting);
        let goes = self.0.nodes.pace_mut(hop.node).begin(turn, id, hop);
        if goes { self.open_now(id, hop, now) } else { Some(LegState::Waiting) }
    }

    /// An opening at the node ended: opens the next waiting sessions, then tries stranded rooms.
    pub(crate) fn open_next(&mut self, node: NodeId, now: Instant) {
        if self.start_waiting(node, now) && self.0.rooms.paced {
            // The turn belongs to the rooms with the fewest attempts.
            (self.0.rooms.paced, self.0.rooms.rescued_last) = (false, None);
            self.0.effects.set(Timer::Rescue, now);
        }
    }

    /// Opens the room's sessions at hops that are up and where they are not open.
    pub(crate) fn open_again(&mut self, id: RoomId, now: Instant) {
        let mut hops = self.0.rooms.get(&id).map(Room::hops_to_open).unwrap_or_default();
        hops.retain(|hop| self.0.nodes.is_up(*hop));
        for session in Placement(self.0).live_sessions(id) {
            for &hop in &hops {
                self.open_at(session, hop, now);
            }
        }
    }

    /// Closes the room's sessions at hops that are in none of its routes any more.
    pub(crate) fn close_left_hops(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.0.rooms.get(&id) else { return };
        let used = room.hops_in_use(now);
        let mut left = Vec::new();
        for session in room.sessions.iter() {
            let Some(session) = self.0.sessions.get_mut(session) else { continue };
            let legs = session.legs.extract(|hop| !used.contains(hop)).into_iter();
            left.extend(legs.map(|(hop, leg)| (session.id, hop, leg)));
        }
        for (session, hop, leg) in &left {
            self.leave(*session, *hop, *leg);
        }
        for (_, hop, _) in left {
            self.open_next(hop.node, now);
        }
    }

    /// Sets sessions live that are open at the hop that carries the room.
    pub(crate) fn activate_open(&mut self, id: RoomId, now: Instant) {
        for session in Placement(self.0).sessions_of(id) {
            self.live_if_open(session, now);
        }
    }

    fn open_now(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let until = now + self.0.settings.limits.open_within;
        let session = self.0.sessions.get_mut(&id)?;
        let room = self.0.rooms.get(&session.room)?.call;
        session.legs.insert(hop, LegState::Opening(until));
        self.0.effects.push(GatewayEffect::Open { session: id, room, hop });
        self.0.effects.set_if_idle(Timer::OpenLate(id), until);
        Some(LegState::Opening(until))
    }

    /// An opening at the node ended: starts the next ones. Returns true if no session waits there any more.
    fn start_waiting(&mut self, node: NodeId, now: Instant) -> bool {
        while let Some((id, hop)) = self.0.nodes.pace_mut(node).start_next() {
            let waits = |session: &Session| session.legs.get(&hop) == Some(&LegState::Waiting);
            if self.0.sessions.get(&id).is_some_and(waits) {
                self.open_now(id, hop, now);
            } else {
                self.0.nodes.pace_mut(node).end();
            }
        }
        !self.0.nodes.pace(node).is_busy()
    }

    pub(crate) fn opened(&mut self, before: LegState, hop: Hop, now: Instant) {
        let LegState::Opening(until) = before else { return };
        let in_time = until - self.0.settings.limits.open_within + ANSWERED_IN_TIME;
        let pace = self.0.nodes.pace_mut(hop.node);
        pace.end();
        if now <= in_time {
            pace.faster();
        } else {
            pace.slower(now);
        }
        self.0.capacity.note_opening(hop.node, &self.0.nodes, true);
    }

    /// The driver failed to open the leg, or was too late.
    pub(crate) fn failed(&mut self, leg: LegState, hop: Hop, now: Instant) {
        if let LegState::Opening(_) = leg {
            let pace = self.0.nodes.pace_mut(hop.node);
            pace.end();
            pace.slower(now);
            self.0.capacity.note_opening(hop.node, &self.0.nodes, false);
        }
    }

    /// Ends a leg that is no longer needed; the driver closes it if it was asked to open it.
    pub(crate) fn leave(&mut self, id: SessionId, hop: Hop, leg: LegState) {
        let pace = self.0.nodes.pace_mut(hop.node);
        match leg {
            LegState::Waiting => return pace.forget(id, hop),
            LegState::Opening(_) => pace.end(),
            LegState::Open => {}
        }
        self.0.effects.push(GatewayEffect::CloseAt { session: id, hop });
    }
}
