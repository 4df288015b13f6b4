//! Nodes that the gateway stops, replaces, and starts within a budget.

use std::time::Duration;

use evenkeel_model::{
    BreakerState, CoreEvent, CoreSettings, FailureScope, Health, Measures, NodeId, NodeNeed,
    RedundancyMode, RegionId, RegionRole, SessionId, StartPhase, StartRefusal, Starts,
};
use evenkeel_nodes::NodeEffect;

use super::modes::{health, in_mode, starts};
use super::*;
use crate::{CandidateReason, GatewayEffect, NodeStanding};

const HOME: RegionId = RegionId(0);

/// A node that runs, B, which a hook starts, and others that run.
fn settings_with(mode: RedundancyMode, nodes: &[(u32, u64)]) -> CoreSettings {
    let mut settings = in_mode(mode, settings_of(nodes));
    settings.limits.early_start = true;
    settings.nodes[1].starts = Starts::ByHook { within: ms(30_000) };
    settings.nodes[1].hook.stop_after = Some(ms(60_000));
    settings
}

/// The gateway starts B because capacity is expected to be exhausted.
fn started(settings: CoreSettings) -> World {
    let mut world = World::new(settings);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_exhaustion(HOME, world.now));
    world.pass(ms(10));
    assert_eq!(world.starts, [B]);
    world.unmute(B);
    world.pass(ms(1_000));
    assert_eq!(health(&world, B), Health::Up);
    world
}

/// Time passes while the session sends.
fn talk(world: &mut World, session: SessionId, seconds: u64) {
    for _ in 0..seconds {
        world.gateway.handle_summary(session, Measures::default(), Some(world.now));
        world.pass(ms(1_000));
    }
}

fn stops(world: &World) -> Vec<&'static str> {
    let step = |event: &CoreEvent| match event {
        CoreEvent::Stop { node: B, step } => Some(step.name()),
        _ => None,
    };
    world.events().filter_map(step).collect()
}

fn standing(world: &World) -> NodeStanding {
    world.gateway.views().nodes().find(|standing| standing.hop.node == B).unwrap()
}

fn is_draining(world: &World) -> bool {
    standing(world).draining
}

fn pass_until_drain(world: &mut World) {
    for _ in 0..6_600 {
        if is_draining(world) {
            return;
        }
        world.pass(ms(10));
    }
    panic!("{B} does not drain");
}

fn effects(world: &World, wanted: NodeEffect) -> usize {
    let is_wanted = |output: &&GatewayEffect| matches!(output, GatewayEffect::Node(effect) if *effect == wanted);
    world.outputs.iter().filter(is_wanted).count()
}

#[test]
fn quiet_node_is_stopped_and_its_answers_are_ignored() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    world.pass(ms(55_000));
    assert_eq!(effects(&world, NodeEffect::Stop(B)), 0);
    world.pass(ms(12_000));
    assert_eq!(effects(&world, NodeEffect::Stop(B)), 1);
    assert_eq!((health(&world, B), stops(&world)), (Health::Cold, vec!["stopping"]));
    world.mute(B);
    world.pass(ms(6_000));
    assert_eq!(stops(&world), ["stopping", "stopped"]);
    world.pass(ms(100_000));
    assert_eq!((&world.starts[..], stops(&world).len()), (&[B][..], 2), "it rests");
    let healths = world.events().filter_map(|event| match event {
        CoreEvent::Node { hop, to, .. } if hop.node == B => Some(*to),
        _ => None,
    });
    assert_eq!(healths.collect::<Vec<_>>(), [Health::Up, Health::Cold], "its end is no death");
    // It can be started again.
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_exhaustion(HOME, world.now));
    world.pass(ms(10));
    assert_eq!(world.starts, [B, B]);
}

#[test]
fn node_that_does_not_stop_runs_on() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    world.pass(ms(80_000));
    assert_eq!((health(&world, B), stops(&world)), (Health::Cold, vec!["stopping"]));
    world.pass(ms(30_000));
    assert_eq!(stops(&world), ["stopping", "failed"]);
    assert_eq!(effects(&world, NodeEffect::EndStop(B)), 1);
    world.pass(ms(35_000));
    assert_eq!((health(&world, B), stops(&world).len()), (Health::Up, 2));
    world.pass(ms(30_000));
    assert_eq!(stops(&world), ["stopping", "failed", "stopping"], "it was quiet again");
}

#[test]
fn node_at_a_new_address_counts_as_started() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    let settings = world.gateway.node_table()[B].settings.clone();
    let new = world.add(settings).unwrap();
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_takes_place(new, B, world.now))
        .unwrap();
    world.unmute(new);
    world.pass(ms(2_000));
    let standing = world.gateway.views().nodes().find(|node| node.hop.node == new).unwrap();
    assert!(standing.started && standing.health != Health::Cold);
}

#[test]
fn standby_that_forgets_a_record_stops_no_node() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    pass_until_drain(&mut world);
    let record = world.gateway.record(world.now);
    world.restart(Duration::ZERO);
    let node = |name: &str| name.strip_prefix('n')?.parse().ok().map(NodeId);
    world.gateway.handle_record(record, node, world.now).unwrap();
    world.gateway.forget_restored();
    world.pass(ms(200_000));
    assert_eq!((health(&world, B), is_draining(&world)), (Health::Up, false));
    assert_eq!(stops(&world), [""; 0]);
}

#[test]
fn start_begun_by_another_process_is_continued() {
    let settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]);
    let mut world = World::new(settings);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_exhaustion(HOME, world.now));
    world.pass(ms(10));
    let record = world.gateway.record(world.now);
    world.restart(Duration::ZERO);
    world.restore(&record);
    world.unmute(B);
    world.pass(ms(80_000));
    assert_eq!(stops(&world), ["stopping"]);
}

#[test]
fn node_that_stops_takes_no_rooms_after_a_takeover() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    world.pass(ms(80_000));
    assert_eq!(stops(&world), ["stopping"]);
    let record = world.gateway.record(world.now);
    // The standby hears the node, which still answers.
    world.restart(ms(2_000));
    assert_ne!(health(&world, B), Health::Cold);
    world.restore(&record);
    assert_eq!(health(&world, B), Health::Cold);
    world.mute(B);
    world.pass(ms(10_000));
    assert_eq!((health(&world, B), stops(&world)), (Health::Cold, vec!["stopping", "stopped"]));
}

#[test]
fn node_that_an_earlier_process_started_is_stopped() {
    let mut world =
        World::new(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000), (0, 1_000)]));
    for node in [B, C] {
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_started(node));
    }
    world.unmute(B);
    world.pass(ms(80_000));
    assert_eq!(stops(&world), ["stopping"]);
    let without_hook = world.gateway.views().nodes().last().unwrap();
    assert!(standing(&world).started && !without_hook.started);
}

#[test]
fn node_that_was_not_started_is_not_stopped() {
    let settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]);
    let mut world = World::new(settings);
    world.unmute(B);
    world.pass(ms(100_000));
    assert_eq!((health(&world, B), stops(&world)), (Health::Up, vec![]));
}

#[test]
fn node_is_kept_while_its_region_expects_its_load() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    let expect = |world: &mut World, kbps| {
        let now = world.now;
        world.gateway.change_nodes(now, |nodes| nodes.handle_expected_load(HOME, kbps, now));
    };
    expect(&mut world, 810);
    world.pass(ms(100_000));
    assert_eq!(stops(&world), [""; 0], "the other node would be loaded by more than 80 %");
    assert_eq!(standing(&world).need, Some(NodeNeed::Load));
    expect(&mut world, 790);
    world.pass(ms(67_000));
    assert_eq!(stops(&world), ["stopping"]);
}

#[test]
fn drain_before_a_stop_ends_if_the_load_returns() {
    for (kbps, steps) in [(890, vec!["stopping"]), (910, vec![])] {
        let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
        pass_until_drain(&mut world);
        let now = world.now;
        world.gateway.change_nodes(now, |nodes| nodes.handle_expected_load(HOME, kbps, now));
        world.pass(ms(10_000));
        assert_eq!(stops(&world), steps);
    }
}

#[test]
fn only_standby_of_a_room_is_kept() {
    let mut settings = settings_with(RedundancyMode::Hot, &[(0, 1_000), (1, 1_000)]);
    settings.nodes[1].role = RegionRole::Standby;
    let mut world = started(settings);
    let session = world.open("r");
    let route = world.route("r");
    assert_eq!(route.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [A, B]);
    talk(&mut world, session, 100);
    assert_eq!((stops(&world).len(), world.route("r")), (0, route));
    assert_eq!(standing(&world).need, Some(NodeNeed::Reserves));
    world.kill(A);
    talk(&mut world, session, 2);
    assert_eq!(standing(&world).need, Some(NodeNeed::Rooms));
}

#[test]
fn only_standby_outside_the_zone_is_kept() {
    for (outside, need) in
        [(FailureScope::Zone, Some(NodeNeed::Reserves)), (FailureScope::Node, None)]
    {
        let mut settings =
            settings_with(RedundancyMode::Hot, &[(0, 1_000), (1, 1_000), (0, 1_000)]);
        settings.nodes[1].role = RegionRole::Standby;
        settings.scenarios.values_mut().for_each(|scenario| scenario.spares_outside = outside);
        let mut world = started(settings);
        let session = world.open("r");
        talk(&mut world, session, 70);
        assert_eq!(standing(&world).need, need);
        assert_eq!(stops(&world).is_empty(), need.is_some());
    }
}

#[test]
fn explanation_names_a_node_that_stops() {
    let mut settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]);
    settings.nodes[1].role = RegionRole::Standby;
    let mut world = started(settings);
    let session = world.open("r");
    talk(&mut world, session, 70);
    assert_eq!(stops(&world), ["stopping"]);
    let explained = world.gateway.views().explain(session, world.now).unwrap();
    assert_eq!(explained.room.candidates[0].why, CandidateReason::Stopping);
}

#[test]
fn standby_moves_before_its_node_is_stopped() {
    let mut settings = settings_with(RedundancyMode::Hot, &[(0, 1_000), (1, 1_000), (0, 1_000)]);
    settings.nodes[1].role = RegionRole::Standby;
    let mut world = started(settings);
    let session = world.open("r");
    assert!(world.route("r").iter().any(|(node, _)| *node == B), "in another zone");
    talk(&mut world, session, 70);
    assert_eq!(stops(&world), ["stopping"]);
    let nodes: Vec<NodeId> = world.route("r").iter().map(|(node, _)| *node).collect();
    assert!(nodes.len() == 2 && !nodes.contains(&B), "{nodes:?}");
}

#[test]
fn undrain_keeps_a_node_that_would_be_stopped() {
    let mut settings = settings_with(RedundancyMode::Hot, &[(0, 1_000), (1, 1_000), (0, 1_000)]);
    settings.nodes[1].role = RegionRole::Standby;
    let mut world = started(settings);
    pass_until_drain(&mut world);
    assert!(standing(&world).stopping && standing(&world).started);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(B, false, None, world.now))
        .unwrap();
    world.pass(ms(10_000));
    assert!(!is_draining(&world));
    assert_eq!((health(&world, B), stops(&world)), (Health::Up, vec![]));
}

#[test]
fn dead_node_is_replaced_later_each_time() {
    let mut settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]);
    settings.nodes[1].hook.stop_after = None;
    settings.nodes[1].hook.replace_after = Some(ms(10_000));
    let mut world = started(settings);
    world.kill(B);
    world.pass(ms(8_000));
    assert_eq!(world.starts, [B]);
    world.pass(ms(5_000));
    assert_eq!(world.starts, [B, B]);
    world.unmute(B);
    world.pass(ms(5_000));
    world.kill(B);
    world.pass(ms(18_000));
    assert_eq!(world.starts, [B, B], "twice as long");
    world.pass(ms(5_000));
    assert_eq!(world.starts, [B, B, B]);
    world.unmute(B);
    world.pass(ms(5_000));
    // A node that comes back is not replaced.
    world.kill(B);
    world.pass(ms(10_000));
    world.unmute(B);
    world.pass(ms(60_000));
    assert_eq!(world.starts, [B, B, B]);
}

#[test]
fn dead_node_without_replacement_waits_until_it_is_needed() {
    let mut world = started(settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]));
    world.kill(B);
    world.pass(ms(120_000));
    assert_eq!(world.starts, [B]);
}

/// A running node, and two that a hook starts for 0.6 and 0.5 an hour.
fn two_priced() -> CoreSettings {
    let mut settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000), (1, 1_000)]);
    settings.nodes[2].starts = Starts::ByHook { within: ms(30_000) };
    settings.nodes[1].hook.stop_after = None;
    settings.nodes[1].hook.cost_milli = 600;
    settings.nodes[2].hook.cost_milli = 500;
    settings
}

fn refusals(world: &World) -> Vec<StartRefusal> {
    let why = |step: StartPhase| match step {
        StartPhase::Refused { why } => Some(why),
        _ => None,
    };
    starts(world).into_iter().filter_map(why).collect()
}

#[test]
fn starts_end_at_the_budget_with_one_report() {
    let limits: [(Option<u32>, Option<u64>, Option<StartRefusal>); 4] = [
        (Some(1), None, Some(StartRefusal::Nodes)),
        (Some(2), None, None),
        (None, Some(1_099), Some(StartRefusal::Cost)),
        (None, Some(1_100), None),
    ];
    for (nodes_max, cost_milli_max, refused) in limits {
        let mut settings = two_priced();
        settings.limits.start_budget.nodes_max = nodes_max;
        settings.limits.start_budget.cost_milli_max = cost_milli_max;
        let mut world = started(settings);
        for _ in 0..3 {
            world.gateway.change_nodes(world.now, |nodes| {
                nodes.handle_exhaustion(HOME, world.now);
            });
            world.pass(ms(10));
        }
        let reported: Vec<StartRefusal> = refused.into_iter().collect();
        assert_eq!(refusals(&world), reported);
        let all = if refused.is_some() { vec![B] } else { vec![B, C] };
        assert_eq!(world.starts, all);
    }
}

#[test]
fn calls_exceed_the_budget_only_if_allowed() {
    for (exceeded_for_calls, begun) in [(false, vec![]), (true, vec![B])] {
        let mut settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]);
        settings.limits.start_budget.cost_milli_max = Some(0);
        settings.limits.start_budget.exceeded_for_calls = exceeded_for_calls;
        settings.nodes[1].hook.cost_milli = 1;
        let mut world = World::new(settings);
        world.open("r");
        world.kill(A);
        world.pass(ms(1_000));
        assert_eq!(world.starts, begun);
        assert_eq!(refusals(&world).len(), usize::from(!exceeded_for_calls));
    }
}

/// The provider of B failed five times, the last time 17 s ago. A session waits for B.
fn with_failed_provider() -> (World, SessionId) {
    let mut settings = settings_with(RedundancyMode::Cold, &[(0, 1_000), (1, 1_000)]);
    settings.nodes[1].hook.provider = "cloud".into();
    let mut world = World::new(settings);
    let session = world.open("r");
    world.kill(A);
    world.pass(ms(10));
    for attempt in 1..=5 {
        assert_eq!(world.starts.len(), attempt);
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_start_failed(B, world.now));
        talk(&mut world, session, 17);
    }
    assert_eq!(world.starts.len(), 5, "the delay of the node is over");
    (world, session)
}

fn provider_states(world: &World) -> Vec<BreakerState> {
    let state = |event: &CoreEvent| match event {
        CoreEvent::ProviderBreaker { to, .. } => Some(*to),
        _ => None,
    };
    world.events().filter_map(state).collect()
}

#[test]
fn breaker_of_a_provider_continues_in_another_process() {
    let (mut world, session) = with_failed_provider();
    let record = world.gateway.record(world.now);
    world.restart(Duration::ZERO);
    let node = |name: &str| name.strip_prefix('n')?.parse().ok().map(NodeId);
    world.gateway.handle_record(record.clone(), node, world.now).unwrap();
    assert_eq!(world.gateway.views().provider_breakers(world.now).count(), 1);
    world.gateway.forget_restored();
    assert_eq!(world.gateway.views().provider_breakers(world.now).count(), 0);
    world.restart(Duration::ZERO);
    world.restore(&record);
    world.outputs.clear();
    talk(&mut world, session, 10);
    assert_eq!((world.starts.len(), provider_states(&world)), (0, vec![BreakerState::Open]));
    talk(&mut world, session, 10);
    assert_eq!(world.starts, [B], "30 s after it opened");
}

#[test]
fn provider_that_fails_in_a_row_is_not_called() {
    let (mut world, session) = with_failed_provider();
    let breaker = world.gateway.views().provider_breakers(world.now).next().unwrap();
    assert_eq!((&*breaker.provider, breaker.breaker, breaker.failures), ("cloud", "open", 5));
    assert_eq!(refusals(&world), [StartRefusal::Provider]);
    talk(&mut world, session, 15);
    assert_eq!(world.starts.len(), 6);
    world.unmute(B);
    world.pass(ms(1_000));
    let states = [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed];
    assert_eq!(provider_states(&world), states);
    assert_eq!(world.gateway.views().provider_breakers(world.now).count(), 0);
}
