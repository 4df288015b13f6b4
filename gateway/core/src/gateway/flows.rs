//! Lost flows: a session that hears nothing any more while others go on. Its room leaves that hop, and no other room.

use std::time::{Duration, Instant};

use super::Gateway;
use crate::flow::{Sending, Track};
use crate::session::Phase;
use crate::timer::Timer;
use crate::{Flow, Hop, RoomId, SessionId, Strike};

/// How often sessions that hear nothing any more are looked at.
const JUDGE_EVERY: Duration = Duration::from_millis(100);

/// Words on a session are so old where there are few: what more it is, everything is given.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// A node that was not heard for so long says nothing to anybody: that is no lost flow, and has witnesses of its own.
const NODE_HEARD_WITHIN: Duration = Duration::from_millis(200);

/// What is thought of a session that hears nothing any more.
enum Verdict {
    /// This hop keeps from it what others send.
    Lost(Hop),
    /// It is nobody's fault, or cannot be told.
    Innocent,
    /// It is too early to say.
    Wait,
}

impl Gateway {
    /// What went between a session and its node since this was told last, if anything did lately.
    pub fn handle_flow(&mut self, id: SessionId, flow: &Flow, now: Instant) {
        let slack = self.slack();
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.phase == Phase::Live) else {
            return;
        };
        let room = session.room;
        let carriers = self.rooms.get(&room).and_then(|room| room.cell.carriers(&self.nodes.board));
        let Some((first, other)) = carriers else {
            return;
        };
        // Of two hops that carry, the client hears the one that leads.
        let hop = other.filter(|other| flow.hears == Some(*other)).unwrap_or(first);
        let track = session.track.get_or_insert_with(|| Box::new(Track::new(hop, now)));
        if track.hop() != hop {
            track.goes_to(hop, now);
        }
        if flow.came != [0; 2]
            && let Some(from) = flow.hears
            && let Some(node) = self.nodes.get_mut(from.node.0 as usize)
            && node.hop() == from
        {
            node.detector.handle_delivered(now);
        }
        // What came from a hop that was left is no measure of this one.
        let is_here = flow.hears == Some(hop);
        // What neither of two hops delivered accuses neither, and what one lost the other made good.
        let is_its_own = is_here && other.is_none();
        let (expected, lost) = if is_its_own { (flow.expected, flow.lost) } else { (0, 0) };
        let came = if is_here { flow.came } else { [0; 2] };
        let falls_silent = track.note(&Flow { came, expected, lost, ..*flow }, slack, now);
        self.weigh_flow(id, flow.missed, now);
        if is_its_own {
            self.tally(room, hop, flow, now);
        }
        if falls_silent {
            self.quality.silent.insert((room, id));
            self.effects.set_if_idle(Timer::Flows, now + JUDGE_EVERY);
        }
    }

    /// How much later than usual workers may tell of a session.
    fn slack(&self) -> Duration {
        self.sessions.told_within.saturating_sub(TOLD_WITHIN)
    }

    /// Looks at those that are silent; the others cost nothing.
    pub(super) fn judge_flows(&mut self, now: Instant) {
        for (room, session) in std::mem::take(&mut self.quality.silent) {
            self.catch_up(room, now);
            match self.judge_flow(room, session, now) {
                Verdict::Wait => _ = self.quality.silent.insert((room, session)),
                Verdict::Innocent => self.with_track(session, Track::forget),
                Verdict::Lost(hop) => {
                    self.with_track(session, Track::moved);
                    self.strike(room, hop, (Strike::FlowLost, Some(session)), now);
                }
            }
        }
        if !self.quality.silent.is_empty() {
            self.effects.set(Timer::Flows, now + JUDGE_EVERY);
        }
    }

    fn with_track(&mut self, session: SessionId, change: impl FnOnce(&mut Track)) {
        if let Some(track) = self.sessions.get_mut(&session).and_then(|s| s.track.as_deref_mut()) {
            change(track);
        }
    }

    fn judge_flow(&self, id: RoomId, session: SessionId, now: Instant) -> Verdict {
        let slack = self.slack();
        let track = self.sessions.get(&session).and_then(|session| session.track.as_deref());
        let (Some(track), Some(room)) = (track, self.rooms.get(&id)) else {
            return Verdict::Innocent;
        };
        let carries =
            |(first, other): (Hop, Option<Hop>)| first == track.hop() || other == Some(track.hop());
        if !track.is_silent() || !room.cell.carriers(&self.nodes.board).is_some_and(carries) {
            return Verdict::Innocent;
        }
        let Some(silent) = track.lost_since(slack, now) else {
            return Verdict::Wait;
        };
        if !self.is_heard(track.hop(), now) {
            return Verdict::Innocent;
        }
        let kinds = track.heard();
        let mut fed = false;
        for other in room.sessions.iter() {
            let track = self.sessions.get(other).and_then(|session| session.track.as_deref());
            match track.map_or(Sending::Not, |track| track.sending(kinds, silent, slack, now)) {
                // It may be the one that was heard.
                Sending::Stopped => return Verdict::Innocent,
                // A session that is alone may hear itself.
                Sending::On => fed |= *other != session || room.sessions.len() == 1,
                Sending::Not => {}
            }
        }
        if fed { Verdict::Lost(track.hop()) } else { Verdict::Innocent }
    }

    /// Who sent is gone: those who heard it have no reason to hear anything more.
    pub(super) fn forget_what_was_heard(&mut self, id: RoomId) {
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
        for session in sessions {
            let session = self.sessions.get_mut(session);
            if let Some(track) = session.and_then(|session| session.track.as_deref_mut()) {
                track.forget();
            }
        }
    }

    /// Whether the node says something to somebody.
    fn is_heard(&self, hop: Hop, now: Instant) -> bool {
        let received = self.node(hop.node).and_then(|node| node.detector.last_received());
        received.is_some_and(|at| now.saturating_duration_since(at) < NODE_HEARD_WITHIN)
    }

    /// We were late ourselves: whoever seems silent may not have been read.
    pub(super) fn excuse_flows(&mut self, late: Duration) {
        for (_, session) in &self.quality.silent {
            let session = self.sessions.get_mut(session);
            if let Some(track) = session.and_then(|session| session.track.as_deref_mut()) {
                track.excuse(late);
            }
        }
    }
}
