//! Modes beside what else moves rooms: paces, drains, going back, and what is told of it.

use super::modes::{change, cold, health, in_mode, opened_at, regional};
use super::world::Driver;
use super::*;
use crate::{Cause, Event, FailBack, Grant, Health, Mode, NodeId, Role, SessionId, Starts, Why};

/// Two nodes at home, of which the second stands by.
fn with_a_standby(mode: Mode) -> World {
    let mut settings = in_mode(mode, settings_of(&[(0, 6_400), (1, 6_400)]));
    settings.nodes[1].role = Role::Standby;
    World::new(settings)
}

#[test]
fn rooms_leave_a_node_that_stands_by_once_another_is_trusted_again() {
    for (mode, back) in [(Mode::Hot, A), (Mode::Hitless, A), (Mode::ActiveActive, B)] {
        let mut world = with_a_standby(mode);
        world.open("r");
        world.kill(A);
        world.pass(ms(100));
        assert_eq!(world.stands("r"), Some(B));
        let away = world.gateway.regions(world.now).next().unwrap().away;
        assert_eq!(away, u32::from(back == A), "{mode:?}");
        world.revive(A);
        world.pass(ms(5_000));
        assert_eq!(world.stands("r"), Some(back), "{mode:?}");
        assert!(world.gateway.rooms.away().is_empty());
    }
}

#[test]
fn a_room_goes_back_no_more_where_its_new_mode_lets_it_stay() {
    let mut world = with_a_standby(Mode::Hot);
    world.open("r");
    world.kill(A);
    world.pass(ms(100));
    world.gateway.handle_fail_back(None, FailBack::Forbid, world.now).unwrap();
    change(&mut world, |scenario| scenario.mode = Mode::ActiveActive);
    world.revive(A);
    world.gateway.handle_fail_back(None, FailBack::Auto, world.now).unwrap();
    world.pass(ms(5_000));
    assert_eq!(world.stands("r"), Some(B));
    change(&mut world, |scenario| scenario.mode = Mode::Hot);
    world.pass(ms(1_000));
    assert_eq!(world.stands("r"), Some(A));
}

#[test]
fn a_room_that_its_operator_put_on_a_node_that_stands_by_stays_whatever_its_mode() {
    let mut world = with_a_standby(Mode::ActiveActive);
    world.open("r");
    world.gateway.handle_move(&"r".into(), B, world.now).unwrap();
    world.settle();
    change(&mut world, |scenario| scenario.mode = Mode::Hot);
    world.pass(ms(5_000));
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn a_drain_leaves_a_regional_room_in_its_region_and_swaps_the_hops_of_a_hitless_one() {
    let mut world = regional(&[0, 1, 2]);
    world.open("r");
    world.gateway.handle_drain(A, true, world.now).unwrap();
    world.pass(ms(100));
    assert_eq!(world.stands("r"), Some(D), "the other zone at home");
    let nodes = [(0, 6_400), (1, 6_400), (1, 6_400)];
    let mut world = World::new(in_mode(Mode::Hitless, settings_of(&nodes)));
    world.open("r");
    world.gateway.handle_drain(A, true, world.now).unwrap();
    world.pass(ms(100));
    assert_eq!(world.route("r"), [(B, Grant::Admitted), (C, Grant::Admitted)]);
    assert_eq!(world.moves(), [(A, Some(B))], "where it was carried already");
}

#[test]
fn rooms_that_waited_for_a_cold_node_come_in_at_its_pace() {
    let mut settings = in_mode(Mode::Cold, settings_of(&[(0, 6_400), (1, 6_400)]));
    settings.nodes[1].starts = Starts::ByHook { within: ms(30_000) };
    settings.limits.openings_at_once = 2;
    let mut world = World::new(settings);
    for room in 0..12 {
        world.open(&room.to_string());
    }
    world.kill(A);
    let died = world.now;
    world.pass(ms(1_000));
    world.drive_with(|_, _| Driver::Waits);
    world.unmute(B);
    world.pass(ms(100));
    assert_eq!(world.opening.len(), 2);
    while let Some((session, hop)) = world.opening.pop_first() {
        world.gateway.handle_opened(session, hop, Ok(()), world.now);
        world.pass(ms(5));
    }
    assert!((0..12).all(|room| world.stands(&room.to_string()) == Some(B)));
    let recovered = |e: &Event| match e {
        Event::Moved { to: Some(_), cause: Cause::NodeDown, started, .. } => Some(*started),
        _ => None,
    };
    let started: Vec<_> = world.events().filter_map(recovered).collect();
    assert_eq!(started.len(), 12);
    assert!(started.iter().all(|at| died - *at < ms(10)), "each was without a node since then");
}

#[test]
fn the_moves_of_a_herd_began_with_the_death_whenever_they_had_their_turn() {
    let mut settings = settings();
    settings.limits.lost_at_once = 1;
    let mut world = World::new(settings);
    for room in 0..9 {
        world.open(&format!("{room}"));
    }
    let there = |name: &String| world.stands(name) == Some(A);
    let rooms = (0..9).map(|room| room.to_string()).filter(there).count();
    assert!(rooms > 1);
    world.kill(A);
    world.pass(ms(100));
    let started = |e: &Event| match e {
        Event::Moved { cause: Cause::NodeDown, started, .. } => Some(*started),
        _ => None,
    };
    let started: Vec<_> = world.events().filter_map(started).collect();
    assert_eq!(started, vec![started[0]; rooms]);
}

#[test]
fn a_route_under_way_waits_no_longer_for_spares_that_its_new_mode_does_not_open() {
    let nodes = [(0, 6_400), (1, 6_400), (0, 6_400)];
    let mut world = World::new(settings_of(&nodes));
    world.open("r");
    world.drive_with(|_, hop| if hop.node == C { Driver::Waits } else { Driver::Opens });
    world.kill(B);
    world.pass(ms(10));
    assert!(world.gateway.rooms[&world.room("r")].pending.is_some());
    change(&mut world, |scenario| scenario.mode = Mode::Cold);
    assert!(world.gateway.rooms[&world.room("r")].pending.is_none());
    assert_eq!(opened_at(&world), []);
}

#[test]
fn a_cold_node_that_an_operator_declared_dead_is_not_started_until_it_is_let_back() {
    let mut world = cold();
    world.open("r");
    world.gateway.handle_eject(B, world.now).unwrap();
    world.kill(A);
    world.pass(ms(10_000));
    assert_eq!((health(&world, B), &world.starts[..]), (Health::Down, &[][..]));
    world.gateway.handle_return(B).unwrap();
    world.pass(ms(100));
    assert_eq!((health(&world, B), &world.starts[..]), (Health::Cold, &[B][..]));
}

#[test]
fn a_session_is_explained_with_its_mode_and_with_nodes_that_stand_by_or_are_cold() {
    let why = |world: &World, session: SessionId| -> Vec<(NodeId, Why)> {
        let explained = world.gateway.explain(session, world.now).unwrap();
        explained.candidates.iter().map(|other| (other.hop.node, other.why)).collect()
    };
    let nodes = [(0, 6_400), (1, 6_400), (1, 6_400)];
    let mut settings = in_mode(Mode::Hot, settings_of(&nodes));
    settings.nodes[1].role = Role::Standby;
    settings.nodes[2].role = Role::Standby;
    let mut world = World::new(settings);
    let session = world.open("r");
    assert_eq!(why(&world, session), [(B, Why::Spare), (C, Why::StandsBy)]);
    let mut world = cold();
    let session = world.open("r");
    assert_eq!(why(&world, session), [(B, Why::Cold)]);
    assert_eq!(world.gateway.explain(session, world.now).unwrap().standing.mode, Mode::Cold);
}
