//! Openings at a node in their turn and at its pace; and when somebody may try again for whom there is no room.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::{Gateway, Output};
use crate::pace::{ANSWERED_IN_TIME, Class, Turn};
use crate::session::{Leg, Phase, Session};
use crate::timer::Timer;
use crate::{BreakerState, Hop, NodeId, Refused, SessionId};

/// When to try again where there is no room.
const RETRY_SOON: Duration = Duration::from_secs(2);

/// When to try again while rooms that have nowhere to go are being let in.
const RETRY_BEHIND_A_HERD: Duration = Duration::from_secs(5);

/// Nobody is sent away for longer by an open breaker.
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Gateway {
    /// Has the driver open the session at a hop, unless it was told already, as soon as the node can. How far it is
    /// with that.
    pub(super) fn open_at(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<Leg> {
        let session = self.sessions.get(&id)?;
        if let Some(leg) = session.legs.get(&hop) {
            return Some(*leg);
        }
        let turn = self.turn(session, hop);
        let goes = self.nodes.paces.get_mut(hop.node.0 as usize)?.begin(turn, id, hop);
        self.sessions.get_mut(&id)?.legs.insert(hop, Leg::Waiting);
        if goes { self.open_now(id, hop, now) } else { Some(Leg::Waiting) }
    }

    fn open_now(&mut self, id: SessionId, hop: Hop, now: Instant) -> Option<Leg> {
        let until = now + self.settings.limits.open_within;
        let session = self.sessions.get_mut(&id)?;
        session.legs.insert(hop, Leg::Opening(until));
        let room = self.rooms.get(&session.room).map_or(session.room, |room| room.call);
        self.effects.push(Output::Open { session: id, room, hop });
        self.effects.set_if_idle(Timer::OpenLate(id), until);
        Some(Leg::Opening(until))
    }

    /// Who has nowhere to go goes before who stands, newcomers after them, and spares last; calls before streams.
    fn turn(&self, session: &Session, hop: Hop) -> Turn {
        let order = self.nodes.paces[hop.node.0 as usize].drawn();
        let Some(room) = self.rooms.get(&session.room) else {
            return (Class::Spare, Reverse(0), order);
        };
        let carries = match &room.pending {
            Some(pending) => pending.hops[0] == hop || room.route().is_first(hop),
            None => room.route().is_first(hop),
        };
        let class = match (carries, room.stranded, session.phase) {
            (false, ..) => Class::Spare,
            (true, Some(_), _) => Class::Stranded,
            (true, None, Phase::Live) => Class::Moving,
            (true, None, _) => Class::Newcomer,
        };
        (class, Reverse(room.priority), order)
    }

    /// Something that was under way at the node ended: the next have their turn, and rooms that waited for it.
    pub(super) fn open_next(&mut self, node: NodeId, now: Instant) {
        let place = node.0 as usize;
        while let Some((id, hop)) = self.nodes.paces[place].next() {
            let waits = |session: &Session| session.legs.get(&hop) == Some(&Leg::Waiting);
            if self.sessions.get(&id).is_some_and(|session| waits(session)) {
                self.open_now(id, hop, now);
            } else {
                self.nodes.paces[place].end();
            }
        }
        if self.rooms.paced && !self.nodes.paces[place].is_busy() {
            // The turn is for those in front.
            (self.rooms.paced, self.rooms.rescued_last) = (false, None);
            self.effects.set(Timer::Rescue, now);
        }
    }

    /// The driver opened what was under way.
    pub(super) fn opened_in(&mut self, before: Leg, hop: Hop, now: Instant) {
        let Leg::Opening(until) = before else {
            return;
        };
        let in_time = until - self.settings.limits.open_within + ANSWERED_IN_TIME;
        let pace = &mut self.nodes.paces[hop.node.0 as usize];
        pace.end();
        if now <= in_time {
            pace.faster();
        } else {
            pace.slower(now);
        }
        let region = self.region_of(hop.node);
        self.capacity.breakers[region.0 as usize].evidence.opened += 1;
    }

    /// The driver could not, or not in time.
    pub(super) fn failed_in(&mut self, leg: Leg, hop: Hop, now: Instant) {
        if let Leg::Opening(_) = leg {
            let pace = &mut self.nodes.paces[hop.node.0 as usize];
            pace.end();
            pace.slower(now);
            let region = self.region_of(hop.node);
            self.capacity.breakers[region.0 as usize].evidence.failed += 1;
        }
    }

    /// The session is not wanted there any more: the driver closes it, if it was told to open it.
    pub(super) fn leave_leg(&mut self, id: SessionId, hop: Hop, leg: Leg) {
        let pace = &mut self.nodes.paces[hop.node.0 as usize];
        match leg {
            Leg::Waiting => return pace.forget(id, hop),
            Leg::Opening(_) => pace.end(),
            Leg::Open => {}
        }
        self.effects.push(Output::CloseAt { session: id, hop });
    }

    /// Nodes where as many wait already as are opened at a time.
    pub(super) fn busy_nodes(&self) -> Vec<NodeId> {
        let busy = self.nodes.iter().filter(|node| self.nodes.paces[node.id.0 as usize].is_busy());
        busy.map(|node| node.id).collect()
    }

    /// Whether rooms without a hop wait for nothing but their turn: newcomers' rooms come after them.
    pub(super) fn stranded_go_first(&self) -> bool {
        self.rooms.stranded.first().is_some_and(|(attempts, ..)| *attempts == 0)
    }

    /// There is no room for a newcomer now.
    pub(super) fn turn_away(&mut self, id: SessionId, now: Instant) {
        let retry_after = self.retry_after(now);
        self.give_up(id, Refused::NoNode { retry_after }, now);
    }

    /// When somebody may try again for whom there is no room: two seconds; five while others have nowhere to go; or, where
    /// no region takes new rooms, when the first does again, a minute at most. With [jitter](Gateway::jittered).
    pub(super) fn retry_after(&mut self, now: Instant) -> Duration {
        let herd = self.rooms.herd.is_some() || !self.rooms.stranded.is_empty();
        let wait = if herd { RETRY_BEHIND_A_HERD } else { RETRY_SOON };
        let open = |breaker: &crate::breaker::Breaker| breaker.state() == BreakerState::Open;
        let all = self.capacity.breakers.iter().all(open);
        let until =
            self.capacity.breakers.iter().filter_map(crate::breaker::Breaker::opens_until).min();
        let opens = until.filter(|_| all).map(|at| at.saturating_duration_since(now));
        self.jittered(wait.max(opens.unwrap_or_default().min(RETRY_MAX)))
    }

    /// Up to twice as long, so that those who are refused together do not come back together.
    pub(super) fn jittered(&mut self, wait: Duration) -> Duration {
        wait.saturating_add(wait.mul_f64(self.sessions.rng.f64()))
    }
}
