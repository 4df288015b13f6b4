//! Nodes that hooks start: the choice of the node, the time of the start, and concurrent events.

use evenkeel_model::{
    AdmitVerdict, Ask, CoreEvent, CoreSettings, Health, Hook, HookAnswer, Measures, Metric, NodeId,
    NotStarted, OfferRefusal, RedundancyMode, RegionId, StartPhase, Starts,
};
use evenkeel_nodes::NodeEffect;

use super::modes::{cold, health, in_mode, starts};
use super::world::VOICE;
use super::*;
use crate::GatewayEffect;

/// A running node at home, and two that hooks start: B in another region, and C at home.
fn two_cold() -> World {
    World::new(two_cold_settings())
}

fn two_cold_settings() -> CoreSettings {
    let mut settings =
        in_mode(RedundancyMode::Cold, settings_of(&[(0, 1_000), (2, 1_000), (1, 1_000)]));
    for node in &mut settings.nodes[1..] {
        node.starts = Starts::ByHook { within: ms(30_000) };
    }
    settings
}

fn starts_of(world: &World, node: NodeId) -> Vec<StartPhase> {
    let step = |event: &CoreEvent| match event {
        CoreEvent::Start { node: of, step } if *of == node => Some(*step),
        _ => None,
    };
    world.events().filter_map(step).collect()
}

fn health_of(world: &World, node: NodeId) -> Option<Health> {
    world.gateway.views().nodes().find(|standing| standing.hop.node == node).map(|node| node.health)
}

#[test]
fn start_of_ejected_node_ends() {
    let mut world = two_cold();
    world.open("r");
    world.kill(A);
    world.pass(ms(10));
    assert_eq!(world.starts, [C]);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject(C, world.now)).unwrap();
    world.pass(ms(1_000));
    let failed = StartPhase::Failed { why: NotStarted::Ejected, again: ms(1_000) };
    assert_eq!(starts_of(&world, C), [StartPhase::Begun { attempt: 1 }, failed]);
    let is_end = |output: &GatewayEffect| {
        matches!(
            output,
            GatewayEffect::Node(NodeEffect::EndStart { node: C, why: NotStarted::Ejected })
        )
    };
    assert!(world.outputs.iter().any(is_end), "its hook is ended");
    assert_eq!(world.starts, [C, B], "who is ejected keeps nobody waiting");
    // The node boots nevertheless, and answers when it is readmitted.
    world.unmute(C);
    world.pass(ms(1_000));
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_return(C)).unwrap();
    world.pass(ms(40_000));
    assert_eq!(health(&world, C), Health::Up);
    assert_eq!(starts_of(&world, C).len(), 2, "nobody gives up a start that was over");
}

#[test]
fn start_of_removed_node_ends() {
    let mut world = two_cold();
    world.open("r");
    world.kill(A);
    world.pass(ms(10));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(C, None, world.now))
        .unwrap();
    world.pass(ms(1_000));
    let failed = StartPhase::Failed { why: NotStarted::Removed, again: ms(1_000) };
    assert_eq!(starts_of(&world, C), [StartPhase::Begun { attempt: 1 }, failed]);
    assert_eq!(world.starts, [C, B], "another has its turn");
    world.unmute(B);
    world.unmute(A);
    world.pass(ms(10_000));
    assert_eq!(starts_of(&world, B).len(), 2, "begun and done");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_removed(B, None, world.now))
        .unwrap();
    world.pass(ms(10_000));
    assert_eq!(health_of(&world, B), None, "it is forgotten");
    assert_eq!(starts_of(&world, B).len(), 2);
}

#[test]
fn started_node_is_trusted_unless_it_died() {
    let mut world = cold();
    world.open("r");
    world.kill(A);
    world.pass(ms(10));
    world.unmute(B);
    world.pass(ms(20));
    assert_eq!(health(&world, B), Health::Up);
    world.kill(B);
    world.pass(ms(5_000));
    assert_eq!(world.starts, [B, B]);
    world.unmute(B);
    world.pass(ms(20));
    assert_eq!(health(&world, B), Health::Wary, "it may come and go");
    assert_eq!(world.stands("r"), Some(B), "and has the room all the same");
}

#[test]
fn draining_node_triggers_start() {
    let mut world = cold();
    world.open("r");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.pass(ms(200));
    assert_eq!((world.stands("r"), &world.starts[..]), (Some(A), &[B][..]));
    world.unmute(B);
    world.pass(ms(1_000));
    assert_eq!(world.stands("r"), Some(B));
    assert!(world.events().any(|event| matches!(event, CoreEvent::Drained { left: 0, .. })));
}

#[test]
fn non_carrying_hop_triggers_start() {
    let mut world = cold();
    let session = world.open("r");
    let hop = world.hop(A);
    world.gateway.handle_port_closed(session, hop, world.now);
    world.pass(ms(100));
    assert_eq!(world.starts, [B]);
}

#[test]
fn idle_room_triggers_no_start() {
    let mut world = cold();
    let session = world.open("r");
    world.kill(A);
    let mut last = 0;
    for second in 1..=590 {
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_start_failed(B, world.now));
        if second == 500 {
            last = world.starts.len();
            world.gateway.handle_summary(session, Measures::default(), Some(world.now));
        }
        world.pass(ms(1_000));
        if second == 40 {
            last = world.starts.len();
        }
        if (41..500).contains(&second) {
            assert_eq!(world.starts.len(), last, "everybody is silent since {second} s");
        }
    }
    assert_eq!(world.starts.len(), last + 1, "somebody is back, who fell silent again");
    assert!(world.gateway.views().session(session, world.now).is_some(), "its clients are kept");
    world.pass(ms(12_000));
    assert!(world.gateway.views().session(session, world.now).is_none());
}

#[test]
fn nearest_cold_node_starts_first() {
    let mut world = two_cold();
    world.open("r");
    world.kill(A);
    world.pass(ms(20_000));
    assert_eq!(world.starts, [C]);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_start_failed(C, world.now));
    world.pass(ms(500));
    assert_eq!(world.starts, [C, B], "while the nearest has to wait");
}

#[test]
fn draining_node_is_not_started() {
    let mut world = cold();
    world.open("r");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(B, true, None, world.now))
        .unwrap();
    world.kill(A);
    world.pass(ms(5_000));
    assert!(starts(&world).is_empty());
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(B, false, None, world.now))
        .unwrap();
    world.pass(ms(1_000));
    assert_eq!(world.starts, [B]);
}

#[test]
fn running_cold_node_is_probed() {
    let mut world = cold();
    // No media shows the node's death.
    world.hush(B);
    world.unmute(B);
    while health(&world, B) == Health::Cold {
        world.pass(ms(2));
    }
    world.mute(B);
    world.pass(ms(100));
    assert_eq!(health(&world, B), Health::Suspect, "not after a second");
}

/// Hot rooms, a node for one voice session, and another that a hook starts.
fn scarce(early_start: bool) -> CoreSettings {
    let mut settings = settings_of(&[(0, VOICE), (1, 1_000)]);
    settings.limits.early_start = early_start;
    settings.nodes[1].starts = Starts::ByHook { within: ms(30_000) };
    for scenario in settings.scenarios.values_mut() {
        scenario.bounds.floor_kbps = VOICE as u32;
    }
    settings
}

#[test]
fn offer_without_capacity_starts_a_node() {
    for (early_start, started) in [(false, vec![]), (true, vec![B])] {
        let mut world = World::new(scarce(early_start));
        world.open("a");
        assert_eq!(world.starts, []);
        let offer = world.offer("b");
        let refusal = denied(world.replies.get(&offer));
        assert!(matches!(refusal, Some(OfferRefusal::NoNode { .. })), "{refusal:?}");
        assert_eq!(world.starts, started);
    }
}

#[test]
fn policy_refusal_starts_node_if_capacity_is_short() {
    let says = |verdict| move |_: &Ask| Some(Ok(HookAnswer::Admit { verdict, reason: 0 }));
    let reject = || says(AdmitVerdict::Reject(1_000));
    let mut world = World::with_policy(scarce(true), &[Hook::Admission], reject());
    world.offer("a");
    assert_eq!(world.starts, [], "the node is idle");
    world.answer_with(says(AdmitVerdict::Accept));
    world.open("a");
    world.answer_with(reject());
    world.offer("b");
    assert_eq!(world.starts, [B]);
}

#[test]
fn expected_exhaustion_starts_the_nearest_node() {
    let home = RegionId(0);
    let exhaust = |world: &mut World| {
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_exhaustion(home, world.now));
        world.pass(ms(10));
    };
    let mut settings = two_cold_settings();
    let mut world = World::new(settings.clone());
    exhaust(&mut world);
    assert_eq!(world.starts, [], "without early_start");
    settings.limits.early_start = true;
    let mut world = World::new(settings);
    exhaust(&mut world);
    assert_eq!(world.starts, [C]);
    exhaust(&mut world);
    assert_eq!(world.starts, [C], "one at a time");
    world.unmute(C);
    world.pass(ms(1_000));
    assert_eq!(health(&world, C), Health::Up);
    exhaust(&mut world);
    assert_eq!(world.starts, [C], "B is in another region");
}

#[test]
fn policies_read_the_decay_of_a_node() {
    let mut world = two_cold();
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_decay(A, 700));
    let rows = world.gateway.tables.capacity.node_rows(&world.gateway.tables.nodes);
    let decays: Vec<u32> = rows.iter().map(|row| row.measures.value(Metric::Decay)).collect();
    assert_eq!(decays, [700, 0, 0]);
}

#[test]
fn native_placement_prefers_nodes_that_are_not_expected_to_fail() {
    for (permille, first) in [(0, A), (500, B)] {
        let mut world = World::new(settings_of(&[(0, 1_000), (0, 1_000)]));
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_decay(A, permille));
        world.open("r");
        assert_eq!(world.stands("r"), Some(first), "{permille}");
    }
    for nodes in [&[(0, 1_000)][..], &[(0, 1_000), (2, 1_000)]] {
        let mut world = World::new(settings_of(nodes));
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_decay(A, 1_000));
        world.open("r");
        assert_eq!(world.stands("r"), Some(A), "there is no other node in the region");
    }
}
