//! Shares: when capacity is short, sessions that obey caps are reduced before new ones are refused, and raised again
//! when capacity is free.

use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, Decider, NodeId, Op, RoomId, SessionId};

use super::Router;
use crate::GatewayEffect;
use crate::sessions::{SessionPhase, WHOLE};

/// Steps of reduction: shares of a session's need above its scenario's floor, in thousandths.
const STEPS: [u16; 2] = [500, 0];

/// Minimum time before a reduced session is raised again.
const RAISED_AFTER: Duration = Duration::from_secs(8);

/// Capacity of a node in per cent that a raise leaves free, so that no session must be reduced again at once.
const LEAVES_FREE: u64 = 5;

impl Router<'_> {
    /// The native placement. If no node has enough capacity, the room's sessions are reduced to smaller shares.
    pub(crate) fn place_with_less(
        &mut self,
        id: RoomId,
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let before = self.shares(id);
        for share in STEPS {
            if self.reduce(&before, share) {
                let nodes = self.native_hops_but(id, &[], but, now);
                if !nodes.is_empty() {
                    self.report_shares(&before, now);
                    return nodes;
                }
            }
        }
        self.set_shares(&before);
        Vec::new()
    }

    /// Frees capacity for the new session at its room's current and pending nodes, with smaller shares if necessary.
    pub(crate) fn make_room_for(&mut self, id: SessionId, now: Instant) -> bool {
        if self.fits_its_room(id) {
            return true;
        }
        let before = [(id, WHOLE)];
        for share in STEPS {
            if self.reduce(&before, share) && self.fits_its_room(id) {
                self.report_share(id, now);
                return true;
            }
        }
        self.set_shares(&before);
        false
    }

    fn fits_its_room(&self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id) else {
            return false;
        };
        let (holding, kbps) = (self.rooms[&session.room].holding, session.kbps());
        let mut carriers = holding.loads().peekable();
        carriers.peek().is_some() && carriers.all(|node| self.capacity.ledger().fits(node, kbps))
    }

    fn shares(&self, id: RoomId) -> Vec<(SessionId, u16)> {
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
        sessions
            .filter_map(|id| self.sessions.get(id))
            .filter(|session| session.phase >= SessionPhase::Placing)
            .map(|session| (session.id, session.share))
            .collect()
    }

    fn set_shares(&mut self, shares: &[(SessionId, u16)]) {
        for (id, share) in shares {
            if let Some(session) = self.sessions.get_mut(id) {
                session.share = *share;
            }
        }
    }

    /// Reduces the sessions to a share. Returns true if any of them could be reduced.
    fn reduce(&mut self, sessions: &[(SessionId, u16)], share: u16) -> bool {
        let mut any = false;
        for (id, _) in sessions {
            if let Some(session) = self.sessions.get_mut(id)
                && session.can_do_with_less()
                && session.share > share
            {
                session.share = share;
                any = true;
            }
        }
        any
    }

    fn report_shares(&mut self, before: &[(SessionId, u16)], now: Instant) {
        for (id, share) in before {
            if self.sessions.get(id).is_some_and(|session| session.share != *share) {
                self.report_share(*id, now);
            }
        }
    }

    pub(crate) fn report_share(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (room, plan) = (session.room, session.plan_now());
        let reduced = session.share < WHOLE;
        self.capacity.set_reduced(id, reduced.then_some(now));
        if session.phase >= SessionPhase::Opening {
            self.effects.push(GatewayEffect::Plan { session: id, plan });
        }
        let (op, arg, rung) = (Op::Cap, u64::from(plan.cap_kbps), plan.rung());
        let (room_name, by) = (self.rooms.name_of(room), Decider::Native);
        self.effects.event(CoreEvent::Degraded { session: id, room_name, op, arg, rung, by });
        self.settle_peer_caps(room);
    }

    /// Raises sessions that were reduced long enough ago by one step, if no room is stranded.
    pub(crate) fn raise_shares(&mut self, now: Instant) {
        if self.rooms.stranded.is_empty() && self.rooms.failover.is_none() {
            for id in self.capacity.next_reduced(RAISED_AFTER, now) {
                self.raise_share(id, now);
            }
        }
    }

    fn raise_share(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.share < WHOLE)
        else {
            return;
        };
        let (before, had) = (session.share, session.kbps());
        let up = STEPS.into_iter().filter(|step| *step > before).min();
        session.share = up.unwrap_or(WHOLE);
        let (room, more) = (session.room, session.kbps() - had);
        if self.leaves_room_for(room, more) {
            self.regrant(room);
            self.report_share(id, now);
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.share = before;
        }
    }

    /// All nodes that the room uses have this much more capacity free.
    fn leaves_room_for(&self, id: RoomId, kbps: u64) -> bool {
        let holding = self.rooms[&id].holding;
        let fits = |node: NodeId| {
            let free = self.capacity.ledger().capacity(node) * LEAVES_FREE / 100;
            self.capacity.ledger().fits(node, kbps + free)
        };
        let reserved = holding.on.zip(holding.reserve);
        holding.on.is_some()
            && holding.loads().all(fits)
            && reserved.is_none_or(|(on, at)| self.capacity.ledger().fits_reserve(at, on, kbps))
    }
}
