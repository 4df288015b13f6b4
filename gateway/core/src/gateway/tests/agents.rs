//! Reports of agents beside nodes, and their effects.

use evenkeel_model::{
    CoreEvent, Decider, EvidenceSource, FailureDomain, Health, MoveCause, NodeProbing, RegionId,
};
use evenkeel_nodes::{AgentWord, NodeEvidence, ProcessState};

use super::*;
use crate::gateway::Impossible;

/// Nodes marked down so far, with the witnesses.
fn deaths(world: &World) -> Vec<(evenkeel_model::NodeId, Vec<EvidenceSource>)> {
    let death = |event: &CoreEvent| match event {
        CoreEvent::Node { hop, to: Health::Down, witnesses, .. } => {
            Some((hop.node, witnesses.iter().map(|(witness, _)| *witness).collect()))
        }
        _ => None,
    };
    world.events().filter_map(death).collect()
}

fn say(world: &mut World, node: evenkeel_model::NodeId, word: AgentWord) {
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_agent_word(node, word, world.now));
    world.settle();
}

fn is_up(world: &World, node: evenkeel_model::NodeId) -> bool {
    world.gateway.board().cell(node).unwrap().up
}

#[test]
fn agent_report_downs_node_at_once() {
    let mut world = World::new(settings());
    world.open("r");
    let (on, spare) = (world.stands("r").unwrap(), world.route("r")[1].0);
    say(&mut world, on, AgentWord::Gone);
    assert!(!is_up(&world, on));
    assert_eq!(world.stands("r"), Some(spare));
    assert_eq!(deaths(&world), [(on, vec![EvidenceSource::Agent])]);
    say(&mut world, on, AgentWord::Gone);
    assert_eq!(deaths(&world).len(), 1, "said again, it is no other death");
}

#[test]
fn agent_report_counts_despite_own_stall() {
    let mut world = World::new(settings());
    world.now += ms(50);
    world.stamp(ms(0));
    say(&mut world, A, AgentWord::Gone);
    assert_eq!(deaths(&world), [(A, vec![EvidenceSource::Agent])]);
}

#[test]
fn node_stays_down_while_agent_says_gone() {
    for probed in [NodeProbing::Yes, NodeProbing::No] {
        let mut settings = settings();
        settings.nodes[A.0 as usize].probed = probed;
        let mut world = World::new(settings);
        say(&mut world, A, AgentWord::Gone);
        for _ in 0..40 {
            world.pass(ms(100));
            say(&mut world, A, AgentWord::Gone);
            assert!(!is_up(&world, A), "{probed:?}");
        }
        say(&mut world, A, AgentWord::Serving);
        world.pass(ms(900));
        assert!(!is_up(&world, A), "{probed:?}: its ejection begins when it is back");
        world.pass(ms(200));
        assert!(is_up(&world, A), "{probed:?}");
        assert_eq!(world.hop(A).incarnation, evenkeel_model::Incarnation(2));
    }
}

#[test]
fn silent_agent_is_no_witness() {
    let mut world = World::new(settings());
    say(&mut world, A, AgentWord::Gone);
    world.pass(ms(10));
    say(&mut world, A, AgentWord::Gone);
    world.pass(ms(4_900));
    assert!(!is_up(&world, A));
    world.pass(ms(1_200));
    assert!(is_up(&world, A), "it answers probes");
}

#[test]
fn good_agent_report_is_no_sign_of_life() {
    let mut world = World::new(settings());
    world.mute(A);
    for _ in 0..30 {
        world.pass(ms(10));
        say(&mut world, A, AgentWord::Serving);
    }
    assert_eq!(deaths(&world), [(A, vec![EvidenceSource::Probe, EvidenceSource::Silence])]);
}

#[test]
fn agent_without_check_yields_to_silence() {
    let mut world = World::new(settings());
    world.answer_probes_for(A);
    world.mute(A);
    world.pass(ms(300));
    assert_eq!(deaths(&world), [(A, vec![EvidenceSource::Silence])]);
    world.pass(ms(2_000));
    assert!(is_up(&world, A), "its answers let it in again");
}

#[test]
fn self_drained_node_loses_rooms() {
    let mut world = World::new(settings());
    world.open("r");
    let (on, spare) = (world.stands("r").unwrap(), world.route("r")[1].0);
    for _ in 0..3 {
        say(&mut world, on, AgentWord::Draining);
    }
    assert_eq!(world.stands("r"), Some(spare));
    let moved = world.events().find_map(|event| match event {
        CoreEvent::Moved { cause, by, .. } => Some((*cause, by.clone())),
        _ => None,
    });
    assert_eq!(moved, Some((MoveCause::Drain, Decider::Node)));
    world.open("new");
    assert_ne!(world.stands("new"), Some(on));
    for _ in 0..3 {
        say(&mut world, on, AgentWord::Serving);
    }
    let told: Vec<bool> = world
        .events()
        .filter_map(|event| match event {
            CoreEvent::Draining { draining, .. } => Some(*draining),
            _ => None,
        })
        .collect();
    assert_eq!(told, [true, false], "each is told once");
    assert!(!world.gateway.views().nodes().any(|node| node.draining));
}

#[test]
fn agent_does_not_undo_operator_drain() {
    let mut world = World::new(settings());
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    say(&mut world, A, AgentWord::Draining);
    say(&mut world, A, AgentWord::Serving);
    assert!(world.gateway.views().nodes().next().unwrap().draining);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now))
        .unwrap();
    assert!(!world.gateway.views().nodes().next().unwrap().draining);
}

#[test]
fn operator_undrain_of_self_drain_is_refused() {
    let mut world = World::new(settings());
    let drains = |world: &World| world.gateway.views().nodes().next().unwrap().draining;
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    say(&mut world, A, AgentWord::Draining);
    let undrained = world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now));
    assert_eq!((undrained, drains(&world)), (Err(Impossible::NodeDrains), true));
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(FailureDomain::Region(RegionId(0)), false, None, world.now)
        })
        .unwrap();
    assert!(drains(&world), "nor with its region");
    say(&mut world, A, AgentWord::Serving);
    assert!(!drains(&world), "the operator's own word was taken back");
}

#[test]
fn flapping_self_drain_moves_3_times_a_minute() {
    let mut world = World::new(settings());
    world.open("r");
    for _ in 0..20 {
        let on = world.stands("r").unwrap();
        say(&mut world, on, AgentWord::Draining);
        world.pass(ms(200));
        say(&mut world, on, AgentWord::Serving);
    }
    assert_eq!(world.moves().len(), 3);
}

#[test]
fn capacity_is_unchanged_after_drain() {
    let mut world = World::new(settings_of(&[(0, 1_000), (1, 1_000)]));
    let capacity = |world: &World| world.gateway.views().nodes().next().unwrap().capacity_kbps;
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.settle();
    // The node refuses sessions because it drains, and the sessions that leave still count as load.
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_full(A, world.now));
    for _ in 0..600 {
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_load(A, 900, world.now));
        world.pass(ms(10));
        assert_eq!(capacity(&world), 1_000);
    }
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now))
        .unwrap();
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_load(A, 0, world.now));
    assert_eq!(capacity(&world), 1_000);
    for _ in 0..300 {
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_load(A, 900, world.now));
        world.pass(ms(10));
    }
    assert!(capacity(&world) < 200, "then its word counts again: {}", capacity(&world));
}

#[test]
fn measured_load_is_valid_for_five_seconds() {
    let mut world = World::new(settings());
    let measured = |world: &World| world.gateway.views().nodes().next().unwrap().reported_permille;
    assert_eq!(measured(&world), None);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_load(A, 420, world.now));
    world.pass(ms(4_900));
    assert_eq!(measured(&world), Some(420));
    world.pass(ms(200));
    assert_eq!(measured(&world), None);
}

#[test]
fn reported_process_is_valid_for_a_minute() {
    let mut world = World::new(settings());
    let reported = |world: &World| world.gateway.views().nodes().next().unwrap().process;
    assert_eq!(reported(&world), None);
    let process = ProcessState { memory_permille: 420, started: world.now };
    world.gateway.handle_evidence(A, NodeEvidence::Process(process), world.now);
    world.pass(ms(59_900));
    assert_eq!(reported(&world), Some(process));
    world.pass(ms(200));
    assert_eq!(reported(&world), None);
}

#[test]
fn agent_data_ends_with_the_agent() {
    let mut world = World::new(settings_of(&[(0, 100), (0, 100)]));
    let drains = |world: &World| world.gateway.tables.nodes.get(A).unwrap().drains();
    say(&mut world, A, AgentWord::Draining);
    world.pass(ms(1_000));
    assert!(drains(&world));
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_agent_lost(A, world.now));
    assert!(!drains(&world));
    say(&mut world, A, AgentWord::Draining);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_agent_lost(A, world.now));
    assert!(drains(&world), "the operator has not changed his mind");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now))
        .unwrap();

    say(&mut world, A, AgentWord::Gone);
    assert!(!is_up(&world, A));
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_agent_lost(A, world.now));
    world.pass(ms(1_200));
    assert!(is_up(&world, A), "it answers probes");
}

#[test]
fn self_drained_node_returns_and_takes_rooms() {
    let mut world = World::new(settings_of(&[(0, 100), (0, 100)]));
    say(&mut world, A, AgentWord::Draining);
    world.kill(A);
    world.pass(ms(1_000));
    assert!(world.gateway.tables.nodes.get(A).unwrap().drains());
    world.unmute(A);
    world.pass(ms(5_000));
    assert!(is_up(&world, A) && world.gateway.tables.nodes.get(A).unwrap().takes_rooms());
    let told = |event: &CoreEvent| match event {
        CoreEvent::Draining { node: A, draining } => Some(*draining),
        _ => None,
    };
    assert_eq!(world.events().filter_map(told).collect::<Vec<_>>(), [true, false]);
}
