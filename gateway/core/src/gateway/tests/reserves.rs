//! Reserves for the death of a zone or region.

use evenkeel_model::{
    Ask, CoreEvent, CoreSettings, DecisionOutcome, FailureDomain, FailureScope, Hook, HookAnswer,
    HopGrant, NodeId, NodeSettings, PolicyQuestion, RedundancyMode, RegionId, RegionRole,
    RoutingMove, Starts, ZoneId,
};
use fastrand::Rng;

use super::world::VOICE;
use super::*;
use crate::capacity::Cover;
use crate::rooms::room::Room;

const ZONE: FailureDomain = FailureDomain::Zone(ZoneId(0));

/// Nodes by zone and capacity; rooms reserve capacity for deaths of this scope.
fn reserving(scope: Option<FailureScope>, nodes: &[(u32, u64)]) -> World {
    let mut settings = settings_of(nodes);
    settings.scenarios.values_mut().for_each(|scenario| scenario.reserve = scope);
    World::new(settings)
}

fn lose(world: &mut World, lost: &[NodeId]) {
    lost.iter().for_each(|node| world.mute(*node));
    world.gateway.change_nodes(world.now, |nodes| nodes.lose(lost.iter().copied(), world.now));
    world.settle();
}

/// Both nodes of a zone are full, and a standby of another zone has capacity for one of them.
#[test]
fn reserve_of_zone_is_the_sum_over_its_nodes() {
    for (scope, covered) in [(FailureScope::Node, 0), (FailureScope::Zone, 4)] {
        let mut settings = settings_of(&[(0, VOICE * 4), (0, VOICE * 4), (1, VOICE * 4)]);
        settings.nodes[2].role = RegionRole::Standby;
        settings.scenarios.values_mut().for_each(|scenario| scenario.reserve = Some(scope));
        let mut world = World::new(settings);
        (0..8).for_each(|room| _ = world.open(&format!("r{room}")));
        world.pass(ms(1_000));
        let holdings: Vec<_> = world.gateway.rooms.values().map(Room::holding).collect();
        assert!(
            holdings.iter().all(|holding| holding.reserve() == Some(C)),
            "for the death of a node"
        );
        let wide = holdings.iter().filter(|holding| holding.covers().is_some()).count();
        assert_eq!(wide, covered, "{scope:?}");
        world.audit();
    }
}

fn covered(world: &World) -> usize {
    world.gateway.rooms.values().filter(|room| room.holding().covers().is_some()).count()
}

fn unprotected(world: &World) -> usize {
    world.gateway.tables.worklists.unprotected()
}

#[test]
fn zone_is_reserved_for_where_the_region_has_two() {
    let zone = Cover { domain: ZONE, yields: true };
    // Zone 2 is in another region.
    for (zones, covers) in [([0, 0], None), ([0, 1], Some(zone)), ([0, 2], None)] {
        let mut world = reserving(None, &zones.map(|zone| (zone, 1_000)));
        world.open("r");
        let holding = world.gateway.rooms[&world.room("r")].holding();
        assert_eq!((holding.reserve(), holding.covers()), (Some(B), covers), "{zones:?}");
        assert_eq!(unprotected(&world), 0, "{zones:?}");
        world.audit();
    }
}

#[test]
fn zone_that_runs_on_demand_is_not_reserved_for() {
    let mut settings = settings_of(&[(0, 1_000), (0, 1_000), (1, 1_000)]);
    settings.nodes[2].starts = Starts::ByHook { within: ms(1_000) };
    settings.scenarios.values_mut().for_each(|scenario| scenario.reserve = None);
    let mut world = World::new(settings);
    world.open("r");
    assert_eq!((covered(&world), unprotected(&world)), (0, 0));
}

/// The other zone of the region has no capacity.
#[test]
fn default_reserve_prefers_no_node_abroad() {
    for (scope, standby) in [(None, B), (Some(FailureScope::Zone), D)] {
        let mut world = reserving(scope, &[(0, 1_000), (0, 1_000), (1, 10), (2, 1_000)]);
        world.open("r");
        assert_eq!(world.route("r")[..2], [(A, HopGrant::Admitted), (standby, HopGrant::Reserved)]);
    }
}

/// Both nodes of a zone are full. Their rooms have standbys at a node of another zone, which carries nothing.
fn full_zone(scope: Option<FailureScope>) -> World {
    let mut settings = settings_of(&[(0, VOICE * 2), (0, VOICE * 2), (1, VOICE * 4)]);
    settings.nodes[2].role = RegionRole::Standby;
    for scenario in settings.scenarios.values_mut() {
        scenario.reserve = scope;
        // No session gets a smaller share.
        scenario.bounds.floor_kbps = VOICE as u32;
    }
    let mut world = World::new(settings);
    (0..4).for_each(|room| _ = world.open(&format!("r{room}")));
    world.pass(ms(1_000));
    assert_eq!((covered(&world), unprotected(&world)), (4, 0));
    world
}

#[test]
fn default_reserve_of_a_zone_yields_to_load() {
    let mut world = full_zone(None);
    let late = ["s0", "s1"].map(|room| world.open(room));
    world.pass(ms(1_000));
    // Rooms of the standby have none themselves.
    assert_eq!((covered(&world), unprotected(&world)), (2, 2 + late.len()));
    let reserved = world.gateway.rooms.values().filter(|room| room.holding().reserve() == Some(C));
    assert_eq!(reserved.count(), 4, "for the death of a node");
    world.audit();
    let offer = world.offer("s2");
    assert!(denied(world.replies.get(&offer)).is_some(), "reserves for nodes remain");
    late.into_iter().for_each(|session| world.close(session));
    world.pass(ms(5_000));
    assert_eq!((covered(&world), unprotected(&world)), (4, 0));
    world.audit();
}

#[test]
fn named_reserve_of_a_zone_keeps_load_out() {
    let mut world = full_zone(Some(FailureScope::Zone));
    let offer = world.offer("s");
    assert!(denied(world.replies.get(&offer)).is_some());
    assert_eq!(covered(&world), 4);
}

#[test]
fn open_rooms_reserve_for_a_zone_that_is_new() {
    let mut world = reserving(None, &[(0, 1_000), (0, 1_000)]);
    world.open("r");
    let other = world.add(listed(1)).unwrap();
    world.pass(ms(5_000));
    assert_eq!(world.route("r")[1], (other, HopGrant::Reserved));
    assert_eq!((covered(&world), unprotected(&world)), (1, 0));
    let now = world.now;
    world.gateway.change_nodes(now, |nodes| nodes.handle_node_removed(other, None, now)).unwrap();
    world.pass(ms(5_000));
    assert_eq!(world.route("r")[1], (B, HopGrant::Reserved));
    assert_eq!((covered(&world), unprotected(&world)), (0, 0), "there is one zone");
    world.audit();
}

/// Nothing is missing that one zone could have, and rooms are covered again once the other one is back.
#[test]
fn zone_that_is_down_is_not_reserved_for() {
    let mut settings = settings_of(&[(0, 100_000), (0, 100_000), (1, 100_000)]);
    for scenario in settings.scenarios.values_mut() {
        (scenario.reserve, scenario.close_after) = (None, ms(600_000));
    }
    let mut world = World::new(settings);
    // More than are weighed at once.
    let rooms = 600;
    (0..rooms).for_each(|room| _ = world.open(&format!("r{room}")));
    world.pass(ms(1_000));
    assert_eq!((covered(&world), unprotected(&world)), (rooms, 0));
    world.kill(C);
    world.pass(ms(10_000));
    assert_eq!((covered(&world), unprotected(&world)), (0, 0));
    world.revive(C);
    world.pass(ms(30_000));
    assert_eq!((covered(&world), unprotected(&world)), (rooms, 0));
    world.audit();
}

#[test]
fn spare_in_the_same_zone_covers_the_node_alone() {
    let mut world = reserving(Some(FailureScope::Zone), &[(0, 1_000), (0, 1_000)]);
    world.open("r");
    let holding = |world: &World| world.gateway.rooms[&world.room("r")].holding();
    assert_eq!(world.route("r")[1], (B, HopGrant::Reserved), "better than none");
    assert_eq!(holding(&world).covers(), None);
    // A node of another zone takes the spare, and covers the zone.
    let outside = world.add(listed(1)).unwrap();
    world.pass(ms(5_000));
    assert_eq!(world.route("r")[1], (outside, HopGrant::Reserved));
    assert_eq!(holding(&world).covers(), Some(Cover { domain: ZONE, yields: false }));
    world.audit();
}

/// A node elsewhere with capacity for the death of a node alone is better than none.
#[test]
fn room_without_a_spare_gets_one_for_its_node() {
    let mut world = reserving(Some(FailureScope::Zone), &[(0, VOICE * 2), (0, VOICE * 2)]);
    (0..4).for_each(|room| _ = world.offer(&format!("r{room}")));
    world.pass(ms(1_000));
    let bare = world.gateway.tables.worklists.unprotected();
    let small = NodeSettings { capacity_kbps: VOICE * 2, ..listed(1) };
    world.add(small).unwrap();
    world.pass(ms(6_000));
    let reserved = world.gateway.rooms.values();
    assert!(bare > 0 && reserved.filter(|room| room.holding().reserve().is_none()).count() == 0);
}

#[test]
fn hitless_room_moves_its_twin_to_a_node_with_capacity() {
    let mut settings = settings_of(&[(0, 1_000), (1, VOICE)]);
    settings.scenarios.values_mut().for_each(|it| it.mode = RedundancyMode::Hitless);
    let mut world = World::new(settings);
    world.open("r");
    world.open("s");
    let twins = |world: &World| {
        world.gateway.rooms.values().filter(|room| room.holding().twin().is_some()).count()
    };
    assert!(twins(&world) < 2);
    world.add(listed(1)).unwrap();
    world.pass(ms(6_000));
    assert_eq!(twins(&world), 2);
}

fn outside(zones: &[u32], spares: u8) -> CoreSettings {
    let nodes: Vec<(u32, u64)> = zones.iter().map(|zone| (*zone, 1_000)).collect();
    let mut settings = settings_of(&nodes);
    for scenario in settings.scenarios.values_mut() {
        (scenario.spares, scenario.spares_outside) = (spares, FailureScope::Zone);
    }
    settings
}

fn hops(world: &World) -> Vec<NodeId> {
    world.route("r").into_iter().map(|(node, _)| node).collect()
}

#[test]
fn required_spare_is_never_in_the_zone_of_its_room() {
    let mut world = World::new(outside(&[0, 0], 1));
    world.open("r");
    world.pass(ms(2_000));
    assert_eq!((hops(&world), unprotected(&world)), (vec![A], 1));
    let elsewhere = world.add(listed(1)).unwrap();
    world.pass(ms(5_000));
    assert_eq!((hops(&world), unprotected(&world)), (vec![A, elsewhere], 0));
    world.audit();
}

#[test]
fn spare_beside_the_new_first_node_is_closed() {
    let mut world = World::new(outside(&[0, 1, 1], 2));
    world.open("r");
    assert_eq!(hops(&world), [A, B, C]);
    world.outputs.clear();
    world.kill(A);
    world.pass(ms(1_000));
    assert_eq!(hops(&world), [B]);
    assert!(world.closed_at().iter().any(|(_, node)| *node == C));
    world.audit();
}

#[test]
fn changed_rule_closes_spares_of_open_rooms() {
    let mut world = World::new(settings_of(&[(0, 1_000), (0, 1_000)]));
    world.open("r");
    assert_eq!(hops(&world), [A, B]);
    modes::change(&mut world, |scenario| scenario.spares_outside = FailureScope::Zone);
    assert_eq!(hops(&world), [A]);
    assert!(world.closed_at().iter().any(|(_, node)| *node == B));
}

#[test]
fn policy_cannot_name_a_spare_in_the_zone() {
    let answers = |ask: &Ask| {
        let PolicyQuestion::Reroute { rooms, .. } = &ask.question else {
            return Some(Ok(placement(&[A, C, B], 200)));
        };
        let step = |row| RoutingMove { row, hops: vec![C, A, B], ttl_ms: 200, reason: 0 };
        let moves = (0..rooms.len() as u32).map(step).collect();
        Some(Ok(HookAnswer::Moves { moves, states: Vec::new(), memo: None }))
    };
    let mut world = World::with_policy(outside(&[0, 1, 0], 2), &[Hook::Routing], answers);
    world.open("r");
    assert_eq!(hops(&world), [A, B]);
    let outcome = |event: &CoreEvent| match event {
        CoreEvent::Decided { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    let same = DecisionOutcome::Applied { differs: false };
    assert_eq!(world.events().find_map(outcome), Some(same), "the native default is the same");
    world.pass(ms(1_000));
    assert_eq!(hops(&world), [C, B]);
    world.outputs.clear();
    world.pass(ms(1_000));
    let rerouted = |event: &CoreEvent| matches!(event, CoreEvent::Rerouted { .. });
    assert!(world.asked(Hook::Routing) > 1 && !world.events().any(rerouted), "nothing changes");
}

#[test]
fn reserve_of_region_is_in_another_region() {
    // `C` is in another region.
    let mut world = reserving(Some(FailureScope::Region), &[(0, 9_000), (1, 9_000), (2, 9_000)]);
    world.open("r");
    assert_eq!(world.route("r")[..2], [(A, HopGrant::Admitted), (C, HopGrant::Reserved)]);
    lose(&mut world, &[A, B]);
    assert_eq!(world.stands("r"), Some(C));
}

/// With capacity for the death of any zone, none leaves a room without a node, and no room waits for a rescue.
#[test]
fn death_of_a_zone_leaves_no_room_without_a_hop() {
    let mut worlds = 0;
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let nodes: Vec<(u32, u64)> =
            (0..rng.u32(4..10)).map(|at| (at % 3, rng.u64(600..2_000))).collect();
        let mut world = reserving(Some(FailureScope::Zone), &nodes);
        let rooms = rng.usize(4..40);
        for room in 0..rooms {
            world.offer(&format!("r{room}"));
        }
        world.pass(ms(2_000));
        world.audit();
        let is_covered = |room: &Room| {
            room.is_covered(world.gateway.tables.need_of(room), &world.gateway.tables.nodes)
        };
        if !world.gateway.rooms.values().all(is_covered) {
            continue;
        }
        worlds += 1;
        let dead = FailureDomain::Zone(ZoneId(rng.u32(0..3)));
        let lost: Vec<NodeId> =
            world.gateway.node_table().in_domain(dead).map(|node| node.id).collect();
        lose(&mut world, &lost);
        let rooms: Vec<_> = world.gateway.rooms.values().map(Room::id).collect();
        let stand = |world: &World| rooms.iter().all(|id| world.gateway.stands_at(*id).is_some());
        assert!(stand(&world), "seed {seed}: packets");
        world.pass(ms(20));
        assert!(stand(&world) && !world.gateway.fails_over(), "seed {seed}: rooms");
        let stranded = world.moves().iter().filter(|(_, to)| to.is_none()).count();
        assert_eq!(stranded, 0, "seed {seed}");
    }
    assert!(worlds > 100, "{worlds}");
}

#[test]
fn drain_of_a_zone_survives_a_restart() {
    let mut world = World::new(settings());
    world.open("r");
    let zone = FailureDomain::Zone(ZoneId(0));
    let drain = |world: &mut World, draining| {
        world.gateway.change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(zone, draining, None, world.now)
        })
    };
    drain(&mut world, true).unwrap();
    world.pass(ms(1_000));
    assert_eq!(world.stands("r"), Some(B), "the other zone of the region");
    world.hand_over(ms(0));
    assert!(world.gateway.node_table().is_drained(zone));
    let late = world.add(listed(0)).unwrap();
    assert!(world.gateway.node_table().get(late).unwrap().drains(), "a new node of the zone");
    drain(&mut world, false).unwrap();
    assert!(!world.gateway.node_table().get(A).unwrap().drains());
    assert!(!world.gateway.node_table().get(late).unwrap().drains());
    // The end of a region's drain ends that of its zones.
    drain(&mut world, true).unwrap();
    let region = FailureDomain::Region(RegionId(0));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain_domain(region, false, None, world.now))
        .unwrap();
    assert!(!world.gateway.node_table().is_drained(zone));
}

#[test]
fn ejected_zone_moves_no_room_within_itself() {
    let mut world = World::new(settings());
    (0..20).for_each(|room| _ = world.open(&format!("r{room}")));
    world.outputs.clear();
    let zone = ZoneId(0);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_eject_zone(zone, world.now))
        .unwrap();
    world.pass(ms(500));
    assert!(!world.moves().is_empty());
    assert!(
        world.moves().iter().all(|(_, to)| ![Some(A), Some(C)].contains(to)),
        "{:?}",
        world.moves()
    );
    let again =
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject_zone(zone, world.now));
    assert_eq!(again, Err(evenkeel_model::Impossible::AlreadyEjected));
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_return_zone(zone)).unwrap();
    world.pass(ms(5_000));
    assert!([A, C].iter().all(|node| world.gateway.node_table().get(*node).unwrap().takes_rooms()));
    let none = world.gateway.change_nodes(world.now, |nodes| nodes.handle_return_zone(zone));
    assert_eq!(none, Err(evenkeel_model::Impossible::NotDown));
}
