//! Flapping nodes: damping limits moves, except moves off a dead node.

use evenkeel_model::{Health, NodeId};

use super::super::NotOpened;
use super::*;

const MINUTES: usize = 10;

/// Silences the nodes for half of each second in turn. Returns the number of the room's moves.
fn flap(world: &mut World, nodes: &[NodeId]) -> usize {
    for half in 0..MINUTES * 120 {
        for (at, &node) in nodes.iter().enumerate() {
            match (half + at) % 2 {
                0 => world.mute(node),
                _ => world.unmute(node),
            }
        }
        world.pass(ms(500));
        // Sessions send all the time.
        let sessions: Vec<_> = world.gateway.tables.sessions.keys().collect();
        for session in sessions {
            let (now, measures) = (world.now, evenkeel_model::Measures::default());
            world.gateway.handle_summary(session, measures, Some(now));
        }
    }
    world.moves().len()
}

#[test]
fn flapping_node_moves_session_once_a_minute() {
    for flapping in [vec![A], vec![A, B]] {
        let mut world = World::new(settings());
        world.open("r");
        let moves = flap(&mut world, &flapping);
        assert!((1..=flapping.len()).contains(&moves), "{moves} moves in {MINUTES} minutes");
        assert!(!flapping.contains(&world.stands("r").unwrap()), "it left at once, and stays away");
    }
}

#[test]
fn slow_flapping_lengthens_ejection() {
    let mut world = World::new(settings());
    let mut away = Vec::new();
    for _ in 0..4 {
        world.mute(A);
        world.pass(ms(300));
        assert_eq!(world.gateway.tables.nodes.get(A).unwrap().health(), Health::Down);
        let start = world.now;
        world.revive(A);
        away.push((world.now - start).as_millis() / 1_000);
        world.pass(ms(3_000));
    }
    assert_eq!(away, [1, 2, 4, 8]);
}

#[test]
fn damped_room_still_leaves_dead_node() {
    let mut world = World::new(settings_of(&[(0, 1_000); 7]));
    let session = world.open("r");
    for _ in 0..10 {
        let hop = world.gateway.stands_at(world.room("r")).unwrap();
        world.gateway.handle_port_closed(session, hop, world.now);
        world.pass(ms(100));
    }
    let (moves, stands) = (world.moves().len(), world.stands("r").unwrap());
    assert_eq!(moves, 3, "damped");
    world.mute(stands);
    world.pass(ms(40));
    assert_ne!(world.stands("r"), Some(stands));
}

#[test]
fn damped_room_leaves_a_hop_that_opens_no_session() {
    let mut world = World::new(settings_of(&[(0, 1_000); 7]));
    let session = world.open("r");
    let stands = |world: &World| world.gateway.stands_at(world.room("r")).unwrap();
    for _ in 0..10 {
        let hop = stands(&world);
        world.gateway.handle_port_closed(session, hop, world.now);
        world.pass(ms(100));
    }
    assert_eq!(world.moves().len(), 3, "damped");
    let refuses = stands(&world);
    world.gateway.handle_opened(session, refuses, Err(NotOpened), world.now);
    world.pass(ms(100));
    assert_ne!(stands(&world), refuses);
}
