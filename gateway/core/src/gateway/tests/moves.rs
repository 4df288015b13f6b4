use evenkeel_model::{
    ClientTransport, ClosedSession, CoreEvent, Decider, DecisionOutcome, GuardRule, Health, Hook,
    HookAnswer, HopGrant, Impossible, MoveCause, NodeId, PolicyQuestion, PortMove, RoutingMove,
};

use super::super::GatewayEffect;
use super::world::{Driver, VOICE};
use super::*;

fn step(row: u32, hops: &[NodeId]) -> RoutingMove {
    RoutingMove { row, hops: hops.to_vec(), ttl_ms: 0, reason: 0 }
}

fn moves(moves: Vec<RoutingMove>) -> HookAnswer {
    HookAnswer::Moves { moves, states: Vec::new(), memo: None }
}

/// Asks the routing policy about every room, and gives this answer.
fn advise(world: &mut World, answer: HookAnswer) {
    world.answer_with(|_| None);
    world.held.clear();
    let policy = evenkeel_model::PolicyName { set: "call".into(), hook: Hook::Routing };
    world.gateway.handle_policy_changed(&policy, world.now);
    world.pass(ms(0));
    world.answer_held(Ok(answer));
}

fn outcome(world: &World) -> DecisionOutcome {
    let decided = |e: &CoreEvent| match e {
        CoreEvent::Decided { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    world.events().filter_map(decided).last().unwrap()
}

#[test]
fn room_moves_once_all_sessions_open() {
    let mut world = World::new(settings());
    let sessions = [world.open("r"), world.open("r")];
    world.drive_with(|_, hop| if hop.node == D { Driver::Waits } else { Driver::Opens });
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    let hop = world.hop(D);
    world.opening.remove(&(sessions[0], hop));
    world.gateway.handle_opened(sessions[0], hop, Ok(()), world.now);
    world.settle();
    assert_eq!(world.stands("r"), Some(A));
    world.finish_opening(D, Ok(()));
    assert_eq!(world.stands("r"), Some(D));
    let by_hand = |e: &CoreEvent| {
        matches!(e, CoreEvent::Moved { cause: MoveCause::Manual, by: Decider::Operator, .. })
    };
    assert!(world.events().any(by_hand));
}

#[test]
fn session_joining_a_move_moves_too() {
    let mut world = World::new(settings());
    world.open("r");
    world.drive_with(|_, hop| if hop.node == D { Driver::Waits } else { Driver::Opens });
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    let late = world.open("r");
    let first = world.gateway.tables.sessions.keys().next().unwrap();
    let hop = world.hop(D);
    world.gateway.handle_opened(first, hop, Ok(()), world.now);
    world.settle();
    assert_eq!(world.stands("r"), Some(A));
    world.gateway.handle_opened(late, hop, Ok(()), world.now);
    world.settle();
    assert_eq!(world.stands("r"), Some(D));
}

#[test]
fn left_hop_finishes_then_closes() {
    let mut world = World::new(settings());
    let session = world.open("r");
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    let route = world.gateway.rooms[&world.room("r")].route();
    let (left, until) = route.leaving().unwrap();
    assert_eq!((left.node, until), (A, world.now + ms(500)));
    let spare = world.route("r")[1].0;
    world.pass(ms(499));
    assert!(spare == A || !world.closed_at().contains(&(session, A)));
    world.pass(ms(1));
    assert_eq!(world.closed_at().contains(&(session, A)), spare != A);
}

#[test]
fn impossible_manual_move_is_explained() {
    let mut world = World::new(settings_of(&[(0, 1_000), (1, 1_000), (1, 10)]));
    world.open("r");
    let go = |world: &mut World, room: &str, to| {
        let result = world.gateway.handle_move(&room.into(), to, world.now);
        world.settle();
        result
    };
    assert_eq!(go(&mut world, "x", B), Err(Impossible::NoSuchRoom));
    assert_eq!(go(&mut world, "r", NodeId(9)), Err(Impossible::NoSuchNode));
    assert_eq!(go(&mut world, "r", A), Err(Impossible::AlreadyThere));
    assert_eq!(go(&mut world, "r", C), Err(Impossible::NodeUnfit));
    world.kill(B);
    assert_eq!(go(&mut world, "r", B), Err(Impossible::NodeUnfit));
}

#[test]
fn closed_session_counts_its_own_moves() {
    let mut world = World::new(settings());
    let first = world.open("r");
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.pass(ms(1_000));
    let (second, offered) = (world.open("r"), world.now);
    world.pass(ms(3_000));
    world.kill(D);
    world.pass(ms(1_000));
    world.close(first);
    world.close(second);
    let closed = |e: &CoreEvent| match e {
        CoreEvent::Closed { session, closed, .. } => Some((*session, closed.clone())),
        _ => None,
    };
    let closed: Vec<_> = world.events().filter_map(closed).collect();
    let [(one, moved), (two, late)] = &*closed else { panic!("{closed:?}") };
    let steps = |closed: &ClosedSession| {
        let steps = closed.moves.iter().map(|step| (step.cause, step.from.node));
        steps.collect::<Vec<_>>()
    };
    let death = (MoveCause::NodeDown, D);
    assert_eq!((*one, steps(moved)), (first, vec![(MoveCause::Manual, A), death]));
    assert_eq!((*two, steps(late)), (second, vec![death]));
    assert_eq!((late.offered, late.ended), (offered, world.now));
    assert_eq!((&*late.scenario, late.transport), ("call", ClientTransport::Udp));
}

#[test]
fn a_room_does_not_stand_in_its_own_way() {
    let mut world = World::new(settings_of(&[(0, VOICE), (1, VOICE)]));
    world.open("r");
    assert_eq!(world.route("r"), [(A, HopGrant::Admitted), (B, HopGrant::Reserved)]);
    world.gateway.handle_move(&"r".into(), B, world.now).unwrap();
    world.settle();
    assert_eq!(world.route("r"), [(B, HopGrant::Admitted), (A, HopGrant::Reserved)]);
}

#[test]
fn drained_node_moves_rooms_to_spares() {
    let mut world = World::new(settings());
    world.open("r");
    world.open("q");
    let spare = world.route("r")[1].0;
    let from = world.stands("r").unwrap();
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(from, true, None, world.now))
        .unwrap();
    world.settle();
    assert_eq!(world.stands("r"), Some(spare));
    for room in ["r", "q"] {
        assert!(world.route(room).iter().all(|(node, _)| *node != from), "{room}");
    }
    let offer = world.offer("new");
    world.accepted(offer);
    assert_ne!(world.stands("new"), Some(from));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(from, false, None, world.now))
        .unwrap();
    world.settle();
    let nobody = world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(NodeId(9), true, None, world.now));
    assert_eq!(nobody, Err(Impossible::NoSuchNode));
}

#[test]
fn unplaceable_rooms_leave_drain_later() {
    let mut world = World::new(settings_of(&[(0, 1_000), (1, VOICE)]));
    let sessions = [world.open("1"), world.open("2")];
    assert_eq!(["1", "2"].map(|room| world.stands(room)), [Some(A), Some(A)]);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.pass(ms(200));
    assert_eq!(["1", "2"].map(|room| world.stands(room)), [Some(B), Some(A)]);
    world.close(sessions[0]);
    world.pass(ms(50));
    assert_eq!(world.stands("2"), Some(B));
}

#[test]
fn policy_moves_room_3_times_a_minute() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A]));
    world.open("r");
    for to in [B, A, B] {
        advise(&mut world, moves(vec![step(0, &[to])]));
        assert_eq!(world.stands("r"), Some(to));
        world.pass(ms(2_000));
    }
    let last = world.now - ms(2_000);
    let first = last - ms(4_000);
    advise(&mut world, moves(vec![step(0, &[A])]));
    assert_eq!((world.stands("r"), world.guards()), (Some(B), vec![GuardRule::MovedTooOften]));
    assert_eq!(outcome(&world), DecisionOutcome::Guarded(GuardRule::MovedTooOften));
    // Moves off a dead node bypass damping.
    world.kill(B);
    world.pass(ms(10));
    let on = world.stands("r").unwrap();
    assert_ne!(on, B);
    let to = if on == A { C } else { A };
    let left = (first + ms(60_000)) - world.now;
    keep_talking(&mut world, left - ms(1));
    advise(&mut world, moves(vec![step(0, &[to])]));
    assert_eq!(world.stands("r"), Some(on));
    world.pass(ms(1));
    advise(&mut world, moves(vec![step(0, &[to])]));
    assert_eq!(world.stands("r"), Some(to));
}

fn keep_talking(world: &mut World, time: std::time::Duration) {
    let end = world.now + time;
    while world.now < end {
        let sessions: Vec<_> = world.gateway.tables.sessions.keys().collect();
        for session in sessions {
            world.gateway.handle_summary(
                session,
                evenkeel_model::Measures::default(),
                Some(world.now),
            );
        }
        world.pass(ms(1_000).min(end - world.now));
    }
}

#[test]
fn policy_moves_per_second_are_limited() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    for room in 0..8 {
        world.open(&room.to_string());
    }
    let all = || moves((0..8).map(|row| step(row, &[B, A])).collect());
    advise(&mut world, all());
    assert_eq!(world.moves().len(), 2, "a quarter of eight");
    assert_eq!(world.guards(), [GuardRule::Churn; 6]);
    world.pass(ms(999));
    advise(&mut world, moves((2..8).map(|row| step(row, &[B, A])).collect()));
    assert_eq!(world.moves().len(), 2);
    world.pass(ms(1));
    advise(&mut world, moves((2..8).map(|row| step(row, &[B, A])).collect()));
    assert_eq!(world.moves().len(), 4);
}

/// A policy may repeat a move until the room is open at the target.
#[test]
fn a_room_on_its_way_counts_as_one_move() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    for room in 0..8 {
        world.open(&room.to_string());
    }
    world.drive_with(|_, hop| if hop.node == D { Driver::Waits } else { Driver::Opens });
    for row in [0, 0, 0, 1] {
        advise(&mut world, moves(vec![step(row, &[D, A])]));
        assert_eq!(world.guards(), [], "a quarter of eight are two");
    }
    advise(&mut world, moves(vec![step(2, &[D, A])]));
    assert_eq!(world.guards(), [GuardRule::Churn]);
}

#[test]
fn a_single_room_may_always_move() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    world.open("r");
    advise(&mut world, moves(vec![step(0, &[B, A])]));
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn invalid_moves_are_dropped_rest_applied() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    for room in 0..3 {
        world.open(&room.to_string());
    }
    world.gateway.tables.settings.limits.churn_percent = 100;
    let hostile = vec![
        step(0, &[]),
        step(1, &[B, B]),
        step(2, &[B, C]),
        step(2, &[C]),
        step(7, &[A]),
        step(u32::MAX, &[NodeId(77)]),
    ];
    advise(&mut world, moves(hostile));
    assert_eq!(["0", "1", "2"].map(|room| world.stands(room)), [Some(A), Some(A), Some(B)]);
    let broken = [
        GuardRule::UnusableNode,
        GuardRule::UnusableNode,
        GuardRule::UnknownRow,
        GuardRule::UnknownRow,
        GuardRule::UnknownRow,
    ];
    assert_eq!(world.guards(), broken);
    assert_eq!(outcome(&world), DecisionOutcome::Applied { differs: true });
}

#[test]
fn move_to_full_node_is_refused_with_state() {
    let nodes = [(0, 1_000), (1, VOICE - 1)];
    let mut world = World::with_policy(settings_of(&nodes), &[Hook::Routing], place(&[A]));
    world.open("r");
    let answer = |hops: &[NodeId], bytes| HookAnswer::Moves {
        moves: vec![step(0, hops)],
        states: vec![(0, state(bytes)), (9, state(b"x"))],
        memo: None,
    };
    advise(&mut world, answer(&[B], b"refused"));
    assert_eq!(world.guards(), [GuardRule::NoCapacity]);
    let memory = |world: &World| world.gateway.rooms[&world.room("r")].memory().read(None).cloned();
    assert_eq!(memory(&world), Some(state(b"placed").into()));
    advise(&mut world, answer(&[A], b"kept"));
    assert_eq!(memory(&world), Some(state(b"kept").into()));
}

#[test]
fn answer_for_moved_room_is_stale() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    world.open("r");
    world.answer_with(|_| None);
    let policy = evenkeel_model::PolicyName { set: "call".into(), hook: Hook::Routing };
    world.gateway.handle_policy_changed(&policy, world.now);
    world.pass(ms(0));
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    world.answer_held(Ok(HookAnswer::Moves {
        moves: vec![step(0, &[C])],
        states: vec![(0, state(b"stale"))],
        memo: Some(state(b"stale")),
    }));
    assert_eq!(outcome(&world), DecisionOutcome::Stale);
    assert_eq!(world.stands("r"), Some(D));
    assert_eq!(
        world.gateway.rooms[&world.room("r")].memory().read(None).cloned(),
        Some(state(b"placed").into())
    );
    assert!(world.gateway.policies.keeps_no_memo());
}

#[test]
fn policy_does_not_undo_operator_move() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    world.open("r");
    world.drive_with(|_, _| Driver::Waits);
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    advise(&mut world, moves(vec![step(0, &[C, B])]));
    assert_eq!(outcome(&world), DecisionOutcome::Stale);
    for node in [D, A, B, C] {
        world.finish_opening(node, Ok(()));
    }
    assert_eq!(world.stands("r"), Some(D));
}

#[test]
fn closed_port_moves_room_once() {
    let mut world = World::new(settings());
    let session = world.open("r");
    let (from, to) = (world.hop(A), world.route("r")[1].0);
    world.gateway.handle_port_closed(session, from, world.now);
    world.settle();
    assert_eq!(world.moves(), [(A, Some(to))]);
    assert!(world.events().any(|e| matches!(e, CoreEvent::Moved { cause: MoveCause::Link, .. })));
    world.gateway.handle_port_closed(session, from, world.now);
    world.settle();
    assert_eq!(world.moves().len(), 1, "an echo of a hop that was left");
    world.pass(ms(100));
    assert!(world.gateway.board().cell(A).unwrap().up, "one call ended, the node lives");
}

#[test]
fn closed_port_of_a_dead_node_is_its_death() {
    let causes = |world: &World, session| {
        let explained = world.gateway.views().explain(session, world.now).unwrap();
        explained.room.moves.iter().map(|step| step.cause).collect::<Vec<_>>()
    };
    for (after, cause) in [(ms(100), MoveCause::NodeDown), (ms(5_000), MoveCause::Link)] {
        let mut world = World::new(settings());
        let session = world.open("r");
        let hop = world.hop(A);
        world.gateway.handle_port_closed(session, hop, world.now);
        world.pass(after);
        assert_eq!(causes(&world, session), [MoveCause::Link]);
        world.kill(A);
        assert_eq!(causes(&world, session), [cause]);
        let found = world.events().filter_map(|event| match event {
            CoreEvent::MoveCauseFound { hop, cause, moves } => {
                let [PortMove { room_name, sessions, .. }] = &moves[..] else { panic!() };
                assert_eq!(&**room_name, "r");
                Some((*hop, *cause, sessions.clone()))
            }
            _ => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), [(hop, cause, vec![session])]);
        let rooms = world.events().filter_map(|event| match event {
            CoreEvent::Node { to: Health::Down, rooms, .. } => Some(*rooms),
            _ => None,
        });
        assert_eq!(rooms.collect::<Vec<_>>(), [u32::from(cause == MoveCause::NodeDown)]);
    }
}

/// Nodes with a port per session: the kernel reports the ports of some rooms before three of them accuse the node.
fn assert_death_counts_all(between: impl FnOnce(&mut World)) {
    let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
    let sessions: Vec<_> = ["1", "2", "3", "4", "5"]
        .iter()
        .flat_map(|room| [world.open(room), world.open(room)])
        .collect();
    let hop = world.hop(A);
    assert!(["1", "2", "3", "4", "5"].iter().all(|room| world.stands(room) == Some(A)));
    for session in &sessions[..8] {
        world.gateway.handle_port_closed(*session, hop, world.now);
        world.settle();
    }
    between(&mut world);
    world.kill(A);
    world.pass(ms(5_000));
    let (mut rooms, mut lost) = (Vec::new(), Vec::new());
    for event in world.events() {
        match event {
            CoreEvent::Node { to: Health::Down, rooms: count, .. } => rooms.push(*count),
            CoreEvent::MoveCauseFound { cause, moves, .. } => {
                assert_eq!(*cause, MoveCause::NodeDown);
                lost.extend(moves.iter().flat_map(|it| it.sessions.clone()));
            }
            CoreEvent::Moved { cause, sessions, is_final: true, .. } => {
                assert_eq!(*cause, MoveCause::NodeDown);
                lost.extend(sessions);
            }
            _ => {}
        }
    }
    lost.sort_unstable();
    assert_eq!((rooms, lost), (vec![5], sessions));
}

#[test]
fn death_counts_rooms_whose_ports_closed_first() {
    assert_death_counts_all(|_| {});
}

#[test]
fn death_after_a_handover_counts_rooms_alike() {
    assert_death_counts_all(|world| {
        world.pass(ms(500));
        world.hand_over(ms(500));
    });
}

#[test]
fn handover_settles_port_moves_of_a_live_node() {
    let mut world = World::new(settings());
    let session = world.open("r");
    let hop = world.hop(A);
    world.gateway.handle_port_closed(session, hop, world.now);
    world.pass(ms(500));
    world.hand_over(ms(100));
    world.pass(ms(5_000));
    world.hand_over(ms(100));
    world.pass(ms(5_000));
    let found = world.events().filter_map(|event| match event {
        CoreEvent::MoveCauseFound { cause, moves, .. } => Some((*cause, moves.len())),
        _ => None,
    });
    assert_eq!(found.collect::<Vec<_>>(), [(MoveCause::Link, 1)]);
}

#[test]
fn closed_port_is_avoided_until_node_returns() {
    let mut world = World::new(settings_of(&[(0, 1_000); 2]));
    let session = world.open("r");
    let (closed, other) = (world.hop(A), world.hop(B));
    world.gateway.handle_port_closed(session, closed, world.now);
    world.pass(ms(100));
    assert_eq!(world.route("r").iter().map(|(node, _)| *node).collect::<Vec<_>>(), [B]);
    world.kill(A);
    world.pass(ms(1_000));
    world.revive(A);
    world.pass(ms(5_000));
    assert_ne!(world.hop(A), closed);
    assert_eq!(world.hop(B), other);
    assert_eq!(world.route("r").iter().map(|(node, _)| *node).collect::<Vec<_>>(), [B, A]);
}

#[test]
fn closed_port_without_target_is_reported_once() {
    let mut world = World::new(settings_of(&[(0, 1_000)]));
    let session = world.open("r");
    let hop = world.hop(A);
    for _ in 0..50 {
        world.gateway.handle_port_closed(session, hop, world.now);
        world.pass(ms(20));
    }
    assert_eq!(world.stands("r"), Some(A));
    let struck = world.events().filter(|e| matches!(e, CoreEvent::HopRemoved { .. })).count();
    assert_eq!(struck, 1);
}

#[test]
fn closing_ports_move_room_3_times_a_minute() {
    let mut world = World::new(settings_of(&[(0, 1_000); 7]));
    let session = world.open("r");
    for _ in 0..50 {
        let hop = world.gateway.stands_at(world.room("r")).unwrap();
        world.gateway.handle_port_closed(session, hop, world.now);
        world.pass(ms(100));
    }
    assert_eq!(world.moves().len(), 3);
}

#[test]
fn session_opens_at_a_hop_once() {
    let mut world = World::new(settings());
    world.drive_with(|_, _| Driver::Waits);
    world.offer("r");
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.gateway.handle_move(&"r".into(), C, world.now).unwrap();
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    let opens = world.outputs.iter().filter(|o| matches!(o, GatewayEffect::Open { .. })).count();
    let closes = world.closed_at().len();
    let open = world.gateway.tables.sessions.values().next().unwrap().legs().iter().count();
    assert_eq!(opens - closes, open, "opened once for each time it was closed");
}

#[test]
fn move_is_cancelled_above_rate() {
    const E: NodeId = NodeId(4);
    let nodes = [(0, 1_000), (1, 1_000), (0, 1_000), (2, 1_000), (1, 1_000)];
    let mut world = World::with_policy(settings_of(&nodes), &[Hook::Routing], place(&[A, B, C, E]));
    let session = world.open("r");
    world.drive_with(|_, _| Driver::Waits);
    advise(&mut world, moves(vec![step(0, &[D])]));
    for node in [A, B, C] {
        let hop = world.hop(node);
        world.gateway.handle_port_closed(session, hop, world.now);
        world.pass(ms(30));
    }
    assert_eq!((world.stands("r"), world.moves().len()), (Some(E), 3));
    world.finish_opening(D, Ok(()));
    assert_eq!((world.stands("r"), world.guards()), (Some(E), vec![GuardRule::MovedTooOften]));
    assert!(world.closed_at().contains(&(session, D)));
}

#[test]
fn session_waits_for_moving_room() {
    let mut world = World::new(settings());
    world.open("r");
    world.drive_with(|_, hop| if hop.node == A { Driver::Waits } else { Driver::Opens });
    let offer = world.offer("r");
    assert!(!world.replies.contains_key(&offer), "the hop that carries the room is not open");
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    world.accepted(offer);
}

#[test]
fn move_reports_delay_difference() {
    // If the longer path is 10 ms late every other time, sequence numbers are reserved for late packets too.
    for (from, to, late, lead) in [(A, B, 0, 38), (B, A, 0, 0), (A, B, 10, 48), (B, A, 10, 0)] {
        let mut world = World::new(settings_of(&[(0, 1_000), (1, 1_000)]));
        for (node, round_trip) in [(A, ms(40)), (B, ms(2))] {
            let detector = &mut world.gateway.tables.nodes[node].detector;
            for sequence in 1_000_000..1_000_200 {
                detector.handle_probe_sent(sequence, world.now);
                let late = if node == A && sequence % 2 == 0 { ms(late) } else { ms(0) };
                detector.handle_probe_answered(sequence, world.now + round_trip + late);
            }
        }
        world.open("r");
        if world.stands("r") != Some(from) {
            world.gateway.handle_move(&"r".into(), from, world.now).unwrap();
            world.settle();
        }
        world.gateway.handle_move(&"r".into(), to, world.now).unwrap();
        world.settle();
        let route = world.gateway.rooms[&world.room("r")].route();
        assert_eq!(route.leaving().map(|(hop, _)| hop.node), Some(from));
        let found = route.left.as_ref().unwrap().lead;
        assert!(found.abs_diff(ms(lead)) < ms(2), "{found:?}");
    }
}

#[test]
fn spare_difference_from_native_is_counted() {
    for (spare, differs) in [(C, false), (D, true)] {
        let mut world = World::with_policy(settings(), &[Hook::Routing], place(&[A, B]));
        world.open("r");
        world.answer_with(move |ask| {
            let PolicyQuestion::Reroute { .. } = ask.question else { return None };
            Some(Ok(moves(vec![step(0, &[B, spare])])))
        });
        world.kill(A);
        world.pass(ms(1));
        assert_eq!(world.route("r")[1].0, spare);
        assert_eq!(outcome(&world), DecisionOutcome::Applied { differs });
    }
}

#[test]
fn placement_tells_the_native_default() {
    let mut unasked = World::new(settings());
    unasked.open("r");
    let expected: Vec<NodeId> = unasked.route("r").into_iter().map(|(node, _)| node).collect();
    let other: Vec<NodeId> = expected.iter().rev().copied().collect();
    for (hops, differs) in [(expected.clone(), false), (other, true)] {
        let mut world = World::with_policy(settings(), &[Hook::Routing], place(hops.leak()));
        world.open("r");
        let decided = |event: &CoreEvent| match event {
            CoreEvent::Decided { native, .. } => Some(native.clone()),
            _ => None,
        };
        assert_eq!(world.events().find_map(decided).as_ref(), Some(&expected));
        assert_eq!(outcome(&world), DecisionOutcome::Applied { differs });
    }
}

#[test]
fn manual_moves_leave_bounded_records() {
    let mut world = World::new(settings());
    world.open("r");
    for turn in 0..50 {
        let to = if turn % 2 == 0 { D } else { A };
        world.gateway.handle_move(&"r".into(), to, world.now).unwrap();
        world.pass(ms(10));
        assert_eq!(world.stands("r"), Some(to));
    }
    let kept = world.gateway.views().table_sizes();
    assert_eq!((kept.damped, kept.moves), (3, 8));
}

#[test]
fn move_is_under_way_until_its_end() {
    let mut world = World::new(settings());
    let session = world.open("r");
    world.drive_with(|_, hop| if hop.node == D { Driver::Waits } else { Driver::Opens });
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    let begun: Vec<_> = world.gateway.moves_under_way().collect();
    assert_eq!(begun.len(), 1);
    let (from, to) = (world.hop(A), world.hop(D));
    assert_eq!((begun[0].from, begun[0].to, begun[0].cause), (from, to, MoveCause::Manual));
    world.gateway.handle_opened(session, to, Ok(()), world.now);
    world.settle();
    assert_eq!(world.gateway.moves_under_way().count(), 0);
}
