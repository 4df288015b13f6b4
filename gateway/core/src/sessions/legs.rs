//! Legs: a session's openings at hops, at the pace of each node.

use std::time::{Duration, Instant};

use super::{Leg, Session, Sessions};
use crate::capacity::Capacity;
use crate::effects::{Effects, Output};
use crate::nodes::{ANSWERED_IN_TIME, Nodes, Turn};
use crate::timer::Timer;
use crate::{Hop, NodeId, SessionId};

pub(crate) struct Legs<'a> {
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) nodes: &'a mut Nodes,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) effects: &'a mut Effects,
    pub(crate) open_within: Duration,
}

impl Legs<'_> {
    /// Opens the session at a hop as soon as the node's window allows it, unless this was requested before. Returns the
    /// state of the leg.
    pub(crate) fn open(
        &mut self,
        id: SessionId,
        hop: Hop,
        turn: Turn,
        now: Instant,
    ) -> Option<Leg> {
        let session = self.sessions.get_mut(&id)?;
        if let Some(leg) = session.legs.get(&hop) {
            return Some(*leg);
        }
        session.legs.insert(hop, Leg::Waiting);
        let goes = self.nodes.pace_mut(hop.node).begin(turn, id, hop);
        if goes { self.open_now(id, hop, now) } else { Some(Leg::Waiting) }
    }

    fn open_now(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<Leg> {
        let until = now + self.open_within;
        let session = self.sessions.get_mut(&id)?;
        session.legs.insert(hop, Leg::Opening(until));
        self.effects.push(Output::Open { session: id, room: session.call, hop });
        self.effects.set_if_idle(Timer::OpenLate(id), until);
        Some(Leg::Opening(until))
    }

    /// An opening at the node ended: starts the next ones. Returns true if no session waits there any more.
    pub(crate) fn open_next(&mut self, node: NodeId, now: Instant) -> bool {
        while let Some((id, hop)) = self.nodes.pace_mut(node).next() {
            let waits = |session: &Session| session.legs.get(&hop) == Some(&Leg::Waiting);
            if self.sessions.get(&id).is_some_and(waits) {
                self.open_now(id, hop, now);
            } else {
                self.nodes.pace_mut(node).end();
            }
        }
        !self.nodes.pace(node).is_busy()
    }

    pub(crate) fn opened(&mut self, before: Leg, hop: Hop, now: Instant) {
        let Leg::Opening(until) = before else {
            return;
        };
        let in_time = until - self.open_within + ANSWERED_IN_TIME;
        let pace = self.nodes.pace_mut(hop.node);
        pace.end();
        if now <= in_time {
            pace.faster();
        } else {
            pace.slower(now);
        }
        self.capacity.note_opening(self.nodes.region_of(hop.node), true);
    }

    /// The driver failed to open the leg, or was too late.
    pub(crate) fn failed(&mut self, leg: Leg, hop: Hop, now: Instant) {
        if let Leg::Opening(_) = leg {
            let pace = self.nodes.pace_mut(hop.node);
            pace.end();
            pace.slower(now);
            self.capacity.note_opening(self.nodes.region_of(hop.node), false);
        }
    }

    /// Ends a leg that is no longer needed; the driver closes it if it was asked to open it.
    pub(crate) fn leave(&mut self, id: SessionId, hop: Hop, leg: Leg) {
        let pace = self.nodes.pace_mut(hop.node);
        match leg {
            Leg::Waiting => return pace.forget(id, hop),
            Leg::Opening(_) => pace.end(),
            Leg::Open => {}
        }
        self.effects.push(Output::CloseAt { session: id, hop });
    }
}
