//! Two revisions of a policy at the same time: each has its own states, and a rollback loses none.

use std::collections::BTreeSet;

use evenkeel_model::{
    Arm, Ask, Breach, BreachCount, CoreEvent, CoreSettings, DecisionOutcome, FailureScope, Figure,
    GuardRule, Hook, HookAnswer, Measures, Metric, NO_NODE, NodeId, PluginFault, PluginState,
    PolicyName, PolicyQuestion, RedundancyMode, RoutingMove, SessionId,
};
use evenkeel_nodes::AgentWord;
use evenkeel_revisions::{
    Judging, Lifecycle, Revision, Revisions, RolloutRules, WallClock, samples as revisions,
};

use super::*;

pub(super) fn policy(hook: Hook) -> PolicyName {
    PolicyName { set: "call".into(), hook }
}

fn revision(name: &str, schema: u32) -> Revision {
    revisions::revision(name, "test", schema)
}

pub(super) fn alone() -> Revisions {
    revisions::active(&revision("old", 1))
}

/// The old revision is active. The new one is a canary with this share, and writes states of another schema.
pub(super) fn tried(percent: u8) -> Revisions {
    revisions::with_canary(&revision("old", 1), &revision("new", 2), percent)
}

/// The new revision is active; with `kept`, a rollback to the old one is possible.
pub(super) fn turned(kept: bool) -> Revisions {
    match kept {
        true => revisions::with_previous(&revision("new", 2), &revision("old", 1)),
        false => revisions::active(&revision("new", 2)),
    }
}

pub(super) fn rules(judging: Judging) -> RolloutRules {
    RolloutRules { strategy: revisions::strategy(5), keep: revisions::HOUR, judging }
}

/// Sets the policy's revisions.
pub(super) fn turn(world: &mut World, hook: Hook, mut revisions: Revisions) {
    let (policy, now) = (policy(hook), world.now);
    if world.gateway.policy(&policy).is_none() {
        let clock = WallClock { instant: now, time: std::time::SystemTime::UNIX_EPOCH };
        let rules = rules(Judging::default());
        world.gateway.handle_policy(&policy, rules, clock);
    }
    world.gateway.change_policy(&policy, now, |life: &mut Lifecycle| {
        // A changed share keeps the arrival time of the candidate.
        if let (Some(before), Some(now)) = (&life.revisions().candidate, &mut revisions.candidate)
            && before.revision == now.revision
        {
            now.arrived = before.arrived;
        }
        life.set_revisions(revisions);
    });
    world.pass(ms(0));
}

fn written(arm: Arm, byte: u8) -> PluginState {
    let schema = if arm == Arm::Canary { 2 } else { 1 };
    PluginState { plugin: "test".into(), schema, bytes: [byte].into() }
}

fn rows(ask: &Ask) -> Vec<(u64, Option<PluginState>)> {
    match &ask.question {
        PolicyQuestion::Tick { sessions, .. } => {
            sessions.iter().map(|row| (row.row.id, row.state.clone())).collect()
        }
        PolicyQuestion::Reroute { rooms, .. } => {
            rooms.iter().map(|row| (row.row.id, row.state.clone())).collect()
        }
        question => panic!("{question:?}"),
    }
}

/// Writes a state of the asked arm to every row.
fn writes(byte: u8) -> impl FnMut(&Ask) -> Option<Result<HookAnswer, PluginFault>> {
    move |ask| {
        let states = rows(ask).into_iter().zip(0..).map(|(_, row)| (row, written(ask.arm, byte)));
        let memo = Some(written(ask.arm, byte));
        Some(Ok(HookAnswer::Actions { actions: Vec::new(), states: states.collect(), memo }))
    }
}

/// The questions of the next round, by arm.
fn asked(world: &mut World) -> Vec<Ask> {
    world.held.clear();
    world.answer_with(|_| None);
    world.pass(ms(200));
    std::mem::take(&mut world.held)
}

fn ticking(sessions: usize) -> (World, Vec<SessionId>) {
    let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
    turn(&mut world, Hook::Degradation, alone());
    let sessions = (0..sessions).map(|room| world.open(&room.to_string())).collect();
    (world, sessions)
}

#[test]
fn each_tick_asks_both_arms_separately() {
    let (mut world, sessions) = ticking(100);
    let all: Vec<u64> = sessions.iter().map(|session| session.0).collect();
    let alone = asked(&mut world);
    assert_eq!(alone.len(), 1, "without a canary there is one question");
    turn(&mut world, Hook::Degradation, tried(25));
    let both = asked(&mut world);
    assert_eq!(both.iter().map(|ask| ask.arm).collect::<Vec<_>>(), Arm::ALL);
    let ids = |ask: &Ask| rows(ask).iter().map(|(id, _)| *id).collect::<BTreeSet<u64>>();
    let (rest, canary) = (ids(&both[0]), ids(&both[1]));
    assert!(rest.is_disjoint(&canary) && (10..40).contains(&canary.len()), "{}", canary.len());
    assert_eq!(rest.union(&canary).copied().collect::<Vec<_>>(), all);
    turn(&mut world, Hook::Degradation, tried(50));
    let more = ids(&asked(&mut world)[1]);
    assert!(more.is_superset(&canary) && more.len() > canary.len());
}

#[test]
fn arms_keep_separate_states_over_rollback() {
    let (mut world, sessions) = ticking(20);
    world.answer_with(writes(1));
    world.pass(ms(200));
    turn(&mut world, Hook::Degradation, tried(50));
    world.answer_with(writes(2));
    world.pass(ms(200));
    for ask in asked(&mut world) {
        let memo = match &ask.question {
            PolicyQuestion::Tick { memo, .. } => memo.clone(),
            question => panic!("{question:?}"),
        };
        assert_eq!(memo, Some(written(ask.arm, 2)));
        assert!(rows(&ask).iter().all(|(_, state)| *state == Some(written(ask.arm, 2))));
    }
    // After the rollback, the canary's sessions resume with their earlier states.
    turn(&mut world, Hook::Degradation, alone());
    let [ask] = &asked(&mut world)[..] else { panic!("one arm is left") };
    assert_eq!(rows(ask).len(), sessions.len());
    let old = |(_, state): &(u64, Option<PluginState>)| {
        [Some(written(Arm::Standing, 1)), Some(written(Arm::Standing, 2))].contains(state)
    };
    assert!(rows(ask).iter().all(old), "{ask:?}");
    let first = rows(ask).iter().filter(|row| row.1 == Some(written(Arm::Standing, 1))).count();
    assert!((3..17).contains(&first), "{first} were in the canary");
}

#[test]
fn rollback_during_tick_restores_old_states() {
    let (mut world, _) = ticking(5);
    world.answer_with(writes(1));
    world.pass(ms(200));
    turn(&mut world, Hook::Degradation, turned(true));
    world.answer_with(|ask| {
        let states = rows(ask).into_iter().zip(0..).map(|(_, row)| (row, written(Arm::Canary, 2)));
        let (states, memo) = (states.collect(), Some(written(Arm::Canary, 2)));
        Some(Ok(HookAnswer::Actions { actions: Vec::new(), states, memo }))
    });
    world.pass(ms(200));
    let under_way = asked(&mut world);
    assert!(
        under_way.iter().flat_map(rows).all(|(_, state)| state == Some(written(Arm::Canary, 2)))
    );
    turn(&mut world, Hook::Degradation, alone());
    // The old revision cannot read their states, and opens new ones.
    for ask in &under_way {
        let fresh = writes(9)(ask).expect("it answers");
        world.answer(ask, fresh);
    }
    let then = asked(&mut world);
    assert_eq!(then.len(), 1);
    let found = rows(&then[0]);
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|(_, state)| *state == Some(written(Arm::Standing, 1))), "{found:?}");
    let PolicyQuestion::Tick { memo, .. } = &then[0].question else { panic!("{then:?}") };
    assert_eq!(*memo, Some(written(Arm::Standing, 1)));
}

#[test]
fn old_states_are_dropped_after_the_window() {
    let (mut world, sessions) = ticking(20);
    world.answer_with(writes(1));
    world.pass(ms(200));
    let keeps = |world: &World| {
        world
            .gateway
            .tables
            .sessions
            .values()
            .filter(|session| session.memory().keeps_other())
            .count()
    };
    assert_eq!(keeps(&world), 0);
    turn(&mut world, Hook::Degradation, turned(true));
    // As in the host, the new revision writes under its own schema.
    world.answer_with(|ask| {
        let states = (0..rows(ask).len() as u32).map(|row| (row, written(Arm::Canary, 2)));
        Some(Ok(HookAnswer::Actions { actions: Vec::new(), states: states.collect(), memo: None }))
    });
    world.pass(ms(200));
    assert_eq!(keeps(&world), sessions.len());
    world.pass(ms(1_000));
    assert_eq!(keeps(&world), sessions.len(), "while a rollback is possible");
    turn(&mut world, Hook::Degradation, turned(false));
    world.pass(ms(1_000));
    assert_eq!(keeps(&world), 0);
    let [ask] = &asked(&mut world)[..] else { panic!("one arm") };
    assert!(rows(ask).iter().all(|(_, state)| *state == Some(written(Arm::Canary, 2))));
}

#[test]
fn canary_routes_only_its_own_rooms() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    turn(&mut world, Hook::Routing, alone());
    for room in 0..40 {
        world.open(&room.to_string());
    }
    world.answer_with(|_| None);
    turn(&mut world, Hook::Routing, tried(25));
    let [ask] = &std::mem::take(&mut world.held)[..] else { panic!("only the canary's rooms") };
    assert_eq!(ask.arm, Arm::Canary);
    let canary: Vec<u64> = rows(ask).iter().map(|(id, _)| *id).collect();
    assert!((4..18).contains(&canary.len()), "{}", canary.len());
    assert!(canary.iter().all(|id| tried(25).arm(*id) == Arm::Canary));
    world.answer(ask, Ok(HookAnswer::Moves { moves: Vec::new(), states: Vec::new(), memo: None }));
    world.settle();

    world.answer_with(place(&[A, B]));
    world.outputs.clear();
    for room in 100..140 {
        world.open(&room.to_string());
    }
    let placed: Vec<(u64, Arm)> = world
        .outputs
        .iter()
        .filter_map(|output| match output {
            super::super::GatewayEffect::Ask(ask) => match ask.question {
                PolicyQuestion::Place { room, .. } => Some((room.0, ask.arm)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(placed.len(), 40);
    assert!(placed.iter().all(|(room, arm)| tried(25).arm(*room) == *arm));
    assert!(placed.iter().any(|(_, arm)| *arm == Arm::Canary));

    // Without the candidate, the active revision is asked about all its rooms.
    world.answer_with(|_| None);
    turn(&mut world, Hook::Routing, alone());
    let [ask] = &world.held[..] else { panic!("one question about its rooms") };
    assert_eq!(ask.arm, Arm::Standing);
    assert!(rows(ask).iter().all(|(id, _)| tried(25).arm(*id) == Arm::Canary));
}

#[test]
fn room_is_explained_with_the_revision_of_its_arm() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    turn(&mut world, Hook::Routing, tried(25));
    let mut arms = BTreeSet::new();
    for room in 0..40 {
        let name = room.to_string();
        let session = world.open(&name);
        world.open(&name);
        let said = world.gateway.views().explain_room(&name, world.now).unwrap();
        assert_eq!((&*said.state.name, said.state.sessions.len()), (&*name, 2));
        let [asked] = &said.decisions.asked[..] else { panic!("{:?}", said.decisions.asked) };
        let arm = tried(25).arm(said.state.room.0);
        let revision = tried(25).of(arm).map(|revision| revision.name.clone());
        assert_eq!((asked.policy.hook, asked.arm, asked.sessions), (Hook::Routing, arm, 2));
        assert_eq!(asked.revision, revision);
        let of_session = world.gateway.views().explain(session, world.now).unwrap();
        assert_eq!((of_session.room.asked[0].arm, of_session.room.asked[0].sessions), (arm, 1));
        arms.insert(arm);
    }
    assert_eq!(arms.len(), 2);
    assert_eq!(world.gateway.views().explain_room("none", world.now), None);
}

#[test]
fn removed_candidate_question_is_asked_again() {
    let mut world = World::with_policy(settings(), &[Hook::Admission, Hook::Routing], |_| None);
    turn(&mut world, Hook::Admission, alone());
    turn(&mut world, Hook::Admission, tried(99));
    let offer = world.offer("r");
    world.settle();
    let asked = world.held.remove(0);
    assert_eq!(asked.arm, Arm::Canary);
    turn(&mut world, Hook::Admission, alone());
    let again = world.held.remove(0);
    assert_eq!((again.arm, &again.question), (Arm::Standing, &asked.question));
    world.answer(
        &asked,
        Ok(HookAnswer::Admit { verdict: evenkeel_model::AdmitVerdict::Reject(1), reason: 0 }),
    );
    world.settle();
    assert!(!world.replies.contains_key(&offer), "a late answer is ignored");
    world.answer(&again, Ok(accept()));
    world.settle();
    world.held.clear();
    world.pass(ms(10));
    world.accepted(offer);
    let stale = |event: &&CoreEvent| {
        matches!(event, CoreEvent::Decided { outcome: DecisionOutcome::Stale, .. })
    };
    assert_eq!(world.events().filter(stale).count(), 1);
}

#[test]
fn answer_of_promoted_canary_is_accepted() {
    let (mut world, _) = ticking(4);
    turn(&mut world, Hook::Degradation, tried(99));
    let both = asked(&mut world);
    let canary = both.iter().find(|ask| ask.arm == Arm::Canary).unwrap();
    turn(&mut world, Hook::Degradation, turned(true));
    let said = writes(7)(canary).unwrap();
    world.answer(canary, said);
    world.settle();
    let session = SessionId(rows(canary)[0].0);
    let memory = world.gateway.tables.sessions[&session].memory();
    assert_eq!(memory.read(None).map(|state| &**state), Some(&written(Arm::Canary, 7)));
}

/// Reports on all sessions, with loss on those that `loses` selects.
fn tell(world: &mut World, sessions: &[SessionId], loses: impl Fn(SessionId) -> bool) {
    world.answer_with(|_| None);
    world.pass(ms(100));
    for session in sessions {
        let mut measures = Measures::default();
        let loss = if loses(*session) { 200_000 } else { 0 };
        measures.set(Metric::LossDown, loss);
        world.gateway.handle_summary(*session, measures, Some(world.now));
    }
    world.settle();
}

pub(super) fn breaches(world: &World) -> Vec<(String, Breach)> {
    let breach = |event: &CoreEvent| match event {
        CoreEvent::Breached { revision, breach, .. } => Some((revision.to_string(), *breach)),
        _ => None,
    };
    world.events().filter_map(breach).collect()
}

#[test]
fn harmful_canary_is_found_once_within_2_s() {
    let (mut world, sessions) = ticking(200);
    turn(&mut world, Hook::Degradation, tried(5));
    let canary = |session: SessionId| tried(5).arm(session.0) == Arm::Canary;
    for _ in 0..10 {
        tell(&mut world, &sessions, |_| false);
    }
    let cohort = world.gateway.policies.cohort_size(&policy(Hook::Degradation)).unwrap();
    assert_eq!(cohort.judged as usize, sessions.iter().filter(|session| canary(**session)).count());
    let began = world.now;
    while breaches(&world).is_empty() {
        tell(&mut world, &sessions, canary);
        assert!(world.now - began <= ms(2_000), "no breach within 2 s");
    }
    for _ in 0..20 {
        tell(&mut world, &sessions, canary);
    }
    let [(revision, breach)] = &breaches(&world)[..] else { panic!("reported once") };
    assert_eq!((&**revision, breach.figure, breach.rest.worse), ("new", Figure::Loss, 0));
    assert_eq!(world.cohorts(&policy(Hook::Degradation)), None, "it is gone");
}

#[test]
fn cohorts_show_how_each_arm_fares() {
    // They are counted in more than one part.
    let (mut world, sessions) = ticking(1_100);
    turn(&mut world, Hook::Degradation, tried(5));
    let policy = policy(Hook::Degradation);
    // The cohort is too small to be judged.
    let judging = Judging { cohort_min: 10_000, ..Judging::default() };
    let now = world.now;
    world.gateway.change_policy(&policy, now, |life| life.set_rules(rules(judging), now));
    for look in 0..12 {
        tell(&mut world, &sessions, |session| look >= 10 && tried(5).arm(session.0) == Arm::Canary);
    }
    let [rest, cohort] = world.cohorts(&policy).unwrap();
    assert_eq!((cohort.loss_ppm, rest.loss_ppm), (Some(200_000), Some(0)));
    assert_eq!((cohort.arm, cohort.sessions + rest.sessions), (Arm::Canary, 1_100));
}

#[test]
fn active_breach_does_not_hide_the_canarys() {
    let (mut world, sessions) = ticking(200);
    let Revisions { previous, .. } =
        revisions::with_previous(&revision("old", 1), &revision("older", 1));
    turn(&mut world, Hook::Degradation, Revisions { previous, ..tried(5) });
    let policy = policy(Hook::Degradation);
    let answers = BreachCount { of: 4, worse: 2 };
    for _ in 0..2 {
        world.gateway.handle_hidden_state(&policy, &"old".into(), "its memo".into(), answers);
    }
    for look in 0..30 {
        tell(&mut world, &sessions, |session| look >= 10 && tried(5).arm(session.0) == Arm::Canary);
    }
    let told = breaches(&world).into_iter().map(|(revision, breach)| (revision, breach.figure));
    let right = [("old".to_owned(), Figure::HiddenState), ("new".to_owned(), Figure::Loss)];
    assert_eq!(told.collect::<Vec<_>>(), right);
}

#[test]
fn common_loss_is_not_the_candidates_fault() {
    let (mut world, sessions) = ticking(200);
    turn(&mut world, Hook::Degradation, tried(25));
    for look in 0..60 {
        tell(&mut world, &sessions, |session| look % 20 > 10 && session.0 % 3 == 0);
    }
    assert_eq!(breaches(&world), []);
}

#[test]
fn too_many_moves_by_candidate_are_a_breach() {
    let mut settings = settings();
    settings.limits.churn_percent = 100;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, B]));
    turn(&mut world, Hook::Routing, alone());
    let sessions: Vec<SessionId> = (0..120).map(|room| world.open(&room.to_string())).collect();
    // The candidate moves all its rooms from one node to the other and back.
    let mut there = false;
    world.answer_with(move |ask| {
        let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
        let hops = if there { vec![A, B] } else { vec![B, A] };
        there = !there;
        let step = |(_, row)| RoutingMove { row, hops: hops.clone(), ttl_ms: 400, reason: 0 };
        let moves = rooms.iter().zip(0..).map(step).collect();
        Some(Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None }))
    });
    turn(&mut world, Hook::Routing, tried(10));
    for _ in 0..40 {
        world.pass(ms(100));
        for session in &sessions {
            world.gateway.handle_summary(*session, Measures::default(), Some(world.now));
        }
        world.settle();
    }
    let [(revision, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
    assert_eq!((&**revision, breach.figure, breach.rest.worse), ("new", Figure::Moves, 0));
}

#[test]
fn candidate_that_moves_rooms_to_an_unknown_node_is_judged() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    turn(&mut world, Hook::Routing, alone());
    let sessions: Vec<SessionId> = (0..40).map(|room| world.open(&room.to_string())).collect();
    world.answer_with(|ask| {
        let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
        let step = |(_, row)| RoutingMove { row, hops: vec![NodeId(77)], ttl_ms: 400, reason: 0 };
        let moves = rooms.iter().zip(0..).map(step).collect();
        Some(Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None }))
    });
    turn(&mut world, Hook::Routing, tried(99));
    for _ in 0..40 {
        world.pass(ms(100));
        for session in &sessions {
            world.gateway.handle_summary(*session, Measures::default(), Some(world.now));
        }
        world.settle();
    }
    let [(revision, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
    assert_eq!((&**revision, breach.figure), ("new", Figure::Guarded));
}

#[test]
fn broken_rules_are_a_breach_if_replaceable() {
    for (revisions, by) in
        [(tried(99), Some("new")), (turned(true), Some("new")), (turned(false), None)]
    {
        let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
        turn(&mut world, Hook::Routing, alone());
        turn(&mut world, Hook::Routing, revisions);
        world.answer_with(place(&[NodeId(77)]));
        for room in 0..40 {
            world.open(&room.to_string());
        }
        let found: Vec<(String, Figure)> = breaches(&world)
            .into_iter()
            .map(|(revision, breach)| (revision, breach.figure))
            .collect();
        let right: Vec<(String, Figure)> =
            by.into_iter().map(|by| (by.to_owned(), Figure::Guarded)).collect();
        assert_eq!(found, right);
    }
}

/// Twenty rooms of a canary that would place and move all of them to the first node.
fn insisting_canary() -> (World, Vec<SessionId>) {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    turn(&mut world, Hook::Routing, alone());
    turn(&mut world, Hook::Routing, tried(99));
    let sessions = (0..20).map(|room| world.open(&room.to_string())).collect();
    (world, sessions)
}

/// Moves each room of the question to these nodes.
fn moves_all(ask: &Ask, hops: &[NodeId]) -> Option<Result<HookAnswer, PluginFault>> {
    let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
    let step = |(_, row)| RoutingMove { row, hops: hops.to_vec(), ttl_ms: 0, reason: 0 };
    let moves = rooms.iter().zip(0..).map(step).collect();
    Some(Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None }))
}

fn reasons(world: &World) -> Vec<String> {
    let reason = |output: &crate::GatewayEffect| match output {
        crate::GatewayEffect::Rollout(report) => report.reason.as_deref().map(str::to_owned),
        _ => None,
    };
    world.outputs.iter().filter_map(reason).collect()
}

#[test]
fn node_that_dies_after_the_question_blames_none() {
    let (mut world, _) = insisting_canary();
    world.answer_with(|_| None);
    (100..120).for_each(|room| _ = world.offer(&room.to_string()));
    let asked: Vec<Ask> = std::mem::take(&mut world.held);
    // The questions are not late then.
    let now = world.now;
    world.gateway.change_nodes(now, |nodes| nodes.handle_agent_word(A, AgentWord::Gone, now));
    for ask in asked {
        world.answer(&ask, Ok(placement(&[A, B], 0)));
        world.settle();
    }
    let is_outdated = |event: &&CoreEvent| {
        let outcome = DecisionOutcome::Guarded(GuardRule::Outdated);
        matches!(event, CoreEvent::Decided { outcome: found, .. } if *found == outcome)
    };
    assert_eq!(world.events().filter(is_outdated).count(), 20);
    assert_eq!(breaches(&world), []);
}

#[test]
fn ports_that_close_before_the_death_blame_none() {
    let (mut world, sessions) = insisting_canary();
    world.answer_with(|ask| moves_all(ask, &[A, B]));
    let hop = world.hop(A);
    for session in sessions {
        world.gateway.handle_port_closed(session, hop, world.now);
        world.settle();
    }
    world.kill(A);
    let guards = world.guards();
    assert!(guards.len() >= 20, "{guards:?}");
    assert!(guards.iter().all(|guard| !guard.is_fault_of_decision()), "{guards:?}");
    assert_eq!(breaches(&world), []);
}

#[test]
fn node_that_was_down_at_the_question_is_blamed() {
    let (mut world, _) = insisting_canary();
    world.kill(A);
    world.outputs.clear();
    world.answer_with(place(&[A, B]));
    (100..103).for_each(|room| _ = world.open(&room.to_string()));
    world.pass(ms(10));
    let [(revision, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
    assert_eq!((&**revision, breach.figure), ("new", Figure::Guarded));
    let [reason] = &reasons(&world)[..] else { panic!("{:?}", reasons(&world)) };
    assert!(reason.ends_with("; the last: unusable-node, node n0, room 102"), "{reason}");
}

#[test]
fn move_to_a_node_that_was_down_is_blamed() {
    let (mut world, _) = insisting_canary();
    world.kill(A);
    world.pass(ms(1_000));
    world.outputs.clear();
    world.answer_with(|ask| moves_all(ask, &[A, B]));
    world.gateway.handle_policy_changed(&policy(Hook::Routing), world.now);
    world.pass(ms(10));
    let [reason] = &reasons(&world)[..] else { panic!("{:?}", reasons(&world)) };
    assert!(reason.contains("; the last: unusable-node, node n0, room "), "{reason}");
}

/// Places rooms of the canary on these nodes, and those of the rest in turn on each node with another one as its standby.
fn crowding(
    canary: &'static [NodeId],
) -> impl FnMut(&Ask) -> Option<Result<HookAnswer, PluginFault>> {
    move |ask| {
        let PolicyQuestion::Place { room, .. } = &ask.question else { return place(&[])(ask) };
        let on = (room.0 % 4) as u32;
        match ask.arm {
            Arm::Canary => Some(Ok(placement(canary, 0))),
            Arm::Standing => Some(Ok(placement(&[NodeId(on), NodeId((on + 1) % 4)], 0))),
        }
    }
}

fn found_in_new_rooms(settings: CoreSettings, canary: &'static [NodeId]) -> Option<Figure> {
    let mut world = World::with_policy(settings, &[Hook::Routing], crowding(canary));
    turn(&mut world, Hook::Routing, alone());
    turn(&mut world, Hook::Routing, tried(25));
    for room in 0..160 {
        world.open(&room.to_string());
    }
    let found = breaches(&world);
    assert!(found.len() <= 1 && found.iter().all(|(revision, _)| revision == "new"), "{found:?}");
    found.first().map(|(_, breach)| breach.figure)
}

#[test]
fn new_rooms_of_the_canary_without_standbys_are_a_breach() {
    assert_eq!(found_in_new_rooms(settings(), &[A]), Some(Figure::Redundancy));
    let mut cold = settings();
    cold.scenarios.values_mut().for_each(|scenario| scenario.mode = RedundancyMode::Cold);
    assert_eq!(found_in_new_rooms(cold, &[A]), Some(Figure::Spread), "no mode of standbys");
}

#[test]
fn new_rooms_of_the_canary_on_one_node_are_a_breach() {
    assert_eq!(found_in_new_rooms(settings(), &[A, B]), Some(Figure::Spread));
}

#[test]
fn new_rooms_that_the_canary_refuses_are_a_breach() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], crowding(&[NO_NODE]));
    turn(&mut world, Hook::Routing, alone());
    turn(&mut world, Hook::Routing, tried(25));
    (0..200).for_each(|room| _ = world.offer(&room.to_string()));
    let [(revision, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
    assert_eq!((&**revision, breach.figure, breach.rest.worse), ("new", Figure::Refusals, 0));
}

/// The native default chooses a standby outside the zone, as the scenario asks.
#[test]
fn standby_that_dies_with_the_zone_spends_redundancy() {
    let (zone, node) = (FailureScope::Zone, FailureScope::Node);
    for (reserve, spares_outside, found) in [
        (zone, node, Figure::Redundancy),
        (node, zone, Figure::Redundancy),
        (node, node, Figure::Spread),
    ] {
        let mut settings = settings();
        for scenario in settings.scenarios.values_mut() {
            (scenario.reserve, scenario.spares_outside) = (Some(reserve), spares_outside);
        }
        let crowded = found_in_new_rooms(settings, &[A, C]);
        assert_eq!(crowded, Some(found), "{reserve:?} {spares_outside:?}");
    }
}

#[test]
fn routes_without_standbys_are_a_breach() {
    // The gateway leaves out the standby `C` where the scenario wants it outside the zone of `A`.
    let cases: [(FailureScope, &'static [NodeId]); 2] =
        [(FailureScope::Node, &[A]), (FailureScope::Zone, &[A, C])];
    for (spares_outside, hops) in cases {
        let mut settings = settings();
        for scenario in settings.scenarios.values_mut() {
            scenario.spares_outside = spares_outside;
        }
        let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, B]));
        turn(&mut world, Hook::Routing, alone());
        (0..40).for_each(|room| _ = world.open(&room.to_string()));
        world.answer_with(move |ask| {
            let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
            let bare = |row| RoutingMove { row, hops: hops.to_vec(), ttl_ms: 0, reason: 0 };
            let moves = (0..rooms.len() as u32).map(bare).collect();
            Some(Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None }))
        });
        turn(&mut world, Hook::Routing, tried(25));
        let [(_, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
        assert_eq!((breach.figure, breach.canary.of), (Figure::Redundancy, breach.canary.worse));
    }
}

/// The rooms themselves are judged, whatever a revision answered about new ones.
#[test]
fn rooms_of_the_canary_on_one_node_are_a_breach() {
    let mut settings = settings();
    settings.limits.churn_percent = 100;
    let mut world = World::with_policy(settings, &[Hook::Routing], crowding(&[]));
    turn(&mut world, Hook::Routing, alone());
    let sessions: Vec<SessionId> = (0..160).map(|room| world.open(&room.to_string())).collect();
    world.answer_with(|ask| {
        let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
        let crowd = |row| RoutingMove { row, hops: vec![B, C], ttl_ms: 0, reason: 0 };
        let moves = (0..rooms.len() as u32).map(crowd).collect();
        Some(Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None }))
    });
    turn(&mut world, Hook::Routing, tried(25));
    tell(&mut world, &sessions, |_| false);
    let [(revision, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
    assert_eq!((&**revision, breach.figure), ("new", Figure::Spread));
}

#[test]
fn takeover_continues_the_counts_of_routes() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A]));
    turn(&mut world, Hook::Routing, alone());
    turn(&mut world, Hook::Routing, tried(99));
    (0..2).for_each(|room| _ = world.open(&room.to_string()));
    assert_eq!(breaches(&world), []);
    let (policy, now) = (policy(Hook::Routing), world.now);
    let record = world.gateway.policy_record(&policy).unwrap();
    world.restart(ms(3_000));
    let clock = WallClock { instant: now, time: std::time::SystemTime::UNIX_EPOCH };
    world.gateway.handle_policy(&policy, rules(Judging::default()), clock);
    world.gateway.restore_policy(&policy, record, |_| true, world.now);
    world.open("third");
    let [(_, breach)] = &breaches(&world)[..] else { panic!("{:?}", breaches(&world)) };
    assert_eq!((breach.figure, breach.canary.worse), (Figure::Redundancy, 3));
}

#[test]
fn canary_faults_do_not_mark_policy_failing() {
    let mut world =
        World::with_policy(settings(), &[Hook::Admission], |_| Some(Err(PluginFault::OutOfMemory)));
    turn(&mut world, Hook::Admission, alone());
    turn(&mut world, Hook::Admission, tried(99));
    world.open("r");
    assert!(!world.events().any(|event| matches!(event, CoreEvent::Standing { .. })));
    turn(&mut world, Hook::Admission, alone());
    world.open("s");
    assert!(world.events().any(|event| matches!(event, CoreEvent::Standing { .. })));
}
