//! Changes to the list of nodes.

use std::collections::BTreeSet;

use evenkeel_model::{
    CoreEvent, FailureDomain, GatewayLimits, Health, Incarnation, NodeId, NodeProbing,
    NodeSettings, RedundancyMode, RegionId, ZoneId,
};
use evenkeel_nodes::NodeEffect;

use super::*;
use crate::effects::Timer;
use crate::gateway::{GatewayEffect, Impossible};

fn forgotten(world: &World) -> Vec<NodeId> {
    let forgotten = |output: &GatewayEffect| match output {
        GatewayEffect::Node(NodeEffect::Forget(node)) => Some(*node),
        _ => None,
    };
    world.outputs.iter().filter_map(forgotten).collect()
}

fn health(world: &World, node: NodeId) -> Option<Health> {
    world.gateway.views().nodes().find(|standing| standing.hop.node == node).map(|node| node.health)
}

#[test]
fn added_node_takes_rooms_after_answer() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    let session = world.open("1");
    world.offer("2");
    let full = world.offer("2");
    assert!(denied(world.replies.get(&full)).is_some(), "one node is full");
    let new = world.add(listed(0)).unwrap();
    assert_eq!(new, B);
    assert_eq!(health(&world, new), Some(Health::Down), "nobody knows it yet");
    assert!(!world.gateway.board().cell(new).unwrap().up);
    world.pass(ms(50));
    assert_eq!(health(&world, new), Some(Health::Wary));
    world.open("3");
    assert_eq!(world.stands("3"), Some(new));
    world.pass(ms(2_100));
    assert_eq!(health(&world, new), Some(Health::Up));
    assert!(world.gateway.tables.sessions[&session].is_live());
    world.audit();
}

#[test]
fn renamed_node_takes_over_after_old_one() {
    let mut settings = settings_of(&[(0, 100)]);
    // No capacity is reserved there for the old node's death.
    settings.scenarios.values_mut().for_each(|scenario| scenario.mode = RedundancyMode::Cold);
    let mut world = World::new(settings);
    world.open("1");
    world.offer("2");
    let new = world.add(NodeSettings { capacity_kbps: 100, ..listed(0) }).unwrap();
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_same_machine(new, A)).unwrap();
    world.pass(ms(50));
    assert_eq!(health(&world, new), Some(Health::Wary));
    let full = world.offer("3");
    assert!(denied(world.replies.get(&full)).is_some(), "it is one machine");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, None, world.now))
        .unwrap();
    world.pass(ms(3_000));
    assert_eq!(forgotten(&world), [A]);
    assert_eq!(["1", "2"].map(|room| world.stands(room)), [Some(new); 2]);
    assert!(
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_same_machine(new, A)).is_err(),
        "there is none"
    );
    world.audit();
}

#[test]
fn added_node_without_answer_takes_nothing() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    world.open("1");
    let new = world.add(listed(0)).unwrap();
    world.mute(new);
    world.pass(ms(5_000));
    assert_eq!(health(&world, new), Some(Health::Down));
    for room in ["2", "3", "4"] {
        let offer = world.offer(room);
        let refused = denied(world.replies.get(&offer)).is_some();
        assert!(refused || world.stands(room) == Some(A));
    }
}

#[test]
fn unprobed_added_node_is_trusted() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    let new = world.add(NodeSettings { probed: NodeProbing::No, ..listed(0) }).unwrap();
    world.pass(ms(10));
    assert_eq!(health(&world, new), Some(Health::Wary));
}

#[test]
fn removed_node_is_left_make_before_break() {
    let mut world = World::new(settings());
    for room in ["1", "2", "3"] {
        world.open(room);
    }
    world.pass(ms(100));
    let node = world.stands("1").unwrap();
    let stood: Vec<&str> =
        ["1", "2", "3"].into_iter().filter(|room| world.stands(room) == Some(node)).collect();
    world.outputs.clear();
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(node, None, world.now))
        .unwrap();
    world.settle();
    assert!(
        world.gateway.views().nodes().any(|standing| standing.hop.node == node && standing.leaves)
    );
    for room in &stood {
        let route = world.gateway.rooms[&world.room(room)].route();
        assert!(route.leaving().is_some_and(|(left, _)| left.node == node), "make before break");
        assert_ne!(world.stands(room), Some(node));
    }
    assert!(world.gateway.board().cell(node).unwrap().up, "what is under way arrives");
    world.pass(ms(400));
    assert_eq!(forgotten(&world), []);
    world.pass(ms(300));
    assert_eq!(forgotten(&world), [node]);
    assert!(!world.gateway.board().cell(node).unwrap().up);
    assert_eq!(health(&world, node), None);
    let closed: BTreeSet<NodeId> = world.closed_at().into_iter().map(|(_, node)| node).collect();
    assert_eq!(closed, BTreeSet::from([node]), "its sessions there were closed before");
    let lost = |event: &&CoreEvent| matches!(event, CoreEvent::Moved { to: None, .. });
    assert_eq!(world.events().filter(lost).count(), 0);
    assert_eq!(world.moves().len(), stood.len());
    world.outputs.clear();
    world.pass(ms(2_000));
    world.audit();
    assert!(world.gateway.tables.effects.timers().iter().all(|timer| timer != Timer::Probe(node)));
}

#[test]
fn removed_node_with_unplaceable_rooms_stays() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    let session = world.open("1");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, Some(ms(1_000)), world.now))
        .unwrap();
    world.pass(ms(20_000));
    assert_eq!((world.stands("1"), forgotten(&world)), (Some(A), vec![]), "nobody is hung up");
    assert_eq!(drained(&world), [1]);
    let new = world.add(listed(0)).unwrap();
    world.pass(ms(2_000));
    assert_eq!((world.stands("1"), forgotten(&world)), (Some(new), vec![A]));
    assert!(world.gateway.tables.sessions[&session].is_live());
    world.audit();
}

/// Numbers of remaining rooms in the events of drained nodes.
fn drained(world: &World) -> Vec<u32> {
    let left = |event: &CoreEvent| match event {
        CoreEvent::Drained { left, .. } => Some(*left),
        _ => None,
    };
    world.events().filter_map(left).collect()
}

#[test]
fn deadline_applies_to_leaving_node() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    world.open("1");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, None, world.now))
        .unwrap();
    world.pass(ms(5_000));
    assert_eq!(drained(&world), [], "it fits nowhere else, and nothing hurries");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, Some(ms(1_000)), world.now))
        .unwrap();
    world.pass(ms(999));
    assert_eq!(drained(&world), []);
    world.pass(ms(2));
    assert_eq!(drained(&world), [1]);

    let mut world = World::new(settings_of(&[(0, 100)]));
    world.open("1");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, Some(ms(1_000)), world.now))
        .unwrap();
    world.pass(ms(500));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, None, world.now))
        .unwrap();
    world.pass(ms(502));
    assert_eq!(drained(&world), [1]);
    let told = world.events().filter(|event| matches!(event, CoreEvent::Draining { .. })).count();
    assert_eq!(told, 1, "it drains since then");
    let new = world.add(listed(0)).unwrap();
    world.pass(ms(2_000));
    assert_eq!((world.stands("1"), forgotten(&world)), (Some(new), vec![A]));
}

#[test]
fn operator_drain_keeps_removal_deadline() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    world.open("1");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, Some(ms(1_000)), world.now))
        .unwrap();
    world.pass(ms(500));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.pass(ms(502));
    assert_eq!(drained(&world), [1]);
}

#[test]
fn dead_or_recovering_node_can_be_removed() {
    let mut world = World::new(settings());
    world.open("1");
    let node = world.stands("1").unwrap();
    world.kill(node);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(node, None, world.now))
        .unwrap();
    world.pass(ms(2_000));
    assert_eq!(forgotten(&world), [node]);
    assert!(world.stands("1").is_some());
    world.audit();
}

#[test]
fn node_added_to_drained_region_takes_no_rooms() {
    let settings = settings_of(&[(0, 100_000), (2, 100_000)]);
    let like_a = settings.nodes[0].clone();
    let mut world = World::new(settings);
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(FailureDomain::Region(RegionId(0)), true, None, world.now)
        })
        .unwrap();
    let new = world.add(like_a.clone()).unwrap();
    world.pass(ms(3_000));
    world.open("1");
    assert_eq!(world.stands("1"), Some(B), "neither the old one of the region nor the new one");
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(FailureDomain::Region(RegionId(0)), false, None, world.now)
        })
        .unwrap();
    let drain = |world: &World| {
        world.gateway.views().nodes().map(|node| (node.hop.node, node.draining)).collect::<Vec<_>>()
    };
    assert_eq!(drain(&world), [(A, false), (B, false), (new, false)]);
    let later = world.add(like_a).unwrap();
    assert!(!drain(&world).contains(&(later, true)), "no longer");
}

/// Zones 0 and 1 are in one region.
#[test]
fn node_that_moves_to_drained_zone_drains() {
    let settings = settings_of(&[(0, 100_000), (0, 100_000)]);
    let moved = NodeSettings { zone: ZoneId(1), ..settings.nodes[0].clone() };
    for (domain, drains) in
        [(FailureDomain::Region(RegionId(0)), false), (FailureDomain::Zone(ZoneId(1)), true)]
    {
        let mut world = World::new(settings.clone());
        let now = world.now;
        world
            .gateway
            .change_nodes(now, |nodes| {
                nodes.handle_drain_domain(domain, true, None, now)?;
                // The operator takes this node back alone.
                nodes.handle_drain(A, false, None, now)?;
                nodes.handle_node_changed(A, moved.clone(), now)
            })
            .unwrap();
        let node = world.gateway.views().nodes().find(|node| node.hop.node == A).unwrap();
        assert_eq!(node.draining, drains, "{domain:?}");
    }
}

#[test]
fn replacement_keeps_drain_and_ejection() {
    let settings = settings_of(&[(0, 100_000), (0, 100_000), (0, 100_000)]);
    let like_a = settings.nodes[0].clone();
    let mut world = World::new(settings);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject(B, world.now)).unwrap();
    let news = [A, B, C].map(|old| {
        let new = world.add(like_a.clone()).unwrap();
        world
            .gateway
            .change_nodes(world.now, |nodes| nodes.handle_takes_place(new, old, world.now))
            .unwrap();
        world
            .gateway
            .change_nodes(world.now, |nodes| nodes.handle_node_removed(old, None, world.now))
            .unwrap();
        new
    });
    world.pass(ms(5_000));
    let standing =
        |id: NodeId| world.gateway.views().nodes().find(|node| node.hop.node == id).unwrap();
    let [drained, ejected, served] = news.map(standing);
    assert!(drained.draining && !served.draining && !ejected.draining);
    assert_eq!([ejected.health, served.health], [Health::Down, Health::Up]);
    world.open("1");
    assert_eq!(world.stands("1"), Some(news[2]));
}

#[test]
fn only_listing_revives_a_leaving_node() {
    let mut world = World::new(settings_of(&[(0, 100), (0, 10)]));
    world.open("1");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, None, world.now))
        .unwrap();
    let undrained = world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now));
    assert_eq!(undrained, Err(Impossible::NodeLeaves));
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(FailureDomain::Region(RegionId(0)), false, None, world.now)
        })
        .unwrap();
    assert!(world.gateway.views().nodes().next().unwrap().draining);
    assert_eq!(
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_node_kept(B, world.now)),
        Err(Impossible::NoSuchNode)
    );
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_node_kept(A, world.now)).unwrap();
    world.pass(ms(5_000));
    assert!(!world.gateway.views().nodes().any(|node| node.draining || node.leaves));
    assert_eq!((world.stands("1"), forgotten(&world)), (Some(A), vec![]));
}

#[test]
fn operator_drain_survives_relisting() {
    let mut world = World::new(settings_of(&[(0, 100), (0, 100)]));
    let drains = |world: &World| world.gateway.tables.nodes.get(A).unwrap().drains();
    for kept in [true, false] {
        world
            .gateway
            .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
            .unwrap();
        world
            .gateway
            .change_nodes(world.now, |nodes| nodes.handle_node_removed(A, None, world.now))
            .unwrap();
        if kept {
            world
                .gateway
                .change_nodes(world.now, |nodes| nodes.handle_node_kept(A, world.now))
                .unwrap();
            world.pass(ms(2_000));
            assert_eq!(forgotten(&world), []);
        }
        assert!(drains(&world));
        assert_eq!(
            world
                .gateway
                .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now))
                .is_ok(),
            kept
        );
        assert_eq!(drains(&world), !kept, "listed again it is the operator's, else the list's");
    }
}

#[test]
fn change_in_place_moves_no_room() {
    let mut world = World::new(settings_of(&[(0, 100), (0, 100)]));
    world.open("1");
    let node = world.stands("1").unwrap();
    world.outputs.clear();
    let less = NodeSettings { capacity_kbps: 70, ..listed(1) };
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_changed(node, less, world.now))
        .unwrap();
    world.pass(ms(1_000));
    assert_eq!((world.stands("1"), world.moves().len()), (Some(node), 0));
    let standing =
        world.gateway.views().nodes().find(|standing| standing.hop.node == node).unwrap();
    assert_eq!(standing.capacity_kbps, 70);
    assert_eq!(world.gateway.tables.nodes.get(node).unwrap().settings.zone, ZoneId(1));
    let nobody = world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_changed(D, listed(0), world.now));
    assert_eq!(nobody, Err(Impossible::NoSuchNode));
}

#[test]
fn full_report_survives_capacity_change() {
    let mut world = World::new(settings_of(&[(0, 100)]));
    world.open("1");
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_full(A, world.now));
    let takes = world.gateway.tables.capacity.ledger().capacity(A);
    assert!(takes < 100, "{takes}");
    let more = NodeSettings { capacity_kbps: 200, ..listed(0) };
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_changed(A, more, world.now))
        .unwrap();
    assert_eq!(world.gateway.tables.capacity.ledger().capacity(A), takes);
}

#[test]
fn empty_zone_number_is_reused() {
    let mut world = World::new(settings());
    let home = RegionId(0);
    let gateway = &mut world.gateway;
    assert_eq!(gateway.zone("a", home).unwrap(), ZoneId(0));
    let new = gateway.zone("new", home).unwrap();
    assert_eq!(new, ZoneId(3));
    assert_eq!(gateway.zone("newer", home).unwrap(), new, "nobody took it");
    assert_eq!(gateway.zone("a", RegionId(1)).unwrap(), new, "another by the same name");
    assert_eq!(gateway.zone("a", RegionId(2)), Err(Impossible::NoSuchRegion));
}

#[test]
fn many_changes_leak_no_slots() {
    let mut world = World::new(settings());
    let session = world.open("1");
    let standing = world.gateway.tables.effects.timers_set();
    let mut last = BTreeSet::new();
    for round in 0..2_000 {
        let zone = world.gateway.zone(&format!("zone {round}"), RegionId(0)).unwrap();
        let new = world.add(NodeSettings { zone, ..listed(0) }).unwrap();
        world.pass(ms(20));
        let hop = world.hop(new);
        assert!(last.insert(hop), "{hop:?} was another's");
        world.gateway.handle_move(&"1".into(), new, world.now).unwrap();
        world.pass(ms(20));
        assert_eq!(world.stands("1"), Some(new));
        world
            .gateway
            .change_nodes(world.now, |nodes| nodes.handle_node_removed(new, None, world.now))
            .unwrap();
        world.pass(ms(1_000));
        assert_eq!(forgotten(&world), [new]);
        world.outputs.clear();
        world.gateway.handle_summary(session, evenkeel_model::Measures::default(), Some(world.now));
    }
    assert!(world.gateway.tables.nodes.slots() <= 4 + 12, "{}", world.gateway.tables.nodes.slots());
    assert!(last.iter().any(|hop| hop.incarnation > Incarnation(100)));
    assert_eq!(world.gateway.tables.nodes.count(), 4);
    assert_eq!(world.gateway.node_table().zones().len(), 4);
    assert!(world.gateway.tables.effects.timers_set() <= standing);
    assert!(
        world.gateway.drains.len() == 0 && world.gateway.tables.worklists.by_node.has_left_none()
    );
    world.audit();
}

#[test]
fn node_limit_is_enforced() {
    let limits = GatewayLimits { nodes_max: 2, ..GatewayLimits::default() };
    let mut world = World::new(evenkeel_model::CoreSettings { limits, ..settings_of(&[(0, 100)]) });
    assert_eq!(world.gateway.node_table().vacancies(world.now), 1);
    let new = world.add(listed(0)).unwrap();
    assert_eq!(world.add(listed(0)), Err(Impossible::NoRoomForNodes));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(new, None, world.now))
        .unwrap();
    world.pass(ms(1_000));
    assert_eq!(forgotten(&world), [new]);
    assert_eq!(world.add(listed(0)), Err(Impossible::NoRoomForNodes), "its slot rests");
    assert_eq!(world.gateway.node_table().vacancies(world.now), 0);
    world.pass(ms(10_000));
    assert_eq!(world.add(listed(0)), Ok(new));
}
