//! Another process continues the sessions of a gateway.

use std::time::Duration;

use evenkeel_instant as instant;
use evenkeel_model::{
    Affinity, CoreEvent, CoreSettings, Health, Hook, HookAnswer, NodeId, Plan, PolicyQuestion,
    RedundancyMode, RegionId, RoomId, RoutingMove, SessionId,
};

use super::super::GatewayEffect;
use super::world::Driver;
use super::*;
use crate::gateway::Gateway;
use crate::{Failback, GatewayRecord, HopMap, InstalledSession, RestoreError};

/// Asserts that the second record continues the first. Legs that were not open, and routes that capacity limited, may
/// have changed.
pub(super) fn assert_continued(before: &GatewayRecord, after: &GatewayRecord, hops: &HopMap) {
    let expected = moved(before, hops);
    assert_eq!(expected.nodes.len(), after.nodes.len());
    for (was, is) in expected.nodes.iter().zip(&after.nodes) {
        assert_eq!(was, is);
    }
    assert_eq!(expected.regions, after.regions);
    assert_eq!(expected.client_breakers, after.client_breakers);
    assert_eq!((&expected.media, &expected.memos), (&after.media, &after.memos));
    assert_eq!(expected.slo, after.slo);
    assert_eq!(expected.started, after.started);
    assert_eq!(expected.next_session, after.next_session);
    assert_eq!(expected.next_room, after.next_room);
    assert_eq!(expected.rooms.len(), after.rooms.len());
    for (was, is) in expected.rooms.iter().zip(&after.rooms) {
        was.assert_continued(is);
    }
    assert_eq!(expected.sessions.len(), after.sessions.len());
    for (was, is) in expected.sessions.iter().zip(&after.sessions) {
        let room = after.rooms.iter().find(|room| room.id == is.room).unwrap();
        let open = was.legs.iter().filter(|leg| leg.open && room.uses(leg.hop));
        assert!(open.clone().all(|leg| is.legs.contains(leg) || !room.opens_ahead()));
        let mut same = was.clone();
        same.legs.clone_from(&is.legs);
        assert_eq!(same, *is);
    }
}

/// The record with the hops of the other gateway.
fn moved(record: &GatewayRecord, hops: &HopMap) -> GatewayRecord {
    let mut record = record.clone();
    record.nodes.iter_mut().for_each(|node| node.hop = hops.map(node.hop).unwrap());
    record.rooms.iter_mut().for_each(|room| room.translate(hops));
    for session in &mut record.sessions {
        session.legs.retain(|leg| hops.map(leg.hop).is_some());
        session.legs.iter_mut().for_each(|leg| leg.hop = hops.past(leg.hop));
    }
    record
}

fn restored(world: &World) -> Vec<(SessionId, RoomId, Plan)> {
    let of = |output: &GatewayEffect| match output {
        GatewayEffect::Restore(it) => Some((it.session, it.room, it.plan)),
        _ => None,
    };
    world.outputs.iter().filter_map(of).collect()
}

fn hitless() -> CoreSettings {
    let mut settings = settings();
    settings.scenarios.get_mut("call").unwrap().mode = RedundancyMode::Hitless;
    settings
}

#[test]
fn second_record_equals_the_first() {
    for settings in [settings(), hitless()] {
        let mut world = World::new(settings);
        let first = world.open("one");
        world.open("one");
        world.open("two");
        world.offer_as("three", "stream");
        let on = world.stands("one").unwrap();
        world.gateway.handle_port_closed(first, world.hop(on), world.now);
        world.pass(ms(700));
        world
            .gateway
            .change_nodes(world.now, |nodes| {
                nodes.handle_drain(C, true, Some(ms(60_000)), world.now)
            })
            .unwrap();
        world.gateway.handle_failback(Some(RegionId(1)), Failback::Forbid, world.now).unwrap();
        world.pass(ms(300));
        let before = world.gateway.record(world.now);
        let loads = |world: &World| -> Vec<u64> {
            let ledger = world.gateway.tables.capacity.ledger();
            [A, B, C, D].iter().map(|node| ledger.permille(*node)).collect()
        };
        let carried = loads(&world);
        let hops = world.hand_over(Duration::ZERO);
        let after = world.gateway.record(world.now);
        assert_continued(&before, &after, &hops);
        for (was, is) in before.rooms.iter().zip(&after.rooms) {
            assert_eq!(was.route(), is.route());
            assert_eq!(was.version() + 1, is.version());
        }
        assert_eq!(before.sessions, after.sessions);
        assert_eq!(carried, loads(&world));
        world.audit();
    }
}

#[test]
fn packets_follow_the_record_until_rooms_settle() {
    let mut world = World::new(settings());
    world.open("r");
    let stood = world.stands("r").unwrap();
    let record = world.gateway.record(world.now);
    let was = record.rooms[0].version();
    world.restart(Duration::ZERO);
    let names: Vec<Box<str>> =
        world.gateway.tables.nodes.iter().map(|node| node.settings.name.clone()).collect();
    let named = |name: &str| (0..).map(NodeId).zip(&names).find(|(_, it)| ***it == *name);
    let node = |name: &str| named(name).map(|(id, _)| id);
    world.gateway.handle_record(record, node, world.now).unwrap();
    let Some(GatewayEffect::Restore(InstalledSession { route, .. })) = world.gateway.poll_output()
    else {
        panic!("the session continues first")
    };
    let carrier = || route.carriers(world.gateway.tables.nodes.board()).map(|(hop, _)| hop.node);
    assert_eq!((carrier(), route.load().version), (Some(stood), was));
    assert_eq!(world.gateway.tables.capacity.ledger().rooms(stood), 0);
    world.gateway.settle_restored(world.now);
    let carrier = || route.carriers(world.gateway.tables.nodes.board()).map(|(hop, _)| hop.node);
    assert_eq!((carrier(), route.load().version), (Some(stood), was + 1));
    assert_eq!(world.gateway.tables.capacity.ledger().rooms(stood), 1);
}

#[test]
fn sessions_stay_where_they_are() {
    let mut world = World::new(settings());
    let sessions = [world.open("r"), world.open("r"), world.open("s")];
    let (routes, room) = ([world.route("r"), world.route("s")], world.room("r"));
    world.outputs.clear();
    world.hand_over(ms(100));
    assert_eq!(restored(&world).iter().map(|(id, ..)| *id).collect::<Vec<_>>(), sessions);
    assert_eq!(world.room("r"), room);
    assert_eq!([world.route("r"), world.route("s")], routes);
    world.pass(ms(2_000));
    let touched = |output: &GatewayEffect| {
        matches!(output, GatewayEffect::Open { .. } | GatewayEffect::CloseAt { .. })
    };
    assert!(!world.outputs.iter().any(touched), "{:?}", world.outputs);
    assert_eq!(world.moves(), []);
    assert_eq!(world.gateway.live(), 3);
}

#[test]
fn numbers_are_not_reused() {
    let mut world = World::new(settings());
    let (kept, ended) = (world.open("r"), world.open("s"));
    let rooms = [world.room("r"), world.room("s")];
    world.close(ended);
    world.hand_over(Duration::ZERO);
    let new = world.open("t");
    assert!(new > ended && ended > kept);
    assert!(!rooms.contains(&world.room("t")));
}

#[test]
fn down_node_stays_down_until_it_answers() {
    let mut world = World::new(settings());
    world.open("r");
    let on = world.stands("r").unwrap();
    world.kill(on);
    let record = world.gateway.record(world.now);
    world.restart(Duration::ZERO);
    assert!(world.gateway.board().cell(on).unwrap().up);
    world.restore(&record);
    let health = |world: &World| world.gateway.tables.nodes.get(on).unwrap().health();
    assert_eq!(health(&world), Health::Down);
    let told = |event: &CoreEvent| matches!(event, CoreEvent::Node { to: Health::Down, hop, .. } if hop.node == on);
    assert!(world.events().any(told));
    world.pass(ms(5_000));
    assert_eq!(health(&world), Health::Down);
    assert!(!world.gateway.board().cell(on).unwrap().up);
    world.revive(on);
    assert_eq!(health(&world), Health::Wary);
}

#[test]
fn node_that_died_meanwhile_loses_its_rooms() {
    let mut world = World::new(settings());
    world.open("r");
    let on = world.stands("r").unwrap();
    let record = world.gateway.record(world.now);
    world.restart(ms(100));
    world.kill(on);
    world.restore(&record);
    world.pass(ms(10));
    let now = world.stands("r").unwrap();
    assert_ne!(now, on);
    assert_eq!(world.moves(), [(on, Some(now))]);
    assert!(world.closed_at().iter().any(|(_, node)| *node == on));
    world.audit();
}

/// A node that was added a moment ago has not answered yet; the other process heard it.
#[test]
fn new_node_is_trusted_by_the_record() {
    let mut world = World::new(settings_of(&[(0, 100_000)]));
    let added = world.add(listed(0)).unwrap();
    world.pass(ms(5_000));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(A, true, None, world.now))
        .unwrap();
    world.open("r");
    assert_eq!(world.stands("r"), Some(added));
    let record = world.gateway.record(world.now);
    let settings = world.gateway.tables.nodes.get(added).unwrap().settings.clone();
    let mut fresh = World::begin(settings_of(&[(0, 100_000)]), world.now - ms(3_000));
    let again = fresh.add(settings).unwrap();
    fresh.restore(&record);
    assert_eq!(fresh.stands("r"), Some(again));
    fresh.pass(ms(1_000));
    assert_eq!(fresh.stands("r"), Some(again));
    assert_eq!(fresh.moves(), []);
}

#[test]
fn rooms_of_unlisted_node_are_rescued() {
    for spares in [1, 2] {
        let mut settings = settings();
        settings.scenarios.get_mut("call").unwrap().spares = spares;
        let mut world = World::new(settings);
        world.open("r");
        let on = world.stands("r").unwrap();
        let name = world.gateway.tables.nodes.get(on).unwrap().settings.name.clone();
        let mut record = world.gateway.record(world.now);
        record.nodes.retain(|node| node.name != name);
        world.restart(Duration::ZERO);
        world.restore(&record);
        world.pass(ms(100));
        assert!(world.stands("r").is_some());
        let ends: Vec<bool> = world.moves().iter().map(|(_, to)| to.is_some()).collect();
        assert_eq!(ends, [false, true]);
        assert_eq!(world.gateway.live(), 1);
        world.audit();
    }
}

#[test]
fn stranded_room_is_rescued() {
    let mut world = World::new(settings_of(&[(0, 100_000)]));
    world.open("r");
    world.kill(A);
    assert_eq!(world.stands("r"), None);
    world.hand_over(ms(20));
    assert_eq!(world.stands("r"), None);
    world.revive(A);
    world.pass(ms(200));
    assert_eq!(world.stands("r"), Some(A));
    assert_eq!(world.gateway.live(), 1);
}

#[test]
fn policy_states_are_read_again() {
    let says = |ask: &evenkeel_model::Ask| {
        Some(Ok(match &ask.question {
            PolicyQuestion::Reroute { rooms, .. } => HookAnswer::Moves {
                moves: Vec::new(),
                states: (0..rooms.len() as u32).map(|row| (row, state(b"room"))).collect(),
                memo: Some(state(b"memo")),
            },
            PolicyQuestion::Tick { sessions, .. } => HookAnswer::Actions {
                actions: Vec::new(),
                states: (0..sessions.len() as u32).map(|row| (row, state(b"session"))).collect(),
                memo: None,
            },
            PolicyQuestion::Place { .. } => placement(&[A, B], 200),
            _ => accept(),
        }))
    };
    let hooks = [Hook::Routing, Hook::Degradation];
    let mut world = World::with_policy(settings(), &hooks, says);
    world.open("r");
    world.pass(ms(500));
    world.hand_over(Duration::ZERO);
    world.outputs.clear();
    world.pass(ms(500));
    let asks = || {
        world.outputs.iter().filter_map(|output| match output {
            GatewayEffect::Ask(ask) => Some(ask),
            _ => None,
        })
    };
    let room = asks().find_map(|ask| match &ask.question {
        PolicyQuestion::Reroute { rooms, memo, .. } => Some((rooms[0].state.clone(), memo.clone())),
        _ => None,
    });
    assert_eq!(room, Some((Some(state(b"room")), Some(state(b"memo")))));
    let session = asks().find_map(|ask| match &ask.question {
        PolicyQuestion::Tick { sessions, .. } => Some(sessions[0].state.clone()),
        _ => None,
    });
    assert_eq!(session, Some(Some(state(b"session"))));
    // The states may refer to the time that the policy saw.
    assert!(asks().all(|ask| ask.now_us >= 3_500_000));
}

#[test]
fn room_is_reviewed_when_due() {
    let mut world = World::with_policy(settings(), &[Hook::Routing], |ask| {
        Some(Ok(match &ask.question {
            PolicyQuestion::Reroute { .. } => HookAnswer::Moves {
                moves: vec![RoutingMove { row: 0, hops: vec![A, B], ttl_ms: 10_000, reason: 0 }],
                states: Vec::new(),
                memo: None,
            },
            _ => placement(&[A, B], 10_000),
        }))
    });
    world.open("r");
    world.pass(ms(8_000));
    world.hand_over(Duration::ZERO);
    world.outputs.clear();
    world.pass(ms(1_500));
    assert_eq!(world.asked(Hook::Routing), 0);
    world.pass(ms(1_000));
    assert_eq!(world.asked(Hook::Routing), 1);
}

#[test]
fn silent_session_ends_in_time() {
    let mut world = World::new(settings());
    world.open("r");
    world.pass(ms(20_000));
    world.hand_over(Duration::ZERO);
    world.pass(ms(9_000));
    assert_eq!(world.gateway.live(), 1);
    world.pass(ms(2_000));
    assert_eq!(world.gateway.live(), 0);
}

#[test]
fn drain_goes_on() {
    let mut world = World::new(settings());
    (0..20).for_each(|room| _ = world.open(&format!("r{room}")));
    let on = world.stands("r0").unwrap();
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(on, true, Some(ms(5_000)), world.now))
        .unwrap();
    world.settle();
    world.hand_over(Duration::ZERO);
    world.pass(ms(5_500));
    let drained = |event: &CoreEvent| matches!(event, CoreEvent::Drained { left: 0, .. });
    assert!(world.events().any(drained));
    let on_it = (0..20).filter(|room| world.stands(&format!("r{room}")) == Some(on));
    assert_eq!(on_it.count(), 0);
}

#[test]
fn openings_of_a_dropped_move_are_closed() {
    let mut world = World::new(settings());
    let session = world.open("r");
    let spare = world.route("r")[1].0;
    let to = [A, B, C]
        .into_iter()
        .find(|node| ![Some(*node)].contains(&world.stands("r")) && *node != spare);
    let to = to.unwrap();
    world.drive_with(|_, _| Driver::Waits);
    world.gateway.handle_move(&"r".into(), to, world.now).unwrap();
    world.settle();
    assert!(world.opening.contains(&(session, world.hop(to))));
    world.outputs.clear();
    world.drive_with(|_, _| Driver::Opens);
    world.hand_over(Duration::ZERO);
    assert!(world.closed_at().contains(&(session, to)));
    assert_eq!(world.gateway.moves_under_way().count(), 0);
}

#[test]
fn opening_under_way_is_repeated() {
    let mut world = World::new(settings());
    world.drive_with(|_, hop| if hop.node == B { Driver::Waits } else { Driver::Opens });
    let session = world.open("r");
    assert_eq!(world.stands("r"), Some(A));
    assert!(world.opening.contains(&(session, world.hop(B))));
    world.outputs.clear();
    world.drive_with(|_, _| Driver::Opens);
    world.hand_over(Duration::ZERO);
    let opened =
        |output: &GatewayEffect| matches!(output, GatewayEffect::Open { hop, .. } if hop.node == B);
    assert_eq!(world.outputs.iter().filter(|output| opened(output)).count(), 1);
    world.kill(A);
    assert_eq!(world.stands("r"), Some(B));
}

#[test]
fn sessions_of_high_priority_are_opened_first() {
    let mut world = World::new(settings());
    world.drive_with(|_, hop| if hop.node == B { Driver::Waits } else { Driver::Opens });
    world.offer_as("first", "stream");
    world.settle();
    let call = world.open("second");
    world.outputs.clear();
    world.hand_over(Duration::ZERO);
    let opened = world.outputs.iter().filter_map(|output| match output {
        GatewayEffect::Open { session, hop, .. } if hop.node == B => Some(*session),
        _ => None,
    });
    let opened: Vec<SessionId> = opened.collect();
    assert_eq!((opened.len(), opened[0]), (2, call), "{opened:?}");
}

#[test]
fn sessions_of_a_call_share_its_number() {
    let mut settings = settings();
    settings.scenarios.get_mut("call").unwrap().affinity = Affinity::Session;
    let mut world = World::new(settings);
    let (first, second) = (world.open("conf"), world.open("conf"));
    world.close(first);
    let number = |world: &World, session| {
        let Gateway { rooms, tables, .. } = &world.gateway;
        rooms[&tables.sessions[session].room()].call()
    };
    let before = number(&world, &second);
    world.hand_over(Duration::ZERO);
    let third = world.open("conf");
    assert_eq!(number(&world, &third), before);
    world.close(second);
    world.close(third);
    assert_eq!(world.gateway.rooms.calls(), 0);
}

#[test]
fn limit_of_moves_is_kept() {
    let mut world = World::new(settings());
    world.open("r");
    for node in [B, C, A] {
        world.gateway.handle_move(&"r".into(), node, world.now).ok();
        world.pass(ms(700));
    }
    let room = world.room("r");
    let now = world.now;
    let is_damped = |gateway: &mut Gateway| {
        let Gateway { rooms, tables, .. } = gateway;
        tables.is_damped(rooms.get_mut(&room).unwrap(), now)
    };
    let damped = is_damped(&mut world.gateway);
    world.hand_over(Duration::ZERO);
    assert_eq!(is_damped(&mut world.gateway), damped);
    assert_eq!(world.gateway.rooms[&room].records().count(), world.moves().len());
}

#[test]
fn changed_mode_of_the_scenario_applies() {
    let mut world = World::new(settings());
    world.open("r");
    let record = world.gateway.record(world.now);
    let mut fresh = World::begin(hitless(), world.now - ms(3_000));
    fresh.restore(&record);
    fresh.pass(ms(200));
    let room = fresh.room("r");
    assert_eq!(fresh.gateway.rooms[&room].route().mode, RedundancyMode::Hitless);
}

#[test]
fn session_takes_less_than_a_kibibyte() {
    let mut world = World::new(settings());
    (0..100).for_each(|room| _ = world.open(&format!("room{}", room / 2)));
    let record = world.gateway.record(world.now);
    assert_eq!(record.media.len(), 1);
    let encoded = instant::relative_to(world.now, || rmp_serde::to_vec_named(&record)).unwrap();
    assert!(encoded.len() < 100 * 800, "{} bytes", encoded.len() / 100);
}

#[test]
fn gateway_with_sessions_takes_no_record() {
    let mut world = World::new(settings());
    world.open("r");
    let record = world.gateway.record(world.now);
    let refused = world.gateway.handle_record(record, |_| None::<NodeId>, world.now);
    assert_eq!(refused, Err(RestoreError::HasSessions));
}

#[test]
fn forgotten_sessions_leave_nothing_and_may_continue_later() {
    let mut world = World::new(settings());
    ["r", "r", "s"].iter().for_each(|room| _ = world.open(room));
    let on = world.stands("r").unwrap();
    let drains = Some(ms(60_000));
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(on, true, drains, world.now))
        .unwrap();
    world.settle();
    let record = world.gateway.record(world.now);
    assert!(record.nodes.iter().any(|node| node.drain.is_some()));
    world.restart(Duration::ZERO);
    let empty = world.gateway.views().table_sizes();
    let names: Vec<Box<str>> =
        world.gateway.tables.nodes.iter().map(|node| node.settings.name.clone()).collect();
    let node = |name: &str| names.iter().position(|it| **it == *name).map(|at| NodeId(at as u32));
    for _ in 0..2 {
        world.gateway.handle_record(record.clone(), node, world.now).unwrap();
        while world.gateway.poll_output().is_some() {}
        assert_eq!(world.gateway.live(), 3);
        world.gateway.forget_restored();
        assert_eq!(world.gateway.views().table_sizes(), empty);
        assert_eq!(world.gateway.live(), 0);
        let left = world.gateway.record(world.now);
        assert_eq!((left.rooms, left.sessions), (vec![], vec![]));
    }
    let hops = world.restore(&record);
    assert_continued(&record, &world.gateway.record(world.now), &hops);
    world.audit();
}

#[test]
fn contradictory_record_changes_nothing() {
    let mut world = World::new(settings());
    (0..2).for_each(|_| _ = world.open("r"));
    let record = world.gateway.record(world.now);
    let breaks: [fn(&mut GatewayRecord); 7] = [
        |record| record.rooms.clear(),
        |record| record.media.clear(),
        |record| record.sessions.clear(),
        |record| record.next_session = 1,
        |record| record.rooms[0].lose_route(),
        |record| record.sessions.push(record.sessions[1].clone()),
        |record| record.sessions.swap(0, 1),
    ];
    world.restart(Duration::ZERO);
    for break_it in breaks {
        let mut broken = record.clone();
        break_it(&mut broken);
        let refused = world.gateway.handle_record(broken, |_| Some(A), world.now);
        assert!(matches!(refused, Err(RestoreError::Contradiction(_))), "{refused:?}");
        assert_eq!(world.gateway.record(world.now).sessions, []);
    }
}

#[test]
fn node_that_died_with_the_owner_is_found_by_silence() {
    let mut world = World::new(settings());
    (0..8).for_each(|_| _ = world.open("r"));
    let on = world.stands("r").unwrap();
    let record = world.gateway.record(world.now);
    // The standby probes the node, and hears no media of it.
    world.hush(on);
    world.restart(ms(1_000));
    world.mute(on);
    world.restore(&record);
    world.pass(ms(50));
    assert!(!world.gateway.board().cell(on).unwrap().up, "by two witnesses");
}
