//! Circuit breakers of regions and zones.

use std::time::Duration;

use evenkeel_model::{
    BreakerMode, BreakerState, CoreEvent, CoreSettings, FailureDomain, GuardRule, Hook, HookAnswer,
    Impossible, Measures, Metric, NodeSettings, RedundancyMode, RegionId, SessionId, Zone, ZoneId,
};

use super::world::Driver;
use super::*;

/// Sixty rooms at home, and sixty in another region.
fn world() -> (World, Vec<SessionId>, Vec<SessionId>) {
    let settings = settings_of(&[(0, 100_000), (2, 100_000)]);
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    let home = (0..60).map(|number| world.open(&format!("h{number}"))).collect();
    world.answer_with(place(&[B]));
    let away = (0..60).map(|number| world.open(&format!("a{number}"))).collect();
    world.answer_with(place(&[]));
    (world, home, away)
}

/// Receivers of these sessions report this loss in per cent, ten times a second.
fn hear(world: &mut World, heard: &[(&[SessionId], u64)], time: u64) {
    for _ in 0..time / 100 {
        for (sessions, percent) in heard {
            for session in *sessions {
                let mut measures = Measures::default();
                measures.set(Metric::LossDown, percent * 10_000);
                world.gateway.handle_summary(*session, measures, Some(world.now));
            }
        }
        world.pass(ms(100));
    }
}

fn breaker(world: &World, region: u32) -> BreakerState {
    world.gateway.views().regions(world.now).nth(region as usize).unwrap().breaker
}

fn told(world: &World) -> Vec<(u32, BreakerState)> {
    let told = |e: &CoreEvent| match e {
        CoreEvent::Breaker { region, zone: None, to, .. } => Some((region.0, *to)),
        _ => None,
    };
    world.events().filter_map(told).collect()
}

#[test]
fn brown_out_opens_breaker_for_new_rooms() {
    let (mut world, home, away) = world();
    hear(&mut world, &[(&home, 15), (&away, 0)], 3_500);
    assert_eq!(told(&world), [(0, BreakerState::Open)]);
    let measures =
        world.gateway.tables.capacity.region_rows(&world.gateway.tables.nodes)[0].measures;
    assert_eq!(measures.measured(Metric::Breaker), Some(1));
    world.open("new");
    assert_eq!(world.stands("new"), Some(B));
    // Existing rooms stay in the region, and new sessions may join them.
    world.open("h0");
    assert_eq!(world.stands("h0"), Some(A));
    // The breaker half-opens for a share of new rooms, and closes if their media is good.
    hear(&mut world, &[(&home, 0), (&away, 0)], 10_500);
    assert_eq!(breaker(&world, 0), BreakerState::HalfOpen);
    for number in 0..100 {
        world.open(&format!("share{number}"));
    }
    let at_home =
        (0..100).filter(|number| world.stands(&format!("share{number}")) == Some(A)).count();
    assert!((2..25).contains(&at_home), "{at_home}");
    hear(&mut world, &[(&home, 0), (&away, 0)], 6_000);
    assert_eq!(breaker(&world, 0), BreakerState::Closed);
}

#[test]
fn bad_half_open_breaker_opens_longer() {
    let (mut world, home, away) = world();
    hear(&mut world, &[(&home, 15), (&away, 0)], 40_000);
    let open = (0, BreakerState::Open);
    let half = (0, BreakerState::HalfOpen);
    assert_eq!(told(&world), [open, half, open, half, open]);
}

#[test]
fn few_or_general_failures_open_nothing() {
    let (mut world, home, away) = world();
    hear(&mut world, &[(&home[..10], 60), (&home[10..], 2), (&away, 0)], 5_000);
    hear(&mut world, &[(&home[..15], 60), (&away, 0)], 5_000);
    assert_eq!(told(&world), [], "ten of sixty, and fifteen alone");
    hear(&mut world, &[(&home, 15), (&away, 15)], 5_000);
    assert_eq!(told(&world), [], "that is our own way out");
    hear(&mut world, &[(&home, 15)], 5_000);
    assert_eq!(told(&world), [(0, BreakerState::Open)], "nothing to compare it with");
}

#[test]
fn a_policy_cannot_override_an_open_breaker() {
    let (mut world, home, away) = world();
    hear(&mut world, &[(&home, 15), (&away, 0)], 3_500);
    world.answer_with(place(&[A]));
    world.open("new");
    assert_eq!(world.stands("new"), Some(B));
    let guarded = |e: &CoreEvent| match e {
        CoreEvent::Decided { outcome: evenkeel_model::DecisionOutcome::Guarded(guard), .. } => {
            Some(*guard)
        }
        _ => None,
    };
    assert_eq!(world.events().find_map(guarded), Some(GuardRule::BreakerOpen));
}

#[test]
fn all_regions_open_gives_retry_after() {
    let (mut world, home, away) = world();
    hear(&mut world, &[(&home, 15), (&away, 0)], 2_500);
    hear(&mut world, &[(&away, 15)], 2_500);
    assert_eq!([0, 1].map(|region| breaker(&world, region)), [BreakerState::Open; 2]);
    let offer = world.offer("new");
    let refused = denied(world.replies.get(&offer));
    let Some(evenkeel_model::OfferRefusal::NoNode { retry_after }) = refused else {
        panic!("{refused:?}")
    };
    assert!((ms(4_000)..ms(15_000)).contains(&retry_after), "{retry_after:?}");
}

#[test]
fn only_regions_breaker_refuses_nothing() {
    let mut world = World::new(settings_of(&[(0, 100_000), (0, 100_000)]));
    let home: Vec<SessionId> = (0..60).map(|number| world.open(&number.to_string())).collect();
    hear(&mut world, &[(&home, 15)], 5_000);
    assert_eq!(
        told(&world),
        [],
        "it may as well be our own uplink, and there is nowhere else to go"
    );
}

#[test]
fn failed_openings_open_breaker() {
    let settings = settings_of(&[(0, 100_000), (2, 100_000)]);
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    world.drive_with(|_, hop| match hop.node {
        A => Driver::Refuses,
        _ => Driver::Opens,
    });
    for second in 0..3 {
        for number in 0..30 {
            world.offer(&format!("{second} {number}"));
        }
        world.pass(ms(1_000));
    }
    assert_eq!(told(&world), [(0, BreakerState::Open)]);
    world.open("new");
    assert_eq!(world.stands("new"), Some(B));
}

#[test]
fn stranded_rooms_pass_open_breaker() {
    let (mut world, home, away) = world();
    hear(&mut world, &[(&home, 0), (&away, 15)], 3_500);
    assert_eq!(breaker(&world, 1), BreakerState::Open);
    world
        .answer_with(|_| Some(Ok(HookAnswer::Moves { moves: vec![], states: vec![], memo: None })));
    world.kill(A);
    world.pass(ms(1_000));
    assert_eq!(world.stands("h0"), Some(B));
}

#[test]
fn regional_room_skips_open_breaker() {
    let mut settings = modes::in_mode(
        RedundancyMode::Regional,
        settings_of(&[(0, 100_000), (2, 100_000), (3, 100_000)]),
    );
    settings.regions.push("far".into());
    settings.zones.push(Zone { name: "d".into(), region: RegionId(2) });
    for scenario in settings.scenarios.values_mut() {
        (scenario.spares, scenario.regions) = (2, [0, 1, 2].map(RegionId).into());
    }
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A, B, C]));
    let home: Vec<SessionId> = (0..60).map(|number| world.open(&format!("h{number}"))).collect();
    world.answer_with(place(&[B]));
    let away: Vec<SessionId> = (0..60).map(|number| world.open(&format!("a{number}"))).collect();
    world.answer_with(place(&[]));
    hear(&mut world, &[(&home, 0), (&away, 15)], 3_500);
    assert_eq!(breaker(&world, 1), BreakerState::Open);
    world.kill(A);
    world.pass(ms(500));
    let at_c = (0..60).filter(|number| world.stands(&format!("h{number}")) == Some(C)).count();
    assert_eq!(at_c, 60, "its spares are open nowhere");
}

#[test]
fn held_region_takes_no_new_rooms_until_it_is_closed() {
    let mut world = World::new(settings_of(&[(0, 100_000), (2, 100_000)]));
    let home: Vec<SessionId> = (0..60).map(|number| world.open(&format!("h{number}"))).collect();
    let hold = |world: &mut World, region, mode| {
        let place = FailureDomain::Region(RegionId(region));
        world.gateway.hold_breaker(place, mode, world.now).unwrap();
        world.settle();
    };
    hold(&mut world, 0, BreakerMode::Open);
    assert_eq!(told(&world), [(0, BreakerState::Open)]);
    world.outputs.clear();
    world.hand_over(Duration::ZERO);
    assert_eq!(told(&world), [(0, BreakerState::Open)], "new to this process");
    hear(&mut world, &[(&home, 0)], 15_000);
    world.open("new");
    assert_eq!((world.stands("h0"), world.stands("new")), (Some(A), Some(B)));
    hold(&mut world, 1, BreakerMode::Open);
    let offer = world.offer("refused");
    let refused = denied(world.replies.get(&offer));
    let Some(evenkeel_model::OfferRefusal::NoNode { retry_after }) = refused else {
        panic!("{refused:?}")
    };
    assert!(retry_after >= ms(60_000), "{retry_after:?}");
    hold(&mut world, 0, BreakerMode::Closed);
    world.open("admitted");
    assert_eq!(world.stands("admitted"), Some(A));
    let place = FailureDomain::Region(RegionId(2));
    let unknown = world.gateway.hold_breaker(place, BreakerMode::Open, world.now);
    assert_eq!(unknown, Err(Impossible::NoSuchRegion));
}

fn zones(world: &World) -> Vec<(String, BreakerState)> {
    let told = |e: &CoreEvent| match e {
        CoreEvent::Breaker { zone: Some(zone), to, .. } => Some((zone.to_string(), *to)),
        _ => None,
    };
    world.events().filter_map(told).collect()
}

/// Two zones of one region; a policy places forty rooms in each.
fn world_of_zones() -> (World, Vec<SessionId>, Vec<SessionId>) {
    world_with(settings_of(&[(0, 100_000), (1, 100_000)]))
}

fn world_with(settings: CoreSettings) -> (World, Vec<SessionId>, Vec<SessionId>) {
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    let bad = (0..40).map(|number| world.open(&format!("a{number}"))).collect();
    world.answer_with(place(&[B]));
    let good = (0..40).map(|number| world.open(&format!("b{number}"))).collect();
    world.answer_with(place(&[]));
    (world, bad, good)
}

#[test]
fn bad_zone_takes_no_newcomers_while_another_does() {
    let (mut world, bad, good) = world_of_zones();
    hear(&mut world, &[(&bad, 15), (&good, 0)], 3_500);
    assert_eq!(zones(&world), [("a".to_owned(), BreakerState::Open)]);
    assert_eq!(told(&world), [], "the region has a good zone");
    let standing = world.gateway.views().nodes().next().unwrap();
    assert_eq!(standing.zone_breaker, BreakerState::Open);
    (0..5).for_each(|number| _ = world.open(&format!("new{number}")));
    assert!((0..5).all(|number| world.stands(&format!("new{number}")) == Some(B)));
    world.open("a0");
    assert_eq!(world.stands("a0"), Some(A), "a new session of a room that is there");
    // The state continues in another process.
    world.outputs.clear();
    world.hand_over(Duration::ZERO);
    assert_eq!(zones(&world), [("a".to_owned(), BreakerState::Open)]);
    world.open("later");
    assert_eq!(world.stands("later"), Some(B));
    hear(&mut world, &[(&bad, 0), (&good, 0)], 20_000);
    assert_eq!(world.gateway.views().nodes().next().unwrap().zone_breaker, BreakerState::Closed);
}

#[test]
fn automatic_breakers_continue_without_sessions() {
    let (mut world, bad, good) = world_of_zones();
    hear(&mut world, &[(&bad, 15), (&good, 0)], 3_500);
    let place = FailureDomain::Region(RegionId(0));
    world.gateway.hold_breaker(place, BreakerMode::Open, world.now).unwrap();
    let record = world.gateway.records().breakers();
    world.restart(Duration::ZERO);
    world.outputs.clear();
    world.gateway.records().restore_breakers(record.clone(), world.now);
    world.settle();
    assert_eq!(zones(&world), [("a".to_owned(), BreakerState::Open)]);
    assert_eq!(world.gateway.records().breakers(), record);
    assert_eq!(breaker(&world, 0), BreakerState::Closed, "an operator's decision held it");
    world.pass(ms(20_000));
    assert_eq!(zones(&world)[1], ("a".to_owned(), BreakerState::HalfOpen), "after its time");
}

#[test]
fn zone_keeps_its_newcomers_while_others_are_full() {
    let nodes = settings_of(&[(0, 100_000), (1, 2_600)]);
    let (mut world, bad, mut good) = world_with(modes::in_mode(RedundancyMode::Cold, nodes));
    hear(&mut world, &[(&bad, 15), (&good, 0)], 3_500);
    world.open("full");
    assert_eq!((zones(&world), world.stands("full")), (vec![], Some(A)));
    good.drain(..4).for_each(|session| world.close(session));
    hear(&mut world, &[(&bad, 15), (&good, 0)], 3_500);
    let open = ("a".to_owned(), BreakerState::Open);
    assert_eq!(zones(&world), std::slice::from_ref(&open), "36 rooms: 886 thousandths");
    (0..2).for_each(|number| _ = world.open(&format!("new{number}")));
    hear(&mut world, &[(&bad, 15), (&good, 0)], 1_500);
    assert_eq!(zones(&world), std::slice::from_ref(&open), "38 rooms: 935 thousandths");
    world.open("last");
    assert_eq!(world.stands("last"), Some(B));
    hear(&mut world, &[(&bad, 15), (&good, 0)], 1_500);
    assert_eq!(zones(&world), [open, ("a".to_owned(), BreakerState::Closed)]);
}

#[test]
fn zone_keeps_its_newcomers_while_others_lose_probes() {
    let (mut world, bad, good) = world_of_zones();
    world.lose_probes(B, 15);
    hear(&mut world, &[(&bad, 0), (&good, 0)], 10_000);
    assert!(world.gateway.node_table()[B].loses());
    hear(&mut world, &[(&bad, 15), (&good, 0)], 5_000);
    assert_eq!(zones(&world), []);
}

#[test]
fn zone_with_the_number_of_another_begins_closed() {
    let (mut world, bad, good) = world_of_zones();
    hear(&mut world, &[(&bad, 15), (&good, 0)], 3_500);
    world.outputs.clear();
    let moved = NodeSettings { zone: ZoneId(1), ..world.gateway.node_table()[A].settings.clone() };
    let changed = world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_node_changed(A, moved, world.now));
    changed.unwrap();
    let zone = world.gateway.zone("new", RegionId(0)).unwrap();
    assert_eq!(zone, ZoneId(0), "the number of the empty zone");
    world.add(NodeSettings { zone, ..listed(0) }).unwrap();
    assert_eq!(zones(&world), [("a".to_owned(), BreakerState::Closed)]);
    let standing = world.gateway.views().nodes().last().unwrap();
    assert_eq!(standing.zone_breaker, BreakerState::Closed);
}

#[test]
fn failed_openings_open_the_breaker_of_the_zone() {
    let (mut world, _, _) = world_of_zones();
    world.answer_with(place(&[A]));
    world.drive_with(|_, hop| match hop.node {
        A => Driver::Refuses,
        _ => Driver::Opens,
    });
    for second in 0..4 {
        for number in 0..30 {
            world.offer(&format!("{second} {number}"));
        }
        world.pass(ms(1_000));
    }
    assert_eq!(zones(&world), [("a".to_owned(), BreakerState::Open)]);
}

#[test]
fn policy_cannot_place_a_room_in_an_open_zone() {
    let (mut world, _, _) = world_of_zones();
    let hold = |world: &mut World, zone, mode| {
        let place = FailureDomain::Zone(ZoneId(zone));
        world.gateway.hold_breaker(place, mode, world.now)
    };
    hold(&mut world, 0, BreakerMode::Open).unwrap();
    world.answer_with(place(&[A]));
    world.open("new");
    assert_eq!(world.stands("new"), Some(B));
    hold(&mut world, 1, BreakerMode::Open).unwrap();
    let offer = world.offer("refused");
    let refused = denied(world.replies.get(&offer));
    let Some(evenkeel_model::OfferRefusal::NoNode { retry_after }) = refused else {
        panic!("{refused:?}")
    };
    assert!(retry_after >= ms(60_000), "{retry_after:?}");
    assert_eq!(hold(&mut world, 9, BreakerMode::Open), Err(Impossible::NoSuchZone));
}
