//! Scenarios that change while packets flow, and rooms that go on in another mode.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use super::offering::APART;
use crate::room::Room;
use crate::timer::Timer;
use crate::{Affinity, Decider, Event, Hop, Mode, ModeChange, RoomId, Scenario, SessionId};

/// Rooms that take what their scenarios say now together, so that one wake-up stays short.
const CHANGED_AT_ONCE: usize = 256;

/// Between two turns of them there is time for what else goes on.
const CHANGE_EVERY: Duration = Duration::from_millis(1);

impl Gateway {
    /// Scenarios say something else now: how their rooms survive a node, over which regions, with how many spares, and
    /// whether sessions are placed together. Those that are not named keep what they have, and so do all other settings
    /// of those that are. Rooms in force take it without losing a packet, in turns; that of affinity holds for newcomers.
    pub fn handle_scenarios(&mut self, scenarios: &BTreeMap<Arc<str>, Scenario>, now: Instant) {
        for (name, new) in scenarios {
            let Some(old) = self.settings.scenarios.get_mut(name) else {
                continue;
            };
            let Scenario { mode, affinity, ref regions, spares, .. } = *new;
            let spares_before = old.spares;
            let same = (old.mode, &old.regions, old.spares) == (mode, regions, spares);
            (old.mode, old.affinity, old.regions, old.spares) =
                (mode, affinity, regions.clone(), spares);
            if same {
                continue;
            }
            for room in self.rooms.values_mut().filter(|room| room.scenario == *name) {
                if spares_before != spares {
                    room.spares = spares;
                }
                self.changing.insert(room.id);
            }
        }
        self.change_some(now);
    }

    pub(super) fn change_some(&mut self, now: Instant) {
        for _ in 0..CHANGED_AT_ONCE {
            let Some(id) = self.changing.pop_first() else {
                return;
            };
            self.catch_up(id, now);
            self.change(id, now);
        }
        self.timers.set(Timer::Change, now + CHANGE_EVERY);
    }

    /// The room takes the mode of its scenario: spares are opened before packets may take them, and closed when they no
    /// longer may.
    fn change(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let Some(mode) = self.scenario_of(room).map(|scenario| scenario.mode) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        if room.mode != mode {
            room.mode = mode;
            room.forget_unalike();
        }
        room.await_what_is_opened();
        if room.is_placed() {
            let unchosen = *room.placed_by == Decider::Native;
            self.renew(id, ModeChange::Scenario, now);
            self.publish_pending_if_open(id, now);
            self.want_reroute(id, now);
            if let Some(hop) = self.stands_at(id).filter(|_| unchosen) {
                self.note_away(id, Some(hop.node), now);
            }
        }
    }

    /// The same hops in another mode. What the second hop of a hitless room delivers passes on for a moment.
    fn renew(&mut self, id: RoomId, why: ModeChange, now: Instant) {
        self.open_missing(id, now);
        let room = &self.rooms[&id];
        let before = room.route();
        let hops: Vec<Hop> = before.hops.iter().map(|(hop, _)| *hop).collect();
        let stops = |twin| room.mode_over(&hops) != Mode::Hitless && room.holding.on != Some(twin);
        let twin = room.holding.twin.filter(|twin| stops(*twin));
        let twin = hops.iter().find(|hop| Some(hop.node) == twin).copied();
        let until = now + self.settings.limits.leave_within;
        let leaving = before.leaving.filter(|(_, until)| now < *until);
        self.publish(id, &hops, leaving.or(twin.map(|twin| (twin, until))));
        self.close_left_hops(id, now);
        let room = &self.rooms[&id];
        let (from, to) = (before.mode, room.route().mode);
        if from != to {
            let room_name = room.name.clone();
            self.event(Event::Mode { room: id, room_name, from, to, why });
            self.tell_kept(id, Mode::Hitless);
        }
    }

    /// Its sessions are opened wherever its mode wants them open.
    pub(super) fn open_missing(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let hops = room.hops_to_open();
        let sessions: Vec<SessionId> = room.sessions.iter().copied().collect();
        let opening = |gateway: &Gateway, id: &SessionId| {
            let session = gateway.sessions.get(id);
            session.is_some_and(|session| session.phase >= crate::session::Phase::Opening)
        };
        for session in sessions.into_iter().filter(|id| opening(self, id)).collect::<Vec<_>>() {
            for &hop in &hops {
                self.open_at(session, hop, now);
            }
        }
    }

    /// A worker noticed that what two hops deliver to a session are no copies of each other: the room goes on as in hot
    /// mode, with the hop that the client hears, as long as it stands on these two.
    pub fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
        let Some(id) = self.sessions.get(&session).map(|session| session.room) else {
            return;
        };
        self.catch_up(id, now);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let carries = |hop: &Hop| {
            let nodes = [room.holding.on, room.holding.twin];
            room.route().holds(*hop) && nodes.contains(&Some(hop.node))
        };
        if room.route().mode == Mode::Hitless && hops.iter().all(carries) && room.note_unalike(hops)
        {
            self.renew(id, ModeChange::Unalike { hops }, now);
        }
    }

    /// Under which number nodes know the room: that of its call, where its sessions are rooms of their own.
    pub(super) fn enter_call(&mut self, name: &Arc<str>, id: RoomId, affinity: Affinity) -> RoomId {
        let standing = self.rooms_by_name.get(name).and_then(|room| self.rooms.get(room));
        let known = self.calls.get(name).map(|(call, _)| *call);
        let call = known.or(standing.map(|room| room.call)).unwrap_or(id);
        if affinity == Affinity::Session {
            self.calls.entry(name.clone()).or_insert((call, 0)).1 += 1;
        }
        call
    }

    /// The last room of a call takes its number with it.
    pub(super) fn leave_call(&mut self, room: &Room) {
        let Some((name, _)) = room.name.rsplit_once(APART) else {
            return;
        };
        if let Some((call, rooms)) = self.calls.get_mut(name)
            && *call == room.call
        {
            *rooms -= 1;
            if *rooms == 0 {
                self.calls.remove(name);
            }
        }
    }
}
