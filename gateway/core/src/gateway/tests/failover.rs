use evenkeel_model::{
    ClientIdentity, CoreEvent, Health, Hook, HookAnswer, HopGrant, Incarnation, IngressProtocol,
    MoveCause, NodeId, OfferRefusal, PolicyQuestion, RoutingMove, StreamKind,
};
use evenkeel_nodes::NodeEvidence;

use super::super::GatewayEffect;
use super::world::{Driver, VOICE};
use super::*;

/// Rooms `1`, `2`… placed on these nodes by a policy that never moves them.
fn placed(nodes: &[(u32, u64)], rooms: &'static [&'static [NodeId]]) -> World {
    let mut world = World::with_policy(settings_of(nodes), &[Hook::Routing], |_| None);
    for (at, hops) in rooms.iter().enumerate() {
        world.answer_with(place(hops));
        world.open(&(at + 1).to_string());
    }
    world
}

#[test]
fn packets_fail_over_at_flip_then_event() {
    let mut world = World::new(settings());
    let session = world.open("r");
    let listener = world.open("r");
    let route = world.gateway.rooms[&world.room("r")].route();
    assert_eq!(world.route("r"), [(A, HopGrant::Admitted), (B, HopGrant::Reserved)]);
    world.outputs.clear();
    world.kill(A);
    let board = world.gateway.board();
    let (hop, _) = route.first_usable(&board).expect("the old route leads on by itself");
    assert_eq!(hop.node, B);
    let place = |what: fn(&GatewayEffect) -> bool| world.outputs.iter().position(what).unwrap();
    let down = place(|o| {
        matches!(o, GatewayEffect::Event(CoreEvent::Node { to: Health::Down, rooms: 1, .. }))
    });
    let keys = place(|o| matches!(o, GatewayEffect::KeyFrame(_)));
    let moved = place(|o| matches!(o, GatewayEffect::Event(CoreEvent::Moved { .. })));
    assert!(down < keys && keys < moved);
    let GatewayEffect::KeyFrame(sessions) = &world.outputs[keys] else { unreachable!() };
    assert_eq!(sessions, &[session, listener]);
    assert_eq!(world.moves(), [(A, Some(B))]);
    let cause = |e: &CoreEvent| matches!(e, CoreEvent::Moved { cause: MoveCause::NodeDown, .. });
    assert!(world.events().any(cause));
}

#[test]
fn the_native_default_restores_the_spare() {
    let mut world = World::new(settings());
    world.open("r");
    world.kill(A);
    world.pass(ms(1));
    assert_eq!(world.route("r"), [(B, HopGrant::Admitted), (C, HopGrant::Reserved)]);
}

#[test]
fn policy_restores_spare_at_its_choice() {
    let mut world = placed(&[(0, 1_000), (1, 1_000), (0, 1_000), (2, 1_000)], &[&[A, B]]);
    world.answer_with(|ask| {
        let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
        assert_eq!(rooms[0].standing, [B]);
        let spare = RoutingMove { row: 0, hops: vec![B, D], ttl_ms: 0, reason: 1 };
        Some(Ok(HookAnswer::Moves { moves: vec![spare], states: Vec::new(), memo: None }))
    });
    world.kill(A);
    world.pass(ms(1));
    assert_eq!(world.route("1"), [(B, HopGrant::Admitted), (D, HopGrant::Reserved)]);
}

#[test]
fn failing_policy_keeps_a_spare() {
    let mut world = placed(&[(0, 1_000), (1, 1_000), (0, 1_000)], &[&[A, B]]);
    world.answer_with(|_| None);
    world.kill(A);
    assert_eq!(world.route("1").len(), 1);
    world.pass(ms(10));
    assert_eq!(world.route("1"), [(B, HopGrant::Admitted), (C, HopGrant::Reserved)]);
}

#[test]
fn returned_node_is_on_no_old_route() {
    let mut world = World::new(settings_of(&[(0, 1_000), (1, 1_000)]));
    world.open("r");
    let old = world.gateway.rooms[&world.room("r")].route();
    world.kill(A);
    assert_eq!(world.route("r"), [(B, HopGrant::Admitted)]);
    world.revive(A);
    assert_eq!(world.hop(A).incarnation, Incarnation(2));
    let board = world.gateway.board();
    assert_eq!(old.first_usable(&board).map(|(hop, _)| hop.node), Some(B));
    // The node may be a spare again after its sessions are opened anew.
    world.pass(ms(1));
    let route = world.gateway.rooms[&world.room("r")].route();
    assert_eq!(route.hops[1].0, world.hop(A));
    let opened =
        |o: &&GatewayEffect| matches!(o, GatewayEffect::Open { hop, .. } if *hop == world.hop(A));
    assert_eq!(world.outputs.iter().filter(opened).count(), 1);
}

#[test]
fn session_is_closed_at_dead_hop() {
    let mut world = World::new(settings());
    let session = world.open("r");
    world.kill(A);
    assert_eq!(world.closed_at(), [(session, A)]);
}

#[test]
fn shared_reservation_is_spent_once() {
    let nodes = [(0, 1_000), (1, 1_000), (0, VOICE)];
    let mut world = placed(&nodes, &[&[A, C], &[B, C]]);
    assert_eq!(world.route("1")[1], (C, HopGrant::Reserved));
    assert_eq!(world.route("2")[1], (C, HopGrant::Reserved));
    world.kill(A);
    assert_eq!(world.route("1")[0], (C, HopGrant::Admitted));
    assert_eq!(world.route("2"), [(B, HopGrant::Admitted), (C, HopGrant::Gated)]);
    world.kill(B);
    assert_eq!(world.stands("2"), None);
    assert_eq!(world.moves(), [(A, Some(C)), (B, None)]);
}

#[test]
fn two_deaths_at_once_stay_within_the_limit() {
    let nodes = [(0, 1_000), (1, 1_000), (0, VOICE)];
    let mut world = placed(&nodes, &[&[A, C], &[B, C]]);
    world.mute(A);
    world.mute(B);
    world.pass(ms(300));
    let on_c = ["1", "2"].into_iter().filter(|room| world.stands(room) == Some(C)).count();
    assert_eq!(on_c, 1);
}

#[test]
fn node_down_in_same_watch_is_no_target() {
    let mut world = placed(&[(0, 1_000), (1, 1_000), (0, 1_000)], &[&[A, B], &[B, A]]);
    world.mute(A);
    world.mute(B);
    world.pass(ms(300));
    assert_eq!(["1", "2"].map(|room| world.stands(room)), [Some(C); 2]);
    assert!(
        world.moves().iter().all(|(_, to)| [None, Some(C)].contains(to)),
        "{:?}",
        world.moves()
    );
}

#[test]
fn stranded_room_uses_reserved_capacity() {
    let nodes = [(0, 2 * VOICE), (1, VOICE), (0, 2 * VOICE)];
    let mut world = placed(&nodes, &[&[A, C], &[A, C], &[B]]);
    assert_eq!(world.route("1")[1], (C, HopGrant::Reserved));
    assert_eq!(world.route("2")[1], (C, HopGrant::Reserved));
    world.kill(B);
    world.pass(ms(10));
    assert_eq!(world.route("3")[0], (C, HopGrant::Admitted));
    let kept = |room: &&str| world.route(room).contains(&(C, HopGrant::Reserved));
    assert_eq!(["1", "2"].iter().filter(|room| kept(room)).count(), 1, "for as many as it can");
    world.audit();
    world.kill(A);
    world.pass(ms(10));
    assert_eq!(["1", "2"].map(|room| world.stands(room).is_some()), [true, false]);
}

#[test]
fn stranded_room_recovers_with_capacity() {
    let nodes = [(0, 1_000), (1, 1_000), (0, VOICE)];
    let mut world = placed(&nodes, &[&[A, C], &[B, C]]);
    let first = world.gateway.tables.sessions.keys().next().unwrap();
    world.kill(A);
    world.kill(B);
    world.pass(ms(200));
    assert_eq!(world.stands("2"), None);
    world.answer_with(place(&[C]));
    let newcomer = world.offer("2");
    assert!(matches!(denied(world.replies.get(&newcomer)), Some(OfferRefusal::NoNode { .. })));
    world.close(first);
    world.pass(ms(50));
    assert_eq!(world.stands("2"), Some(C));
    assert_eq!(world.moves()[2], (B, Some(C)));
}

#[test]
fn stranded_room_prefers_its_gated_hop() {
    let nodes = [(0, 1_000), (1, 1_000), (0, 1_000), (2, 1_000)];
    let mut world = placed(&nodes, &[&[A, B, D]]);
    world.mute(A);
    world.mute(B);
    world.pass(ms(60));
    assert_eq!(world.stands("1"), Some(D), "where its sessions are open, though C is nearer");
}

#[test]
fn stranded_room_prefers_its_open_hop() {
    let nodes = [(0, 1_000), (1, 10), (0, VOICE), (2, VOICE)];
    let mut world = placed(&nodes, &[&[C], &[D], &[A, D]]);
    world.kill(A);
    world.pass(ms(200));
    assert_eq!(world.stands("3"), None, "there is room for nobody");
    for room in ["1", "2"] {
        let session = *world.gateway.rooms[&world.room(room)].sessions().iter().next().unwrap();
        world.close(session);
    }
    world.pass(ms(50));
    assert_eq!(world.stands("3"), Some(D), "where its session is open, though C is nearer");
}

#[test]
fn avoided_node_stays_free_for_other_rooms() {
    const SHUN: usize = 600;
    let nodes = [(0, 1_000_000), (1, 1_000_000), (0, 1_000_000)];
    let mut world = World::with_policy(settings_of(&nodes), &[Hook::Routing], place(&[A, C]));
    world.drive_with(|_, hop| if hop.node == C { Driver::Refuses } else { Driver::Opens });
    for room in 0..SHUN {
        world.open(&room.to_string());
    }
    world.answer_with(place(&[A]));
    world.open("last");
    world.drive_with(|_, hop| if hop.node == B { Driver::Waits } else { Driver::Opens });
    world.kill(A);
    world.pass(ms(200));
    let left = &world.gateway.rooms[&world.room("0")];
    let shunned = left.shunned_nodes(&world.gateway.tables.nodes, world.now);
    assert!(shunned.contains(&C), "it did not take them");
    assert!(!world.has_free_node_for("0"), "not worth looking for");
    assert!(world.has_free_node_for("last"));
    assert_eq!(world.stands("last"), Some(C));
}

#[test]
fn stranded_room_is_opened_before_moving() {
    let nodes = [(0, 1_000), (1, 1_000), (0, 1_000)];
    let mut world = placed(&nodes, &[&[A]]);
    world.drive_with(|_, _| Driver::Waits);
    world.kill(A);
    world.pass(ms(10));
    assert_eq!(world.stands("1"), None);
    let to = world.gateway.rooms[&world.room("1")].heading().unwrap().hops()[0].node;
    world.finish_opening(to, Ok(()));
    assert_eq!(world.stands("1"), Some(to), "it does not wait for its spare");
    assert_eq!(world.moves(), [(A, None), (A, Some(to))]);
}

#[test]
fn failover_serves_scenario_priority_first() {
    let mut world =
        World::with_policy(settings_of(&[(0, 1_000), (1, VOICE)]), &[Hook::Routing], place(&[A]));
    world.offer_as("stream", "stream");
    world.offer_as("call", "call");
    world.kill(A);
    world.pass(ms(100));
    assert_eq!(world.stands("call"), Some(B));
    assert_eq!(world.stands("stream"), None);
}

#[test]
fn failover_counts_capacity_once() {
    let nodes = [(0, 1_000), (1, 3 * VOICE)];
    let mut world = World::with_policy(settings_of(&nodes), &[Hook::Routing], place(&[A]));
    for room in 0..10 {
        world.open(&room.to_string());
    }
    world.drive_with(|_, _| Driver::Waits);
    world.kill(A);
    world.pass(ms(500));
    assert_eq!(world.opening.len(), 3);
    world.finish_opening(B, Ok(()));
    let stand = (0..10).filter(|room| world.stands(&room.to_string()) == Some(B)).count();
    assert_eq!(stand, 3);
}

#[test]
fn unplaceable_rooms_block_no_others() {
    let nodes = [(0, 100_000), (1, 23)];
    let mut world = World::with_policy(settings_of(&nodes), &[Hook::Routing], place(&[A]));
    for room in 0..600 {
        world.open(&room.to_string());
    }
    let address = ([127, 0, 0, 1], 9).into();
    let ingress = IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None });
    world.offer_with("small", "call", &[(StreamKind::Audio, 111, Some(1))], ingress);
    world.kill(A);
    world.pass(ms(100));
    assert_eq!(world.stands("0"), None);
    assert_eq!(world.stands("small"), Some(B));
}

#[test]
fn session_of_stranded_room_times_out() {
    let mut world = placed(&[(0, 1_000)], &[&[A]]);
    world.drive_with(|_, _| Driver::Waits);
    world.answer_with(place(&[A]));
    let offer = world.offer("1");
    world.kill(A);
    world.pass(ms(1_900));
    assert!(!world.replies.contains_key(&offer));
    world.pass(ms(100));
    assert!(matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::NoNode { .. })));
}

#[test]
fn dead_spare_leaves_route_packets_flow() {
    let mut world = World::new(settings());
    world.open("r");
    world.kill(B);
    assert_eq!(world.moves(), []);
    assert_eq!(world.stands("r"), Some(A));
    world.pass(ms(1));
    let route = world.route("r");
    assert_eq!(route.len(), 2);
    assert!(route.iter().all(|(node, _)| *node != B));
}

#[test]
fn move_to_dead_target_is_dropped() {
    let mut world = World::new(settings());
    let session = world.open("r");
    world.drive_with(|_, _| Driver::Waits);
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    world.kill(D);
    assert_eq!((world.stands("r"), world.moves()), (Some(A), Vec::new()));
    assert!(world.closed_at().contains(&(session, D)));
    world.finish_opening(D, Ok(()));
    assert_eq!(world.stands("r"), Some(A));
}

#[test]
fn a_move_goes_on_when_only_its_spare_dies() {
    let mut world = World::new(settings());
    world.open("r");
    world.drive_with(|_, hop| if hop.node == D { Driver::Waits } else { Driver::Opens });
    world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
    world.settle();
    let spare = world.gateway.rooms[&world.room("r")].heading().unwrap().hops()[1].node;
    world.kill(spare);
    world.finish_opening(D, Ok(()));
    assert_eq!(world.stands("r"), Some(D));
}

#[test]
fn freed_capacity_reserves_gated_spare() {
    let nodes = [(0, 1_000), (1, VOICE)];
    let mut world = placed(&nodes, &[&[A, B], &[A, B]]);
    assert_eq!(world.route("2")[1], (B, HopGrant::Gated));
    let first = world.gateway.tables.sessions.keys().next().unwrap();
    world.close(first);
    world.pass(ms(500));
    assert_eq!(world.route("2")[1], (B, HopGrant::Reserved));
}

#[test]
fn own_stall_delays_detection_by_its_length() {
    let mut world = World::new(settings());
    world.open("r");
    world.mute(A);
    let start = world.now;
    for late in (6..=30).step_by(2) {
        world.now += ms(2);
        world.stamp(ms(late));
    }
    assert!(world.events().any(|e| matches!(e, CoreEvent::OwnStall { .. })));
    assert_eq!(world.stands("r"), Some(A));
    while world.stands("r") == Some(A) {
        world.pass(ms(2));
    }
    let after = world.now - start;
    assert!(after <= ms(40 + 30 + 4), "{after:?}");
}

#[test]
fn silent_node_is_probed_at_once() {
    for phase in 0..5 {
        let mut world = World::new(settings());
        world.open("r");
        world.pass(ms(2 * phase));
        world.mute(A);
        let start = world.now;
        while world.stands("r") == Some(A) {
            world.pass(ms(2));
        }
        let after = world.now - start;
        assert!(after <= ms(24), "{after:?}, probes being {} ms further", 2 * phase);
    }
}

#[test]
fn constant_load_delays_detection_boundedly() {
    // Every pass of a worker is too slow, so no watch is on time.
    for silent in [false, true] {
        let mut world = World::new(settings());
        world.open("r");
        world.mute(A);
        if !silent {
            world.gateway.handle_evidence(A, NodeEvidence::KernelError, world.now);
        }
        let start = world.now;
        while world.stands("r") == Some(A) {
            world.now += ms(2);
            let probe = world.gateway.poll_timeout().is_some_and(|due| due <= world.now);
            if probe {
                world.gateway.handle_timeout(world.now);
            }
            world.stamp(ms(6));
            let after = world.now - start;
            assert!(after <= if silent { ms(46) } else { ms(26) }, "{after:?}");
        }
    }
}

#[test]
fn lost_worker_excuses_for_a_bounded_time() {
    let mut world = World::new(settings());
    world.open("r");
    world.mute(A);
    for late in 1..1_500 {
        world.now += ms(2);
        world.gateway.handle_timeout(world.now);
        world.stamp(ms(2 * late));
    }
    assert_ne!(world.stands("r"), Some(A));
}

#[test]
fn suspended_time_is_no_evidence() {
    let mut world = World::new(settings());
    world.open("r");
    world.pass(ms(100));
    world.mute(A);
    world.pass(ms(6));
    // Packets that arrived meanwhile are still unread at the next watch.
    for slept in [ms(60), ms(2)] {
        world.now += slept;
        world.stamp(ms(0));
    }
    assert!(world.events().any(|e| matches!(e, CoreEvent::OwnStall { .. })));
    assert_eq!(world.gateway.tables.nodes.get(A).unwrap().detector.witnesses(), []);
}

#[test]
fn late_tick_marks_no_node_down() {
    for (late, down) in [(ms(5), true), (ms(6), false)] {
        let mut world = World::new(settings());
        world.mute(A);
        world.pass(ms(8));
        world.gateway.handle_evidence(A, NodeEvidence::KernelError, world.now);
        world.now += ms(2) + late;
        world.stamp(ms(0));
        assert_eq!(!world.gateway.board().cell(A).unwrap().up, down, "{late:?}");
    }
}

#[test]
fn flip_cost_is_independent_of_other_nodes() {
    let mut settings = settings_of(&[(0, 100_000_000), (1, 100_000_000), (0, 100_000_000)]);
    settings.limits.sessions_max = 1_000_000;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, C]));
    for room in 0..200 {
        world.open(&room.to_string());
    }
    world.answer_with(place(&[B]));
    world.open("lonely");
    world.kill(B);
    assert_eq!(world.gateway.tables.worklists.by_node.at(B).len(), 0);
    let touched = |e: &CoreEvent| matches!(e, CoreEvent::Node { to: Health::Down, rooms: 1, .. });
    assert!(world.events().any(touched));
}

#[test]
fn inactivity_sweep_covers_all_sessions() {
    let mut world = large_failover::crowd();
    world.pass(ms(40_000));
    assert_eq!(world.gateway.live(), 0);
}

#[test]
fn pending_summary_prevents_inactivity_close() {
    let mut world = World::new(settings());
    world.open("r");
    world.gateway.handle_summaries_within(ms(5_000));
    world.pass(ms(34_900));
    assert_eq!(world.gateway.live(), 1);
    world.pass(ms(1_000));
    assert_eq!(world.gateway.live(), 0);
}

#[test]
fn the_board_says_since_when_a_node_is_dead() {
    let mut world = World::new(settings());
    world.open("r");
    let hop = world.hop(A);
    let muted = world.now;
    world.mute(A);
    world.pass(ms(1_000));
    let died = world.gateway.board().died(hop).expect("nothing came for a second");
    assert!(muted <= died && died < muted + ms(150), "{:?}", died - muted);
}
