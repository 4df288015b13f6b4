//! Nodes that open every session and forward nothing.

use evenkeel_model::{CoreEvent, CoreSettings, EvidenceSource, FlowCounts, Health};

use super::*;

fn with_canaries() -> CoreSettings {
    let mut settings = settings();
    settings.nodes.iter_mut().for_each(|node| node.canary = true);
    settings
}

fn witnesses(world: &World, to: Health) -> Option<Vec<EvidenceSource>> {
    world.events().find_map(|event| match event {
        CoreEvent::Node { to: is, witnesses, .. } if *is == to => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect())
        }
        _ => None,
    })
}

/// Milliseconds until the node is marked down, if within 10 s.
fn down_after(world: &mut World) -> Option<u64> {
    let start = world.now;
    while world.now - start < ms(10_000) {
        world.pass(ms(2));
        if !world.gateway.board().cell(A).unwrap().up {
            return Some((world.now - start).as_millis() as u64);
        }
    }
    None
}

#[test]
fn gray_node_is_down_within_two_seconds() {
    for rooms in [0, 4] {
        let mut world = World::new(with_canaries());
        (0..rooms).for_each(|room| _ = world.open(&room.to_string()));
        let stood = (0..rooms).filter(|room| world.stands(&room.to_string()) == Some(A)).count();
        world.turn_gray(A, true);
        let after = down_after(&mut world).unwrap();
        assert!((1_200..=2_000).contains(&after), "{after}");
        assert!(witnesses(&world, Health::Down).unwrap().contains(&EvidenceSource::Canary));
        assert_eq!(world.moves().len(), stood);
    }
}

#[test]
fn idle_gray_node_is_down_by_canaries() {
    let mut world = World::new(with_canaries());
    world.hush(A);
    world.pass(ms(10_000));
    world.outputs.clear();
    world.turn_gray(A, true);
    let after = down_after(&mut world).unwrap();
    assert!((1_400..=2_000).contains(&after), "{after}");
    assert_eq!(witnesses(&world, Health::Down).unwrap(), [EvidenceSource::Canary]);
}

#[test]
fn gray_node_without_canaries_is_suspect() {
    let mut world = World::new(settings());
    world.turn_gray(A, true);
    assert_eq!(down_after(&mut world), None);
}

#[test]
fn forwarding_node_survives_lost_canaries() {
    let mut world = World::new(with_canaries());
    let session = world.open("r");
    let hears = Some(world.hop(A));
    world.turn_gray(A, true);
    for _ in 0..50 {
        let flow = FlowCounts { sent: [5, 0], received: [5, 0], hears, ..FlowCounts::default() };
        world.gateway.handle_flow(session, &flow, world.now);
        world.pass(ms(100));
    }
    assert!(world.gateway.board().cell(A).unwrap().up);
    assert!(witnesses(&world, Health::Suspect).is_some(), "new rooms avoid it");
    assert_eq!(world.moves(), []);
}

#[test]
fn gray_node_returns_only_when_forwarding() {
    let mut world = World::new(with_canaries());
    world.turn_gray(A, true);
    down_after(&mut world).unwrap();
    world.pass(ms(20_000));
    assert!(!world.gateway.board().cell(A).unwrap().up, "it answers all the while");
    world.turn_gray(A, false);
    world.pass(ms(1_200));
    assert!(world.gateway.board().cell(A).unwrap().up);
}

#[test]
fn never_passed_canary_is_no_witness() {
    let mut settings = with_canaries();
    settings.nodes[0].canary = false;
    let mut world = World::new(settings);
    world.gateway.tables.settings.nodes[0].canary = true;
    world.turn_gray(A, true);
    world.gateway.tables.nodes[A].settings.canary = true;
    world.gateway.tables.nodes.start_timers(world.now);
    world.gateway.tables.effects.take(&mut world.gateway.tables.nodes);
    assert_eq!(down_after(&mut world), None);
}

#[test]
fn ended_cut_leaves_no_canary_witness() {
    let mut world = World::new(with_canaries());
    let all = [A, B, C, D];
    all.iter().for_each(|node| world.mute(*node));
    world.pass(ms(2_500));
    all.iter().for_each(|node| world.unmute(*node));
    world.pass(ms(1_000));
    assert!(all.iter().all(|node| world.gateway.board().cell(*node).unwrap().up));
}
