//! Rooms of a dead node that go on in turns, and what happens meanwhile.

use std::time::Duration;

use evenkeel_model::{
    ClientIdentity, CoreEvent, Health, Hook, HookAnswer, Hop, HopGrant, IngressProtocol, NodeId,
    PolicyName, PolicyQuestion, RoomId, RoutingMove, StreamKind,
};

use super::super::{GatewayEffect, NotOpened};
use super::world::{Driver, VOICE};
use super::*;
use crate::rooms::room::Room;

/// Enough that they do not go on without their node in one call.
const MANY: usize = 2_000;

/// The dead hops that the room has not left yet.
fn dead_hops(world: &World, room: RoomId) -> Vec<Hop> {
    let deaths =
        world.gateway.tables.worklists.failover.deaths().into_iter().map(|death| death.hop());
    deaths.filter(|dead| world.gateway.rooms[&room].leads_to(*dead)).collect()
}

pub(super) fn crowd() -> World {
    let mut world = World::new(settings_of(&[(0, 1_000_000), (1, 1_000_000), (0, 1_000_000)]));
    for number in 0..MANY {
        world.open(&format!("r{number}"));
    }
    world
}

#[test]
fn failover_recovers_in_turns_packets_at_flip() {
    let mut world = crowd();
    let rooms: Vec<RoomId> = (0..MANY).map(|number| world.room(&format!("r{number}"))).collect();
    let there: Vec<RoomId> = rooms
        .into_iter()
        .filter(|room| world.gateway.stands_at(*room).unwrap().node == A)
        .collect();
    assert!(there.len() > 200, "{}", there.len());
    world.kill(A);
    let waiting = |world: &World| {
        there.iter().filter(|room| world.gateway.rooms[room].holding().on == Some(A)).count()
    };
    assert!(waiting(&world) > 0, "not all in one call");
    let stand = |room: &RoomId| world.gateway.stands_at(*room).is_some_and(|hop| hop.node != A);
    assert!(there.iter().all(stand), "their packets do not wait for it");
    // A room with an input does not wait for its turn.
    let last = *there.last().unwrap();
    let name = world.gateway.rooms[&last].name().clone();
    assert_eq!(world.gateway.rooms[&last].holding().on, Some(A));
    world.open(&name);
    assert_ne!(world.gateway.rooms[&last].holding().on, Some(A));
    world.pass(ms(50));
    assert_eq!(waiting(&world), 0);
    assert!(!world.gateway.fails_over());
    let holdings = world.gateway.rooms.values().map(Room::holding);
    world.gateway.tables.capacity.ledger().audit(holdings).unwrap();
}

/// Rooms that stand at one node and have their reserve at another, and others the other way round; both keep away from `C`
/// and `D` until they must. A failover of a hundred turns.
fn two_nodes_full() -> World {
    let wide = [(0, 1_000_000), (1, 1_000_000), (0, 1_000_000), (2, 1_000_000)];
    let mut settings = settings_of(&wide);
    settings.limits.lost_at_once = 8;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, B, C]));
    for number in 0..800 {
        world.open(&format!("a{number}"));
    }
    world.answer_with(place(&[B, A, C]));
    for number in 0..800 {
        world.open(&format!("b{number}"));
    }
    world
}

#[test]
fn second_death_flips_during_failover() {
    for (first, second) in [(A, B), (B, A)] {
        let mut world = two_nodes_full();
        world.kill(first);
        world.outputs.clear();
        world.kill(second);
        let down = |o: &GatewayEffect| match o {
            GatewayEffect::Event(CoreEvent::Node { hop, to: Health::Down, .. }) => {
                hop.node == second
            }
            _ => false,
        };
        let flip = world.outputs.iter().position(down).unwrap();
        let to = |o: &GatewayEffect| match o {
            GatewayEffect::Event(CoreEvent::Moved { to, .. }) => to.map(|to| to.node),
            _ => None,
        };
        let before = world.outputs[..flip].iter().filter(|o| to(o) == Some(second)).count();
        assert!(before < 700, "the first failover was still under way: {before}");
        assert!(world.outputs[flip..].iter().all(|o| to(o) != Some(second)), "nobody goes there");
        world.pass(ms(1_000));
        assert!(!world.gateway.fails_over());
        for number in 0..800 {
            for room in [format!("a{number}"), format!("b{number}")] {
                let stands = world.stands(&room);
                assert!(stands == Some(C) || stands == Some(D), "{room}: {stands:?}");
            }
        }
        let holdings = world.gateway.rooms.values().map(Room::holding);
        world.gateway.tables.capacity.ledger().audit(holdings).unwrap();
    }
}

/// Rooms at these nodes, which fail over one at a time.
fn placed(nodes: &[(u32, u64)], rooms: &[(&str, &str, &'static [NodeId])]) -> World {
    let mut settings = settings_of(nodes);
    settings.limits.lost_at_once = 1;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[]));
    for &(name, scenario, hops) in rooms {
        world.answer_with(place(hops));
        let offer = world.offer_as(name, scenario);
        world.accepted(offer);
    }
    world.outputs.clear();
    world
}

/// The node dies, and nothing else happens yet.
fn lose(world: &mut World, node: NodeId) {
    world.mute(node);
    world.gateway.change_nodes(world.now, |nodes| nodes.lose([node], world.now));
    world.settle();
}

fn rooms_of(world: &World, nodes: [NodeId; 3]) -> [u32; 3] {
    nodes.map(|node| world.gateway.tables.capacity.ledger().rooms(node))
}

#[test]
fn both_deaths_switch_before_rooms_move() {
    let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let hops = |number| -> &'static [NodeId] { if number < 20 { &[A, C] } else { &[B, C] } };
    let rooms: Vec<(&str, &str, &[NodeId])> =
        names.iter().zip(0..).map(|(name, number)| (&**name, "call", hops(number))).collect();
    let mut world = placed(&[(0, 10_000), (0, 10_000), (1, 10_000)], &rooms);
    lose(&mut world, A);
    world.pass(ms(2));
    let [at_a, at_b, at_c] = rooms_of(&world, [A, B, C]);
    assert!(at_a > 10 && (at_b, at_a + at_c) == (20, 20), "{at_a} wait at A");
    lose(&mut world, B);
    assert_eq!(rooms_of(&world, [A, B, C]), [at_a, 20, at_c], "no room has moved since");
    assert!(names.iter().all(|name| world.stands(name) == Some(C)), "packets of both");
    let down = |event: &CoreEvent| match event {
        CoreEvent::Node { hop, to: Health::Down, rooms, .. } => Some((hop.node, *rooms)),
        _ => None,
    };
    assert_eq!(world.events().filter_map(down).collect::<Vec<_>>(), [(A, 20), (B, 20)]);
    assert_eq!(world.asked(Hook::Routing), 0, "spares wait");
    world.pass(ms(50));
    assert!(!world.gateway.fails_over());
    assert!(world.asked(Hook::Routing) > 0);
    assert_eq!(rooms_of(&world, [A, B, C]), [0, 0, 40]);
    assert_eq!(world.moves().len(), 40);
    assert!(world.gateway.tables.capacity.ledger.has_no_dead());
    world.audit();
}

#[test]
fn second_death_takes_no_capacity_of_the_first() {
    let (from_a, from_b): (&[NodeId], &[NodeId]) = (&[A, C], &[B, C]);
    let rooms = [
        ("a0", "call", from_a),
        ("a1", "call", from_a),
        ("a2", "call", from_a),
        ("b0", "stream", from_b),
        ("b1", "call", from_b),
        ("b2", "stream", from_b),
    ];
    // `C` has capacity for the death of either.
    let mut world = placed(&[(0, 1_000), (0, 1_000), (1, 4 * VOICE), (2, 1_000)], &rooms);
    assert!(rooms.iter().all(|(name, ..)| world.route(name)[1] == (C, HopGrant::Reserved)));
    lose(&mut world, A);
    lose(&mut world, B);
    let names = rooms.map(|(name, ..)| name);
    let stand = names.map(|name| world.stands(name));
    assert_eq!(stand, [Some(C), Some(C), Some(C), None, Some(C), None], "by priority");
    assert_eq!(world.gateway.tables.capacity.ledger().carried(C), 4 * VOICE);
    assert_eq!(rooms_of(&world, [A, B, C]), [3, 3, 0], "no room has moved");
    world.pass(ms(200));
    let stand = names.map(|name| world.stands(name));
    assert_eq!(stand, [Some(C), Some(C), Some(C), Some(D), Some(C), Some(D)]);
    let moves = world.moves();
    let without_hop = moves.iter().rposition(|(_, to)| to.is_none());
    let from_first = moves.iter().position(|(from, _)| *from == A);
    assert!(without_hop.is_some() && without_hop < from_first, "{moves:?}");
    world.audit();
}

/// No node had capacity for the first stranded room; the search is repeated every 50 ms.
#[test]
fn stranded_rooms_share_a_search_within_5_ms() {
    let names = ["s0", "s1", "s2"];
    let mut world = placed(&[(0, VOICE), (0, 3), (1, 3)], &[("large", "call", &[A])]);
    world.answer_with(place(&[B]));
    for (port, name) in (1..).zip(names) {
        let address = ([127, 0, 0, 1], port).into();
        let ingress = IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None });
        world.offer_with(name, "call", &[(StreamKind::Audio, 111, Some(1))], ingress);
    }
    lose(&mut world, A);
    world.pass(ms(20));
    assert!(names.iter().all(|name| world.route(name) == [(B, HopGrant::Admitted)]));
    lose(&mut world, B);
    let moment = Duration::from_micros(1);
    world.pass(ms(5) - moment);
    assert_eq!(names.map(|name| world.stands(name)), [None; 3], "all three wait for it");
    world.pass(moment);
    assert_eq!(names.map(|name| world.stands(name)), [Some(C); 3]);
    assert_eq!(world.stands("large"), None);
}

#[test]
fn room_whose_target_died_moves_again() {
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let hops: &[NodeId] = &[A, B, C];
    let rooms: Vec<(&str, &str, &[NodeId])> =
        names.iter().map(|name| (&**name, "call", hops)).collect();
    let mut world = placed(&[(0, 10_000), (1, 10_000), (0, 10_000)], &rooms);
    lose(&mut world, A);
    world.pass(ms(2));
    let [waiting, moved, _] = rooms_of(&world, [A, B, C]);
    assert!(waiting > 0 && moved > 0, "{waiting} {moved}");
    world.outputs.clear();
    lose(&mut world, B);
    world.pass(ms(200));
    assert!(names.iter().all(|name| world.stands(name) == Some(C)));
    let to_c = |from| world.moves().iter().filter(|step| **step == (from, Some(C))).count();
    assert_eq!((to_c(A), to_c(B)), (waiting as usize, moved as usize));
    assert!(world.moves().iter().all(|(_, to)| *to != Some(B)));
    world.audit();
}

#[test]
fn room_avoids_node_that_died_second() {
    let mut settings = settings_of(&[(0, 100_000), (1, 100_000), (0, 100_000), (2, 100_000)]);
    settings.limits.lost_at_once = 1;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, D]));
    for number in 0..100 {
        world.open(&number.to_string());
    }
    world.answer_with(place(&[B, C]));
    world.open("last");
    // Its next spare is being opened where it is about to die.
    world.drive_with(|_, _| Driver::Waits);
    world.answer_with(|ask| {
        let PolicyQuestion::Reroute { rooms, .. } = &ask.question else { return None };
        let row = rooms.iter().position(|room| room.standing == [B, C])? as u32;
        let spare = RoutingMove { row, hops: vec![B, C, A], ttl_ms: 0, reason: 1 };
        Some(Ok(HookAnswer::Moves { moves: vec![spare], states: Vec::new(), memo: None }))
    });
    let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
    world.gateway.handle_policy_changed(&policy, world.now);
    world.pass(ms(1));
    world.answer_with(place(&[C]));
    let last = world.room("last");
    assert!(world.gateway.rooms[&last].heading().unwrap().hops().contains(&world.hop(A)));
    world.kill(A);
    assert_eq!(dead_hops(&world, last), [world.hop(A)]);
    world.kill(B);
    assert!(world.moves().iter().all(|(_, to)| *to != Some(B)));
    assert_eq!(world.stands("last"), Some(C));
}

type Step = fn(&mut World);

/// Inputs for a room that waits during a failover: what goes before its node's death, and what comes after.
const DURING_FAILOVER: [(&str, Step, Step); 11] = [
    ("an offer", |_| {}, |world| _ = world.offer("last")),
    ("an admission", asked_to_come_in, |world| world.answer_held(Ok(accept()))),
    ("a session opened", waits_at_all, |world| world.finish_opening(B, Ok(()))),
    ("a session not opened", waits_at_all, |world| world.finish_opening(B, Err(NotOpened))),
    ("a leg that is late", waits_at_b, |world| world.pass(ms(110))),
    (
        "a port closed",
        |_| {},
        |world| {
            let session =
                *world.gateway.rooms[&world.room("last")].sessions().iter().next().unwrap();
            let hop = world.hop(B);
            world.gateway.handle_port_closed(session, hop, world.now);
        },
    ),
    (
        "a move by hand",
        |_| {},
        |world| {
            world.gateway.handle_move(&"last".into(), D, world.now).unwrap();
        },
    ),
    (
        "a drain",
        |_| {},
        |world| {
            world
                .gateway
                .change_nodes(world.now, |nodes| nodes.handle_drain(B, true, None, world.now))
                .unwrap();
        },
    ),
    ("its time to be looked at", |_| {}, |world| world.pass(ms(110))),
    ("an answer", asked_again, |world| {
        world.answer_held(Ok(HookAnswer::Moves { moves: vec![], states: vec![], memo: None }));
    }),
    (
        "a session that ends",
        |_| {},
        |world| {
            let session =
                *world.gateway.rooms[&world.room("last")].sessions().iter().next().unwrap();
            world.close(session);
        },
    ),
];

fn asked_to_come_in(world: &mut World) {
    world.drive_with(|_, _| Driver::Waits);
    world.offer("last");
}

fn waits_at_all(world: &mut World) {
    world.answer_with(place(&[A, B, C]));
    world.drive_with(|_, _| Driver::Waits);
    world.offer("last");
}

fn waits_at_b(world: &mut World) {
    world.answer_with(place(&[A, B, C]));
    world.drive_with(|_, hop| if hop.node == B { Driver::Waits } else { Driver::Opens });
    world.offer("last");
}

fn asked_again(world: &mut World) {
    let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
    world.gateway.handle_policy_changed(&policy, world.now);
    world.pass(ms(1));
}

#[test]
fn room_recovers_before_other_changes() {
    for (what, before, after) in DURING_FAILOVER {
        let mut settings = settings_of(&[(0, 100_000), (1, 100_000), (0, 100_000), (2, 100_000)]);
        settings.limits.lost_at_once = 1;
        settings.limits.open_within = ms(100);
        settings.limits.advice_budget = ms(10_000);
        settings.limits.offer_budget = ms(10_000);
        let hooks = [Hook::Admission, Hook::Routing];
        let mut world = World::with_policy(settings, &hooks, place(&[A, B, C]));
        // A drain begins with 256 rooms, and an answer is about as many.
        let others = if ["a drain", "an answer"].contains(&what) { 200 } else { 600 };
        for number in 0..others {
            world.open(&number.to_string());
        }
        let due = if what == "its time to be looked at" { 100 } else { 0 };
        world.answer_with(move |ask| match &ask.question {
            PolicyQuestion::Place { .. } => Some(Ok(placement(&[A, B, C], due))),
            _ => place(&[A, B, C])(ask),
        });
        world.open("last");
        world.open("last");
        // No answer comes unasked from here on.
        world.answer_with(|_| None);
        before(&mut world);
        world.kill(A);
        let last = world.room("last");
        let waits = |world: &World| {
            let rooms = &world.gateway.rooms;
            rooms.contains_key(&last) && !dead_hops(world, last).is_empty()
        };
        assert!(waits(&world), "{what}");
        after(&mut world);
        assert!(!waits(&world), "{what}");
        assert!(world.gateway.fails_over(), "{what}");
        let told = |e: &CoreEvent| matches!(e, CoreEvent::Moved { room, from, .. } if *room == last && from.node == A);
        world.settle();
        assert!(world.events().any(told), "{what}");
    }
}
