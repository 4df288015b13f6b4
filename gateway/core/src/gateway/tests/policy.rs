use evenkeel_model::{
    CoreEvent, Hook, HookAnswer, Measures, Metric, PluginFault, PolicyName, PolicyQuestion, RoomId,
    RoutingMove,
};

use super::revising::{alone, policy, tried, turn};
use super::*;
use crate::GatewayEffect;

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn kept() -> HookAnswer {
    HookAnswer::Moves { moves: Vec::new(), states: Vec::new(), memo: None }
}

#[test]
fn replaced_policy_is_asked_in_batches() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    for room in 0..300 {
        world.open(&room.to_string());
    }
    world.answer_with(|_| None);
    world.gateway.handle_policy_changed(&routing(), world.now);
    world.pass(ms(0));
    let rows = |world: &World| match &world.held[0].question {
        PolicyQuestion::Reroute { rooms, .. } => rooms.len(),
        _ => 0,
    };
    assert_eq!((world.held.len(), rows(&world)), (1, 256));
    world.answer_held(Ok(kept()));
    world.pass(ms(0));
    assert_eq!((world.held.len(), rows(&world)), (1, 44));
    world.answer_held(Ok(kept()));
    world.pass(ms(1));
    assert!(world.held.is_empty());
}

#[test]
fn state_and_memo_return_with_next_question() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    world.open("r");
    world.answer_with(|_| None);
    let answer = HookAnswer::Moves {
        moves: vec![],
        states: vec![(0, state(b"s"))],
        memo: Some(state(b"m")),
    };
    world.gateway.handle_policy_changed(&routing(), world.now);
    world.pass(ms(0));
    world.answer_held(Ok(answer));
    world.gateway.handle_policy_changed(&routing(), world.now);
    world.pass(ms(0));
    let PolicyQuestion::Reroute { rooms, memo, .. } = &world.held[0].question else { panic!() };
    assert_eq!((&rooms[0].state, memo), (&Some(state(b"s")), &Some(state(b"m"))));
}

#[test]
fn policy_fault_and_recovery_are_reported_once() {
    let mut world = World::with_policy(settings(), &[Hook::Admission], |_| Some(Ok(accept())));
    world.open("1");
    world.answer_with(|_| Some(Err(PluginFault::OutOfMemory)));
    world.open("2");
    world.open("3");
    world.answer_with(|_| Some(Ok(accept())));
    world.open("4");
    world.open("5");
    assert_eq!(standings(&world), [Some(PluginFault::OutOfMemory), None]);
}

#[test]
fn single_late_answer_is_no_failure() {
    let mut world = World::with_policy(settings(), &[Hook::Admission], |_| Some(Ok(accept())));
    turn(&mut world, Hook::Admission, alone());
    let mut offer = |name: &str, is_late: bool| {
        world.answer_with(move |_| (!is_late).then(|| Ok(accept())));
        world.offer(name);
        world.pass(ms(3));
        standings(&world)
    };
    assert_eq!(offer("1", true), []);
    assert_eq!(offer("2", false), []);
    assert_eq!(offer("3", true), []);
    assert_eq!(offer("4", true), [Some(PluginFault::Late)]);
    assert_eq!(offer("5", false), [Some(PluginFault::Late), None]);
    let status = world.gateway.policy(&policy(Hook::Admission)).unwrap().status(world.now);
    assert_eq!((status.late, status.faults), (3, 0));
}

#[test]
fn failure_ends_without_recent_fault() {
    let mut world = World::with_policy(settings(), &[Hook::Admission], |_| None);
    let late_answer = |world: &mut World, room: &str| {
        world.offer(room);
        world.pass(ms(3));
        standings(world)
    };
    let later = |world: &mut World, seconds: u64| {
        world.now += ms(1_000 * seconds);
        world.pass(ms(3));
        standings(world)
    };
    assert_eq!(late_answer(&mut world, "1"), []);
    later(&mut world, 301);
    assert_eq!(late_answer(&mut world, "2"), []);
    later(&mut world, 200);
    let reported = Some(PluginFault::Late);
    assert_eq!(late_answer(&mut world, "3"), std::slice::from_ref(&reported));
    assert_eq!(later(&mut world, 299), std::slice::from_ref(&reported));
    assert_eq!(later(&mut world, 2), [reported, None]);
}

fn standings(world: &World) -> Vec<Option<PluginFault>> {
    let standing = |event: &CoreEvent| match event {
        CoreEvent::Standing { fault, .. } => Some(fault.clone()),
        _ => None,
    };
    world.events().filter_map(standing).collect()
}

#[test]
fn answer_of_wrong_kind_is_a_fault() {
    let mut world = World::with_policy(settings(), &[Hook::Admission, Hook::Routing], |_| {
        Some(Ok(HookAnswer::Params(Vec::new())))
    });
    let offer = world.offer("r");
    world.accepted(offer);
    let malformed = |e: &&CoreEvent| {
        matches!(
            e,
            CoreEvent::Decided {
                outcome: evenkeel_model::DecisionOutcome::Faulted(PluginFault::Malformed(_)),
                ..
            }
        )
    };
    assert_eq!(world.events().filter(malformed).count(), 2);
}

#[test]
fn excess_questions_use_native_default() {
    let mut world = World::with_policy(settings(), &[Hook::Admission], |_| None);
    for room in 0..300 {
        world.offer(&room.to_string());
    }
    assert_eq!((world.held.len(), world.replies.len()), (256, 44));
    world.pass(ms(2));
    assert_eq!(world.replies.len(), 300);
}

#[test]
fn room_is_reviewed_at_its_ttl() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |ask| {
        matches!(ask.question, PolicyQuestion::Place { .. }).then(|| Ok(placement(&[A, B], 400)))
    });
    world.open("r");
    world.pass(ms(399));
    assert!(world.held.is_empty());
    world.pass(ms(51));
    assert_eq!(world.held.len(), 1);
    world.answer_held(Err(PluginFault::Trap("x".into())));
    world.pass(ms(450));
    assert_eq!(world.held.len(), 1, "a fault does not end the reviews");
}

#[test]
fn reviews_close_in_time_are_batched() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |ask| {
        matches!(ask.question, PolicyQuestion::Place { .. }).then(|| Ok(placement(&[A, B], 8_000)))
    });
    for room in 0..30 {
        world.open(&room.to_string());
        world.pass(ms(3));
    }
    world.pass(ms(8_200));
    let rooms = |ask: &evenkeel_model::Ask| match &ask.question {
        PolicyQuestion::Reroute { rooms, .. } => rooms.len(),
        question => panic!("{question:?}"),
    };
    assert!(world.held.len() <= 2, "{}", world.held.len());
    assert_eq!(world.held.iter().map(rooms).sum::<usize>(), 30);
}

/// The rooms that were reviewed since the last call, one for each review.
fn take_reviewed(world: &mut World) -> Vec<RoomId> {
    let outputs = std::mem::take(&mut world.outputs);
    let rows = outputs.iter().filter_map(|output| match output {
        GatewayEffect::Ask(ask) => match &ask.question {
            PolicyQuestion::Reroute { rooms, .. } => Some(rooms),
            _ => None,
        },
        _ => None,
    });
    rows.flatten().map(|room| RoomId(room.row.id)).collect()
}

#[test]
fn unchanged_rooms_are_not_reviewed_among_many() {
    const ROOMS: usize = 2_000;
    let nodes = settings_of(&[(0, 1_000_000), (1, 1_000_000)]);
    let mut world = World::with_policy(nodes, &[Hook::Routing], |ask| {
        Some(Ok(match ask.question {
            PolicyQuestion::Place { .. } => placement(&[A, B], 1_000),
            _ => kept(),
        }))
    });
    let sessions: Vec<_> = (0..ROOMS).map(|room| world.open(&room.to_string())).collect();
    world.pass(ms(1_200));
    assert_eq!(take_reviewed(&mut world).len(), ROOMS, "each has its first review");
    world.pass(ms(4_000));
    assert_eq!(take_reviewed(&mut world), []);
    let mut measures = Measures::default();
    measures.set(Metric::LossDown, 50_000);
    world.gateway.handle_summary(sessions[7], measures, Some(world.now));
    world.pass(ms(1_200));
    assert_eq!(take_reviewed(&mut world), [world.room("7")], "its session loses packets");
    world.pass(ms(1_200));
    assert_eq!(take_reviewed(&mut world), []);
    world.gateway.handle_decay(B, 500);
    world.pass(ms(1_700));
    assert_eq!(take_reviewed(&mut world).len(), ROOMS, "a node decays");
    world.pass(ms(12_000));
    assert_eq!(take_reviewed(&mut world).len(), ROOMS, "a policy may wait for a time of its own");
}

#[test]
fn many_rooms_are_reviewed_while_they_change() {
    const ROOMS: usize = 1_100;
    let reviewed = |answer: fn() -> Result<HookAnswer, PluginFault>| {
        let nodes = settings_of(&[(0, 1_000_000), (1, 1_000_000)]);
        let mut world = World::with_policy(nodes, &[Hook::Routing], move |ask| {
            Some(match ask.question {
                PolicyQuestion::Place { .. } => Ok(placement(&[A, B], 1_000)),
                _ => answer(),
            })
        });
        (0..ROOMS).for_each(|room| _ = world.open(&room.to_string()));
        world.pass(ms(1_200));
        assert_eq!(take_reviewed(&mut world).len(), ROOMS);
        world.pass(ms(1_200));
        take_reviewed(&mut world).len()
    };
    // A question has up to 256 rooms.
    let questions = ROOMS.div_ceil(256);
    let written = || {
        let states = vec![(0, state(b"changed"))];
        Ok(HookAnswer::Moves { moves: Vec::new(), states, memo: None })
    };
    assert_eq!(reviewed(written), questions, "a room with another state");
    let moved = || {
        let moves = vec![RoutingMove { row: 0, hops: vec![A, B], ttl_ms: 1_000, reason: 0 }];
        Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None })
    };
    assert_eq!(reviewed(moved), questions, "a room that the policy routed");
    let noted = || {
        let memo = Some(state(b"m"));
        Ok(HookAnswer::Moves { moves: Vec::new(), states: Vec::new(), memo })
    };
    assert_eq!(reviewed(noted), ROOMS, "another memo changes the next answers");
    assert_eq!(reviewed(|| Err(PluginFault::OutOfMemory)), ROOMS, "there is no answer");
    assert_eq!(reviewed(|| Ok(kept())), 0);
}

#[test]
fn many_rooms_are_reviewed_while_a_canary_is_judged() {
    const ROOMS: usize = 1_100;
    let nodes = settings_of(&[(0, 1_000_000), (1, 1_000_000)]);
    let mut world = World::with_policy(nodes, &[Hook::Routing], |ask| {
        Some(Ok(match ask.question {
            PolicyQuestion::Place { .. } => placement(&[A, B], 1_000),
            _ => kept(),
        }))
    });
    turn(&mut world, Hook::Routing, alone());
    (0..ROOMS).for_each(|room| _ = world.open(&room.to_string()));
    turn(&mut world, Hook::Routing, tried(10));
    world.pass(ms(1_200));
    take_reviewed(&mut world);
    world.pass(ms(1_200));
    assert_eq!(take_reviewed(&mut world).len(), ROOMS);
}

#[test]
fn many_rooms_without_a_standby_keep_their_reviews() {
    const ROOMS: usize = 1_100;
    let nodes = settings_of(&[(0, 1_000_000)]);
    let mut world = World::with_policy(nodes, &[Hook::Routing], |ask| {
        Some(Ok(match ask.question {
            PolicyQuestion::Place { .. } => placement(&[A], 1_000),
            _ => kept(),
        }))
    });
    (0..ROOMS).for_each(|room| _ = world.open(&room.to_string()));
    world.pass(ms(1_200));
    take_reviewed(&mut world);
    world.pass(ms(1_200));
    assert!(take_reviewed(&mut world).len() >= ROOMS);
}

/// The policy names no time, so that a review that is left out is never made up for.
#[test]
fn room_is_reviewed_once_it_avoids_no_hop_any_more() {
    const ROOMS: usize = 2_100;
    let nodes = settings_of(&[(0, 1_000_000), (1, 1_000_000), (0, 1_000_000)]);
    let mut world = World::with_policy(nodes, &[Hook::Routing], place(&[A, B, C]));
    let sessions: Vec<_> = (0..ROOMS).map(|room| world.open(&room.to_string())).collect();
    world.pass(ms(100));
    take_reviewed(&mut world);
    world.gateway.handle_port_closed(sessions[7], world.hop(C), world.now);
    world.pass(ms(100));
    assert_eq!(take_reviewed(&mut world), [world.room("7")], "it lost a standby");
    world.pass(ms(10_000));
    assert_eq!(take_reviewed(&mut world), [world.room("7")], "the hop is no longer avoided");
}

#[test]
fn policy_cannot_be_asked_constantly() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |ask| {
        Some(Ok(match ask.question {
            PolicyQuestion::Place { .. } => placement(&[A, B], 1),
            _ => {
                let hops = vec![A, B];
                let moves = vec![RoutingMove { row: 0, hops, ttl_ms: 1, reason: 0 }];
                HookAnswer::Moves { moves, states: Vec::new(), memo: None }
            }
        }))
    });
    world.open("r");
    world.pass(ms(1_000));
    assert_eq!(world.asked(Hook::Routing), 1 + 10);
}
