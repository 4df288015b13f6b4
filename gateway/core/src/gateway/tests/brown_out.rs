//! Lossy links: probes detect them after all sessions have left.

use evenkeel_breakers::{Breaker, BreakerVerdict};
use evenkeel_model::{
    BreakerState, CircuitSettings, CoreEvent, FailureDomain, Health, Measures, Metric, MoveCause,
    NodeId, RegionId,
};

use super::*;
use crate::gateway::Tables;
use crate::{CandidateReason, Failback};

/// Rooms at the only home node, and a node of the same capacity in another region.
fn home_and_away(rooms: u32) -> World {
    let mut settings = settings_of(&[(0, 1_000_000), (2, 1_000_000)]);
    for scenario in settings.scenarios.values_mut() {
        scenario.close_after = ms(3_600_000);
    }
    let mut world = World::new(settings);
    for number in 0..rooms {
        world.open(&number.to_string());
    }
    world
}

fn at(world: &World, node: NodeId) -> usize {
    world.gateway.rooms.values().filter(|room| room.holding().on == Some(node)).count()
}

fn went_back(world: &World) -> usize {
    let back = |e: &&CoreEvent| matches!(e, CoreEvent::Moved { cause: MoveCause::Failback, .. });
    world.events().filter(back).count()
}

/// Drops this percentage of the node's probes until the loss is measured.
fn loses(world: &mut World, node: NodeId, percent: u32) {
    world.lose_probes(node, percent);
    world.pass(ms(15_000));
}

/// Rooms of the home node that are in the other region since its death; the home node is up again.
fn away(rooms: u32) -> World {
    let mut world = home_and_away(rooms);
    world.gateway.handle_failback(None, Failback::Forbid, world.now).unwrap();
    world.kill(A);
    world.pass(ms(1_000));
    assert_eq!(at(&world, B), rooms as usize);
    world.revive(A);
    world.pass(ms(3_000));
    assert_eq!(world.gateway.tables.nodes.get(A).unwrap().health(), Health::Up);
    world
}

#[test]
fn new_rooms_prefer_low_loss() {
    let mut world = home_and_away(0);
    loses(&mut world, A, 15);
    world.open("far");
    assert_eq!(world.stands("far"), Some(B));
    loses(&mut world, B, 15);
    world.open("near");
    assert_eq!(world.stands("near"), Some(A), "nothing is any better");
}

#[test]
fn far_node_beats_lossy_spare() {
    let mut world = World::new(settings_of(&[(0, 1_000_000), (1, 1_000_000), (2, 1_000_000)]));
    loses(&mut world, A, 15);
    let session = world.open("r");
    assert_eq!(world.route("r").iter().map(|(node, _)| *node).collect::<Vec<_>>(), [B, C]);
    let explained = world.gateway.views().explain(session, world.now).unwrap();
    assert_eq!(explained.room.candidates[0].why, CandidateReason::Unhealthy);
}

#[test]
fn loss_at_node_death_is_not_path_loss() {
    let mut world = home_and_away(0);
    world.mute(A);
    world.pass(ms(30_000));
    assert!(world.gateway.tables.nodes.get(A).unwrap().loses());
    world.revive(A);
    assert!(!world.gateway.tables.nodes.get(A).unwrap().loses());
}

#[test]
fn failback_skips_lossy_node_unless_forced() {
    let mut world = away(10);
    loses(&mut world, A, 15);
    world.gateway.handle_failback(None, Failback::Auto, world.now).unwrap();
    world.pass(ms(60_000));
    assert_eq!((at(&world, A), went_back(&world)), (0, 0));
    world.lose_probes(A, 0);
    world.pass(ms(10_000));
    assert_eq!((at(&world, A), went_back(&world)), (10, 10));

    let mut world = away(10);
    loses(&mut world, A, 15);
    world.gateway.handle_failback(None, Failback::Force, world.now).unwrap();
    world.pass(ms(5_000));
    assert_eq!(at(&world, A), 10);
}

fn state(world: &World) -> BreakerState {
    world.gateway.views().regions(world.now).next().unwrap().breaker
}

fn bad(world: &mut World, region: u32) {
    let (now, settings) = (world.now, CircuitSettings::default());
    let mut breaker = Breaker::new(now);
    for _ in 0..2 {
        breaker.weigh(BreakerVerdict::Bad, &settings, now);
    }
    let Tables { capacity, nodes, .. } = &mut world.gateway.tables;
    let place = FailureDomain::Region(RegionId(region));
    capacity.domain_breakers.restore(place, Some(&breaker), nodes.zones(), now);
}

#[test]
fn failback_skips_open_region() {
    let mut world = away(10);
    bad(&mut world, 0);
    world.gateway.handle_failback(None, Failback::Auto, world.now).unwrap();
    world.pass(ms(9_000));
    assert_eq!(at(&world, A), 0);
    world.pass(ms(9_000));
    assert_eq!(at(&world, A), 10, "closed again");
    assert_eq!(state(&world), BreakerState::Closed);
}

#[test]
fn half_open_breaker_needs_sessions_or_probes() {
    let mut world = home_and_away(0);
    loses(&mut world, A, 15);
    bad(&mut world, 0);
    world.pass(ms(60_000));
    assert_eq!(state(&world), BreakerState::HalfOpen);
    world.lose_probes(A, 0);
    world.pass(ms(15_000));
    assert_eq!(state(&world), BreakerState::Closed);
}

#[test]
fn half_open_breaker_closes_on_good_sessions() {
    for (percent, closes) in [(0, true), (15, false)] {
        let mut world = home_and_away(5);
        loses(&mut world, A, 15);
        bad(&mut world, 0);
        let sessions: Vec<_> = world.gateway.tables.sessions.keys().collect();
        for _ in 0..200 {
            for session in &sessions {
                let mut measures = Measures::default();
                measures.set(Metric::LossDown, percent * 10_000);
                world.gateway.handle_summary(*session, measures, Some(world.now));
            }
            world.pass(ms(100));
        }
        let state = state(&world);
        assert_eq!(state == BreakerState::Closed, closes, "{percent} {state:?}");
    }
}
