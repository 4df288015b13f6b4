//! Interaction of modes with other causes of moves: limits, drains, failback, and their events.

use evenkeel_model::{
    CoreEvent, Health, HopGrant, MoveCause, NodeId, RedundancyMode, RegionRole, SessionId, Starts,
};

use super::modes::{change, cold, health, in_mode, opened_at, regional};
use super::world::Driver;
use super::*;
use crate::{CandidateReason, Failback};

/// Two nodes at home, the second of which is a standby.
fn with_a_standby(mode: RedundancyMode) -> World {
    let mut settings = in_mode(mode, settings_of(&[(0, 6_400), (1, 6_400)]));
    settings.nodes[1].role = RegionRole::Standby;
    World::new(settings)
}

#[test]
fn rooms_leave_standby_when_active_returns() {
    for (mode, back) in
        [(RedundancyMode::Hot, A), (RedundancyMode::Hitless, A), (RedundancyMode::ActiveActive, B)]
    {
        let mut world = with_a_standby(mode);
        world.open("r");
        world.kill(A);
        world.pass(ms(100));
        assert_eq!(world.stands("r"), Some(B));
        let away = world.gateway.views().regions(world.now).next().unwrap().away;
        assert_eq!(away, u32::from(back == A), "{mode:?}");
        world.revive(A);
        world.pass(ms(5_000));
        assert_eq!(world.stands("r"), Some(back), "{mode:?}");
        assert!(world.gateway.tables.worklists.away.is_empty());
    }
}

#[test]
fn mode_change_may_cancel_failback() {
    let mut world = with_a_standby(RedundancyMode::Hot);
    world.open("r");
    world.kill(A);
    world.pass(ms(100));
    world.gateway.handle_failback(None, Failback::Forbid, world.now).unwrap();
    change(&mut world, |scenario| scenario.mode = RedundancyMode::ActiveActive);
    world.revive(A);
    world.gateway.handle_failback(None, Failback::Auto, world.now).unwrap();
    world.pass(ms(5_000));
    assert_eq!(world.stands("r"), Some(B));
    change(&mut world, |scenario| scenario.mode = RedundancyMode::Hot);
    world.pass(ms(1_000));
    assert_eq!(world.stands("r"), Some(A));
}

#[test]
fn operator_placement_on_standby_stays() {
    let mut world = with_a_standby(RedundancyMode::ActiveActive);
    world.open("r");
    world.gateway.handle_move(&"r".into(), B, world.now).unwrap();
    world.settle();
    change(&mut world, |scenario| scenario.mode = RedundancyMode::Hot);
    world.pass(ms(5_000));
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn drain_keeps_region_or_swaps_hitless_hops() {
    let mut world = regional(&[0, 1, 2]);
    world.open("r");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.pass(ms(100));
    assert_eq!(world.stands("r"), Some(D), "the other zone at home");
    let nodes = [(0, 6_400), (1, 6_400), (1, 6_400)];
    let mut world = World::new(in_mode(RedundancyMode::Hitless, settings_of(&nodes)));
    world.open("r");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.pass(ms(100));
    assert_eq!(world.route("r"), [(B, HopGrant::Admitted), (C, HopGrant::Admitted)]);
    assert_eq!(world.moves(), [(A, Some(B))], "where it was carried already");
}

#[test]
fn rooms_enter_cold_node_at_its_pace() {
    let mut settings = in_mode(RedundancyMode::Cold, settings_of(&[(0, 6_400), (1, 6_400)]));
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
    let recovered = |e: &CoreEvent| match e {
        CoreEvent::Moved { to: Some(_), cause: MoveCause::NodeDown, started, .. } => Some(*started),
        _ => None,
    };
    let started: Vec<_> = world.events().filter_map(recovered).collect();
    assert_eq!(started.len(), 12);
    assert!(started.iter().all(|at| died - *at < ms(10)), "each was without a node since then");
}

#[test]
fn failover_moves_start_at_the_death() {
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
    let started = |e: &CoreEvent| match e {
        CoreEvent::Moved { cause: MoveCause::NodeDown, started, .. } => Some(*started),
        _ => None,
    };
    let started: Vec<_> = world.events().filter_map(started).collect();
    assert_eq!(started, vec![started[0]; rooms]);
}

#[test]
fn mode_change_drops_unopened_spares() {
    let nodes = [(0, 6_400), (1, 6_400), (0, 6_400)];
    let mut world = World::new(settings_of(&nodes));
    world.open("r");
    world.drive_with(|_, hop| if hop.node == C { Driver::Waits } else { Driver::Opens });
    world.kill(B);
    world.pass(ms(10));
    assert!(world.gateway.rooms[&world.room("r")].heading().is_some());
    change(&mut world, |scenario| scenario.mode = RedundancyMode::Cold);
    assert!(world.gateway.rooms[&world.room("r")].heading().is_none());
    assert_eq!(opened_at(&world), []);
}

#[test]
fn ejected_cold_node_is_not_started() {
    let mut world = cold();
    world.open("r");
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject(B, world.now)).unwrap();
    world.kill(A);
    world.pass(ms(10_000));
    assert_eq!((health(&world, B), &world.starts[..]), (Health::Down, &[][..]));
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_return(B)).unwrap();
    world.pass(ms(100));
    assert_eq!((health(&world, B), &world.starts[..]), (Health::Cold, &[B][..]));
}

#[test]
fn explain_shows_mode_and_standbys() {
    let why = |world: &World, session: SessionId| -> Vec<(NodeId, CandidateReason)> {
        let explained = world.gateway.views().explain(session, world.now).unwrap();
        explained.room.candidates.iter().map(|other| (other.hop.node, other.why)).collect()
    };
    let nodes = [(0, 6_400), (1, 6_400), (1, 6_400)];
    let mut settings = in_mode(RedundancyMode::Hot, settings_of(&nodes));
    settings.nodes[1].role = RegionRole::Standby;
    settings.nodes[2].role = RegionRole::Standby;
    let mut world = World::new(settings);
    let session = world.open("r");
    assert_eq!(why(&world, session), [(B, CandidateReason::Spare), (C, CandidateReason::Standby)]);
    let mut world = cold();
    let session = world.open("r");
    assert_eq!(why(&world, session), [(B, CandidateReason::Cold)]);
    assert_eq!(
        world.gateway.views().explain(session, world.now).unwrap().state.mode,
        RedundancyMode::Cold
    );
}
