//! A world of three regions: the home region `east` with two zones, `west` far away, and `south` farther.

use evenkeel_plugin_sdk::Metric::{
    Age, Capacity, Decay, Delay, Draining, Health, Load, LossNode, LossUp, Rooms, RttClient,
};
use evenkeel_plugin_sdk::trial::{Room, Trial, World};

use super::*;

mod herd;
mod talk;

const DOWN: u32 = 3;
const WARY: u32 = 2;
const SUSPECT: u32 = 1;

fn world() -> World {
    let near = |delay| [(Delay, delay), (Load, 100), (LossNode, 0), (Health, 0), (Draining, 0)];
    World::around("east")
        .node("east-a1", "east", "a", &near(1_000))
        .node("east-a2", "east", "a", &near(10_000))
        .node("east-b1", "east", "b", &near(4_000))
        .node("west-a1", "west", "a", &near(30_000))
        .node("west-b1", "west", "b", &near(34_000))
        .node("south-a1", "south", "a", &near(60_000))
}

fn trial(settings: &str) -> Trial<RouteNearest> {
    Trial::of(RouteNearest::parse(settings).unwrap(), world())
}

/// Places a room in the trial's world.
fn placed(trial: &mut Trial<RouteNearest>) -> Room<Stay> {
    let placed = trial.place(1, &[]);
    Room { room: 1, measured: vec![(Age, 0)], standing: placed.hops, state: placed.state }
}

fn first(trial: &mut Trial<RouteNearest>) -> String {
    first_of(trial, 1)
}

fn first_of(trial: &mut Trial<RouteNearest>, room: u64) -> String {
    trial.place(room, &[]).hops.remove(0)
}

fn reroute(trial: &mut Trial<RouteNearest>, room: &mut Room<Stay>) -> Option<u32> {
    trial.reroute(std::slice::from_mut(room)).first().map(|&(_, why)| why)
}

#[test]
fn spares_are_in_other_zones_then_regions() {
    let placed = trial("{}").place(1, &[]);
    assert_eq!(placed.hops, ["east-a1", "east-b1", "west-a1"]);
    assert_eq!(placed.reason, PlacementReason::Nearest.number());
    assert_eq!(placed.ask_again_after, Duration::from_secs(10));
}

#[test]
fn nodes_of_used_zones_come_last() {
    let hops = trial(r#"{"spares": 3}"#).place(1, &[]).hops;
    assert_eq!(hops, ["east-a1", "east-b1", "west-a1", "west-b1"]);
    let mut small = trial(r#"{"spares": 3}"#);
    small.world = World::around("east")
        .node("a1", "east", "a", &[(Delay, 1_000)])
        .node("a2", "east", "a", &[(Delay, 5_000)])
        .node("west", "west", "a", &[(Delay, 30_000)]);
    assert_eq!(small.place(1, &[]).hops, ["a1", "west", "a2"]);
}

#[test]
fn region_label_overrides_the_gateways_region() {
    let mut trial = trial("{}");
    let hops = trial.place(1, &[("region", "south")]).hops;
    assert_eq!(hops[0], "east-a1", "60 ms of delay exceed the 40 of a region");
    trial.world.measure("south-a1", Delay, 40_000);
    let hops = trial.place(1, &[("region", "south")]).hops;
    assert_eq!(hops[0], "south-a1", "40 ms are less than 1 + 40");
    assert_eq!(trial.place(1, &[("region", "atlantis")]).hops[0], "east-a1");
}

#[test]
fn zone_label_is_worth_its_cost() {
    let mut trial = trial(r#"{"equal_cost_within": 0}"#);
    trial.world.measure("east-b1", Delay, 2_900);
    assert_eq!(trial.place(1, &[("zone", "b")]).hops[0], "east-b1");
    trial.world.measure("east-b1", Delay, 3_100);
    assert_eq!(trial.place(1, &[("zone", "b")]).hops[0], "east-a1");
}

#[test]
fn down_or_draining_node_gets_no_room() {
    for (metric, value) in [(Health, DOWN), (Draining, 1)] {
        let mut trial = trial(r#"{"spares": 3}"#);
        trial.world.measure("east-a1", metric, value);
        let hops = trial.place(1, &[]).hops;
        assert_eq!(hops[0], "east-b1");
        assert!(!hops.contains(&"east-a1".to_owned()));
    }
}

#[test]
fn no_usable_node_means_abstention() {
    let mut trial = trial("{}");
    trial.world = World::around("east").node("a1", "east", "a", &[(Health, DOWN)]);
    assert!(trial.place(1, &[]).hops.is_empty());
    let state = trial.open_room(1, &[]);
    let mut room = Room { room: 1, measured: vec![], standing: vec!["a1".into()], state };
    assert_eq!(reroute(&mut trial, &mut room), None);
}

#[test]
fn suspect_node_is_the_last_resort() {
    let mut trial = trial("{}");
    trial.world.measure("east-a1", Health, SUSPECT);
    assert_eq!(first(&mut trial), "east-b1");
    trial.world = World::around("east").node("a1", "east", "a", &[(Health, SUSPECT)]);
    assert_eq!(first(&mut trial), "a1");
}

#[test]
fn full_node_is_the_last_resort() {
    let mut trial = trial(r#"{"full_at": 0.9, "load_weight": 0}"#);
    trial.world.measure("east-a1", Load, 899);
    assert_eq!(first(&mut trial), "east-a1");
    trial.world.measure("east-a1", Load, 900);
    assert_eq!(first(&mut trial), "east-b1");
    trial.world = World::around("east").node("a1", "east", "a", &[(Load, 1000)]);
    assert_eq!(first(&mut trial), "a1");
}

#[test]
fn full_node_is_the_last_spare() {
    let mut trial = trial(r#"{"full_at": 0.9}"#);
    trial.world.measure("east-b1", Load, 900);
    assert_eq!(trial.place(1, &[]).hops, ["east-a1", "west-a1", "west-b1"]);
    trial.world.measure("east-b1", Load, 899);
    assert_eq!(trial.place(1, &[]).hops[1], "east-b1");
}

#[test]
fn loss_costs_by_its_weight() {
    let mut trial = trial(r#"{"loss_weight": 8, "equal_cost_within": 0}"#);
    trial.world.measure("east-a1", LossNode, 3_700);
    assert_eq!(first(&mut trial), "east-a1", "0.37 % cost 2.96 ms, east-b1 is 3 ms farther");
    trial.world.measure("east-a1", LossNode, 3_800);
    assert_eq!(first(&mut trial), "east-b1", "0.38 % cost 3.04 ms");
}

#[test]
fn load_costs_by_its_square() {
    let mut trial = trial(r#"{"load_weight": 20, "equal_cost_within": 0}"#);
    trial.world.measure("east-a1", Load, 390);
    assert_eq!(first(&mut trial), "east-a1", "3.04 ms against 3.2");
    trial.world.measure("east-a1", Load, 410);
    assert_eq!(first(&mut trial), "east-b1", "3.36 ms against 3.2");
}

#[test]
fn recently_recovered_node_costs_more() {
    let mut trial = trial(r#"{"wary_cost": 2, "equal_cost_within": 0}"#);
    trial.world.measure("east-a1", Health, WARY);
    assert_eq!(first(&mut trial), "east-a1");
    trial = self::trial(r#"{"wary_cost": 4, "equal_cost_within": 0}"#);
    trial.world.measure("east-a1", Health, WARY);
    assert_eq!(first(&mut trial), "east-b1");
}

#[test]
fn room_leaves_decaying_node_unless_that_costs_nothing() {
    let leaves = Some(PlacementReason::Better.number());
    for (settings, moves) in [(r#"{"decay_cost": 0}"#, None), ("{}", leaves)] {
        let mut trial = trial(settings);
        let mut room = placed(&mut trial);
        trial.world.measure("east-a1", Decay, 500);
        trial.pass(Duration::from_secs(31));
        assert_eq!(reroute(&mut trial, &mut room), moves);
        assert_eq!(room.standing[0], if moves.is_none() { "east-a1" } else { "east-b1" });
    }
}

#[test]
fn unmeasured_node_is_far() {
    let mut trial = trial("{}");
    trial.world = trial.world.clone().node("new", "east", "c", &[]);
    assert_eq!(first(&mut trial), "east-a1");
}

#[test]
fn rooms_spread_stably_over_equivalent_nodes() {
    let mut trial = trial(r#"{"equal_cost_within": 3}"#);
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for room in 0..1_000 {
        let hop = trial.place(room, &[]).hops.remove(0);
        assert_eq!(hop, trial.place(room, &[]).hops[0]);
        *counts.entry(hop).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().collect();
    let [(a, on_a), (b, on_b)] = &counts[..] else { panic!("{counts:?}") };
    assert_eq!([a, b], ["east-a1", "east-b1"]);
    assert!(*on_a > 400 && *on_b > 400, "{counts:?}");
    trial.world.measure("east-b1", Delay, 4_100);
    assert!((0..100).all(|room| trial.place(room, &[]).hops[0] == "east-a1"), "3.1 ms apart");
}

#[test]
fn state_of_the_first_revision_is_migrated() {
    let first =
        RoomStateV1 { region: Some(2), zone: None, node: Some(7), since: Duration::from_secs(9) };
    let expected = Stay {
        region: Some(2),
        zone: None,
        node: Some(7),
        since: Duration::from_secs(9),
        poor_since: None,
    };
    assert_eq!(evenkeel_plugin_sdk::trial::migrate::<Stay>(1, &first), Some(expected));
    assert_eq!(evenkeel_plugin_sdk::trial::migrate::<Stay>(7, &first), None);
}

#[test]
fn room_stays_after_failover_with_a_new_spare() {
    let mut trial = trial("{}");
    let mut room = placed(&mut trial);
    trial.world.measure("east-a1", Health, DOWN);
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::SpareRestored.number()));
    assert_eq!(room.standing, ["east-b1", "east-a2", "west-a1"]);
    assert_eq!(reroute(&mut trial, &mut room), None, "replaced once");
}

#[test]
fn lost_spare_is_replaced() {
    let mut trial = trial("{}");
    let mut room = placed(&mut trial);
    trial.world.measure("west-a1", Health, DOWN);
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::SpareRestored.number()));
    assert_eq!(room.standing, ["east-a1", "east-b1", "west-b1"]);
}

#[test]
fn spare_stays_despite_a_cheaper_equal() {
    let mut trial = trial("{}");
    let mut room = placed(&mut trial);
    trial.world.measure("west-b1", Delay, 5_000);
    assert_eq!(reroute(&mut trial, &mut room), None);
    trial.world.measure("west-a1", Load, 1_000);
    trial.world.measure("east-b1", Health, SUSPECT);
    assert_eq!(reroute(&mut trial, &mut room), None, "its capacity is reserved");
}

#[test]
fn room_without_hops_is_placed_like_a_new_one() {
    let mut trial = trial("{}");
    let mut room = placed(&mut trial);
    for node in ["east-a1", "east-b1", "west-a1"] {
        trial.world.measure(node, Health, DOWN);
    }
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::RouteLost.number()));
    assert_eq!(room.standing, ["east-a2", "west-b1", "south-a1"]);
}

#[test]
fn room_leaves_a_draining_node_for_the_best() {
    let mut trial = trial("{}");
    let mut room = placed(&mut trial);
    room.standing = vec!["east-a1".into(), "west-a1".into(), "south-a1".into()];
    trial.world.measure("east-a1", Draining, 1);
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::NodeDraining.number()));
    assert_eq!(room.standing, ["east-b1", "east-a2", "west-a1"]);
}

#[test]
fn move_for_quality_needs_a_clear_gain() {
    let settings = r#"{"hysteresis": 0.2, "min_stay": "30s", "load_weight": 0}"#;
    for (delay, moves) in [(4_900, None), (5_100, Some(PlacementReason::Better.number()))] {
        let mut trial = trial(settings);
        let mut room = placed(&mut trial);
        trial.pass(Duration::from_secs(30));
        trial.world.measure("east-a1", Delay, delay);
        trial.world.measure("east-b1", Delay, 4_000);
        trial.world.measure("east-b1", Load, 100);
        assert_eq!(reroute(&mut trial, &mut room), None, "{delay}: within the noise of 2 ms");
        trial.world.measure("east-a1", Delay, delay * 10);
        trial.world.measure("east-b1", Delay, 40_000);
        trial.world.measure("east-a2", Delay, 200_000);
        for node in ["west-a1", "west-b1", "south-a1"] {
            trial.world.measure(node, Delay, 100_000);
        }
        assert_eq!(reroute(&mut trial, &mut room), moves, "{delay}");
    }
}

#[test]
fn move_for_quality_needs_a_stay() {
    for (stay, moves) in [(29_999, None), (30_000, Some(PlacementReason::Better.number()))] {
        let mut trial = trial(r#"{"min_stay": "30s"}"#);
        let mut room = placed(&mut trial);
        trial.world.measure("east-a1", Delay, 50_000);
        trial.pass(Duration::from_millis(stay));
        assert_eq!(reroute(&mut trial, &mut room), moves, "{stay}");
    }
}

#[test]
fn move_restarts_the_stay() {
    let mut trial = trial(r#"{"min_stay": "30s"}"#);
    let mut room = placed(&mut trial);
    trial.pass(Duration::from_secs(30));
    trial.world.measure("east-a1", Delay, 50_000);
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::Better.number()));
    trial.world.measure("east-a1", Delay, 1_000);
    trial.world.measure("east-b1", Delay, 50_000);
    trial.pass(Duration::from_millis(29_999));
    assert_eq!(reroute(&mut trial, &mut room), None);
    trial.pass(Duration::from_millis(1));
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::Better.number()));
}

#[test]
fn failover_restarts_the_stay() {
    let mut trial = trial(r#"{"min_stay": "30s"}"#);
    let mut room = placed(&mut trial);
    trial.pass(Duration::from_secs(100));
    trial.world.measure("east-a1", Health, DOWN);
    reroute(&mut trial, &mut room);
    trial.world.measure("east-a1", Health, 0);
    trial.pass(Duration::from_secs(29));
    reroute(&mut trial, &mut room);
    assert_eq!(room.standing[0], "east-b1");
    trial.pass(Duration::from_secs(1));
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::Better.number()));
    assert_eq!(room.standing[0], "east-a1", "back on the nearest");
}

#[test]
fn stay_of_a_foreign_room_starts_at_its_opening() {
    for (age, first) in [(29_000, "south-a1"), (31_000, "east-a1")] {
        let mut trial = trial(r#"{"min_stay": "30s"}"#);
        let state = trial.open_room(1, &[]);
        let standing = vec!["south-a1".into(), "west-a1".into()];
        let mut room = Room { room: 1, measured: vec![(Age, age)], standing, state };
        reroute(&mut trial, &mut room);
        assert_eq!(room.standing[0], first, "{age}");
        assert_eq!(room.standing.len(), 3, "with all its spares");
    }
}

#[test]
fn time_in_the_future_counts_from_now() {
    let mut trial = trial(r#"{"min_stay": "30s"}"#);
    let mut room = placed(&mut trial);
    room.state.since = Duration::from_secs(1_000_000);
    trial.world.measure("east-a1", Delay, 50_000);
    reroute(&mut trial, &mut room);
    trial.pass(Duration::from_secs(30));
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::Better.number()));
}

#[test]
fn room_on_a_suspect_waits_for_the_detector() {
    let mut trial = trial("{}");
    let mut room = placed(&mut trial);
    trial.pass(Duration::from_secs(60));
    trial.world.measure("east-a1", Delay, 50_000);
    trial.world.measure("east-a1", Health, SUSPECT);
    assert_eq!(reroute(&mut trial, &mut room), None);
}

#[test]
fn no_move_for_quality_to_a_full_node() {
    let mut trial = trial(r#"{"load_weight": 0}"#);
    let mut room = placed(&mut trial);
    trial.pass(Duration::from_secs(60));
    trial.world = World::around("east")
        .node("east-a1", "east", "a", &[(Delay, 50_000), (Load, 1_000)])
        .node("east-b1", "east", "b", &[(Delay, 1_000), (Load, 1_000)]);
    room.standing = vec!["east-a1".into(), "east-b1".into()];
    assert_eq!(reroute(&mut trial, &mut room), None);
    trial.world.measure("east-b1", Load, 100);
    assert_eq!(reroute(&mut trial, &mut room), Some(PlacementReason::Better.number()));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let error = |settings| RouteNearest::parse(settings).unwrap_err();
    assert_eq!(error(r#"{"spares": 4}"#), "spares: 4 is above 3");
    assert_eq!(error(r#"{"hysteresis": -0.1}"#), "hysteresis: -0.1 is below 0");
    assert!(error(r#"{"delay_wait": 1}"#).starts_with("delay_wait: there is no such setting"));
}
