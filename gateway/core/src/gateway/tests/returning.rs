//! Drained, ejected and readmitted nodes, and rooms that return to their native place.

use evenkeel_model::{
    CoreEvent, Decider, EvidenceSource, FailureDomain, Health, Hook, MoveCause, MoveOutcome,
    NodeId, RegionId,
};

use super::super::Impossible;
use super::world::Driver;
use super::*;
use crate::Failback;

/// Rooms of the home region on its only node, and a node of the same capacity in another region.
fn home_and_away(rooms: u32) -> World {
    let mut settings = settings_of(&[(0, 1_000_000), (2, 1_000_000), (2, 1_000_000)]);
    for scenario in settings.scenarios.values_mut() {
        scenario.spares = 1;
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

fn back(world: &World) -> Vec<Decider> {
    let back = |e: &CoreEvent| match e {
        CoreEvent::Moved { cause: MoveCause::Failback, by, to: Some(to), .. } if to.node == A => {
            Some(by.clone())
        }
        _ => None,
    };
    world.events().filter_map(back).collect()
}

#[test]
fn rooms_failback_gradually_when_trusted() {
    let mut world = home_and_away(60);
    world.kill(A);
    world.pass(ms(1_000));
    assert_eq!(at(&world, A), 0);
    assert_eq!(world.gateway.views().regions(world.now).next().unwrap().away, 60);
    world.revive(A);
    world.pass(ms(1_000));
    assert_eq!(at(&world, A), 0, "Wary is not trusted");
    world.pass(ms(2_000));
    let some = at(&world, A);
    assert!((5..=45).contains(&some), "20 a second: {some}");
    world.pass(ms(4_000));
    assert_eq!(at(&world, A), 60);
    assert_eq!(back(&world), vec![Decider::Native; 60]);
    assert!(world.gateway.tables.worklists.away.is_empty());
}

#[test]
fn operator_forbids_or_forces_failback() {
    let mut world = home_and_away(10);
    world.gateway.handle_failback(Some(RegionId(0)), Failback::Forbid, world.now).unwrap();
    world.kill(A);
    world.revive(A);
    world.pass(ms(10_000));
    assert_eq!(at(&world, A), 0);
    world.gateway.handle_failback(None, Failback::Auto, world.now).unwrap();
    world.pass(ms(2_000));
    assert_eq!(at(&world, A), 10);
    // A forced return also moves rooms to a node that is not trusted yet.
    world.kill(A);
    world.revive(A);
    world.gateway.handle_failback(None, Failback::Force, world.now).unwrap();
    world.pass(ms(1_200));
    assert_eq!(at(&world, A), 10);
    assert_eq!(back(&world).last(), Some(&Decider::Operator));
    let nowhere = world.gateway.handle_failback(Some(RegionId(9)), Failback::Auto, world.now);
    assert_eq!(nowhere, Err(Impossible::NoSuchRegion));
}

#[test]
fn manually_moved_room_stays() {
    let mut world = home_and_away(1);
    world.gateway.handle_move(&"0".into(), B, world.now).unwrap();
    world.pass(ms(10_000));
    assert_eq!(world.stands("0"), Some(B));
    let settings = settings_of(&[(0, 1_000), (2, 1_000)]);
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[B]));
    world.open("r");
    world.pass(ms(10_000));
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn going_back_is_make_before_break() {
    let mut world = home_and_away(1);
    world.kill(A);
    world.revive(A);
    world.drive_with(|_, hop| if hop.node == A { Driver::Waits } else { Driver::Opens });
    world.pass(ms(2_900));
    assert_ne!(world.stands("0"), Some(A));
    assert_eq!(world.gateway.rooms[&world.room("0")].holding().heading, Some(A));
    world.finish_opening(A, Ok(()));
    assert_eq!(world.stands("0"), Some(A));
    assert!(world.gateway.rooms[&world.room("0")].route().left.is_some());
}

fn drained(world: &World) -> Vec<(NodeId, u32)> {
    let drained = |e: &CoreEvent| match e {
        CoreEvent::Drained { node, left, .. } => Some((*node, *left)),
        _ => None,
    };
    world.events().filter_map(drained).collect()
}

#[test]
fn drain_meets_deadline_with_pacing() {
    let mut world = home_and_away(400);
    let within = Some(ms(10_000));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, within, world.now))
        .unwrap();
    world.pass(ms(4_000));
    let left = at(&world, A);
    assert!((150..250).contains(&left), "half of the time they are given: {left}");
    assert_eq!(drained(&world), []);
    world.pass(ms(6_000));
    assert_eq!(at(&world, A), 0);
    assert_eq!(drained(&world), [(A, 0)]);
    let lost =
        |e: &&CoreEvent| matches!(e, CoreEvent::Moved { to: None, .. } | CoreEvent::Closed { .. });
    assert_eq!(world.events().filter(lost).count(), 0);
}

#[test]
fn rooms_left_at_deadline_are_reported() {
    let mut world = World::new(settings_of(&[(0, 1_000), (0, 128)]));
    for number in 0..5 {
        world.open(&number.to_string());
    }
    let first = at(&world, A) as u32;
    assert!(first > 2);
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, Some(ms(500)), world.now))
        .unwrap();
    world.pass(ms(600));
    let left = drained(&world);
    assert!(matches!(left[..], [(A, 1..)]), "{left:?}");
    assert_eq!(world.gateway.rooms.len(), 5, "nobody is hung up");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, false, None, world.now))
        .unwrap();
    world.pass(ms(1_000));
    assert_eq!(drained(&world).len(), 1);
}

#[test]
fn region_drain_excludes_its_nodes() {
    let mut world = World::new(settings());
    for number in 0..30 {
        world.open(&number.to_string());
    }
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(
                FailureDomain::Region(RegionId(0)),
                true,
                Some(ms(5_000)),
                world.now,
            )
        })
        .unwrap();
    world.pass(ms(5_000));
    assert_eq!(at(&world, D), 30);
    assert!(world.moves().iter().all(|(_, to)| *to == Some(D)));
    assert_eq!(drained(&world).iter().map(|(_, left)| left).sum::<u32>(), 0);
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(FailureDomain::Region(RegionId(0)), false, None, world.now)
        })
        .unwrap();
    world.pass(ms(5_000));
    assert_eq!(at(&world, D), 0, "they go back where they belong");
    let nowhere = world.gateway.change_nodes(world.now, |nodes| {
        nodes.handle_drain_domain(FailureDomain::Region(RegionId(9)), true, None, world.now)
    });
    assert_eq!(nowhere, Err(Impossible::NoSuchRegion));
}

#[test]
fn ejected_node_stays_down_until_allowed() {
    let mut world = World::new(settings());
    world.open("r");
    assert_eq!(
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_return(A)),
        Err(Impossible::NotDown)
    );
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject(A, world.now)).unwrap();
    world.pass(ms(0));
    assert_ne!(world.stands("r"), Some(A));
    let is_told = |e: &CoreEvent| {
        matches!(e, CoreEvent::Moved { cause: MoveCause::Ejected, by: Decider::Operator, .. })
    };
    assert!(world.events().any(is_told));
    let by = |e: &CoreEvent| match e {
        CoreEvent::Node { hop, to: Health::Down, witnesses, .. } if hop.node == A => {
            Some(witnesses.iter().map(|(witness, _)| *witness).collect::<Vec<_>>())
        }
        _ => None,
    };
    assert_eq!(world.events().find_map(by), Some(vec![EvidenceSource::Operator]));
    assert_eq!(
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject(A, world.now)),
        Err(Impossible::AlreadyEjected)
    );
    world.pass(ms(100_000));
    assert!(!world.gateway.board().cell(A).unwrap().up, "though it answers");
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_return(A)).unwrap();
    world.pass(ms(30));
    assert!(world.gateway.board().cell(A).unwrap().up, "without its second of ejection");
    assert_eq!(
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_eject(NodeId(9), world.now)),
        Err(Impossible::NoSuchNode)
    );
}

#[test]
fn operator_shortens_ejection() {
    let mut world = World::new(settings());
    world.kill(A);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_return(A)).unwrap();
    world.pass(ms(500));
    assert!(!world.gateway.board().cell(A).unwrap().up, "it does not answer");
    world.unmute(A);
    world.pass(ms(30));
    assert!(world.gateway.board().cell(A).unwrap().up);
}

#[test]
fn cancelled_move_reports_outcome() {
    let ended = |world: &World| {
        let ended = |e: &CoreEvent| match e {
            CoreEvent::MoveEnded { from, to, cause, outcome, .. } => {
                Some((from.node, to.node, *cause, *outcome))
            }
            _ => None,
        };
        world.events().filter_map(ended).collect::<Vec<_>>()
    };
    let going = || {
        let mut world = World::new(settings());
        let session = world.open("r");
        world.drive_with(|_, hop| if hop.node == D { Driver::Waits } else { Driver::Opens });
        world.gateway.handle_move(&"r".into(), D, world.now).unwrap();
        world.settle();
        (world, session)
    };
    let (mut world, _) = going();
    world.kill(D);
    assert_eq!(ended(&world), [(A, D, MoveCause::Manual, MoveOutcome::TargetLost)]);
    let (mut world, _) = going();
    world.finish_opening(D, Err(super::super::NotOpened));
    assert_eq!(ended(&world), [(A, D, MoveCause::Manual, MoveOutcome::NotOpened)]);
    let (mut world, _) = going();
    world.gateway.handle_move(&"r".into(), C, world.now).unwrap();
    world.settle();
    assert_eq!(ended(&world), [(A, D, MoveCause::Manual, MoveOutcome::Superseded)]);
    let (mut world, session) = going();
    world.close(session);
    assert_eq!(ended(&world), [(A, D, MoveCause::Manual, MoveOutcome::Closed)]);
    let (mut world, session) = going();
    world.finish_opening(D, Ok(()));
    assert_eq!(ended(&world), []);
    for node in [A, C, A, C, A, C, A, C, A] {
        world.gateway.handle_move(&"r".into(), node, world.now).unwrap();
        world.settle();
    }
    let moves = world.gateway.views().explain(session, world.now).unwrap().room.moves;
    assert_eq!(moves.len(), 8, "the last ones");
    assert!(
        moves.iter().all(|step| step.outcome == MoveOutcome::Done && step.started <= step.ended)
    );
}

#[test]
fn failback_is_limited_per_minute() {
    let mut settings = settings_of(&[(0, 1_000_000), (2, 1_000_000)]);
    (settings.timings.ejection, settings.timings.ejection_max) = (ms(200), ms(200));
    settings.scenarios.values_mut().for_each(|scenario| scenario.close_after = ms(600_000));
    let mut world = World::new(settings);
    world.open("r");
    let mut went = Vec::new();
    let start = world.now;
    for _ in 0..4 {
        world.kill(A);
        assert_eq!(world.stands("r"), Some(B), "off the dead one at once, however often");
        world.revive(A);
        while world.stands("r") == Some(B) {
            world.pass(ms(100));
        }
        went.push((world.now - start).as_secs());
    }
    assert!(went[2] < 20, "{went:?}");
    assert!((went[0] + 60..went[0] + 62).contains(&went[3]), "{went:?}");
}
