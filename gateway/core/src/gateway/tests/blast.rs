//! The blast radius of a copy, compared with the loss itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_model::{
    CoreEvent, FailureDomain, FailureScope, IngressProtocol, NodeId, NodeProbing, RedundancyMode,
    RegionId, RegionRole, RoomId, SessionId, Starts, StreamKind,
};
use fastrand::Rng;

use super::world::VOICE;
use super::*;
use crate::{BlastRadius, ExpectedOutage, GatewayCopy, LoadChange, ModePrediction, RestoreError};

const SEEDS: u64 = 150;

/// Virtual time after a loss, as in the copy.
const PLAYED: u64 = 5_000;

fn copy(world: &mut World) -> GatewayCopy {
    let now = world.now;
    let records = world.gateway.records();
    let mut copy = records.copy_nodes();
    records
        .copy_rooms(RoomId(0), now)
        .for_each(|(_, room)| room.into_iter().for_each(|it| copy.add_room(it)));
    let sessions = records.copy_sessions(SessionId(0)).filter_map(|(_, session)| session);
    sessions.for_each(|session| copy.add_session(session));
    copy
}

fn blast(world: &mut World, lost: &[NodeId]) -> BlastRadius {
    let lost = lost.iter().copied().collect();
    copy(world).lose(&lost, world.now).unwrap()
}

fn lose(world: &mut World, lost: &[NodeId]) {
    lost.iter().for_each(|node| world.mute(*node));
    world.gateway.change_nodes(world.now, |nodes| nodes.lose(lost.iter().copied(), world.now));
    world.pass(ms(PLAYED));
}

/// Rooms of all sizes and modes on nodes that are nearly full.
fn crowded(rng: &mut Rng) -> World {
    let nodes: Vec<(u32, u64)> =
        (0..rng.usize(3..9)).map(|_| (rng.u32(0..3), rng.u64(300..2_500))).collect();
    let mut settings = settings_of(&nodes);
    for node in &mut settings.nodes {
        node.role = if rng.u8(0..4) == 0 { RegionRole::Standby } else { RegionRole::Active };
    }
    for scenario in settings.scenarios.values_mut() {
        scenario.mode = RedundancyMode::ALL[rng.usize(..RedundancyMode::ALL.len())];
        scenario.regions = vec![RegionId(0), RegionId(1)];
        scenario.spares = rng.u8(1..4);
        scenario.reserve = Some(FailureScope::ALL[rng.usize(..FailureScope::ALL.len())]);
    }
    settings.limits.lost_at_once = rng.usize(1..20);
    let mut world = World::new(settings);
    for room in 0..rng.u32(5..40) {
        let scenario = if rng.bool() { "call" } else { "stream" };
        for _ in 0..rng.u8(1..4) {
            let streams =
                [(StreamKind::Audio, 111, None), (StreamKind::Video, 96, Some(rng.u32(1..200)))];
            let voice = rng.bool();
            let streams = if voice { &streams[..1] } else { &streams[..] };
            world.offer_with(&format!("r{room}"), scenario, streams, IngressProtocol::Quic);
        }
    }
    world.pass(ms(3_000));
    world
}

#[test]
fn blast_radius_equals_the_loss() {
    let (mut rooms, mut unplaced, mut reduced) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let mut world = crowded(&mut rng);
        let nodes: Vec<NodeId> = world.gateway.node_table().iter().map(|node| node.id).collect();
        let one = nodes[rng.usize(..nodes.len())];
        let scope = FailureScope::ALL[rng.usize(..FailureScope::ALL.len())];
        let table = world.gateway.node_table();
        let lost: Vec<NodeId> = match table.domain_of(one, scope) {
            Some(domain) => table.in_domain(domain).map(|node| node.id).collect(),
            None => vec![one],
        };
        let before = carriers(&world);
        let shares_before = shares(&world);
        let predicted = blast(&mut world, &lost);
        assert_eq!(carriers(&world), before, "seed {seed}: the gateway is as it was");
        world.outputs.clear();
        lose(&mut world, &lost);
        let taken = taken(&world);
        let hit: BTreeSet<RoomId> =
            before.iter().filter(|(_, on)| lost.contains(on)).map(|(room, _)| *room).collect();
        let listed: BTreeSet<RoomId> = predicted.rooms.iter().map(|room| room.room).collect();
        assert_eq!(listed, hit, "seed {seed}");
        let shares_after = shares(&world);
        for room in &predicted.rooms {
            assert_eq!(room.to, taken.get(&room.room).copied(), "seed {seed}: {room:?}");
            let sessions = &world.gateway.rooms[&room.room].sessions();
            let fewer = sessions.iter().filter(|id| shares_after[*id] < shares_before[*id]).count();
            assert_eq!(room.reduced as usize, fewer, "seed {seed}: {room:?}");
            rooms += 1;
            unplaced += usize::from(room.to.is_none());
            reduced += fewer;
        }
    }
    assert!(rooms > 500 && unplaced > 50 && reduced > 25, "{rooms} {unplaced} {reduced}");
}

/// The first new node of each room that moved.
fn taken(world: &World) -> BTreeMap<RoomId, NodeId> {
    let mut taken = BTreeMap::new();
    for event in world.events() {
        if let CoreEvent::Moved { room, to: Some(to), .. } = event {
            taken.entry(*room).or_insert(to.node);
        }
    }
    taken
}

fn carriers(world: &World) -> BTreeMap<RoomId, NodeId> {
    let rooms = world.gateway.rooms.values();
    rooms.filter_map(|room| Some((room.id(), world.gateway.stands_at(room.id())?.node))).collect()
}

fn shares(world: &World) -> BTreeMap<SessionId, u16> {
    world
        .gateway
        .tables
        .sessions
        .values()
        .map(|session| (session.id(), session.share_permille()))
        .collect()
}

#[test]
fn copy_has_drains_and_refusals_of_nodes() {
    let mut world = World::new(settings());
    world.open("r");
    assert_eq!(world.stands("r"), Some(A));
    // `B` has the spare, `C` is in the zone of `A`, `D` in another region.
    let to = |world: &mut World| blast(world, &[A, B]).rooms[0].to;
    assert_eq!(to(&mut world), Some(C));
    world.gateway.handle_evidence(C, evenkeel_nodes::NodeEvidence::Willing(false), world.now);
    assert_eq!(to(&mut world), Some(D), "C refuses new rooms");
    world.pass(ms(6_000));
    assert_eq!(to(&mut world), Some(C));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(C, true, None, world.now))
        .unwrap();
    world.settle();
    assert_eq!(to(&mut world), Some(D), "C drains");
    world
        .gateway
        .change_nodes(world.now, |nodes| {
            nodes.handle_drain_domain(FailureDomain::Region(RegionId(1)), true, None, world.now)
        })
        .unwrap();
    world.settle();
    assert_eq!(to(&mut world), None);
}

#[test]
fn copy_has_forecasts_of_nodes() {
    let mut world = World::new(settings_of(&[(0, 1_000), (1, 1_000), (0, 1_000), (0, 1_000)]));
    world.open("r");
    let to = |world: &mut World| blast(world, &[A, B]).rooms[0].to;
    assert_eq!(to(&mut world), Some(C));
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_decay(C, 500));
    assert_eq!(to(&mut world), Some(D), "C is expected to fail");
}

/// A node that answered late opens few sessions at a time, and gets fewer rooms.
#[test]
fn copy_has_the_pace_of_openings() {
    let mut settings = settings_of(&[(0, 100_000), (1, 100_000), (1, 100_000)]);
    settings.scenarios.values_mut().for_each(|scenario| scenario.mode = RedundancyMode::Cold);
    // All rooms are rescued at once.
    settings.limits.lost_at_once = 256;
    let mut world = World::new(settings);
    let drain = |world: &mut World, draining: bool| {
        let now = world.now;
        for node in [B, C] {
            let changed = world
                .gateway
                .change_nodes(now, |nodes| nodes.handle_drain(node, draining, None, now));
            changed.unwrap();
        }
        world.settle();
    };
    drain(&mut world, true);
    for room in 0..12 {
        (0..3).for_each(|_| _ = world.open(&format!("r{room}")));
    }
    drain(&mut world, false);
    for _ in 0..4 {
        world.pass(ms(200));
        world.gateway.tables.nodes.pace_mut(B).slower(world.now);
    }
    let predicted = blast(&mut world, &[A]);
    assert_eq!(predicted.rooms.len(), 12);
    world.outputs.clear();
    lose(&mut world, &[A]);
    let taken = taken(&world);
    for room in &predicted.rooms {
        assert_eq!(room.to, taken.get(&room.room).copied(), "{room:?}");
    }
    let rooms_of = |node| taken.values().filter(|taken| **taken == node).count();
    assert!(rooms_of(B) < rooms_of(C), "{taken:?}");
}

/// A session gets its share back at a review after 8 s, which here comes after the copy's last moment.
#[test]
fn copy_raises_shares_when_the_gateway_does() {
    // No room fits at A.
    let mut world = World::new(settings_of(&[(0, 10), (1, 300)]));
    world.pass(ms(250));
    let streams = [(StreamKind::Audio, 111, None), (StreamKind::Video, 96, Some(200))];
    let first = world.offer_with("r", "call", &streams, IngressProtocol::Quic);
    let first = world.accepted(first).session;
    world.open("s");
    world.close(first);
    world.pass(ms(3_050));
    let radius = blast(&mut world, &[A]);
    let load = LoadChange { node: B, before_permille: 80, after_permille: 80 };
    assert_eq!(radius.loads, [load]);
    lose(&mut world, &[A]);
    let loads: Vec<u32> = world.gateway.views().nodes().map(|node| node.load_permille).collect();
    assert_eq!(loads[1], 80);
    world.pass(ms(500));
    let loads: Vec<u32> = world.gateway.views().nodes().map(|node| node.load_permille).collect();
    assert!(loads[1] > 80, "{loads:?}");
}

#[test]
fn copy_fails_back_when_the_gateway_does() {
    // `B` is in another region.
    let mut world = World::new(settings_of(&[(0, VOICE), (2, 100_000)]));
    let first = world.open("r");
    world.open("s");
    assert_eq!((world.stands("r"), world.stands("s")), (Some(A), Some(B)));
    world.pass(ms(2_000));
    world.close(first);
    let radius = blast(&mut world, &[B]);
    let rooms: Vec<_> = radius.rooms.iter().map(|room| (room.from, room.to)).collect();
    assert_eq!(rooms, [(B, Some(A))], "the room has not returned yet");
    lose(&mut world, &[B]);
    assert_eq!(world.stands("s"), Some(A));
}

#[test]
fn cold_node_is_started_unless_it_is_lost() {
    let mut settings = settings_of(&[(0, 200), (0, 200), (1, 200)]);
    settings.nodes[1].starts = Starts::ByHook { within: ms(30_000) };
    settings.nodes[2].starts = Starts::ByHook { within: ms(30_000) };
    settings.scenarios.values_mut().for_each(|scenario| scenario.mode = RedundancyMode::Cold);
    let mut world = World::new(settings);
    world.open("r");
    let radius = blast(&mut world, &[A]);
    assert_eq!((radius.rooms[0].to, &radius.started[..]), (None, &[B][..]));
    let zone = blast(&mut world, &[A, B]);
    assert_eq!((&zone.nodes[..], &zone.started[..]), (&[A][..], &[C][..]));
}

#[test]
fn loss_reports_labels_loads_and_missing_spares() {
    let mut world = World::new(settings_of(&[(0, 200), (1, 200)]));
    world.labels = [("device".into(), "phone".into())].into();
    world.open("r");
    world.open("r");
    let radius = blast(&mut world, &[A]);
    assert_eq!((radius.nodes, radius.rooms[0].sessions), (vec![A], 2));
    assert_eq!(radius.labels, [(("device".into(), "phone".into()), 2)].into());
    assert_eq!((radius.unprotected_before, radius.unprotected), (0, 1));
    let load = radius.loads[0];
    assert_eq!((load.node, load.before_permille, load.after_permille), (B, 640, 640));
    assert_eq!(radius.rooms[0].after, Some(ms(0)), "the spare is open");
    let names: Vec<&str> = radius.without_spare.iter().map(|name| &**name).collect();
    assert_eq!(names, ["r"]);
    assert!(blast(&mut world, &[B]).rooms.is_empty());
}

#[test]
fn room_that_changed_between_slices_is_no_error() {
    let mut world = World::new(settings());
    let first = world.open("r");
    let mut early = copy(&mut world);
    world.close(first);
    world.open("r");
    let now = world.now;
    let records = world.gateway.records();
    for (_, room) in records.copy_rooms(RoomId(0), now) {
        early.add_room(room.unwrap());
    }
    for (_, session) in records.copy_sessions(first) {
        early.add_session(session.unwrap());
    }
    let radius: Result<BlastRadius, RestoreError> = early.lose(&[A, B, C, D].into(), now);
    assert_eq!(radius.unwrap().rooms.len(), 1, "the room of the later slice");
}

fn in_mode(world: &mut World, mode: RedundancyMode, lost: &[NodeId]) -> ModePrediction {
    let lost = lost.iter().copied().collect();
    copy(world).lose_in_mode(mode, &lost, world.now).unwrap()
}

/// Rooms of 64 kbit/s each at A, and B in another zone.
fn rooms_at_a(rooms: u32, capacity_of_b: u64) -> World {
    let mut world = World::new(settings_of(&[(0, 640), (1, capacity_of_b)]));
    for room in 0..rooms {
        world.open(&format!("r{room}"));
    }
    world.pass(ms(3_000));
    let carried = carriers(&world);
    assert!(carried.values().all(|on| *on == A), "{carried:?}");
    world
}

#[test]
fn modes_differ_in_spares_bandwidth_and_outage() {
    let mut world = rooms_at_a(4, 640);
    // An answer of B after 80 ms, which the smoothed round trip takes an eighth of.
    let (now, sequence) = (world.now, u64::MAX);
    let detector = &mut world.gateway.tables.nodes.get_mut(B).unwrap().detector;
    detector.handle_probe_sent(sequence, now - ms(80));
    detector.handle_probe_answered(sequence, now);
    let opened = detector.round_trip().unwrap().0;
    assert!(opened >= ms(10), "{opened:?}");
    let detected = world.gateway.node_table()[A].detector.detects_within(NodeProbing::Yes);
    let at_once = ExpectedOutage { median: detected, longest: detected };
    for (mode, unspared, free, copied) in [
        (RedundancyMode::Hitless, 0, 768, 256),
        (RedundancyMode::Hot, 0, 768, 0),
        (RedundancyMode::ActiveActive, 0, 768, 0),
        (RedundancyMode::Cold, 4, 1_024, 0),
        (RedundancyMode::Regional, 4, 1_024, 0),
    ] {
        let predicted = in_mode(&mut world, mode, &[A]);
        let found = (predicted.rooms_without_spare, predicted.free_kbps, predicted.copied_kbps);
        assert_eq!(found, (unspared, free, copied), "{mode:?}");
        assert_eq!((predicted.rooms, predicted.media_kbps, predicted.needed_kbps), (4, 256, 0));
        assert_eq!((predicted.mode, predicted.loss.rooms.len()), (mode, 4));
        assert_eq!(predicted.loss.unplaced().count(), 0, "{mode:?}");
        let outage = predicted.outage.unwrap();
        match mode {
            RedundancyMode::Hitless => assert_eq!(outage.longest, Duration::ZERO),
            RedundancyMode::Hot | RedundancyMode::ActiveActive => assert_eq!(outage, at_once),
            RedundancyMode::Cold | RedundancyMode::Regional => {
                assert!(outage.median >= detected + opened, "{mode:?}: {outage:?}");
            }
        }
    }
    assert_eq!(world.route("r0").len(), 2, "the gateway is as it was");
}

#[test]
fn mode_that_lacks_capacity_says_how_much() {
    // B has capacity for four of ten rooms.
    let mut world = rooms_at_a(10, 300);
    let hot = in_mode(&mut world, RedundancyMode::Hot, &[A]);
    assert_eq!((hot.rooms_without_spare, hot.needed_kbps, hot.free_kbps), (6, 384, 44));
    let unplaced = |radius: &BlastRadius| radius.unplaced().count();
    assert_eq!(unplaced(&hot.loss), unplaced(&blast(&mut world, &[A])), "the mode in force");
    assert!(unplaced(&hot.loss) > 0);
    let hitless = in_mode(&mut world, RedundancyMode::Hitless, &[A]);
    assert_eq!((hitless.rooms_without_spare, hitless.copied_kbps), (6, 256));
    assert_eq!(hitless.outage.unwrap().median, Duration::ZERO, "of those that find a node");
    assert_eq!(in_mode(&mut world, RedundancyMode::Hot, &[]).outage, None);
}
