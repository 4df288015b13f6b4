//! Nodes that accept everything and forward nothing.

use super::*;
use crate::{Event, Flow, Health, Settings, Witness};

fn with_canaries() -> Settings {
    let mut settings = settings();
    settings.nodes.iter_mut().for_each(|node| node.canary = true);
    settings
}

fn witnesses(world: &World, to: Health) -> Option<Vec<Witness>> {
    world.events().find_map(|event| match event {
        Event::Node { to: is, witnesses, .. } if *is == to => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect())
        }
        _ => None,
    })
}

/// Milliseconds until the node is condemned, if it is within 10 s.
fn condemned_after(world: &mut World) -> Option<u64> {
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
fn a_node_that_accepts_and_forwards_nothing_is_condemned_within_two_seconds() {
    for rooms in [0, 4] {
        let mut world = World::new(with_canaries());
        (0..rooms).for_each(|room| _ = world.open(&room.to_string()));
        let stood = (0..rooms).filter(|room| world.stands(&room.to_string()) == Some(A)).count();
        world.turn_gray(A, true);
        let after = condemned_after(&mut world).unwrap();
        assert!((1_200..=2_000).contains(&after), "{after}");
        assert!(witnesses(&world, Health::Down).unwrap().contains(&Witness::Canary));
        assert_eq!(world.moves().len(), stood);
    }
}

#[test]
fn a_gray_node_that_sends_nothing_to_anybody_anyway_is_condemned_by_canaries_alone() {
    let mut world = World::new(with_canaries());
    world.hush(A);
    world.pass(ms(10_000));
    world.outputs.clear();
    world.turn_gray(A, true);
    let after = condemned_after(&mut world).unwrap();
    assert!((1_400..=2_000).contains(&after), "{after}");
    assert_eq!(witnesses(&world, Health::Down).unwrap(), [Witness::Canary]);
}

#[test]
fn without_canaries_a_gray_node_is_only_suspect() {
    let mut world = World::new(settings());
    world.turn_gray(A, true);
    assert_eq!(condemned_after(&mut world), None);
}

#[test]
fn a_node_that_forwards_others_media_is_no_dead_one_whatever_becomes_of_canaries() {
    let mut world = World::new(with_canaries());
    let session = world.open("r");
    let hears = Some(world.hop(A));
    world.turn_gray(A, true);
    for _ in 0..50 {
        let flow = Flow { sent: [5, 0], came: [5, 0], hears, ..Flow::default() };
        world.gateway.handle_flow(session, &flow, world.now);
        world.pass(ms(100));
    }
    assert!(world.gateway.board().cell(A).unwrap().up);
    assert!(witnesses(&world, Health::Suspect).is_some(), "new rooms avoid it");
    assert_eq!(world.moves(), []);
}

#[test]
fn a_gray_node_does_not_return_before_it_forwards() {
    let mut world = World::new(with_canaries());
    world.turn_gray(A, true);
    condemned_after(&mut world).unwrap();
    world.pass(ms(20_000));
    assert!(!world.gateway.board().cell(A).unwrap().up, "it answers all the while");
    world.turn_gray(A, false);
    world.pass(ms(1_200));
    assert!(world.gateway.board().cell(A).unwrap().up);
}

#[test]
fn a_node_that_never_forwarded_a_canary_is_not_accused_by_them() {
    let mut settings = with_canaries();
    settings.nodes[0].canary = false;
    let mut world = World::new(settings);
    world.gateway.settings.nodes[0].canary = true;
    world.turn_gray(A, true);
    world.gateway.nodes[A].settings.canary = true;
    world.gateway.nodes.start_timers(world.now, &mut world.gateway.effects);
    assert_eq!(condemned_after(&mut world), None);
}

#[test]
fn a_cut_that_ends_leaves_no_canaries_to_accuse() {
    let mut world = World::new(with_canaries());
    let all = [A, B, C, D];
    all.iter().for_each(|node| world.mute(*node));
    world.pass(ms(2_500));
    all.iter().for_each(|node| world.unmute(*node));
    world.pass(ms(1_000));
    assert!(all.iter().all(|node| world.gateway.board().cell(*node).unwrap().up));
}
