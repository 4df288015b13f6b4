//! The hook `routing`: the nodes of a new room, and moves of rooms, in batches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, BreachCount, Decider, DecisionOutcome, GuardRule, Hook, HookAnswer, MoveCause, NO_NODE,
    NodeId, OfferRefusal, PluginState, PolicyName, PolicyQuestion, RoomId, RoutingMove,
};

use crate::effects::Timer;
use crate::gateway::hooks::question::{Answer, Question};
use crate::gateway::{Gateway, Tables};
use crate::policy::questions::{
    BatchOutcome, FaultSubject, PartCounts, PartOutcome, PendingQuestion, QuestionSubject,
    mismatched,
};
use crate::rooms::room::Room;
use crate::sessions::Session;

/// Maximum rooms in one question. The other rooms follow in the next question.
const ROOMS_PER_ASK: usize = 256;

/// The nodes of a room after the admission of its first session.
pub(super) struct PlacementQuestion {
    room: RoomId,
}

impl Question for PlacementQuestion {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let id = self.room;
        let Some(room) = gateway.rooms.get_mut(&id) else { return };
        let (scenario, labels) = (room.scenario().clone(), room.labels().clone());
        let Some(settings) = gateway.tables.settings.scenarios.get(&scenario) else { return };
        if !settings.binds(Hook::Routing) {
            self.place_natively(gateway, now);
            gateway.take_notices(now);
        } else if room.ask_placement() {
            let set = settings.set.clone();
            let arm = gateway.policies.arm(&settings.policy(Hook::Routing), id.0);
            let nodes = gateway.tables.capacity.node_rows(&gateway.tables.nodes);
            let question = PolicyQuestion::Place { room: id, scenario, labels, nodes };
            gateway.ask(&set, arm, QuestionSubject::Place(id), question, now);
        }
    }

    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        BatchOutcome::one(self.take(gateway, given, now))
    }
}

impl PlacementQuestion {
    pub(super) fn about(room: RoomId) -> PlacementQuestion {
        PlacementQuestion { room }
    }

    fn take(&self, gateway: &mut Gateway, given: Answer, now: Instant) -> DecisionOutcome {
        let id = self.room;
        let Some(room) = gateway.rooms.get_mut(&id) else { return DecisionOutcome::Stale };
        room.placement_answered();
        let waiting = gateway.tables.sessions_of(room, Session::awaits_route);
        if room.is_placed() || waiting.is_empty() {
            return DecisionOutcome::Stale;
        }
        let Answer { asked, answer, by, beside, native } = given;
        let outcome = match answer {
            Ok(HookAnswer::Placed { hops, .. }) if hops.is_empty() => DecisionOutcome::Abstained,
            Ok(HookAnswer::Placed { hops, ttl_ms, reason, .. }) if hops == [NO_NODE] => {
                let reason = Some(reason).filter(|it| *it != 0).map(|it| beside.word_for(it));
                self.refuse(gateway, reason.as_ref(), ttl_ms, now);
                gateway.take_notices(now);
                return DecisionOutcome::Applied { differs: !native.is_empty() };
            }
            Ok(HookAnswer::Placed { hops, ttl_ms, state, .. }) => {
                match self.check(gateway, &hops, asked, now) {
                    Err(guard) => DecisionOutcome::Guarded(guard),
                    Ok(hops) => {
                        let differs = hops != native;
                        self.note(gateway, asked, &hops, now);
                        remember(gateway, id, state);
                        if let Some(room) = gateway.rooms.get_mut(&id) {
                            gateway.tables.apply(room.review_after(ttl_ms), room);
                        }
                        self.settle(gateway, &hops, by.clone(), now);
                        gateway.take_notices(now);
                        return DecisionOutcome::Applied { differs };
                    }
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        self.place_natively(gateway, now);
        gateway.take_notices(now);
        outcome
    }

    /// Places the room where the native default does.
    pub(super) fn place_natively(&self, gateway: &mut Gateway, now: Instant) {
        let busy = gateway.tables.nodes.busy();
        let Some(room) = gateway.rooms.get(&self.room) else { return };
        let choice = gateway.tables.node_choice(room, now);
        let mut nodes = choice.native_hops_but(&[], &busy);
        // Stranded rooms wait for the busy nodes, so a new room only takes others.
        let waits = if gateway.tables.worklists.stranded.go_first() { &busy[..] } else { &[] };
        if nodes.is_empty() && !busy.is_empty() && waits.is_empty() {
            nodes = choice.native_hops(&[]);
        }
        if nodes.is_empty() {
            nodes = gateway.tables.place_with_less(room, waits, now);
        }
        self.settle(gateway, &nodes, Decider::Native, now);
    }

    /// Publishes the room's first route and opens its sessions.
    fn settle(&self, gateway: &mut Gateway, nodes: &[NodeId], by: Decider, now: Instant) {
        let Gateway { rooms, tables, .. } = gateway;
        let Some(room) = rooms.get_mut(&self.room) else { return };
        let hops = tables.nodes.hops(nodes);
        let waiting = tables.sessions_of(room, Session::awaits_route);
        if hops.is_empty() {
            tables.want_start(room, now);
            for session in waiting {
                gateway.turn_away(session, now);
            }
            return;
        }
        let unchosen = by == Decider::Native;
        let by = tables.deciders.intern(by);
        tables.apply(room.place(by, &hops, None, &tables.scales(room)), room);
        tables.note_away(room, nodes.first().copied().filter(|_| unchosen), now);
        tables.plan_review(room, now);
        for session in waiting {
            tables.open_session(room, session, now);
        }
    }

    /// Refuses the room's sessions, to which the policy gives no node, for `wait_ms`; 0: as without capacity.
    fn refuse(&self, gateway: &mut Gateway, reason: Option<&Arc<str>>, wait_ms: u32, now: Instant) {
        let room = gateway.rooms.get(&self.room);
        let waiting = room.map(|room| gateway.tables.sessions_of(room, Session::awaits_route));
        for session in waiting.unwrap_or_default() {
            let retry_after = match wait_ms {
                0 => gateway.retry_after(now),
                wait_ms => gateway.admission.jittered(Duration::from_millis(wait_ms.into())),
            };
            let reason = reason.cloned();
            gateway.give_up(session, OfferRefusal::PlacementRefused { reason, retry_after }, now);
        }
    }

    /// The hops of a placement without spares that the scenario rules out, or the rule that it breaks.
    fn check(
        &self,
        gateway: &Gateway,
        hops: &[NodeId],
        asked: &PendingQuestion,
        now: Instant,
    ) -> Result<Vec<NodeId>, GuardRule> {
        let room = gateway.rooms.get(&self.room).ok_or(GuardRule::Outdated)?;
        let choice = gateway.tables.node_choice(room, now);
        choice.check(hops, &asked.usable, gateway.tables.worklists.stranded.go_first())?;
        Ok(choice.without_inside_spares(hops))
    }

    /// Counts the placement of a new room for the judges of its revision.
    fn note(&self, gateway: &mut Gateway, asked: &PendingQuestion, hops: &[NodeId], now: Instant) {
        let PendingQuestion { policy, arm, .. } = asked;
        let last = gateway.policies.canary(policy).map(|_| {
            let room = Some(FaultSubject::Room(self.room));
            gateway.name_decision(None, hops.first().copied(), room)
        });
        let worse = u32::from(spends_redundancy(gateway, asked, self.room, hops, now));
        let (routes, effects) = (BreachCount { of: 1, worse }, &mut gateway.tables.effects);
        gateway.policies.note_routes(policy, *arm, routes, last.clone(), now, effects);
        gateway.policies.weigh_placement(policy, *arm, hops[0], last, effects);
    }
}

/// Other routes for rooms of one arm of a policy.
pub(super) struct RerouteQuestion<'a> {
    policy: &'a PolicyName,
    arm: Arm,
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
        if !gateway.binds(policy) {
            for id in batch {
                if let Some(room) = gateway.rooms.get_mut(&id) {
                    reroute_natively(&mut gateway.tables, room, now);
                }
                gateway.take_notices(now);
            }
            gateway.tables.effects.set(Timer::Reroute(Arc::new(policy.clone())), now);
            return;
        }
        for id in &batch {
            if let Some(room) = gateway.rooms.get_mut(id) {
                gateway.tables.apply(room.begin_review(), room);
                let measures = gateway.tables.room_measures(room);
                gateway.tables.reviews.begin(room, &measures, now);
            }
        }
        let reads = gateway.policies.revision(policy, arm);
        let rooms = || batch.iter().filter_map(|id| gateway.rooms.get(id));
        let versions = rooms().map(|room| (room.id(), room.route().version)).collect();
        let rooms = rooms().map(|room| gateway.room_row(room, reads, now)).collect();
        let memo = gateway.policies.memo(policy, arm);
        let nodes = gateway.tables.capacity.node_rows(&gateway.tables.nodes);
        let question = PolicyQuestion::Reroute { nodes, rooms, memo };
        gateway.ask(&policy.set, arm, QuestionSubject::Reroute(versions), question, now);
    }

    /// Applies the moves of a policy. A room that changed since the question keeps its route and its old state.
    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        let QuestionSubject::Reroute(rooms) = &given.asked.about else {
            return BatchOutcome::one(mismatched());
        };
        let timer = Timer::Reroute(Arc::new(self.policy.clone()));
        gateway.tables.effects.set(timer, now);
        for (id, _) in rooms {
            if let Some(room) = gateway.rooms.get_mut(id) {
                gateway.tables.apply(room.end_review(), room);
                gateway.tables.catch_up(room, now);
            }
        }
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
                            remember(gateway, id, state.clone());
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
        // While a canary is judged, each of its rooms counts at each review.
        let changed: Option<BTreeSet<u32>> = match &given.answer {
            Ok(HookAnswer::Moves { moves, states, memo: None })
                if gateway.policies.canary(self.policy).is_none() =>
            {
                let states = states.iter().map(|(row, _)| *row);
                Some(moves.iter().map(|step| step.row).chain(states).collect())
            }
            _ => None,
        };
        let failed = matches!(outcome, DecisionOutcome::Faulted(_));
        let left_out =
            |row| beside.isolated.as_ref().is_some_and(|isolated| isolated.leaves_out(row));
        for (row, &(id, _)) in (0..).zip(rooms) {
            if let Some(room) = gateway.rooms.get_mut(&id) {
                let apart = failed || left_out(row);
                let is_kept = changed.as_ref().is_some_and(|changed| !changed.contains(&row));
                // A review has the gateway look for a standby, and for hops that are no longer avoided.
                let needs_gateway = room.is_bare() || room.shunned(now).next().is_some();
                if is_kept && !apart && !needs_gateway {
                    gateway.tables.reviews.note_unchanged(id);
                }
                answered(&mut gateway.tables, room, apart, now);
            }
            gateway.take_notices(now);
        }
        BatchOutcome { outcome, parts }
    }
}

impl<'a> RerouteQuestion<'a> {
    pub(super) fn to(policy: &'a PolicyName, arm: Arm) -> RerouteQuestion<'a> {
        RerouteQuestion { policy, arm }
    }

    /// The next rooms that wait for this arm. Rooms that now belong to the other arm are queued there.
    fn waiting(&self, gateway: &mut Gateway, now: Instant) -> Vec<RoomId> {
        let RerouteQuestion { policy, arm } = *self;
        let mut batch = Vec::new();
        let place = (policy.clone(), arm);
        while batch.len() < ROOMS_PER_ASK
            && let Some(id) = gateway.questions.next_reroute(&place)
        {
            let Some(room) = gateway.rooms.get_mut(&id) else { continue };
            gateway.tables.apply(room.take_review(), room);
            let belongs = gateway.policies.arm(policy, id.0);
            if !room.is_placed() {
                continue;
            }
            if belongs == arm {
                batch.push(id);
            } else {
                gateway.questions.want_reroute(policy, belongs, id);
                gateway.tables.apply(room.want_review(), room);
                gateway.tables.effects.set_if_idle(Timer::Reroute(Arc::new(policy.clone())), now);
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
                    let Gateway { rooms, tables, .. } = &mut *gateway;
                    let part = match rooms.get_mut(id) {
                        Some(room) => take_move(tables, room, step, given, now),
                        None => Ok(PartOutcome::Kept),
                    };
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
        parts.report_broken(self.policy, &mut gateway.tables.effects);
        let last = parts.last_own().map(|(row, rule)| {
            let step = moves.iter().rfind(|step| step.row == row);
            let node = step.and_then(|step| usable.first_other(&step.hops));
            gateway.name_decision(Some(rule), node, asked.about.subject(row))
        });
        let last_worse = last_worse
            .map(|(id, node)| gateway.name_decision(None, node, Some(FaultSubject::Room(id))));
        let Gateway { policies, tables, .. } = gateway;
        let effects = &mut tables.effects;
        policies.note_conduct(self.policy, self.arm, parts.count(), last, now, effects);
        policies.note_routes(self.policy, self.arm, routes, last_worse, now, effects);
    }
}

/// The policy answered about the room. `apart`: it failed, or left this room out.
fn answered(tables: &mut Tables, room: &mut Room, apart: bool, now: Instant) {
    let natively = apart || room.is_bare();
    tables.plan_review(room, now);
    if natively {
        reroute_natively(tables, room, now);
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
    // A node that was not offered is refused by the check.
    gateway.policies.canary(&asked.policy).is_some()
        && asked.usable.are_left(&gateway.tables.nodes)
        && hops.iter().all(|node| asked.usable.contains(*node))
        && gateway
            .rooms
            .get(&id)
            .is_some_and(|room| gateway.tables.node_choice(room, now).spends_redundancy(hops))
}

/// Applies a policy's move. Moves off a dead node bypass damping.
fn take_move(
    tables: &mut Tables,
    room: &mut Room,
    step: &RoutingMove,
    given: &Answer,
    now: Instant,
) -> Result<PartOutcome, GuardRule> {
    let shown = &given.asked.usable;
    let choice = tables.node_choice(room, now);
    choice.check_hops(&step.hops, shown)?;
    let is_stranded = room.stranded().is_some();
    let heads = room.heading().map(|heading| heading.target().node);
    let stands = room.stands_at(tables.nodes.board()).map(|hop| hop.node);
    // A repeated decision for the hop that the room is already moving to counts as one move.
    if ![stands, heads].contains(&step.hops.first().copied()) {
        choice.check(&step.hops, shown, tables.worklists.stranded.go_first())?;
        if !is_stranded {
            if tables.is_damped(room, now) {
                return Err(GuardRule::MovedTooOften);
            }
            let percent = tables.settings.limits.churn_percent as usize;
            let allowed = tables.sessions.live() * percent / 100;
            tables.capacity.count_churn(room.sessions().len(), allowed, now)?;
        }
    }
    tables.apply(room.review_after(step.ttl_ms), room);
    let choice = tables.node_choice(room, now);
    let hops = choice.without_inside_spares(&step.hops);
    let same = match room.heading() {
        None => room.nodes_of_route() == hops,
        Some(heading) => heading.hops().iter().map(|hop| hop.node).eq(hops.iter().copied()),
    };
    if same {
        return Ok(PartOutcome::Kept);
    }
    let differs = hops != choice.native_route();
    let cause = if is_stranded { MoveCause::NodeDown } else { MoveCause::Quality };
    tables.head_for(room, &hops, cause, given.by.clone(), now);
    Ok(PartOutcome::Applied { differs })
}

/// The native default never moves a placed room and keeps its spares. It adds spares, and puts one that reserves
/// capacity before those that do not.
fn reroute_natively(tables: &mut Tables, room: &mut Room, now: Instant) {
    tables.catch_up(room, now);
    if room.stands_at(tables.nodes.board()).is_none() || room.heading().is_some() {
        return;
    }
    let nodes = tables.node_choice(room, now).native_route();
    if room.nodes_of_route() != nodes {
        tables.head_for(room, &nodes, MoveCause::Quality, Decider::Native, now);
    }
}

/// Keeps the state that the routing policy wrote about the room.
fn remember(gateway: &mut Gateway, id: RoomId, state: PluginState) {
    if let Some(room) = gateway.rooms.get_mut(&id)
        && let Some(scenario) = gateway.tables.settings.scenarios.get(room.scenario())
    {
        let revisions = gateway.policies.revisions(&scenario.policy(Hook::Routing));
        let change = room.remember(gateway.questions.state(state), revisions);
        gateway.tables.apply(change, room);
    }
}
