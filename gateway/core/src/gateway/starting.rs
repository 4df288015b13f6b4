//! Nodes that do not run until rooms of cold scenarios need them.

use std::time::{Duration, Instant};

use super::{Gateway, Output};
use crate::room::Room;
use crate::timer::Timer;
use crate::{Event, Mode, NodeId, NotStarted, RoomId, Start};

/// Clients of a room that waits for a node are kept so long, though they are silent: as long as the longest start may take.
const HELD_FOR: Duration = Duration::from_secs(600);

impl Gateway {
    /// What does not run yet carries nothing.
    pub(super) fn condemn_the_cold(&mut self, now: Instant) {
        for node in self.nodes.iter().filter(|node| node.health() == crate::Health::Cold) {
            self.nodes.board.condemn(node.id, now);
        }
    }

    /// A room lost its node, is to leave it, or found none. In cold mode a node is started for it: the one nearest to its
    /// people, if none is being started already, and only while somebody in the room is not silent. What that one cannot
    /// carry has its turn when it runs.
    pub(super) fn want_start(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.mode == Mode::Cold) else {
            return;
        };
        if self.is_forsaken(room, now)
            || self.shutting_down
            || self.nodes.iter().any(crate::node::Node::is_starting)
        {
            return;
        }
        let region = room.region;
        let may = self.nodes.iter().filter(|node| node.may_start(now)).map(|node| node.id);
        let Some(nearest) = may.min_by_key(|node| (self.region_of(*node) != region, *node)) else {
            return;
        };
        let (attempt, within) = self.nodes[nearest.0 as usize].start(now);
        self.effects.event(Event::Start { node: nearest, step: Start::Begun { attempt } });
        self.effects.push(Output::Start { node: nearest });
        self.effects.set(Timer::Probe(nearest), now);
        self.effects.set(Timer::StartLate(nearest), now + within);
    }

    /// Whether everybody in the room is silent.
    fn is_forsaken(&self, room: &Room, now: Instant) -> bool {
        let mut sessions = room.sessions.iter().filter_map(|session| self.sessions.get(session));
        sessions.all(|session| session.is_silent(now, self.sessions.told_within))
    }

    /// The hook that was to start the node failed. It is tried again later, if it is still needed then.
    pub fn handle_start_failed(&mut self, id: NodeId, now: Instant) {
        self.not_started(id, NotStarted::Hook, now);
    }

    /// Whoever is to start the node gives up, if anybody is.
    pub(super) fn not_started(&mut self, id: NodeId, why: NotStarted, now: Instant) {
        let failed = self.nodes.get_mut(id.0 as usize).and_then(|node| node.start_failed(now));
        if let Some(again) = failed {
            self.effects.cancel(&Timer::StartLate(id));
            self.effects.event(Event::Start { node: id, step: Start::Failed { why, again } });
        }
    }

    pub(super) fn start_late(&mut self, id: NodeId, now: Instant) {
        self.not_started(id, NotStarted::Late, now);
    }

    /// It runs: whoever waits for a node is looked at.
    pub(super) fn started(&mut self, id: NodeId, after: Option<Duration>, now: Instant) {
        self.effects.cancel(&Timer::StartLate(id));
        self.effects.set(Timer::Probe(id), now);
        if let Some(took) = after {
            self.effects.event(Event::Start { node: id, step: Start::Done { took } });
        }
        if !self.rooms.stranded.is_empty() {
            self.effects.set(Timer::Rescue, now);
        }
    }

    /// The room has a node again: who fell silent while it waited has its time to speak up.
    pub(super) fn hear_of(&mut self, id: RoomId, now: Instant) {
        let sessions = self.rooms.get(&id).filter(|room| room.mode == Mode::Cold);
        for session in sessions.into_iter().flat_map(|room| room.sessions.iter()) {
            if let Some(session) = self.sessions.get_mut(session) {
                session.last_heard = session.last_heard.max(now);
            }
        }
    }

    /// Whether the room waits for a node to be started: its clients are kept for a while, though they may have fallen
    /// silent.
    pub(super) fn is_held(&self, id: RoomId, now: Instant) -> bool {
        let room = self.rooms.get(&id).filter(|room| room.mode == Mode::Cold);
        room.and_then(|room| room.stranded)
            .is_some_and(|stranded| now.saturating_duration_since(stranded.since) < HELD_FOR)
    }
}
