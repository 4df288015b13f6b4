//! The hook `routing`: the nodes of a new room, and moves of rooms, in batches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    Arm, BreachCount, DecisionOutcome, GuardRule, Hook, HookAnswer, NO_NODE, NodeId, PolicyName,
    PolicyQuestion, RoomId, RoutingMove,
};

use crate::effects::Timer;
use crate::gateway::Gateway;
use crate::gateway::hooks::question::{Answer, Question};
use crate::policy::questions::{
    BatchOutcome, FaultSubject, PartCounts, PendingQuestion, QuestionSubject, mismatched,
};
use crate::rooms::room::Room;

/// Maximum rooms in one question. The other rooms follow in the next question.
const ROOMS_PER_ASK: usize = 256;

/// The nodes of a room after the admission of its first session.
pub(super) struct PlacementQuestion {
    pub(super) room: RoomId,
}

impl Question for PlacementQuestion {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let id = self.room;
        let Some(room) = gateway.rooms.get_mut(&id) else { return };
        let (scenario, labels) = (room.scenario().clone(), room.labels().clone());
        let Some(settings) = gateway.settings.scenarios.get(&scenario) else { return };
        if !settings.binds(Hook::Routing) {
            gateway.place_natively(id, now);
            gateway.take_notices(now);
        } else if room.ask_placement() {
            let set = settings.set.clone();
            let arm = gateway.policies.arm(&settings.policy(Hook::Routing), id.0);
            let nodes = gateway.capacity.node_rows(&gateway.nodes);
            let question = PolicyQuestion::Place { room: id, scenario, labels, nodes };
            gateway.ask(&set, arm, QuestionSubject::Place(id), question, now);
        }
    }

    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        BatchOutcome::one(self.take(gateway, given, now))
    }
}

impl PlacementQuestion {
    fn take(&self, gateway: &mut Gateway, given: Answer, now: Instant) -> DecisionOutcome {
        let id = self.room;
        let Some(room) = gateway.rooms.get_mut(&id) else { return DecisionOutcome::Stale };
        room.placement_answered();
        if room.is_placed() || gateway.waiting_for_placement(id).is_empty() {
            return DecisionOutcome::Stale;
        }
        let Answer { asked, answer, by, beside, native } = given;
        let outcome = match answer {
            Ok(HookAnswer::Placed { hops, .. }) if hops.is_empty() => DecisionOutcome::Abstained,
            Ok(HookAnswer::Placed { hops, ttl_ms, reason, .. }) if hops == [NO_NODE] => {
                let reason = Some(reason).filter(|it| *it != 0).map(|it| beside.word_for(it));
                gateway.refuse_room(id, reason.as_ref(), ttl_ms, now);
                gateway.take_notices(now);
                return DecisionOutcome::Applied { differs: !native.is_empty() };
            }
            Ok(HookAnswer::Placed { hops, ttl_ms, state, .. }) => {
                match self.check(gateway, &hops, asked, now) {
                    Err(guard) => DecisionOutcome::Guarded(guard),
                    Ok(hops) => {
                        let differs = hops != native;
                        self.note(gateway, asked, &hops, now);
                        gateway.write_room_state(id, state);
                        if let Some(room) = gateway.rooms.get_mut(&id) {
                            room.review_after(ttl_ms);
                        }
                        gateway.settle(id, &hops, by.clone(), now);
                        gateway.take_notices(now);
                        return DecisionOutcome::Applied { differs };
                    }
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        gateway.place_natively(id, now);
        gateway.take_notices(now);
        outcome
    }

    /// The hops of a placement without spares that the scenario rules out, or the rule that it breaks.
    fn check(
        &self,
        gateway: &Gateway,
        hops: &[NodeId],
        asked: &PendingQuestion,
        now: Instant,
    ) -> Result<Vec<NodeId>, GuardRule> {
        let placement = gateway.node_choice(self.room, now).ok_or(GuardRule::Outdated)?;
        placement.check(hops, &asked.usable, gateway.worklists.stranded.go_first())?;
        Ok(placement.without_inside_spares(hops))
    }

    /// Counts the placement of a new room for the judges of its revision.
    fn note(&self, gateway: &mut Gateway, asked: &PendingQuestion, hops: &[NodeId], now: Instant) {
        let PendingQuestion { policy, arm, .. } = asked;
        let last = gateway.policies.canary(policy).map(|_| {
            let room = Some(FaultSubject::Room(self.room));
            gateway.name_decision(None, hops.first().copied(), room)
        });
        let worse = u32::from(spends_redundancy(gateway, asked, self.room, hops, now));
        let (routes, effects) = (BreachCount { of: 1, worse }, &mut gateway.effects);
        gateway.policies.note_routes(policy, *arm, routes, last.clone(), now, effects);
        gateway.policies.weigh_placement(policy, *arm, hops[0], last, effects);
    }
}

/// Other routes for rooms of one arm of a policy.
pub(super) struct RerouteQuestion<'a> {
    pub(super) policy: &'a PolicyName,
    pub(super) arm: Arm,
}

impl Question for RerouteQuestion<'_> {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let RerouteQuestion { policy, arm } = self;
        let is_reroute = |about: &_| matches!(about, QuestionSubject::Reroute(_));
        if gateway.questions.is_asking(policy, arm, is_reroute) {
            return;
        }
        let batch = self.waiting(gateway, now);
        if batch.is_empty() {
            return;
        }
        let mut scenarios = gateway.settings.scenarios.values();
        if !scenarios.any(|it| it.set == policy.set && it.binds(Hook::Routing)) {
            for id in batch {
                gateway.reroute_natively(id, now);
                gateway.take_notices(now);
            }
            gateway.effects.set(Timer::Reroute(Arc::new(policy.clone())), now);
            return;
        }
        let reads = gateway.policies.revision(policy, arm);
        let rooms = || batch.iter().filter_map(|id| gateway.rooms.get(id));
        let versions = rooms().map(|room| (room.id(), room.route().version)).collect();
        let rooms = rooms().map(|room| gateway.room_row(room, reads, now)).collect();
        let memo = gateway.policies.memo(policy, arm);
        let nodes = gateway.capacity.node_rows(&gateway.nodes);
        let question = PolicyQuestion::Reroute { nodes, rooms, memo };
        gateway.ask(&policy.set, arm, QuestionSubject::Reroute(versions), question, now);
    }

    /// Applies the moves of a policy. A room that changed since the question keeps its route and its old state.
    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        let QuestionSubject::Reroute(rooms) = &given.asked.about else {
            return BatchOutcome::one(mismatched());
        };
        let timer = Timer::Reroute(Arc::new(self.policy.clone()));
        gateway.effects.set(timer, now);
        rooms.iter().for_each(|(id, _)| gateway.rooms.note_changed(*id));
        rooms.iter().for_each(|(id, _)| gateway.catch_up(*id, now));
        gateway.take_notices(now);
        let mut parts = PartCounts::default();
        let beside = given.beside;
        let outcome = match &given.answer {
            Ok(HookAnswer::Moves { moves, states, memo }) => {
                let fresh = |(id, version): &(RoomId, u64)| {
                    let room = gateway.rooms.get(id)?;
                    room.awaits_policy_since(*version).then_some(*id)
                };
                let fresh: Vec<Option<RoomId>> = rooms.iter().map(fresh).collect();
                if fresh.iter().any(Option::is_some) {
                    if let Some(memo) = memo {
                        gateway.policies.keep_memo(self.policy, self.arm, memo.clone());
                    }
                    self.take_moves(gateway, moves, &fresh, &given, &mut parts, now);
                    let refused = |row: &u32| parts.refused(*row);
                    for (row, state) in states.iter().filter(|(row, _)| !refused(row)) {
                        if let Some(id) = fresh.get(*row as usize).copied().flatten() {
                            gateway.write_room_state(id, state.clone());
                        }
                    }
                    parts.outcome()
                } else {
                    DecisionOutcome::Stale
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault.clone()),
        };
        let failed = matches!(outcome, DecisionOutcome::Faulted(_));
        let left_out = |row| beside.apart.as_ref().is_some_and(|apart| apart.leaves_out(row));
        for (row, &(id, _)) in (0..).zip(rooms) {
            self.answered(gateway, id, failed || left_out(row), now);
            gateway.take_notices(now);
        }
        BatchOutcome { outcome, parts }
    }
}

impl RerouteQuestion<'_> {
    /// The next rooms that wait for this arm. Rooms that now belong to the other arm are queued there.
    fn waiting(&self, gateway: &mut Gateway, now: Instant) -> Vec<RoomId> {
        let RerouteQuestion { policy, arm } = *self;
        let mut batch = Vec::new();
        let place = (policy.clone(), arm);
        while batch.len() < ROOMS_PER_ASK
            && let Some(id) = gateway.questions.next_reroute(&place)
        {
            gateway.rooms.note_changed(id);
            let belongs = gateway.policies.arm(policy, id.0);
            if !gateway.rooms.get(&id).is_some_and(Room::is_placed) {
                continue;
            }
            if belongs == arm {
                batch.push(id);
            } else {
                gateway.questions.want_reroute(policy, belongs, id);
                gateway.effects.set_if_idle(Timer::Reroute(Arc::new(policy.clone())), now);
            }
        }
        batch
    }

    /// `fresh`: by row, the rooms that have not changed since the question.
    fn take_moves(
        &self,
        gateway: &mut Gateway,
        moves: &[RoutingMove],
        fresh: &[Option<RoomId>],
        given: &Answer,
        parts: &mut PartCounts,
        now: Instant,
    ) {
        let (asked, usable) = (given.asked, &given.asked.usable);
        let (mut seen, mut routes) = (BTreeSet::new(), BreachCount::default());
        let mut last_worse = None;
        for step in moves {
            let part = match fresh.get(step.row as usize) {
                Some(_) if !seen.insert(step.row) => Err(GuardRule::UnknownRow),
                Some(Some(id)) => {
                    let bare = spends_redundancy(gateway, asked, *id, &step.hops, now);
                    let part = gateway.take_move(*id, step, usable, given.by, now);
                    gateway.take_notices(now);
                    routes.of += u32::from(part.is_ok());
                    if part.is_ok() && bare {
                        routes.worse += 1;
                        last_worse = Some((*id, step.hops.first().copied()));
                    }
                    part
                }
                Some(None) => Err(GuardRule::Outdated),
                None => Err(GuardRule::UnknownRow),
            };
            parts.note(step.row, part);
        }
        parts.report_broken(self.policy, &mut gateway.effects);
        let last = parts.last_own().map(|(row, rule)| {
            let step = moves.iter().rfind(|step| step.row == row);
            let node = step.and_then(|step| usable.first_other(&step.hops));
            gateway.name_decision(Some(rule), node, asked.about.subject(row))
        });
        let last_worse = last_worse
            .map(|(id, node)| gateway.name_decision(None, node, Some(FaultSubject::Room(id))));
        let Gateway { policies, effects, .. } = gateway;
        policies.note_conduct(self.policy, self.arm, parts.count(), last, now, effects);
        policies.note_routes(self.policy, self.arm, routes, last_worse, now, effects);
    }

    /// The policy answered about the room. `apart`: it failed, or left this room out.
    fn answered(&self, gateway: &mut Gateway, id: RoomId, apart: bool, now: Instant) {
        let Some(room) = gateway.rooms.get(&id) else { return };
        let natively = apart || room.is_bare();
        gateway.set_due(id, now);
        if natively {
            gateway.reroute_natively(id, now);
        }
    }
}

/// A canary decides, and these nodes leave the room with less redundancy than the native default.
fn spends_redundancy(
    gateway: &Gateway,
    asked: &PendingQuestion,
    id: RoomId,
    hops: &[NodeId],
    now: Instant,
) -> bool {
    gateway.policies.canary(&asked.policy).is_some()
        && asked.usable.are_left(&gateway.nodes)
        && gateway.node_choice(id, now).is_some_and(|it| it.spends_redundancy(hops))
}
