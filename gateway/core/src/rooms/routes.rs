//! Current routes: the capacity that their rooms use, and what packets may do at each hop.

use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, Hook, Hop, HopGrant, ModeChange, NodeId, RedundancyMode, RoomId, Route,
};

use super::Router;
use crate::capacity::Holding;
use crate::timer::Timer;

/// Interval at which rooms without a reserve are weighed again.
pub(crate) const WEIGH_EVERY: Duration = Duration::from_millis(500);

/// Maximum rooms weighed again per batch, which bounds the call's duration.
const WEIGHED_AGAIN_MAX: usize = 256;

/// Interval to the next batch if there are many rooms and weighing helps.
const WEIGH_GOES_ON: Duration = Duration::from_millis(50);

/// Round trips that differ by less count as equal: sequence numbers reserved in vain look like loss.
const LEAD_MIN: Duration = Duration::from_millis(2);

impl Router<'_> {
    /// Runs `look` with the room's capacity released.
    pub(crate) fn without_holding<T>(&mut self, id: RoomId, look: impl FnOnce(&Self) -> T) -> T {
        let holding = self.rooms.get(&id).map(|room| room.holding).unwrap_or_default();
        self.capacity.ledger_mut().release(holding);
        let seen = look(self);
        self.capacity.ledger_mut().hold(holding);
        seen
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
        let lead = leaving.zip(hops.first()).map(|((left, _), to)| self.lead(left.node, to.node));
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

    /// The difference of round trips by which the new hop delivers sooner, plus the variation of both. Sequence numbers
    /// are reserved for packets of the old hop that arrive within this time.
    fn lead(&self, old: NodeId, new: NodeId) -> Duration {
        let round_trip = |id| self.nodes.get(id)?.detector.round_trip_seen();
        let Some(((old, late), (new, soon))) = round_trip(old).zip(round_trip(new)) else {
            return Duration::ZERO;
        };
        match old.saturating_sub(new) {
            sooner if sooner < LEAD_MIN => Duration::ZERO,
            sooner => (sooner + late + soon.min(new)).min(self.settings.limits.leave_within),
        }
    }

    /// Updates the room's holding and returns the grant of each hop. The first is admitted; the second is reserved if
    /// capacity is kept for it. In hitless mode both are admitted if both can carry the room. Spares that are not
    /// opened ahead are gated.
    fn weigh(&mut self, id: RoomId, hops: &[Hop]) -> Vec<HopGrant> {
        let kbps = self.room_kbps(id);
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
            if self.rooms.unreserved.contains(&id) && self.can_gain_reserve(id, now) {
                self.want_reroute(id);
            }
        }
        let helps = goes_on.is_some() && self.rooms.unreserved.len() < before;
        let next = if helps { WEIGH_GOES_ON } else { WEIGH_EVERY };
        self.effects.set(Timer::Weigh, now + next);
    }

    /// Asking the policy could help. A spare without a reserve that a policy chose is deliberate.
    fn can_gain_reserve(&mut self, id: RoomId, now: Instant) -> bool {
        let Some(standing) = self.stands_at(id).filter(|_| self.rooms[&id].pending.is_none())
        else {
            return false;
        };
        let policy_has_a_say =
            self.scenario_of(&self.rooms[&id]).is_some_and(|s| s.binds(Hook::Routing));
        (self.is_bare(id) || !policy_has_a_say)
            && self.native_hops(id, &[standing.node], now).len() > 1
    }

    /// Closes the room's sessions at hops that are in none of its routes any more.
    pub(crate) fn close_left_hops(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let used = room.hops_in_use(now);
        let mut left = Vec::new();
        for session in room.sessions.iter() {
            let Some(session) = self.sessions.get_mut(session) else {
                continue;
            };
            let legs = session.legs.extract_if(.., |hop, _| !used.contains(hop));
            left.extend(legs.map(|(hop, leg)| (session.id, hop, leg)));
        }
        for (session, hop, leg) in &left {
            self.leave_leg(*session, *hop, *leg);
        }
        for (_, hop, _) in left {
            self.open_next(hop.node, now);
        }
    }

    /// Sets sessions live that are open at the hop that carries the room.
    pub(crate) fn activate_open(&mut self, id: RoomId, now: Instant) {
        for session in self.sessions_of(id) {
            self.live_if_open(session, now);
        }
    }
}
