//! Rooms take a changed mode of their scenario while packets flow.

use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, Decider, Hop, ModeChange, RedundancyMode, RoomId, SessionId};

use super::{RoomTable, Router};
use crate::sessions::SessionPhase;
use crate::timer::Timer;

/// Maximum rooms per batch that take changed scenario settings, so that one wake-up stays short.
const CHANGED_AT_ONCE: usize = 256;

/// Interval between batches, which leaves time for other work.
const CHANGE_EVERY: Duration = Duration::from_millis(1);

impl Router<'_> {
    pub(crate) fn change_some(&mut self, now: Instant) {
        for _ in 0..CHANGED_AT_ONCE {
            let Some(id) = self.rooms.changing.pop_first() else {
                return;
            };
            self.catch_up(id, now);
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
        let Some(mode) = self.scenario_of(room).map(|scenario| scenario.mode) else {
            return;
        };
        self.renew_last_heard(id, now);
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
            self.publish_pending_if_open(id, now);
            self.want_reroute(id);
            if let Some(hop) = self.stands_at(id).filter(|_| unchosen) {
                self.note_away(id, Some(hop.node), now);
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
        self.publish(id, &hops, leaving.or(twin.map(|twin| (twin, until))));
        self.close_left_hops(id, now);
        let room = &self.rooms[&id];
        let (from, to) = (before.mode, room.route().mode);
        if from != to {
            let room_name = room.name.clone();
            self.effects.event(CoreEvent::Mode { room: id, room_name, from, to, why });
            self.report_kept(id, RedundancyMode::Hitless);
        }
    }

    /// Opens the room's sessions at every hop where its mode requires it.
    pub(crate) fn open_missing(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let hops = room.hops_to_open();
        for session in self.sessions_from(id, SessionPhase::Opening) {
            for &hop in &hops {
                self.open_at(session, hop, now);
            }
        }
    }

    /// A worker found that the packets of two hops are no copies of each other. The room continues as in hot mode with
    /// the first hop of its route, while it is on these two hops.
    pub(crate) fn handle_unalike(&mut self, session: SessionId, hops: [Hop; 2], now: Instant) {
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
        if room.route().mode == RedundancyMode::Hitless
            && hops.iter().all(carries)
            && room.note_unalike(hops)
        {
            self.renew(id, ModeChange::CopiesDiffer { hops }, now);
        }
    }
}

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
