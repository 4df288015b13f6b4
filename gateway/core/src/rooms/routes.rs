//! Routes in force: the capacity that their rooms count on, and what packets may do at each hop.

use std::time::{Duration, Instant};

use super::Router;
use crate::capacity::Holding;
use crate::timer::Timer;
use crate::{Event, Grant, Hook, Hop, Mode, ModeChange, NodeId, RoomId, Route};

/// Interval of looks at rooms without a reserve.
pub(crate) const WEIGH_EVERY: Duration = Duration::from_millis(500);

/// Rooms without a reserve that are weighed again at a time, so that it stays short.
const WEIGHED_AGAIN_MAX: usize = 256;

/// If many have to be weighed again and it helps, the next ones have their turn sooner.
const WEIGH_GOES_ON: Duration = Duration::from_millis(50);

/// Round trips that differ by less are the same: numbers kept free for nothing look like loss.
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

    /// The room stands at the first of these hops from now on. Its capacity was checked, or reserved.
    pub(crate) fn admit_at(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        self.rooms.unstrand(id);
        self.publish(id, hops, leaving);
    }

    /// No hop is left that the room's packets may take: the core looks for one.
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

    /// Puts a route in force, or for a stranded room what is left of it.
    pub(crate) fn publish(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        let grants = self.weigh(id, hops);
        let lead = leaving.zip(hops.first()).map(|((left, _), to)| self.lead(left.node, to.node));
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

    /// A hitless room that is carried by one hop keeps less than its mode promises, and that is told; so is its end.
    fn report_kept_since(&mut self, id: RoomId, before: &Route) {
        match (before.version, before.mode) {
            (0, _) => self.report_kept(id, Mode::Hitless),
            (_, Mode::Hitless) => self.report_kept(id, before.kept()),
            // The change to hitless emits its own event first.
            _ => {}
        }
    }

    pub(crate) fn report_kept(&mut self, id: RoomId, from: Mode) {
        let Some((room, route)) = self.rooms.get(&id).map(|room| (room, room.route())) else {
            return;
        };
        let to = route.kept();
        if route.mode == Mode::Hitless && from != to {
            let (room_name, why) = (room.name.clone(), ModeChange::Capacity);
            self.effects.event(Event::Mode { room: id, room_name, from, to, why });
        }
    }

    /// The difference of round trips by which the new hop delivers sooner, with their variation on either side:
    /// packets of the old hop within it still have numbers kept free.
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

    /// Renews what the room counts on, and says what its packets may do at each hop: it is admitted at the first, and free
    /// to take the second where capacity is kept for that. In hitless mode it is admitted at both, if both can carry it;
    /// where spares are not opened ahead, they are gated.
    fn weigh(&mut self, id: RoomId, hops: &[Hop]) -> Vec<Grant> {
        let kbps = self.room_kbps(id);
        // Reserves for deaths to come are not kept from rooms that are stranded now.
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
        let twin = second.filter(|_| mode == Mode::Hitless && on.is_some()).filter(|second| {
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
        let provided = if mode == Mode::Hitless { twin } else { reserve };
        if on.is_some() && mode.opens_ahead() && provided.is_none() {
            self.rooms.unreserved.insert(id);
        } else {
            self.rooms.unreserved.remove(&id);
        }
        let grant = |place| match place {
            0 if on.is_some() => Grant::Admitted,
            1 if twin.is_some() => Grant::Admitted,
            1 if reserve.is_some() => Grant::Reserved,
            _ => Grant::Gated,
        };
        (0..hops.len()).map(grant).collect()
    }

    /// The sessions of the room changed, its target, or the capacity of its nodes: the same hops, weighed again.
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

    /// Capacity may have become free: rooms with a second hop that packets could not take are weighed again, in turn.
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

    /// Asking would help. A policy that gave the room a spare without a reserve meant it.
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

    /// Closes its sessions wherever no route of the room leads any more.
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

    /// Sessions that are open where the room's packets go now are live.
    pub(crate) fn activate_open(&mut self, id: RoomId, now: Instant) {
        for session in self.sessions_of(id) {
            self.live_if_open(session, now);
        }
    }
}
