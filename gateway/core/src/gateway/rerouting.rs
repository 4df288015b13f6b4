//! Rooms that routing policies look at again: when nodes change, when they are due, when a policy was replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use super::accepting::{Batch, Part, Parts};
use super::asking::{About, Beside, mismatched};
use crate::timer::Timer;
use crate::{
    Answer, Arm, Cause, Decider, Fault, Guard, Hook, Measures, Metric, Move, NodeId, Outcome,
    PolicyName, Question, RoomId, RoomRow, Row, State,
};

/// Rooms in one question; more follow in the next.
const ROOMS_PER_ASK: usize = 256;

/// Sessions that policies move are counted within this.
const CHURN_WITHIN: Duration = Duration::from_secs(1);

impl Gateway {
    /// The room's routing policy is to look at it, soon.
    pub(super) fn want_reroute(&mut self, id: RoomId, now: Instant) {
        let Some(scenario) = self.rooms.get(&id).and_then(|room| self.scenario_of(room)) else {
            return;
        };
        let policy = scenario.policy(Hook::Routing);
        let arm = self.arm(&policy, id.0);
        self.policy.reroutes.entry((policy.clone(), arm)).or_default().insert(id);
        self.effects.set_if_idle(Timer::Reroute(Arc::new(policy)), now);
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

    /// A node may take spares again: rooms that have too few are looked at.
    pub(super) fn want_reroute_of_short_rooms(&mut self, now: Instant) {
        let short: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| room.is_placed() && room.route().hops.len() <= usize::from(room.spares))
            .map(|room| room.id)
            .collect();
        for room in short {
            self.want_reroute(room, now);
        }
    }

    pub(super) fn ask_reroute(&mut self, policy: &PolicyName, now: Instant) {
        for arm in Arm::ALL {
            self.ask_reroute_of(policy, arm, now);
        }
    }

    fn ask_reroute_of(&mut self, policy: &PolicyName, arm: Arm, now: Instant) {
        if self.is_asking(policy, arm, |about| matches!(about, About::Reroute(_))) {
            return;
        }
        let batch = self.waiting_for_reroute(policy, arm, now);
        if batch.is_empty() {
            return;
        }
        let bound =
            self.settings.scenarios.values().any(|s| s.set == policy.set && s.binds(Hook::Routing));
        if !bound {
            for id in batch {
                self.reroute_natively(id, now);
            }
            self.effects.set(Timer::Reroute(Arc::new(policy.clone())), now);
            return;
        }
        let rooms: Vec<RoomRow> =
            batch.iter().map(|id| self.room_row(*id, (policy, arm), now)).collect();
        let versions = batch.iter().map(|id| (*id, self.rooms[id].route().version)).collect();
        let memo = self.memo(policy, arm);
        let question = Question::Reroute { nodes: self.node_rows(), rooms, memo };
        self.ask(&policy.set, arm, About::Reroute(versions), question, now);
    }

    /// The next that wait for this revision. Those that belong to the other one by now wait there.
    fn waiting_for_reroute(&mut self, policy: &PolicyName, arm: Arm, now: Instant) -> Vec<RoomId> {
        let mut batch = Vec::new();
        let place = (policy.clone(), arm);
        while batch.len() < ROOMS_PER_ASK
            && let Some(id) = self.policy.reroutes.get_mut(&place).and_then(BTreeSet::pop_first)
        {
            let belongs = self.arm(policy, id.0);
            if !self.rooms.get(&id).is_some_and(|room| room.is_placed()) {
                continue;
            }
            if belongs == arm {
                batch.push(id);
            } else {
                self.policy.reroutes.entry((policy.clone(), belongs)).or_default().insert(id);
                self.effects.set_if_idle(Timer::Reroute(Arc::new(policy.clone())), now);
            }
        }
        batch
    }

    fn room_row(&self, id: RoomId, (policy, arm): (&PolicyName, Arm), now: Instant) -> RoomRow {
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
                sessions().filter_map(|session| session.measures.as_ref()?.measured(metric)).max()
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
            state: room.memory.read(self.reads(policy, arm)).map(|state| State::clone(state)),
        }
    }

    /// A policy said which rooms should move. Rooms that changed since it was asked keep what they have, and what it
    /// wrote about them is not kept either.
    pub(super) fn rerouted(
        &mut self,
        (policy, arm): (&PolicyName, Arm),
        rooms: &[(RoomId, u64)],
        answer: Result<Answer, Fault>,
        (by, beside): (&Decider, &Beside),
        now: Instant,
    ) -> Batch {
        self.effects.set(Timer::Reroute(Arc::new(policy.clone())), now);
        rooms.iter().for_each(|&(id, _)| self.catch_up(id, now));
        let mut parts = Parts::default();
        let outcome = match answer {
            Ok(Answer::Moves { moves, states, memo }) => {
                let fresh: Vec<Option<RoomId>> =
                    rooms.iter().map(|row| self.unchanged(*row)).collect();
                if fresh.iter().any(Option::is_some) {
                    self.keep_memo((policy, arm), memo);
                    self.take_moves(&mut parts, &fresh, moves, by, now);
                    self.tell_broken(policy, &parts);
                    self.note_conduct(policy, arm, parts.count(), now);
                    let revisions = self.revised.get(policy).map(|revised| &revised.now);
                    for (row, state) in states.into_iter().filter(|(row, _)| !parts.refused(*row)) {
                        let id = fresh.get(row as usize).copied().flatten();
                        if let Some(room) = id.and_then(|id| self.rooms.get_mut(&id)) {
                            room.memory.write(self.policy.states.share(state), revisions);
                        }
                    }
                    parts.outcome()
                } else {
                    Outcome::Stale
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => Outcome::Faulted(fault),
        };
        let failed = matches!(outcome, Outcome::Faulted(_));
        let left_out = |row| beside.apart.as_ref().is_some_and(|apart| apart.leaves_out(row));
        for (row, &(id, _)) in (0..).zip(rooms) {
            if self.rooms.contains_key(&id) {
                self.set_due(id, now);
                if failed || left_out(row) || self.is_bare(id) {
                    self.reroute_natively(id, now);
                }
            }
        }
        Batch { outcome, parts }
    }

    /// The room, if its route is what it was and neither an operator nor a rescue moves it meanwhile.
    fn unchanged(&self, (id, version): (RoomId, u64)) -> Option<RoomId> {
        let room = self.rooms.get(&id).filter(|room| room.route().version == version)?;
        let taken = room.pending.as_ref().is_some_and(|pending| {
            matches!(pending.by, Decider::Operator | Decider::Node)
                || matches!(pending.cause, Cause::NodeDown | Cause::Link)
        });
        (!taken).then_some(id)
    }

    /// Takes the moves, and notes what became of them.
    fn take_moves(
        &mut self,
        parts: &mut Parts,
        rooms: &[Option<RoomId>],
        moves: Vec<Move>,
        by: &Decider,
        now: Instant,
    ) {
        let mut seen = BTreeSet::new();
        for step in moves {
            let part = match rooms.get(step.row as usize) {
                Some(_) if !seen.insert(step.row) => Err(Guard::UnknownRow),
                Some(Some(id)) => self.take_move(*id, &step, by, now),
                Some(None) => Err(Guard::Outdated),
                None => Err(Guard::UnknownRow),
            };
            parts.note(step.row, part);
        }
    }

    /// What the move changed, or the rule it broke. Off a dead node nothing is damped.
    fn take_move(
        &mut self,
        id: RoomId,
        step: &Move,
        by: &Decider,
        now: Instant,
    ) -> Result<Part, Guard> {
        self.check_hops(id, &step.hops, now)?;
        let room = &self.rooms[&id];
        let (stranded, heads) = (room.stranded.is_some(), room.pending.as_ref());
        let heads = heads.and_then(|pending| Some(pending.hops.first()?.node));
        let stands = self.stands_at(id).map(|hop| hop.node);
        // Who is told again where it is heading moves once.
        if ![stands, heads].contains(&step.hops.first().copied()) {
            self.check_placement(id, &step.hops, now)?;
            if !stranded {
                self.check_churn(id, now)?;
                let sessions = self.rooms.get(&id).map_or(0, |room| room.sessions.len());
                self.capacity.churn.push_back((now, sessions));
            }
        }
        let Some(room) = self.rooms.get_mut(&id) else {
            return Ok(Part::Kept);
        };
        room.ttl_ms = step.ttl_ms;
        let heading = room.pending.as_ref().map(|pending| pending.hops.iter().map(|h| h.node));
        let same = heading
            .map_or_else(|| room.standing() == step.hops, |to| to.eq(step.hops.iter().copied()));
        if same {
            return Ok(Part::Kept);
        }
        let differs = step.hops != self.native_route(id, now);
        let cause = if stranded { Cause::NodeDown } else { Cause::Quality };
        self.head_for(id, &step.hops, cause, by.clone(), now);
        Ok(Part::Applied { differs })
    }

    fn check_churn(&mut self, id: RoomId, now: Instant) -> Result<(), Guard> {
        if self.moved_enough(id, now) {
            return Err(Guard::MovedTooOften);
        }
        while self
            .capacity
            .churn
            .front()
            .is_some_and(|&(at, _)| now.saturating_duration_since(at) >= CHURN_WITHIN)
        {
            self.capacity.churn.pop_front();
        }
        // One room may always move, however many there are in it.
        let Some(room) = self.rooms.get(&id).filter(|_| !self.capacity.churn.is_empty()) else {
            return Ok(());
        };
        let moved: usize = self.capacity.churn.iter().map(|(_, sessions)| sessions).sum();
        let allowed = self.sessions.live * self.settings.limits.churn_percent as usize / 100;
        if moved + room.sessions.len() > allowed { Err(Guard::Churn) } else { Ok(()) }
    }

    /// Whether it has no spare at all: no room is left so because its policy had nothing to say.
    pub(super) fn is_bare(&self, id: RoomId) -> bool {
        self.rooms.get(&id).is_some_and(|room| {
            room.pending.is_none() && room.is_placed() && room.route().hops.len() < 2
        })
    }

    /// What the native default would have the room's route be: it stays where it stands.
    fn native_route(&mut self, id: RoomId, now: Instant) -> Vec<NodeId> {
        let standing = self.stands_at(id).map_or_else(Vec::new, |stands| {
            let others = self.rooms[&id].standing().into_iter().filter(|node| *node != stands.node);
            std::iter::once(stands.node).chain(others).collect()
        });
        self.native_hops(id, &standing, now)
    }

    /// The native default never moves a room that stands, and leaves it the spares it has: it gives it more, and
    /// puts one that keeps capacity before those that do not.
    fn reroute_natively(&mut self, id: RoomId, now: Instant) {
        self.catch_up(id, now);
        if self.stands_at(id).is_none() || self.rooms[&id].pending.is_some() {
            return;
        }
        let nodes = self.native_route(id, now);
        if self.rooms[&id].standing() != nodes {
            self.head_for(id, &nodes, Cause::Quality, Decider::Native, now);
        }
    }
}
