//! Where rooms stand and where they go: placements, failovers, moves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asking::{About, mismatched, or_fault};
use super::{Gateway, Impossible, Output};
use crate::ledger::Holding;
use crate::place::{self, Wish};
use crate::room::Pending;
use crate::session::Phase;
use crate::timer::Timer;
use crate::{
    Answer, Cause, Decider, Event, Fault, Grant, Guard, HOPS_MAX, Hook, Hop, Measures, Metric,
    Move, NodeId, Outcome, PolicyName, Question, Refused, RoomId, RoomRow, Route, Row, SessionId,
};

/// Rooms in one question; more follow in the next.
const ROOMS_PER_ASK: usize = 256;

/// How often rooms without a usable hop are looked at again.
const RESCUE_EVERY: Duration = Duration::from_millis(50);

/// Policies' moves are counted within this.
const CHURN_WITHIN: Duration = Duration::from_secs(1);

impl Gateway {
    /// The first session of a room was admitted: its routing policy is asked, or the native default places it.
    pub(super) fn place(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        if room.placing {
            return;
        }
        let (scenario, labels) = (room.scenario.clone(), room.labels.clone());
        let Some(settings) = self.settings.scenarios.get(&scenario).cloned() else {
            return;
        };
        if settings.binds(Hook::Routing) {
            room.placing = true;
            let question = Question::Place { room: id, scenario, labels, nodes: self.node_rows() };
            self.ask(&settings.set, About::Place(id), question, now);
        } else {
            self.place_natively(id, now);
        }
    }

    fn place_natively(&mut self, id: RoomId, now: Instant) {
        let nodes = self.native_hops(id, None);
        self.settle(id, &nodes, Decider::Native, now);
    }

    pub(super) fn placed(
        &mut self,
        id: RoomId,
        answer: Result<Answer, Fault>,
        by: Decider,
        now: Instant,
    ) -> Outcome {
        let Some(room) = self.rooms.get_mut(&id) else {
            return Outcome::Stale;
        };
        room.placing = false;
        let outcome = match or_fault(answer) {
            Ok(Answer::Placed { hops, .. }) if hops.is_empty() => Outcome::Abstained,
            Ok(Answer::Placed { hops, ttl_ms, state, .. }) => match self.check_placement(id, &hops)
            {
                Err(guard) => Outcome::Guarded(guard),
                Ok(()) => {
                    let differs = hops != self.native_hops(id, None);
                    if let Some(room) = self.rooms.get_mut(&id) {
                        room.memory = Some(state);
                        room.ttl_ms = ttl_ms;
                    }
                    self.settle(id, &hops, by, now);
                    return Outcome::Applied { differs };
                }
            },
            Ok(_) => mismatched(),
            Err(faulted) => faulted,
        };
        self.place_natively(id, now);
        outcome
    }

    /// Where the room stands from the beginning, and its sessions open.
    fn settle(&mut self, id: RoomId, nodes: &[NodeId], by: Decider, now: Instant) {
        let hops = self.hops(nodes);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        room.placed_by = by;
        let waiting: Vec<SessionId> = room.sessions.iter().copied().collect();
        let placing = |gateway: &Gateway, session: &SessionId| {
            gateway.sessions.get(session).is_some_and(|session| session.phase == Phase::Placing)
        };
        let waiting: Vec<SessionId> =
            waiting.into_iter().filter(|session| placing(self, session)).collect();
        if hops.is_empty() {
            for session in waiting {
                self.give_up(session, Refused::NoNode, now);
            }
            return;
        }
        self.publish(id, &hops, None);
        self.set_due(id, now);
        for session in waiting {
            self.open(session, now);
        }
    }

    fn set_due(&mut self, id: RoomId, now: Instant) {
        let ttl = self.rooms.get(&id).map_or(0, |room| room.ttl_ms);
        if ttl > 0 {
            self.timers.set(Timer::RoomDue(id), now + Duration::from_millis(u64::from(ttl)));
        }
    }

    fn hops(&self, nodes: &[NodeId]) -> Vec<Hop> {
        nodes.iter().filter_map(|&node| self.node(node)).map(crate::node::Node::hop).collect()
    }

    /// The native default: where the room would stand, or which spares it would have where it stands.
    fn native_hops(&self, id: RoomId, standing: Option<NodeId>) -> Vec<NodeId> {
        let Some(room) = self.rooms.get(&id) else {
            return Vec::new();
        };
        let wish =
            Wish { region: room.region, kbps: self.room_kbps(id), spares: room.spares, standing };
        place::native(wish, &self.nodes, &self.settings.zones, &self.ledger)
    }

    fn room_kbps(&self, id: RoomId) -> u64 {
        let sessions = self.rooms.get(&id).into_iter().flat_map(|room| &room.sessions);
        sessions
            .filter_map(|session| self.sessions.get(session))
            .filter(|session| session.phase >= Phase::Placing)
            .map(crate::session::Session::kbps)
            .sum()
    }

    /// The hop that the room's packets take now.
    pub(super) fn stands_at(&self, id: RoomId) -> Option<Hop> {
        self.rooms.get(&id)?.route().first_usable(&self.board).map(|(hop, _)| hop)
    }

    /// Puts a route in force: the room counts on its first node, and on its second where the reserve fits.
    fn publish(&mut self, id: RoomId, hops: &[Hop], leaving: Option<(Hop, Instant)>) {
        let grants = self.grants(id, hops);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let version = room.route().version + 1;
        let hops = hops.iter().copied().zip(grants).collect();
        room.cell.publish(Route { version, hops, leaving });
        self.stranded.remove(&id);
    }

    /// Renews what the room counts on, and says what its packets may do at each hop.
    fn grants(&mut self, id: RoomId, hops: &[Hop]) -> Vec<Grant> {
        let kbps = self.room_kbps(id);
        let Some(room) = self.rooms.get_mut(&id) else {
            return Vec::new();
        };
        if let Some(old) = room.holding.take() {
            self.ledger.release(old);
        }
        let Some(first) = hops.first() else {
            return Vec::new();
        };
        let second = hops.get(1).filter(|hop| self.ledger.fits_reserve(hop.node, first.node, kbps));
        let holding = Holding { on: first.node, reserve: second.map(|hop| hop.node), kbps };
        self.ledger.hold(holding);
        room.holding = Some(holding);
        let grant = |place| match place {
            0 => Grant::Admitted,
            1 if holding.reserve.is_some() => Grant::Reserved,
            _ => Grant::Gated,
        };
        (0..hops.len()).map(grant).collect()
    }

    /// Who is in the room changed, or what its nodes carry: the same hops, weighed again.
    pub(super) fn regrant(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get(&id).filter(|room| room.is_placed()) else {
            return;
        };
        let route = room.route();
        let hops: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
        let before: Vec<Grant> = route.hops.iter().map(|(_, grant)| *grant).collect();
        let after = self.grants(id, &hops);
        if before != after {
            let hops = hops.into_iter().zip(after).collect();
            let next = Route { version: route.version + 1, hops, leaving: route.leaving };
            self.rooms[&id].cell.publish(next);
        }
    }

    /// The flip, and then what follows for rooms: packets take their second hops with the flip itself.
    pub(super) fn fail_over(&mut self, dead: Hop, now: Instant) -> u32 {
        let standbys = self.ledger.standbys_of(dead.node);
        for &standby in &standbys {
            self.board.spend(standby, Some(dead.node));
        }
        self.board.condemn(dead.node);
        let touched: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| {
                room.route().holds(dead)
                    || room.pending.as_ref().is_some_and(|p| p.hops.contains(&dead))
            })
            .map(|room| room.id)
            .collect();
        let mut moved = 0;
        for id in touched {
            let stood_there =
                self.rooms[&id].holding.is_some_and(|holding| holding.on == dead.node);
            self.forget_hop(id, dead);
            if stood_there {
                moved += 1;
                self.take_next_hop(id, dead, now);
            } else {
                self.drop_spare(id, dead);
            }
            self.want_reroute(id, now);
        }
        for standby in standbys {
            self.gate_what_no_longer_fits(standby);
            self.board.spend(standby, None);
        }
        moved
    }

    /// Its sessions are open there no longer, and no route under way leads there.
    fn forget_hop(&mut self, id: RoomId, dead: Hop) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        if room.pending.as_ref().is_some_and(|pending| pending.hops.contains(&dead)) {
            room.pending = None;
        }
        for session in &room.sessions {
            let opened = self
                .sessions
                .get_mut(session)
                .is_some_and(|session| session.opened_at.remove(&dead));
            if opened {
                self.outputs.push_back(Output::CloseAt { session: *session, hop: dead });
            }
        }
    }

    /// The room's packets already take the next hop; the route now says so.
    fn take_next_hop(&mut self, id: RoomId, dead: Hop, now: Instant) {
        let route = self.rooms[&id].route();
        let next = route.first_usable(&self.board).map(|(hop, _)| hop);
        if let Some(next) = next {
            let others = self.usable_hops(&route).filter(|hop| *hop != next);
            let hops: Vec<Hop> = std::iter::once(next).chain(others).collect();
            self.publish(id, &hops, None);
            self.moved(id, Cause::NodeDown, Decider::Native, dead, Some(next), now);
        } else {
            self.moved(id, Cause::NodeDown, Decider::Native, dead, None, now);
            self.stranded.insert(id);
            self.timers.set(Timer::Rescue, now);
        }
        let opening: Vec<SessionId> = self.rooms[&id].sessions.iter().copied().collect();
        for session in opening {
            self.live_if_open(session, now);
        }
    }

    fn usable_hops<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = Hop> + 'a {
        route
            .hops
            .iter()
            .map(|(hop, _)| *hop)
            .filter(|hop| self.board.is_up(hop.node, hop.incarnation))
    }

    fn drop_spare(&mut self, id: RoomId, gone: Hop) {
        let route = self.rooms[&id].route();
        let hops: Vec<Hop> =
            route.hops.iter().map(|(hop, _)| *hop).filter(|hop| *hop != gone).collect();
        if !hops.is_empty() && hops.len() < route.hops.len() {
            self.publish(id, &hops, route.leaving);
        }
    }

    /// The load that came ate reserves of other nodes' rooms: their second hops are gated until they have others.
    fn gate_what_no_longer_fits(&mut self, node: NodeId) {
        if self.ledger.keeps_its_promises(node) {
            return;
        }
        let holders: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| room.holding.is_some_and(|holding| holding.reserve == Some(node)))
            .map(|room| room.id)
            .collect();
        for room in holders {
            self.regrant(room);
        }
    }

    /// A hop did not open a session, or its port is closed: it leaves the room's route.
    pub(super) fn strike(&mut self, id: RoomId, hop: Hop, now: Instant) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        if room.pending.as_ref().is_some_and(|pending| pending.hops.contains(&hop)) {
            room.pending = None;
            self.event(Event::Struck { room: id, hop });
        } else if room.route().holds(hop) {
            self.event(Event::Struck { room: id, hop });
            if self.stands_at(id) == Some(hop) {
                self.leave_struck_hop(id, hop, now);
            } else {
                self.drop_spare(id, hop);
            }
        }
        self.want_reroute(id, now);
    }

    /// The hop that carries the room is closed to it, though the node lives.
    fn leave_struck_hop(&mut self, id: RoomId, hop: Hop, now: Instant) {
        let route = self.rooms[&id].route();
        let hops: Vec<Hop> = self.usable_hops(&route).filter(|other| *other != hop).collect();
        let Some(&next) = hops.first() else {
            return;
        };
        self.publish(id, &hops, None);
        self.moved(id, Cause::Link, Decider::Native, hop, Some(next), now);
    }

    fn moved(
        &mut self,
        id: RoomId,
        cause: Cause,
        by: Decider,
        from: Hop,
        to: Option<Hop>,
        started: Instant,
    ) {
        let sessions: Vec<SessionId> = self.rooms[&id].sessions.iter().copied().collect();
        self.outputs.push_back(Output::KeyFrame { sessions: sessions.clone() });
        self.event(Event::Moved { room: id, sessions, cause, by, from, to, started });
    }

    /// Rooms without a usable hop take whatever node has room for them, natively and at once.
    pub(super) fn rescue_stranded(&mut self, now: Instant) {
        let stranded: Vec<RoomId> = self.stranded.iter().copied().collect();
        for id in stranded {
            if self.stands_at(id).is_some() {
                self.stranded.remove(&id);
                continue;
            }
            if self.rooms.get(&id).is_none_or(|room| room.pending.is_some()) {
                continue;
            }
            let nodes = self.native_hops(id, None);
            if !nodes.is_empty() {
                self.head_for(id, &nodes, Cause::NodeDown, Decider::Native, now);
            }
        }
        if !self.stranded.is_empty() {
            self.timers.set(Timer::Rescue, now + RESCUE_EVERY);
        }
    }

    /// The room shall have this route: its sessions are opened where they are not yet, then it is published.
    fn head_for(&mut self, id: RoomId, nodes: &[NodeId], cause: Cause, by: Decider, now: Instant) {
        let hops = self.hops(nodes);
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let mut waiting = std::collections::BTreeSet::new();
        for &session in &room.sessions {
            let Some(open) =
                self.sessions.get(&session).filter(|session| session.phase >= Phase::Opening)
            else {
                continue;
            };
            for &hop in hops.iter().filter(|hop| !open.opened_at.contains(hop)) {
                self.outputs.push_back(Output::Open { session, room: id, hop });
                waiting.insert((session, hop));
            }
        }
        for &(session, _) in &waiting {
            self.timers
                .set_if_idle(Timer::OpenLate(session), now + self.settings.limits.open_within);
        }
        room.pending = Some(Pending { hops, waiting, cause, by, started: now });
        self.publish_pending_if_open(id, now);
    }

    pub(super) fn pending_opened(
        &mut self,
        id: RoomId,
        session: SessionId,
        hop: Hop,
        now: Instant,
    ) {
        if let Some(pending) = self.rooms.get_mut(&id).and_then(|room| room.pending.as_mut()) {
            pending.waiting.remove(&(session, hop));
            self.publish_pending_if_open(id, now);
        }
    }

    /// Make-before-break: everybody is open there, so everybody goes there; what the old hop still delivers passes.
    pub(super) fn publish_pending_if_open(&mut self, id: RoomId, now: Instant) {
        let ready = |pending: &mut Pending| pending.waiting.is_empty();
        let Some(pending) = self.rooms.get_mut(&id).and_then(|room| room.pending.take_if(ready))
        else {
            return;
        };
        let alive = |hop: &Hop| self.board.is_up(hop.node, hop.incarnation);
        let (Some(&target), true) = (pending.hops.first(), pending.hops.iter().all(alive)) else {
            self.want_reroute(id, now);
            return;
        };
        let from = self.stands_at(id);
        let stood = self.rooms[&id].route().hops.first().map(|(hop, _)| *hop);
        let until = now + self.settings.limits.leave_within;
        let leaving = from.filter(|&from| from != target).map(|from| (from, until));
        let standing = self.rooms[&id].route().leaving;
        self.publish(id, &pending.hops, leaving.or(standing));
        if let Some(room) = self.rooms.get_mut(&id) {
            room.placed_by = pending.by.clone();
        }
        match (from.or(stood), from == Some(target)) {
            (Some(from), false) => {
                if let Some(room) = self.rooms.get_mut(&id) {
                    room.note_move(now);
                }
                self.moved(id, pending.cause, pending.by, from, Some(target), pending.started);
            }
            (_, true) | (None, _) => {
                self.event(Event::Rerouted { room: id, hops: pending.hops, by: pending.by });
            }
        }
        self.timers.set(Timer::LeavingEnds(id), until);
    }

    /// What the room left is closed, once the old hop had its time.
    pub(super) fn close_left_hops(&mut self, id: RoomId) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let route = room.route();
        let pending: Vec<Hop> =
            room.pending.iter().flat_map(|pending| pending.hops.clone()).collect();
        for session in &room.sessions {
            let Some(session) = self.sessions.get_mut(session) else {
                continue;
            };
            let left: Vec<Hop> = session
                .opened_at
                .iter()
                .copied()
                .filter(|hop| !route.holds(*hop) && !pending.contains(hop))
                .collect();
            for hop in left {
                session.opened_at.remove(&hop);
                self.outputs.push_back(Output::CloseAt { session: session.id, hop });
            }
        }
    }

    /// The room's routing policy is to look at it, soon.
    pub(super) fn want_reroute(&mut self, id: RoomId, now: Instant) {
        let Some(scenario) = self.rooms.get(&id).and_then(|room| self.scenario_of(room)) else {
            return;
        };
        let policy = scenario.policy(Hook::Routing);
        self.reroutes.entry(policy.clone()).or_default().insert(id);
        self.timers.set_if_idle(Timer::Reroute(policy), now);
    }

    /// A policy was replaced: every room of its scenarios is looked at with the new one.
    pub fn handle_policy_changed(&mut self, policy: &PolicyName, now: Instant) {
        if policy.hook != Hook::Routing {
            return;
        }
        let concerned: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| {
                room.is_placed() && self.scenario_of(room).is_some_and(|s| s.set == policy.set)
            })
            .map(|room| room.id)
            .collect();
        for room in concerned {
            self.want_reroute(room, now);
        }
    }

    pub(super) fn ask_reroute(&mut self, policy: &PolicyName, now: Instant) {
        if self.is_asking(policy, |about| matches!(about, About::Reroute(_))) {
            return;
        }
        let Some(waiting) = self.reroutes.get_mut(policy) else {
            return;
        };
        let mut batch = Vec::new();
        while batch.len() < ROOMS_PER_ASK
            && let Some(id) = waiting.pop_first()
        {
            batch.push(id);
        }
        batch.retain(|id| self.rooms.get(id).is_some_and(|room| room.holding.is_some()));
        if batch.is_empty() {
            return;
        }
        let bound =
            self.settings.scenarios.values().any(|s| s.set == policy.set && s.binds(Hook::Routing));
        if !bound {
            for id in batch {
                self.reroute_natively(id, now);
            }
            self.timers.set(Timer::Reroute(policy.clone()), now);
            return;
        }
        let rooms: Vec<RoomRow> = batch.iter().map(|id| self.room_row(*id, now)).collect();
        let versions = batch.iter().map(|id| (*id, self.rooms[id].route().version)).collect();
        let memo = self.memos.get(policy).cloned();
        let question = Question::Reroute { nodes: self.node_rows(), rooms, memo };
        self.ask(&policy.set, About::Reroute(versions), question, now);
    }

    fn room_row(&self, id: RoomId, now: Instant) -> RoomRow {
        let room = &self.rooms[&id];
        let mut measures = Measures::default();
        measures.set(Metric::Sessions, room.sessions.len() as u64);
        let sessions = || room.sessions.iter().filter_map(|id| self.sessions.get(id));
        let worst = [
            Metric::LossUp,
            Metric::LossDown,
            Metric::JitterUp,
            Metric::JitterDown,
            Metric::RttClient,
        ];
        for metric in worst {
            if let Some(value) =
                sessions().filter_map(|session| session.measures.measured(metric)).max()
            {
                measures.set(metric, u64::from(value));
            }
        }
        if let Some(first) = sessions().map(|session| session.offered).min() {
            measures.set(Metric::Age, now.saturating_duration_since(first).as_millis() as u64);
        }
        RoomRow {
            row: Row { id: id.0, measures },
            scenario: room.scenario.clone(),
            labels: room.labels.clone(),
            standing: room.standing(),
            state: room.memory.clone(),
        }
    }

    pub(super) fn rerouted(
        &mut self,
        policy: &PolicyName,
        rooms: Vec<(RoomId, u64)>,
        answer: Result<Answer, Fault>,
        by: &Decider,
        now: Instant,
    ) -> Outcome {
        self.timers.set(Timer::Reroute(policy.clone()), now);
        let (moves, states, memo) = match or_fault(answer) {
            Ok(Answer::Moves { moves, states, memo }) => (moves, states, memo),
            Ok(_) => return self.reroute_failed(&rooms, mismatched(), now),
            Err(faulted) => return self.reroute_failed(&rooms, faulted, now),
        };
        self.keep_memo(policy, memo);
        for (row, state) in states {
            let room = rooms.get(row as usize).and_then(|(id, _)| self.rooms.get_mut(id));
            if let Some(room) = room {
                room.memory = Some(state);
            }
        }
        let mut differs = false;
        let mut asked_to_move = false;
        for step in moves {
            asked_to_move = true;
            match self.take_move(&rooms, &step, by, now) {
                Ok(()) => differs = true,
                Err(guard) => self.event(Event::Guarded { policy: policy.clone(), guard }),
            }
        }
        for (id, _) in rooms {
            self.set_due(id, now);
            self.spare_if_bare(id, now);
        }
        match (differs, asked_to_move) {
            (true, _) => Outcome::Applied { differs },
            (false, true) => Outcome::Guarded(Guard::UnusableNode),
            (false, false) => Outcome::Kept,
        }
    }

    fn reroute_failed(
        &mut self,
        rooms: &[(RoomId, u64)],
        outcome: Outcome,
        now: Instant,
    ) -> Outcome {
        for (id, _) in rooms {
            self.reroute_natively(*id, now);
        }
        outcome
    }

    /// The native default never moves a room that stands: it gives it spares.
    fn reroute_natively(&mut self, id: RoomId, now: Instant) {
        let Some(standing) = self.stands_at(id) else {
            return;
        };
        let nodes = self.native_hops(id, Some(standing.node));
        if self.rooms[&id].standing() != nodes && self.rooms[&id].pending.is_none() {
            self.head_for(id, &nodes, Cause::Quality, Decider::Native, now);
        }
    }

    /// No room is left without any spare because its policy had nothing to say.
    fn spare_if_bare(&mut self, id: RoomId, now: Instant) {
        let bare = self.rooms.get(&id).is_some_and(|room| {
            room.pending.is_none() && room.route().hops.len() < 2 && room.is_placed()
        });
        if bare {
            self.reroute_natively(id, now);
        }
    }

    fn take_move(
        &mut self,
        rooms: &[(RoomId, u64)],
        step: &Move,
        by: &Decider,
        now: Instant,
    ) -> Result<(), Guard> {
        let &(id, version) = rooms.get(step.row as usize).ok_or(Guard::UnknownRow)?;
        let Some(room) = self.rooms.get_mut(&id) else {
            return Ok(());
        };
        if room.route().version != version {
            return Ok(());
        }
        room.ttl_ms = step.ttl_ms;
        let recent = room.recent_moves(now);
        self.check_hops(&step.hops)?;
        if self.rooms[&id].standing() == step.hops {
            return Ok(());
        }
        let stands = self.stands_at(id);
        if stands.map(|hop| hop.node) != step.hops.first().copied() {
            self.check_placement(id, &step.hops)?;
            self.check_churn(recent, now)?;
            self.churn.push_back(now);
        }
        self.head_for(id, &step.hops, Cause::Quality, by.clone(), now);
        Ok(())
    }

    fn check_churn(&mut self, recent_moves: usize, now: Instant) -> Result<(), Guard> {
        if recent_moves >= self.settings.limits.moves_per_minute {
            return Err(Guard::MovedTooOften);
        }
        while self
            .churn
            .front()
            .is_some_and(|&at| now.saturating_duration_since(at) >= CHURN_WITHIN)
        {
            self.churn.pop_front();
        }
        let allowed = self.rooms.len() * self.settings.limits.churn_percent as usize / 100;
        if self.churn.len() >= allowed.max(1) { Err(Guard::Churn) } else { Ok(()) }
    }

    /// Hops exist, are not Down, and stand once each.
    fn check_hops(&self, nodes: &[NodeId]) -> Result<(), Guard> {
        let usable = |&node: &NodeId| self.node(node).is_some_and(crate::node::Node::takes_rooms);
        let distinct = nodes.iter().collect::<std::collections::BTreeSet<_>>().len() == nodes.len();
        let fine =
            !nodes.is_empty() && nodes.len() <= HOPS_MAX && distinct && nodes.iter().all(usable);
        if fine { Ok(()) } else { Err(Guard::UnusableNode) }
    }

    fn check_placement(&self, id: RoomId, nodes: &[NodeId]) -> Result<(), Guard> {
        self.check_hops(nodes)?;
        let fits = nodes.first().is_some_and(|&first| self.ledger.fits(first, self.room_kbps(id)));
        if fits { Ok(()) } else { Err(Guard::NoCapacity) }
    }

    /// Moves a room by hand, make-before-break.
    ///
    /// # Errors
    /// Where there is no such room or node, it stands there, or the node cannot take it.
    pub fn handle_move(
        &mut self,
        name: &Arc<str>,
        to: NodeId,
        now: Instant,
    ) -> Result<(), Impossible> {
        let id = *self.rooms_by_name.get(name).ok_or(Impossible::NoSuchRoom)?;
        let node = self.node(to).ok_or(Impossible::NoSuchNode)?;
        if self.stands_at(id).is_some_and(|hop| hop.node == to) {
            return Err(Impossible::AlreadyThere);
        }
        if !node.takes_rooms() || !self.ledger.fits(to, self.room_kbps(id)) {
            return Err(Impossible::NodeUnfit);
        }
        let nodes = self.native_hops(id, Some(to));
        self.head_for(id, &nodes, Cause::Manual, Decider::Operator, now);
        Ok(())
    }

    /// A node takes no new rooms, and those it has move; or it takes them again.
    ///
    /// # Errors
    /// [`Impossible::NoSuchNode`].
    pub fn handle_drain(
        &mut self,
        node: NodeId,
        draining: bool,
        now: Instant,
    ) -> Result<(), Impossible> {
        let found = self.nodes.get_mut(node.0 as usize).ok_or(Impossible::NoSuchNode)?;
        found.draining = draining;
        self.event(Event::Draining { node, draining });
        let concerned: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| draining && room.standing().contains(&node))
            .map(|room| room.id)
            .collect();
        for id in concerned {
            let standing = self.stands_at(id).map(|hop| hop.node).filter(|&on| on != node);
            let nodes = self.native_hops(id, standing);
            if !nodes.is_empty() {
                self.head_for(id, &nodes, Cause::Drain, Decider::Operator, now);
            }
        }
        Ok(())
    }
}
