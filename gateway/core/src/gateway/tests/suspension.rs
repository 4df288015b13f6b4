//! Policies suspend sessions, and end them.

use evenkeel_model::{
    CloseReason, CoreEvent, DegradationAction, Hook, HookAnswer, Metric, Op, SessionId,
};

use super::super::GatewayEffect;
use super::*;

fn world() -> World {
    World::with_policy(settings(), &[Hook::Degradation], |_| None)
}

/// The policy takes an action on the first session.
fn act(world: &mut World, op: Op, arg: u64) {
    let actions = vec![DegradationAction { row: 0, op: op as u32, arg, reason: 0 }];
    let mut answer = Some(HookAnswer::Actions { actions, states: Vec::new(), memo: None });
    world.answer_with(move |_| answer.take().map(Ok));
    world.pass(ms(200));
}

fn is_parked(world: &World, session: SessionId) -> bool {
    world.gateway.tables.sessions[&session].plan_in_force().limits.parked
}

#[test]
fn parked_session_stays_until_it_is_resumed() {
    let mut world = world();
    let [parked, other] = [world.open("r"), world.open("r")];
    act(&mut world, Op::Park, 1);
    assert_eq!([is_parked(&world, parked), is_parked(&world, other)], [true, false]);
    let measures = world.gateway.tables.sessions[&parked].measures(world.now);
    assert_eq!(measures.measured(Metric::Park), Some(1));
    assert_eq!(measures.measured(Metric::Rung), Some(1));
    act(&mut world, Op::Park, 0);
    assert!(!is_parked(&world, parked));
    let told: Vec<_> = world
        .events()
        .filter_map(|event| match event {
            CoreEvent::Degraded { session, op: Op::Park, arg, .. } => Some((*session, *arg)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(parked, 1), (parked, 0)]);
    act(&mut world, Op::Park, 1);
    world.hand_over(ms(0));
    assert!(is_parked(&world, parked), "also at another process");
}

#[test]
fn policy_ends_a_session_and_no_other() {
    let mut world = world();
    let [ended, other] = [world.open("r"), world.open("r")];
    act(&mut world, Op::End, 0);
    assert!(world.gateway.tables.sessions.contains_key(&ended), "0 has no effect");
    act(&mut world, Op::End, 1);
    assert!(!world.gateway.tables.sessions.contains_key(&ended));
    assert!(world.gateway.tables.sessions.contains_key(&other));
    let told: Vec<_> = world
        .events()
        .filter_map(|event| match event {
            CoreEvent::Degraded { session, op, .. } => Some((*session, op.key())),
            CoreEvent::Closed { session, reason, .. } => Some((*session, reason.name())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(ended, "end"), (ended, CloseReason::EndedByPolicy.name())]);
    let ends = |output: &GatewayEffect| match output {
        GatewayEffect::End { session, reason } => Some((*session, *reason)),
        _ => None,
    };
    let ends: Vec<_> = world.outputs.iter().filter_map(ends).collect();
    assert_eq!(ends, [(ended, CloseReason::EndedByPolicy)], "workers and nodes forget it");
}
