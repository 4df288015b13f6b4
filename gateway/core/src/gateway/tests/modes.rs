//! Guarantees of each mode when a node dies, and changes of a scenario's mode.

use evenkeel_model::{
    Affinity, CoreEvent, CoreSettings, Health, Hop, HopGrant, ModeChange, MoveCause, NodeId,
    NotStarted, OfferRefusal, RedundancyMode, RegionId, RegionRole, RoomId, Scenario, SessionId,
    StartPhase, Starts,
};

use super::super::GatewayEffect;
use super::world::VOICE;
use super::*;

pub(super) fn in_mode(mode: RedundancyMode, mut settings: CoreSettings) -> CoreSettings {
    for scenario in settings.scenarios.values_mut() {
        scenario.mode = mode;
    }
    settings
}

/// Changes the scenario.
pub(super) fn change(world: &mut World, to: impl Fn(&mut Scenario)) {
    let mut scenarios = world.gateway.tables.settings.scenarios.clone();
    scenarios.values_mut().for_each(to);
    world.outputs.clear();
    world.gateway.handle_scenarios(&scenarios, world.now);
    world.settle();
    world.pass(ms(5));
}

pub(super) fn opened_at(world: &World) -> Vec<NodeId> {
    let opened = |output: &GatewayEffect| match output {
        GatewayEffect::Open { hop, .. } => Some(hop.node),
        _ => None,
    };
    world.outputs.iter().filter_map(opened).collect()
}

fn load(world: &World, node: NodeId) -> u32 {
    world.gateway.views().nodes().nth(node.0 as usize).unwrap().load_permille
}

fn both(world: &World, nodes: [NodeId; 2]) -> [Hop; 2] {
    nodes.map(|node| world.hop(node))
}

pub(super) fn starts(world: &World) -> Vec<StartPhase> {
    let step = |event: &CoreEvent| match event {
        CoreEvent::Start { step, .. } => Some(*step),
        _ => None,
    };
    world.events().filter_map(step).collect()
}

pub(super) fn health(world: &World, node: NodeId) -> Health {
    world.gateway.views().nodes().nth(node.0 as usize).unwrap().health
}

/// A running node at home, and one that a hook starts.
pub(super) fn cold() -> World {
    let mut settings = in_mode(RedundancyMode::Cold, settings_of(&[(0, 1_000), (1, 1_000)]));
    settings.nodes[1].starts = Starts::ByHook { within: ms(30_000) };
    World::new(settings)
}

const BOTH: [HopGrant; 2] = [HopGrant::Admitted, HopGrant::Admitted];

#[test]
fn hitless_room_counts_at_both_nodes() {
    let mut world =
        World::new(in_mode(RedundancyMode::Hitless, settings_of(&[(0, 640), (1, 640)])));
    world.open("r");
    assert_eq!(world.route("r"), [(A, BOTH[0]), (B, BOTH[1])]);
    assert_eq!([load(&world, A), load(&world, B)], [100, 100]);
}

#[test]
fn hitless_session_needs_both_nodes() {
    let nodes = [(0, 10 * VOICE), (1, VOICE), (2, VOICE)];
    let mut world = World::new(in_mode(RedundancyMode::Hitless, settings_of(&nodes)));
    world.open("r");
    let newcomer = world.offer("r");
    let refused = world.replies[&newcomer].as_ref().unwrap_err();
    assert!(matches!(refused, OfferRefusal::NoNode { .. }));
    assert_eq!(world.route("r")[1], (B, HopGrant::Admitted));
}

#[test]
fn hitless_pair_is_restored_after_death() {
    for dead in [A, B] {
        let mut settings = in_mode(RedundancyMode::Hitless, settings());
        settings.scenarios.values_mut().for_each(|scenario| scenario.spares = 2);
        let mut world = World::new(settings);
        world.open("r");
        let route = world.gateway.rooms[&world.room("r")].route();
        world.kill(dead);
        let other = if dead == A { B } else { A };
        let (hop, _) = route.first_usable(&world.gateway.board()).unwrap();
        assert_eq!(hop.node, other, "its packets go on without a word of the core's");
        world.pass(ms(5));
        let grants: Vec<HopGrant> = world.route("r").iter().map(|(_, grant)| *grant).collect();
        assert_eq!(world.route("r")[0], (other, HopGrant::Admitted));
        assert_eq!(grants[..2], BOTH, "a new one joined: {:?}", world.route("r"));
    }
}

#[test]
fn second_node_joins_after_all_sessions_open() {
    let mut world =
        World::new(in_mode(RedundancyMode::Hitless, settings_of(&[(0, 999), (1, 999), (0, 999)])));
    world.open("r");
    world.drive_with(|_, hop| match hop.node {
        C => world::Driver::Waits,
        _ => world::Driver::Opens,
    });
    world.kill(B);
    world.pass(ms(5));
    assert_eq!(world.route("r"), [(A, HopGrant::Admitted)]);
    world.finish_opening(C, Ok(()));
    assert_eq!(world.route("r"), [(A, BOTH[0]), (C, BOTH[1])]);
}

/// The effective modes of hitless rooms, in events and in views.
fn kept(world: &World, room: &str) -> (Vec<(RedundancyMode, RedundancyMode)>, RedundancyMode) {
    let told = |event: &CoreEvent| match event {
        CoreEvent::Mode { room_name, from, to, why: ModeChange::Capacity, .. } => {
            (&**room_name == room).then_some((*from, *to))
        }
        _ => None,
    };
    let mut rooms =
        world.gateway.views().rooms_after(RoomId(0)).filter_map(|(_, standing)| standing);
    let shown = rooms.find(|standing| &*standing.name == room).unwrap();
    let session = world.gateway.views().session(shown.sessions[0], world.now).unwrap();
    assert_eq!((session.mode, session.kept), (shown.mode, shown.kept));
    assert_eq!(shown.mode, RedundancyMode::Hitless);
    (world.events().filter_map(told).collect(), shown.kept)
}

#[test]
fn hitless_without_second_node_is_hot() {
    // Each room fits its own node. The third node can carry one more room, and reserves capacity for the death of
    // either.
    let nodes = [(0, VOICE), (1, VOICE), (2, VOICE)];
    let mut world = World::new(in_mode(RedundancyMode::Hot, settings_of(&nodes)));
    let rooms = ["r", "s"];
    for room in rooms {
        world.open(room);
    }
    change(&mut world, |scenario| scenario.mode = RedundancyMode::Hitless);
    let [shared, also] = rooms.map(|room| world.route(room)[1]);
    assert_eq!((shared.1, also), (HopGrant::Reserved, shared));
    for room in rooms {
        assert_eq!(
            kept(&world, room),
            (vec![(RedundancyMode::Hitless, RedundancyMode::Hot)], RedundancyMode::Hot)
        );
    }
    let first = world.stands("r").unwrap();
    world.kill(first);
    assert_eq!(world.stands("r"), Some(shared.0), "its packets take it by themselves");
}

#[test]
fn hitless_without_second_hop_is_reported() {
    let mut world =
        World::new(in_mode(RedundancyMode::Hitless, settings_of(&[(0, 640), (1, 100)])));
    let first = world.open("r");
    world.open("s");
    assert_eq!(world.route("r")[1], (B, HopGrant::Admitted));
    assert_eq!(world.route("s"), [(A, HopGrant::Admitted)], "nothing is left for it at the other");
    let less = (RedundancyMode::Hitless, RedundancyMode::Cold);
    assert_eq!(kept(&world, "s"), (vec![less], RedundancyMode::Cold));
    assert_eq!(kept(&world, "r"), (vec![], RedundancyMode::Hitless));
    world.close(first);
    world.pass(ms(5_000));
    assert_eq!(world.route("s")[1..], [(B, HopGrant::Admitted)], "it has joined");
    assert_eq!(kept(&world, "s"), (vec![less, (less.1, less.0)], RedundancyMode::Hitless));
}

#[test]
fn unequal_copies_turn_hitless_to_hot() {
    let mut world =
        World::new(in_mode(RedundancyMode::Hitless, settings_of(&[(0, 999), (1, 999), (0, 999)])));
    let session = world.open("r");
    world.outputs.clear();
    let hops = both(&world, [A, B]);
    for hops in [hops, [hops[1], hops[0]]] {
        world.gateway.handle_unalike(session, hops, world.now);
        world.settle();
    }
    assert_eq!(world.route("r"), [(A, HopGrant::Admitted), (B, HopGrant::Reserved)]);
    let told = |event: &&CoreEvent| {
        let why = ModeChange::CopiesDiffer { hops };
        matches!(event, CoreEvent::Mode { from: RedundancyMode::Hitless, to: RedundancyMode::Hot, why: w, .. } if *w == why)
    };
    assert_eq!(world.events().filter(told).count(), 1, "told once");
    // Packets from the second hop pass for a moment.
    let route = world.gateway.rooms[&world.room("r")].route();
    assert_eq!(route.leaving().map(|(hop, _)| hop), Some(hops[1]));
    world.kill(B);
    world.pass(ms(5));
    assert_eq!(world.route("r"), [(A, BOTH[0]), (C, BOTH[1])], "others may keep what they get");
}

#[test]
fn report_of_foreign_hops_changes_nothing() {
    let mut world = World::new(in_mode(RedundancyMode::Hitless, settings()));
    let session = world.open("r");
    let hops = both(&world, [A, C]);
    world.gateway.handle_unalike(session, hops, world.now);
    assert_eq!(world.route("r")[1].1, HopGrant::Admitted);
}

#[test]
fn standby_takes_no_first_hop_if_avoidable() {
    for (mode, first) in
        [(RedundancyMode::Hot, C), (RedundancyMode::Hitless, C), (RedundancyMode::ActiveActive, A)]
    {
        let mut settings = in_mode(mode, settings_of(&[(0, 640), (1, 640), (1, VOICE)]));
        settings.nodes[0].role = RegionRole::Standby;
        settings.nodes[1].role = RegionRole::Standby;
        let mut world = World::new(settings);
        world.open("r");
        assert_eq!(world.stands("r"), Some(first), "{mode:?}");
        world.open("s");
        if first == C {
            assert_ne!(world.stands("s"), Some(C), "{mode:?}: the other is full");
        }
    }
}

#[test]
fn standby_is_preferred_as_spare() {
    let mut settings = settings_of(&[(0, 640), (1, 640), (1, 640)]);
    settings.nodes[2].role = RegionRole::Standby;
    let mut world = World::new(settings);
    world.open("r");
    assert_eq!(world.route("r"), [(A, HopGrant::Admitted), (C, HopGrant::Reserved)]);
}

#[test]
fn active_active_spare_is_in_another_zone() {
    // Zones a and b are at home, zone c in another region.
    let nodes = [(0, 640), (0, 640), (1, 640), (2, 6_400)];
    let mut world = World::new(in_mode(RedundancyMode::ActiveActive, settings_of(&nodes)));
    for room in ["1", "2", "3"] {
        world.open(room);
    }
    let mut first: Vec<NodeId> = ["1", "2", "3"].map(|room| world.stands(room).unwrap()).into();
    first.sort();
    assert_eq!(first, [A, B, C], "load spreads over the zones of the region");
    for room in ["1", "2", "3"] {
        let route = world.route(room);
        assert_eq!(route[1].1, HopGrant::Reserved);
        assert_ne!(route[0].0 == C, route[1].0 == C, "{route:?} is in two zones");
        assert_ne!(route[1].0, D, "and in the same region");
    }
}

/// One node in each of three regions, one of which is home.
pub(super) fn regional(order: &[u32]) -> World {
    let nodes = [(0, 640), (2, 640), (3, 640), (1, 640)];
    let mut settings = settings_of(&nodes);
    settings.regions.push("far".into());
    settings.zones.push(evenkeel_model::Zone { name: "d".into(), region: RegionId(2) });
    for scenario in settings.scenarios.values_mut() {
        scenario.mode = RedundancyMode::Regional;
        scenario.spares = 3;
        scenario.regions = order.iter().copied().map(RegionId).collect();
    }
    World::new(settings)
}

#[test]
fn regional_spares_follow_region_order() {
    let mut world = regional(&[2, 0, 1]);
    world.open("r");
    let gated = HopGrant::Gated;
    assert_eq!(
        world.route("r"),
        [(A, HopGrant::Admitted), (B, gated), (C, gated)],
        "around to the start"
    );
    assert_eq!(opened_at(&world), [A]);
    assert_eq!([load(&world, B), load(&world, C)], [0, 0], "nothing is kept there");
    world.outputs.clear();
    world.kill(A);
    world.pass(ms(60));
    assert_eq!(
        world.stands("r"),
        Some(D),
        "the other zone of the region comes before other regions"
    );
    world.kill(D);
    world.pass(ms(60));
    assert_eq!(world.stands("r"), Some(B));
    assert_eq!(opened_at(&world), [D, B], "one at a time");
    assert_eq!(world.route("r")[1], (C, gated));
}

#[test]
fn cold_node_starts_when_room_loses_node() {
    let mut world = cold();
    world.open("r");
    assert_eq!(world.route("r"), [(A, HopGrant::Admitted)], "no spare");
    assert_eq!((health(&world, B), &world.starts[..]), (Health::Cold, &[][..]));
    world.kill(A);
    let died = world.now;
    world.pass(ms(2_000));
    assert_eq!(world.starts, [B], "once");
    assert_eq!(world.stands("r"), None, "held");
    world.unmute(B);
    world.pass(ms(100));
    assert_eq!(world.stands("r"), Some(B));
    assert!(
        matches!(starts(&world)[..], [StartPhase::Begun { attempt: 1 }, StartPhase::Done { took }] if took >= ms(2_000))
    );
    let recovered = |event: &CoreEvent| match event {
        CoreEvent::Moved { to: Some(_), cause: MoveCause::NodeDown, started, .. } => Some(*started),
        _ => None,
    };
    let started = world.events().find_map(recovered).unwrap();
    assert!(died - started < ms(10), "the move began when the node died");
}

#[test]
fn cold_room_moves_and_cold_node_starts() {
    let mut settings = in_mode(RedundancyMode::Cold, settings_of(&[(0, 640), (1, 640), (1, 640)]));
    settings.nodes[2].starts = Starts::ByHook { within: ms(30_000) };
    let mut world = World::new(settings);
    world.open("r");
    world.kill(A);
    world.pass(ms(20));
    assert_eq!((world.stands("r"), &world.starts[..]), (Some(B), &[C][..]));
}

#[test]
fn failed_start_is_retried_with_backoff() {
    let mut world = cold();
    world.open("r");
    world.kill(A);
    world.pass(ms(10));
    let mut again = Vec::new();
    for attempt in 1..=4 {
        assert_eq!(world.starts.len(), attempt);
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_start_failed(B, world.now));
        let Some(StartPhase::Failed { why: NotStarted::Hook, again: after }) = ({
            world.settle();
            starts(&world).last().copied()
        }) else {
            panic!("{:?}", starts(&world))
        };
        again.push(after.as_secs());
        world.pass(after - ms(60));
        assert_eq!(world.starts.len(), attempt, "not yet");
        world.pass(ms(150));
    }
    assert_eq!(again, [1, 2, 4, 8]);
    // A node that does not answer in time has failed as well.
    world.pass(ms(29_000));
    assert_eq!(starts(&world).len(), 9);
    world.pass(ms(1_500));
    assert_eq!(starts(&world).len(), 10);
    let late = StartPhase::Failed { why: NotStarted::Late, again: ms(16_000) };
    assert_eq!(starts(&world)[9], late);
}

#[test]
fn sessions_waiting_for_node_stay_open() {
    let mut world = cold();
    let session = world.open("r");
    world.kill(A);
    world.pass(ms(60_000));
    assert!(world.gateway.views().session(session, world.now).is_some(), "its clients are kept");
    world.unmute(B);
    world.pass(ms(2_000));
    assert_eq!(world.stands("r"), Some(B));
    assert!(world.gateway.views().session(session, world.now).is_some(), "and may speak up again");
    world.pass(ms(30_000));
    assert!(world.gateway.views().session(session, world.now).is_none());
}

#[test]
fn running_cold_node_is_found_dead_is_cold() {
    let mut world = cold();
    world.unmute(B);
    world.pass(ms(1_500));
    assert_eq!(health(&world, B), Health::Wary, "nobody knows since when");
    world.pass(ms(2_000));
    assert_eq!(health(&world, B), Health::Up);
    world.open("r");
    world.mute(B);
    world.pass(ms(5_000));
    assert_eq!(health(&world, B), Health::Cold);
    assert!(world.starts.is_empty(), "no room needs it");
}

#[test]
fn session_without_node_triggers_start() {
    let mut settings = in_mode(RedundancyMode::Cold, settings_of(&[(0, 640)]));
    settings.nodes[0].starts = Starts::ByHook { within: ms(30_000) };
    let mut world = World::new(settings);
    let offer = world.offer("r");
    assert!(matches!(world.replies[&offer], Err(OfferRefusal::NoNode { .. })));
    assert_eq!(world.starts, [A]);
    world.unmute(A);
    world.pass(ms(50));
    world.open("r");
}

#[test]
fn meshed_sessions_are_rooms_with_one_id() {
    let mut settings = settings();
    settings.scenarios.values_mut().for_each(|s| s.affinity = Affinity::Session);
    let mut world = World::new(settings);
    let sessions: Vec<SessionId> = (0..3).map(|_| world.open("r")).collect();
    let room = |session: &SessionId| format!("r~{session}");
    let stands: Vec<NodeId> = sessions.iter().map(|s| world.stands(&room(s)).unwrap()).collect();
    assert!(stands.contains(&A) && stands.iter().any(|node| *node != A), "{stands:?}");
    let told: std::collections::BTreeSet<_> = world
        .outputs
        .iter()
        .filter_map(|output| match output {
            GatewayEffect::Open { room, .. } => Some(*room),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "the nodes bridge what they know as one room");
    let moved = room(&sessions[0]);
    let to = if stands[0] == B { C } else { B };
    world.gateway.handle_move(&moved.as_str().into(), to, world.now).unwrap();
    world.settle();
    assert_eq!(world.stands(&moved), Some(to));
    assert_eq!(world.stands(&room(&sessions[1])), Some(stands[1]), "the others stay");
    sessions.into_iter().for_each(|session| world.close(session));
    assert!(world.gateway.rooms.calls() == 0);
}

#[test]
fn mode_change_keeps_carrying_hop() {
    for from in RedundancyMode::ALL {
        for to in RedundancyMode::ALL.into_iter().filter(|to| *to != from) {
            let mut world = World::new(in_mode(from, settings()));
            let session = world.open("r");
            change(&mut world, |scenario| scenario.mode = to);
            let why = format!("{from:?} to {to:?}: {:?}", world.route("r"));
            assert_eq!(world.stands("r"), Some(A), "{why}");
            assert!(
                world.moves().is_empty() && !world.closed_at().contains(&(session, A)),
                "{why}"
            );
            let told = |e: &&CoreEvent| matches!(e, CoreEvent::Mode { from: f, to: t, why: ModeChange::Scenario, .. } if (*f, *t) == (from, to));
            assert_eq!(world.events().filter(told).count(), 1, "{why}");
            world.pass(ms(600));
            let second = world.route("r").get(1).map(|(_, grant)| *grant);
            let open: Vec<NodeId> = world.gateway.tables.sessions[&session]
                .legs()
                .iter()
                .map(|(hop, _)| hop.node)
                .collect();
            match to {
                RedundancyMode::Hitless => {
                    assert_eq!((second, open.len()), (Some(HopGrant::Admitted), 2), "{why}");
                }
                RedundancyMode::Hot | RedundancyMode::ActiveActive => {
                    assert_eq!((second, open.len()), (Some(HopGrant::Reserved), 2), "{why}");
                }
                RedundancyMode::Cold => assert_eq!((second, &open[..]), (None, &[A][..]), "{why}"),
                RedundancyMode::Regional => {
                    assert_eq!((second, &open[..]), (Some(HopGrant::Gated), &[A][..]), "{why}");
                }
            }
        }
    }
}

#[test]
fn unopened_spare_carries_no_packets() {
    for (from, to) in
        [RedundancyMode::Cold, RedundancyMode::Regional].into_iter().flat_map(|from| {
            [RedundancyMode::Hot, RedundancyMode::ActiveActive, RedundancyMode::Hitless]
                .map(|to| (from, to))
        })
    {
        let mut world = World::new(in_mode(from, settings()));
        world.open("r");
        let mut scenarios = world.gateway.tables.settings.scenarios.clone();
        scenarios.values_mut().for_each(|scenario| scenario.mode = to);
        world.gateway.handle_scenarios(&scenarios, world.now);
        let usable = |world: &World| {
            let hops = world.route("r").into_iter();
            hops.filter(|(_, grant)| *grant != HopGrant::Gated).count()
        };
        assert_eq!(usable(&world), 1, "{from:?} to {to:?}: nobody has answered yet");
        world.settle();
        world.pass(ms(5));
        assert_eq!(usable(&world), 2, "{from:?} to {to:?}");
    }
}

#[test]
fn scenario_separates_rooms_of_one_name() {
    let mut settings = settings();
    let mut apart = settings.scenarios["call"].clone();
    apart.affinity = Affinity::Session;
    for name in ["mesh", "other-mesh"] {
        settings.scenarios.insert(name.into(), apart.clone());
    }
    let mut world = World::new(settings);
    let told = |world: &World, offer| match world.replies.get(&offer) {
        Some(Err(OfferRefusal::ScenarioOfRoom(scenario))) => Some(scenario.to_string()),
        _ => None,
    };
    let room = world.open("r");
    let refused = world.offer_as("r", "mesh");
    assert_eq!(told(&world, refused).as_deref(), Some("call"));
    world.close(room);
    let first = world.offer_as("r", "mesh");
    let first = world.accepted(first).session;
    for scenario in ["call", "other-mesh"] {
        let refused = world.offer_as("r", scenario);
        assert_eq!(told(&world, refused).as_deref(), Some("mesh"), "{scenario}");
    }
    world.close(first);
    world.open("r");
}

#[test]
fn first_offer_creates_a_shared_room() {
    let mut settings = settings();
    let mut apart = settings.scenarios["call"].clone();
    apart.affinity = Affinity::Session;
    settings.scenarios.insert("mesh".into(), apart);
    let mut world = World::new(settings);
    let creates = |world: &World, scenario: &str| world.gateway.views().creates_room(scenario, "r");
    assert_eq!(["call", "mesh", "unknown"].map(|it| creates(&world, it)), [true, false, false]);
    let room = world.open("r");
    assert!(!creates(&world, "call"));
    world.close(room);
    assert!(creates(&world, "call"));
}

#[test]
fn cold_waiting_time_survives_mode_change() {
    let mut world = cold();
    let session = world.open("r");
    world.kill(A);
    world.pass(ms(40_000));
    assert!(world.gateway.tables.sessions.contains_key(&session), "it is held");
    change(&mut world, |scenario| scenario.mode = RedundancyMode::Hot);
    world.pass(ms(20_000));
    assert!(world.gateway.tables.sessions.contains_key(&session), "it had 20 s of 30");
}

#[test]
fn ended_second_hop_delivers_briefly() {
    let mut world = World::new(in_mode(RedundancyMode::Hitless, settings()));
    world.open("r");
    change(&mut world, |scenario| scenario.mode = RedundancyMode::Cold);
    let route = world.gateway.rooms[&world.room("r")].route();
    let (leaving, until) = route.leaving().expect("a make-before-break");
    assert_eq!(leaving, world.hop(B));
    assert!(until <= world.now + ms(500), "no longer than that");
    world.pass(ms(500));
    assert_eq!(world.closed_at().len(), 1, "and is closed then");
}

#[test]
fn spares_change_while_packets_flow() {
    let mut world = World::new(settings());
    world.open("r");
    change(&mut world, |scenario| scenario.spares = 3);
    assert_eq!((world.route("r").len(), opened_at(&world).len()), (4, 2));
    change(&mut world, |scenario| scenario.spares = 1);
    assert_eq!((world.route("r").len(), world.closed_at().len()), (2, 2));
    assert_eq!(world.stands("r"), Some(A));
}

#[test]
fn a_change_of_many_rooms_is_done_in_turns() {
    let mut world = World::new(settings());
    for room in 0..600 {
        world.open(&room.to_string());
    }
    let mut scenarios = world.gateway.tables.settings.scenarios.clone();
    scenarios.values_mut().for_each(|scenario| scenario.mode = RedundancyMode::Cold);
    world.gateway.handle_scenarios(&scenarios, world.now);
    assert_eq!(world.gateway.tables.worklists.changing.len(), 600 - 256);
    world.pass(ms(2));
    assert!(world.gateway.tables.worklists.changing.is_empty());
}
