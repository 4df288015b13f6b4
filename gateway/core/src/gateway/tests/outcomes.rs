//! Effects of each outcome of a question: rows left out, late answers, lasting failures, and events.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    CoreEvent, Decider, DecisionNote, DecisionOutcome, DegradationAction, DegradeOnFault,
    GuardRule, Hook, HookAnswer, IsolatedRows, Measures, Metric, NodeId, OfferRefusal, Op,
    PluginFault, Poisoned, PolicyName, PolicyQuestion, RevisionAnswer, RoutingMove, SessionId,
};

use super::*;
use crate::SubjectDecision;

const REVISION: &str = "0123456789ab";

fn policy(hook: Hook) -> PolicyName {
    PolicyName { set: "call".into(), hook }
}

fn trap() -> PluginFault {
    PluginFault::Trap("unreachable".into())
}

/// Sessions with one room each. Their degradation policy leaves questions unanswered.
fn ticking(sessions: u64) -> (World, Vec<SessionId>) {
    let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
    let ids = (0..sessions).map(|room| world.open(&room.to_string())).collect();
    (world, ids)
}

fn cap(row: u32, kbps: u64) -> DegradationAction {
    DegradationAction { row, op: Op::Cap as u32, arg: kbps, reason: 3 }
}

fn actions(actions: Vec<DegradationAction>) -> HookAnswer {
    let states = (0..9).map(|row| (row, state(b"new"))).collect();
    HookAnswer::Actions { actions, states, memo: Some(state(b"memo")) }
}

fn moves(moves: Vec<RoutingMove>) -> HookAnswer {
    HookAnswer::Moves { moves, states: Vec::new(), memo: None }
}

fn answered(answer: HookAnswer) -> RevisionAnswer {
    RevisionAnswer {
        answer,
        revision: REVISION.into(),
        notes: Vec::new(),
        took: Duration::from_micros(5),
        isolated: None,
        reasons: [(3, "lossy".into())].into(),
        ungranted: 0,
    }
}

fn left_out(rows: &[u32]) -> Option<Box<IsolatedRows>> {
    let poisoned = rows.iter().map(|&row| Poisoned { row, fault: trap() }).collect();
    Some(Box::new(IsolatedRows { fault: Some(trap()), poisoned, ..IsolatedRows::default() }))
}

/// Lets the next tick be asked, and gives this answer.
fn tick(world: &mut World, answered: RevisionAnswer) {
    world.held.clear();
    world.pass(ms(200));
    reply(world, answered);
}

fn reply(world: &mut World, answered: RevisionAnswer) {
    let ask = world.held.remove(0);
    world.gateway.handle_answer(ask.id, Ok(answered), world.now);
    world.settle();
}

fn told(world: &World) -> Vec<(Option<SessionId>, PluginFault)> {
    let quarantined = |event: &CoreEvent| match event {
        CoreEvent::Quarantined { session, fault, .. } => Some((*session, fault.clone())),
        _ => None,
    };
    world.events().filter_map(quarantined).collect()
}

fn explained(world: &World, session: SessionId) -> crate::Explanation {
    world.gateway.views().explain(session, world.now).unwrap()
}

#[test]
fn quarantined_session_is_explained_once() {
    let (mut world, ids) = ticking(3);
    for _ in 0..3 {
        let answer = actions(vec![cap(0, 100), cap(2, 100)]);
        tick(&mut world, RevisionAnswer { isolated: left_out(&[1]), ..answered(answer) });
    }
    assert_eq!([ids[0], ids[1], ids[2]].map(|id| world.cap(id)), [100, 0, 100]);
    assert_eq!(told(&world), [(Some(ids[1]), trap())]);
    let quarantines = explained(&world, ids[1]).room.quarantines;
    assert_eq!(quarantines.len(), 1);
    assert_eq!((&*quarantines[0].revision, &quarantines[0].fault), (REVISION, &trap()));
    assert_eq!(quarantines[0].policy, policy(Hook::Degradation));
    assert_eq!(quarantines[0].since, ms(400));
    assert!(explained(&world, ids[0]).room.quarantines.is_empty());
    assert!(!world.events().any(|event| matches!(event, CoreEvent::Standing { .. })), "it answers");
}

#[test]
fn answered_session_leaves_quarantine() {
    let (mut world, ids) = ticking(2);
    let nothing = || answered(actions(Vec::new()));
    tick(&mut world, RevisionAnswer { isolated: left_out(&[0, 1]), ..nothing() });
    // Another revision fails on one of the rows, and has no time for the other.
    let isolated = IsolatedRows { unasked: vec![1], ..*left_out(&[0]).unwrap() };
    let other = RevisionAnswer {
        revision: "another".into(),
        isolated: Some(Box::new(isolated)),
        ..nothing()
    };
    tick(&mut world, other);
    let revisions = |world: &World, id| {
        let quarantines = explained(world, id).room.quarantines;
        quarantines.iter().map(|held| held.revision.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(revisions(&world, ids[0]), ["another"]);
    assert_eq!(revisions(&world, ids[1]), [REVISION]);
    assert_eq!(told(&world).len(), 3, "each revision that does not answer is told of");
    tick(&mut world, nothing());
    assert!(ids.iter().all(|id| revisions(&world, *id).is_empty()));
    tick(&mut world, RevisionAnswer { isolated: left_out(&[0]), ..nothing() });
    world.close(ids[0]);
    assert!(world.gateway.subject_history.has_no_faults(), "it ends with its session");
}

#[test]
fn quarantined_room_gets_native_default() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A]));
    let sessions = ["1", "2"].map(|room| world.open(room));
    world.answer_with(|_| None);
    world.gateway.handle_policy_changed(&policy(Hook::Routing), world.now);
    world.pass(ms(0));
    // A route without a spare is completed natively only if no policy decided it.
    let step = RoutingMove { row: 0, hops: vec![A, C], ttl_ms: 0, reason: 0 };
    reply(&mut world, RevisionAnswer { isolated: left_out(&[1]), ..answered(moves(vec![step])) });
    let hops = |world: &World, room| {
        world.route(room).into_iter().map(|(node, _)| node).collect::<Vec<NodeId>>()
    };
    assert_eq!((hops(&world, "1"), hops(&world, "2")), (vec![A, C], vec![A, B]));
    assert_eq!(explained(&world, sessions[1]).room.quarantines.len(), 1, "by its room");
}

#[test]
fn changed_subject_is_not_decided() {
    let (mut world, ids) = ticking(2);
    world.pass(ms(200));
    world.gateway.degrade(ids[0], Op::Cap, 500);
    reply(&mut world, answered(actions(vec![cap(0, 100), cap(1, 100)])));
    assert_eq!([ids[0], ids[1]].map(|id| world.cap(id)), [500, 100]);
    assert_eq!(world.guards(), [GuardRule::Outdated]);
    let memory =
        |world: &World, id| world.gateway.tables.sessions[&id].memory().read(None).cloned();
    assert_eq!(memory(&world, ids[0]), None, "nor is its state kept");
    assert_eq!(memory(&world, ids[1]), Some(Arc::new(state(b"new"))));
    // The next question contains the changed cap.
    tick(&mut world, answered(actions(vec![cap(0, 100), cap(0, 200)])));
    assert_eq!(world.cap(ids[0]), 200, "and its own first action does not outdate its second");
}

#[test]
fn answer_for_changed_subjects_is_stale() {
    let (mut world, ids) = ticking(1);
    world.pass(ms(200));
    world.gateway.degrade(ids[0], Op::Cap, 500);
    reply(&mut world, answered(actions(vec![cap(0, 100)])));
    let stale = |event: &CoreEvent| {
        matches!(event, CoreEvent::Decided { outcome: DecisionOutcome::Stale, .. })
    };
    assert!(world.events().any(stale));
    assert!(world.gateway.policies.keeps_no_memo());
}

#[test]
fn moves_of_moved_rooms_are_counted() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    for room in ["1", "2"] {
        world.open(room);
    }
    world.answer_with(|_| None);
    world.gateway.handle_policy_changed(&policy(Hook::Routing), world.now);
    world.pass(ms(0));
    world.gateway.handle_move(&"1".into(), D, world.now).unwrap();
    world.settle();
    let step = |row| RoutingMove { row, hops: vec![B, A], ttl_ms: 0, reason: 0 };
    reply(&mut world, answered(moves(vec![step(0), step(1)])));
    assert_eq!(["1", "2"].map(|room| world.stands(room)), [Some(D), Some(B)]);
    assert_eq!(world.guards(), [GuardRule::Outdated]);
}

#[test]
fn repeated_violation_is_reported_with_count() {
    let (mut world, _) = ticking(1);
    tick(&mut world, answered(actions(vec![cap(0, 1); 1_000])));
    let guarded = |event: &CoreEvent| match event {
        CoreEvent::Guarded { guard, times, .. } => Some((*guard, *times)),
        _ => None,
    };
    let all: Vec<_> = world.events().filter_map(guarded).collect();
    assert_eq!(all, [(GuardRule::ArgumentOutOfBounds, 1_000)]);
}

#[test]
fn ungranted_actions_are_counted() {
    let (mut world, _) = ticking(1);
    tick(&mut world, RevisionAnswer { ungranted: 3, ..answered(actions(Vec::new())) });
    assert_eq!(world.guards(), [GuardRule::UnknownAction; 3]);
}

#[test]
fn dead_node_is_no_hop() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    world.open("r");
    let advise = |world: &mut World, hops: &[NodeId]| {
        world.answer_with(|_| None);
        world.gateway.handle_policy_changed(&policy(Hook::Routing), world.now);
        world.pass(ms(0));
        let step = RoutingMove { row: 0, hops: hops.to_vec(), ttl_ms: 0, reason: 0 };
        reply(world, answered(moves(vec![step])));
    };
    advise(&mut world, &[C, A]);
    assert_eq!((world.stands("r"), world.guards()), (Some(C), vec![]));
    world.kill(D);
    world.held.clear();
    advise(&mut world, &[D, A]);
    assert_eq!((world.stands("r"), world.guards()), (Some(C), vec![GuardRule::UnusableNode]));
    world.answer_with(place(&[D]));
    world.open("new");
    assert_ne!(world.stands("new"), Some(D));
}

#[test]
fn moved_sessions_per_second_are_limited() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    for room in ["1", "1", "1", "2", "3", "3", "4", "5"] {
        world.open(room);
    }
    // A quarter of eight is two: the first room may always move, and no further one.
    let all = |rows: std::ops::Range<u32>| {
        let step = |row| RoutingMove { row, hops: vec![B, A], ttl_ms: 0, reason: 0 };
        answered(moves(rows.map(step).collect()))
    };
    world.answer_with(|_| None);
    let advise = |world: &mut World, rows| {
        world.gateway.handle_policy_changed(&policy(Hook::Routing), world.now);
        world.pass(ms(0));
        reply(world, all(rows));
    };
    advise(&mut world, 0..2);
    let stands =
        |world: &World| ["1", "2", "3", "4", "5"].map(|room| world.stands(room) == Some(B));
    assert_eq!(stands(&world), [true, false, false, false, false]);
    assert_eq!(world.guards(), [GuardRule::Churn]);
    world.pass(ms(1_000));
    // One room of one fails, then one of two, which exceeds the limit, then one.
    advise(&mut world, 1..4);
    assert_eq!(stands(&world), [true, true, false, true, false]);
}

/// Workers report that half of the packets to the session are lost.
fn lose(world: &mut World, session: SessionId, loss_ppm: u64) {
    let mut measures = Measures::default();
    measures.set(Metric::LossDown, loss_ppm);
    world.gateway.handle_summary(session, measures, Some(world.now));
}

fn laddering(on_fault: DegradeOnFault) -> (World, SessionId) {
    let mut settings = settings();
    for scenario in settings.scenarios.values_mut() {
        scenario.on_degradation_fault = on_fault;
    }
    let mut world = World::with_policy(settings, &[Hook::Degradation], |_| Some(Err(trap())));
    let session = world.open("r");
    lose(&mut world, session, 500_000);
    (world, session)
}

#[test]
fn failing_policy_yields_to_native_ladder() {
    let (mut world, session) = laddering(DegradeOnFault::NativeLadder);
    world.pass(ms(2_100));
    assert_eq!(world.cap(session), 0, "it may have a bad moment");
    world.pass(ms(200));
    assert_eq!(world.cap(session), 1_000);
    world.pass(ms(1_000));
    assert_eq!(world.cap(session), 500);
    let native =
        |event: &CoreEvent| matches!(event, CoreEvent::Degraded { by: Decider::Native, .. });
    assert_eq!(world.events().filter(|event| native(event)).count(), 2);

    // The policy answers for the session again.
    world.answer_with(|ask| match &ask.question {
        PolicyQuestion::Tick { .. } => Some(Ok(actions(vec![cap(0, 300)]))),
        _ => None,
    });
    world.pass(ms(5_000));
    assert_eq!(world.cap(session), 300);
    assert!(world.gateway.degradation.is_idle());
}

#[test]
fn hold_keeps_sessions_during_failure() {
    let (mut world, session) = laddering(DegradeOnFault::Hold);
    world.pass(ms(10_000));
    assert_eq!(world.cap(session), 0);
}

#[test]
fn quarantined_session_uses_native_ladder() {
    let (mut world, session) = laddering(DegradeOnFault::NativeLadder);
    let other = world.open("other");
    lose(&mut world, other, 500_000);
    world.answer_with(|_| None);
    for _ in 0..20 {
        let nothing = answered(actions(Vec::new()));
        tick(&mut world, RevisionAnswer { isolated: left_out(&[0]), ..nothing });
    }
    assert!(world.cap(session) > 0);
    assert_eq!(world.cap(other), 0);
}

fn said(world: &World, session: SessionId) -> Vec<SubjectDecision> {
    explained(world, session).room.answers
}

fn note(row: u32, key: &str, value: i64) -> DecisionNote {
    DecisionNote { row, key: key.into(), value }
}

#[test]
fn session_note_is_explained_in_words() {
    let (mut world, ids) = ticking(3);
    let mut notes: Vec<DecisionNote> = (0..9).map(|value| note(0, "loss", value)).collect();
    notes.push(note(2, "quiet", 1));
    notes.push(note(77, "nobody", 1));
    let answer = actions(vec![cap(0, 100), cap(1, 1)]);
    tick(&mut world, RevisionAnswer { notes, ..answered(answer) });
    world.pass(ms(100));

    let [first] = &said(&world, ids[0])[..] else { panic!() };
    assert_eq!((first.hook, first.reason.as_deref()), (Hook::Degradation, Some("lossy")));
    assert_eq!(first.by.to_string(), format!("call/degradation@{REVISION}"));
    assert_eq!(
        (&first.outcome, first.since),
        (&DecisionOutcome::Applied { differs: true }, ms(100))
    );
    assert_eq!(first.notes.len(), 8, "so many fit on a screen");
    assert_eq!(first.notes[7], ("loss".into(), 7));

    let [second] = &said(&world, ids[1])[..] else { panic!() };
    assert_eq!(second.outcome, DecisionOutcome::Guarded(GuardRule::ArgumentOutOfBounds));
    assert_eq!((second.reason.as_deref(), second.notes.len()), (Some("lossy"), 0));

    let [third] = &said(&world, ids[2])[..] else { panic!() };
    assert_eq!((&third.outcome, third.reason.as_deref()), (&DecisionOutcome::Kept, None));
    assert_eq!(&*third.notes, [("quiet".into(), 1)]);
}

#[test]
fn notes_end_with_their_subject() {
    let (mut world, ids) = ticking(2);
    tick(&mut world, answered(actions(vec![cap(0, 100)])));
    assert_eq!(said(&world, ids[0]).len(), 1);
    // An unchanged plan needs no reason; the reason of the last change remains.
    world.pass(ms(1_000));
    tick(&mut world, answered(actions(vec![cap(0, 100)])));
    assert_eq!(said(&world, ids[0])[0].since, ms(1_200));
    assert!(said(&world, ids[1]).is_empty());
    world.close(ids[0]);
    assert_eq!(world.gateway.subject_history.decisions(&[], world.now), []);
    assert!(
        format!("{:?}", world.gateway.subject_history).contains("decisions: {}"),
        "it ends with its session"
    );
}

#[test]
fn routing_refuses_a_room_with_its_reason() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |_| None);
    let mut refuse = |ttl_ms: u32, reason: u32| {
        let offer = world.offer("r");
        let HookAnswer::Placed { state, .. } = placement(&[], 0) else { panic!() };
        let hops = vec![evenkeel_model::NO_NODE];
        reply(&mut world, answered(HookAnswer::Placed { hops, ttl_ms, state, reason }));
        assert!(world.gateway.rooms.len() == 0);
        let Some(OfferRefusal::PlacementRefused { reason, retry_after }) =
            denied(world.replies.get(&offer))
        else {
            panic!("no node carries it")
        };
        (reason, retry_after)
    };
    let (reason, retry_after) = refuse(700, 3);
    assert_eq!(reason.as_deref(), Some("lossy"));
    assert!((ms(700)..ms(1_400)).contains(&retry_after), "{retry_after:?}");
    let (reason, retry_after) = refuse(0, 0);
    assert_eq!(reason, None);
    assert!(retry_after >= ms(2_000), "as without capacity: {retry_after:?}");
    let outcomes = world.events().filter_map(|event| match event {
        CoreEvent::Decided { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    let applied = DecisionOutcome::Applied { differs: true };
    assert_eq!(outcomes.collect::<Vec<_>>(), [applied.clone(), applied]);
}

#[test]
fn node_that_a_policy_did_not_choose_says_so() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A]));
    let session = world.open("r");
    let why = |world: &World| -> Vec<(NodeId, &str)> {
        let explained = explained(world, session);
        explained.room.candidates.iter().map(|at| (at.hop.node, at.why.name())).collect()
    };
    let others = [B, C].map(|node| (node, "not-chosen"));
    assert_eq!(why(&world)[..2], others);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(C, true, None, world.now))
        .unwrap();
    world.settle();
    assert_eq!(
        why(&world)[..2],
        [others[0], (C, "draining")],
        "a fact, whatever the policy thinks"
    );
}

#[test]
fn late_answer_about_an_offer_is_explained() {
    let mut world = World::with_policy(settings(), &[Hook::Admission], |_| None);
    world.offer("r");
    world.pass(ms(3));
    let session = world.gateway.tables.sessions.keys().next().unwrap();
    let [said] = &said(&world, session)[..] else { panic!() };
    assert_eq!((said.hook, &said.by, &said.reason), (Hook::Admission, &Decider::Native, &None));
    assert_eq!(said.outcome, DecisionOutcome::Faulted(PluginFault::Late));
}

#[test]
fn room_note_explains_its_sessions() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |_| None);
    world.offer("r");
    let HookAnswer::Placed { hops, ttl_ms, state, .. } = placement(&[B, A], 0) else { panic!() };
    let answer = HookAnswer::Placed { hops, ttl_ms, state, reason: 3 };
    let notes = vec![note(0, "cost_us", 7)];
    reply(&mut world, RevisionAnswer { notes, ..answered(answer) });
    let session = world.gateway.tables.sessions.keys().next().unwrap();
    let [said] = &said(&world, session)[..] else { panic!() };
    assert_eq!((said.hook, said.reason.as_deref()), (Hook::Routing, Some("lossy")));
    assert_eq!(&*said.notes, [("cost_us".into(), 7)]);
    let reasons: Vec<_> = world
        .events()
        .filter_map(|event| match event {
            CoreEvent::Decided { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [Some("lossy".into())]);
}

#[test]
fn unnamed_reason_is_a_number() {
    let (mut world, ids) = ticking(1);
    let unnamed = DegradationAction { reason: 44, ..cap(0, 100) };
    tick(&mut world, answered(actions(vec![unnamed])));
    assert_eq!(said(&world, ids[0])[0].reason.as_deref(), Some("44"));
}

#[test]
fn hidden_state_is_reported_as_violation() {
    let (mut world, _) = ticking(1);
    world.gateway.handle_hidden_state(
        &policy(Hook::Degradation),
        &REVISION.into(),
        "its memo".into(),
        evenkeel_model::BreachCount { of: 4, worse: 1 },
    );
    world.settle();
    assert_eq!(world.guards(), [GuardRule::HiddenState]);
    let told = |event: &&CoreEvent| matches!(event, CoreEvent::HiddenState { differs, .. } if &**differs == "its memo");
    assert_eq!(world.events().filter(told).count(), 1);
}

#[test]
fn left_out_rows_are_not_replayed() {
    let (mut world, ids) = ticking(4);
    world.pass(ms(200));
    let mut question = world.held[0].question.clone();
    let isolated = IsolatedRows { unasked: vec![3], ..*left_out(&[1]).unwrap() };
    question.leave_out(&isolated);
    assert_eq!(question.batch(), Some(vec![ids[0].0, ids[2].0]));
}
