//! Legs: a session's openings at hops, at the pace of each node.

use std::time::{Duration, Instant};

use evenkeel_model::{Hop, NodeId, SessionId};

use super::{LegState, Session, SessionTable};
use crate::capacity::Capacity;
use crate::effects::{Effects, GatewayEffect};
use crate::timer::Timer;
use evenkeel_nodes::{ANSWERED_IN_TIME, NodeTable, QueuePosition};

pub(crate) struct Legs<'a> {
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) nodes: &'a mut NodeTable,
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
        turn: QueuePosition,
        now: Instant,
    ) -> Option<LegState> {
        let session = self.sessions.get_mut(&id)?;
        if let Some(leg) = session.legs.get(&hop) {
            return Some(*leg);
        }
        session.legs.insert(hop, LegState::Waiting);
        let goes = self.nodes.pace_mut(hop.node).begin(turn, id, hop);
        if goes { self.open_now(id, hop, now) } else { Some(LegState::Waiting) }
    }

    fn open_now(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<LegState> {
        let until = now + self.open_within;
        let session = self.sessions.get_mut(&id)?;
        session.legs.insert(hop, LegState::Opening(until));
        self.effects.push(GatewayEffect::Open { session: id, room: session.call, hop });
        self.effects.set_if_idle(Timer::OpenLate(id), until);
        Some(LegState::Opening(until))
    }

    /// An opening at the node ended: starts the next ones. Returns true if no session waits there any more.
    pub(crate) fn open_next(&mut self, node: NodeId, now: Instant) -> bool {
        while let Some((id, hop)) = self.nodes.pace_mut(node).next() {
            let waits = |session: &Session| session.legs.get(&hop) == Some(&LegState::Waiting);
            if self.sessions.get(&id).is_some_and(waits) {
                self.open_now(id, hop, now);
            } else {
                self.nodes.pace_mut(node).end();
            }
        }
        !self.nodes.pace(node).is_busy()
    }

    pub(crate) fn opened(&mut self, before: LegState, hop: Hop, now: Instant) {
        let LegState::Opening(until) = before else {
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
    pub(crate) fn failed(&mut self, leg: LegState, hop: Hop, now: Instant) {
        if let LegState::Opening(_) = leg {
            let pace = self.nodes.pace_mut(hop.node);
            pace.end();
            pace.slower(now);
            self.capacity.note_opening(self.nodes.region_of(hop.node), false);
        }
    }

    /// Ends a leg that is no longer needed; the driver closes it if it was asked to open it.
    pub(crate) fn leave(&mut self, id: SessionId, hop: Hop, leg: LegState) {
        let pace = self.nodes.pace_mut(hop.node);
        match leg {
            LegState::Waiting => return pace.forget(id, hop),
            LegState::Opening(_) => pace.end(),
            LegState::Open => {}
        }
        self.effects.push(GatewayEffect::CloseAt { session: id, hop });
    }
}
