use tempfile::tempdir;

use super::*;
use crate::crowd::{FaultEffect, NodeDetection};
use crate::tests::small_gateway::{SmallGateway, State};

fn drill(kind: DrillFault) -> DrillPlan {
    let (scenario, flaps_for) = ("call".to_owned(), Duration::from_secs(10));
    DrillPlan { kind, place: None, sessions: 20, scenario, flaps_for, seed: 1 }
}

/// The letter of the name before its number is the zone.
fn node(name: &str, region: &str, rooms: u64, is_up: bool) -> DrillNode {
    let zone = name.trim_end_matches(char::is_numeric).rsplit('-').next().unwrap_or(name);
    let zone = format!("{region}/{zone}");
    DrillNode { name: name.to_owned(), region: region.to_owned(), zone, rooms, is_up }
}

fn world() -> Vec<DrillNode> {
    vec![
        node("east-a1", "east", 3, true),
        node("east-b1", "east", 9, true),
        node("west-a1", "west", 1, true),
        node("west-b1", "west", 20, false),
    ]
}

fn hit(drill: &DrillPlan) -> Vec<String> {
    victims(drill, &world()).unwrap().into_iter().map(|node| node.name).collect()
}

fn refused(drill: &DrillPlan, nodes: &[DrillNode]) -> String {
    victims(drill, nodes).unwrap_err().to_string()
}

#[test]
fn busiest_or_named_node_is_hit() {
    let by_itself = drill(DrillFault::KillNode);
    assert_eq!(hit(&by_itself), ["east-b1"]);
    let named = DrillPlan { place: Some("west-a1".to_owned()), ..by_itself };
    assert_eq!(hit(&named), ["west-a1"]);
}

#[test]
fn lost_place_includes_all_nodes_that_are_up() {
    let by_itself = drill(DrillFault::LoseRegion);
    assert_eq!(hit(&by_itself), ["east-a1", "east-b1"]);
    let named = DrillPlan { place: Some("west".to_owned()), ..by_itself };
    assert_eq!(hit(&named), ["west-a1"]);
    let zone = drill(DrillFault::LoseZone);
    assert_eq!(hit(&zone), ["east-b1"]);
    let named = DrillPlan { place: Some("east/a".to_owned()), ..zone };
    assert_eq!(hit(&named), ["east-a1"]);
}

#[test]
fn impossible_drill_names_the_alternatives() {
    let no_node = DrillPlan { place: Some("north".to_owned()), ..drill(DrillFault::CutLink) };
    let no_region = DrillPlan { place: Some("north".to_owned()), ..drill(DrillFault::LoseRegion) };
    for (unknown, there_is) in [(no_node, "east-a1"), (no_region, "east, west")] {
        let failed = victims(&unknown, &world()).unwrap_err();
        assert!(matches!(failed, DrillError::Unknown(_)), "{failed:?}");
        let words = failed.to_string();
        assert!(words.contains("\"north\"") && words.contains(there_is), "{words}");
    }
    let down = DrillPlan { place: Some("west-b1".to_owned()), ..drill(DrillFault::CutLink) };
    assert!(refused(&down, &world()).contains("not up"));
    let alone = [node("a", "east", 1, true), node("b", "east", 0, false)];
    assert!(refused(&drill(DrillFault::KillNode), &alone).contains("no other node"));
    assert!(refused(&drill(DrillFault::KillNode), &[]).contains("no node"));
    let one_region = [node("a", "east", 1, true), node("b", "east", 0, true)];
    assert!(refused(&drill(DrillFault::LoseRegion), &one_region).contains("no other node"));
}

#[test]
fn sessions_belong_to_the_affected_region() {
    let of = |drill: &DrillPlan| {
        let victims = victims(drill, &world()).unwrap();
        plan(drill, "drill".to_owned(), &victims).labels
    };
    let named = DrillPlan { place: Some("west-a1".to_owned()), ..drill(DrillFault::HangNode) };
    assert_eq!(of(&named)["region"], "west");
    assert_eq!(of(&drill(DrillFault::LoseRegion))["region"], "east");
    assert_eq!(of(&named)["drill"], "hang-node");
}

#[test]
fn sessions_use_the_named_scenario() {
    let live = DrillPlan { scenario: "live".to_owned(), ..drill(DrillFault::Flap) };
    let plan = plan(&live, "drill-1".to_owned(), &[]);
    assert_eq!((&*plan.scenario, &*plan.rooms, plan.sessions), ("live", "drill-1", 20));
}

#[tokio::test]
async fn drill_waits_for_its_regions_breaker_only() {
    let east = [node("east-a1", "east", 1, true)];
    let gateway = SmallGateway::start(0).await;
    gateway.state().open_looks = 1;
    breaker_closed(&mut gateway.admin(), &east, Duration::from_secs(60)).await.unwrap();
    assert_eq!(gateway.state().open_looks, 0);
    gateway.state().open_looks = usize::MAX;
    let never = breaker_closed(&mut gateway.admin(), &east, Duration::ZERO).await.unwrap_err();
    assert!(never.to_string().contains("breaker of region east is open"), "{never}");
}

#[test]
fn drill_without_sessions_breaks_nothing() {
    let words = require_somebody(&BTreeSet::new(), &["a".to_owned()]).unwrap_err().to_string();
    assert!(words.contains("placed on a") && words.contains("nothing was broken"), "{words}");
    require_somebody(&BTreeSet::from([2]), &["a".to_owned()]).unwrap();
}

#[test]
fn missed_fault_and_silent_receiver_are_reported() {
    let nodes = || vec!["a".to_owned(), "b".to_owned()];
    let amiss = |kind, fault: &FaultEffect| {
        let unfault = FaultEffect::default();
        DrillReport::new(&drill(kind), nodes(), 1, fault, &[], &unfault, true).amiss()
    };
    let detections = |nodes: Vec<String>| -> Vec<_> {
        let found = |node| NodeDetection { node, after_ms: 9.0, by_witness: [].into() };
        nodes.into_iter().map(found).collect()
    };
    let found = detections(nodes());
    let found = FaultEffect { hit: 7, detections: found, ..Default::default() };
    assert_eq!(amiss(DrillFault::KillNode, &found), None);
    let silent = FaultEffect { unheard: 2, ..found.clone() };
    assert_eq!(
        amiss(DrillFault::Flap, &silent).unwrap(),
        "2 of 7 receivers got no packets at the end"
    );
    // `a` was down before the fault.
    let (marked_down, detections) = (nodes(), detections(vec!["b".to_owned()]));
    let unseen = FaultEffect { marked_down, detections, ..found };
    assert_eq!(amiss(DrillFault::KillNode, &unseen).unwrap(), "a was never marked down");
    assert_eq!(amiss(DrillFault::Flap, &unseen), None);
}

#[test]
fn each_fault_has_its_repair() {
    use DrillFault::{CutLink, Flap, HangNode, KillNode, LoseRegion, LoseZone};
    let orders = [KillNode, HangNode, CutLink, LoseZone, LoseRegion, Flap].map(|kind| {
        let facts = kind.facts();
        (facts.name, facts.fault, facts.cure, facts.trial)
    });
    assert_eq!(
        orders,
        [
            ("kill-node", "kill", "start", "wake"),
            ("hang-node", "hang", "wake", "wake"),
            ("cut-link", "cut", "heal", "heal"),
            ("lose-zone", "kill", "start", "wake"),
            ("lose-region", "kill", "start", "wake"),
            ("flap", "hang", "wake", "wake"),
        ]
    );
}

#[test]
fn distribution_has_its_ranks() {
    let spread = Milliseconds::of((1..=200).rev().map(f64::from).collect());
    assert_eq!((spread.p50, spread.p90, spread.p99), (Some(100.0), Some(180.0), Some(198.0)));
    assert_eq!((spread.max, spread.n), (Some(200.0), 200));
    let nothing = serde_json::to_value(Milliseconds::of(Vec::new())).unwrap();
    assert_eq!(nothing, json!({"p50": null, "p90": null, "p99": null, "max": null, "n": 0}));
}

#[test]
fn record_skips_a_truncated_line() {
    let folder = tempdir().unwrap();
    let record = DrillRecordFile(folder.path().join("state/drills.jsonl"));
    assert_eq!(record.all().unwrap(), [Value::Null; 0]);
    let report = |nodes: &str| {
        let (fault, unfault) = (FaultEffect::default(), FaultEffect::default());
        let kind = drill(DrillFault::KillNode);
        DrillReport::new(&kind, vec![nodes.to_owned()], 7_000, &fault, &[], &unfault, true)
    };
    record.add(&report("east-a1")).unwrap();
    std::fs::OpenOptions::new()
        .append(true)
        .open(&record.0)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"cut\n"))
        .unwrap();
    record.add(&report("east-b1")).unwrap();
    let nodes: Vec<Value> = record.all().unwrap().iter().map(|it| it["nodes"][0].clone()).collect();
    assert_eq!(nodes, ["east-a1", "east-b1"]);
    assert_eq!(
        record.all().unwrap()[0]["at_us"],
        7,
        "when it was done, not when it was written down"
    );
}

/// A drill at the test gateway, interrupted once `until` holds.
async fn played(
    kind: DrillFault,
    unable: &[(&'static str, u16)],
    ends: impl Fn(&State) -> bool,
) -> (Result<DrillReport, DrillError>, Vec<String>) {
    let gateway = SmallGateway::start(usize::MAX).await;
    gateway.state().unable = unable.to_vec();
    let drill = DrillPlan { flaps_for: Duration::from_millis(1), ..drill(kind) };
    let plan = plan(&drill, "drill-1".to_owned(), &[]);
    let mut crowd = Crowd::enter(&plan, || gateway.admin()).await.unwrap();
    let (mut own, mut rng) = (gateway.admin(), fastrand::Rng::with_seed(1));
    let ends = pin!(gateway.wait(ends));
    let victims = vec!["east-a1".to_owned()];
    let outcome = play(&drill, victims, &mut own, &mut crowd, &mut rng, ends).await;
    let orders = gateway.state().orders.clone();
    (outcome, orders)
}

#[tokio::test]
async fn failed_repair_keeps_the_figures() {
    let (outcome, orders) = played(DrillFault::HangNode, &[("wake", 503)], |_| false).await;
    let report = outcome.unwrap();
    assert_eq!(orders, ["hang east-a1", "wake east-a1", "wake east-a1", "wake east-a1"]);
    assert!(!report.mended && !report.trusted_again);
    // The test gateway forwards no packets.
    assert_eq!((report.hit, report.packets_lost > 0), (10, true), "the figures are kept");
    let words = report.amiss().unwrap();
    let by_hand = "east-a1 is still stopped: POST /v1/nodes/east-a1:break {\"how\": \"wake\"}";
    assert!(words.contains(by_hand) && words.contains("(wake east-a1"), "{words}");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!((&value["mended"], &value["unmended"][0]["is"]), (&json!(false), &json!("stopped")));
}

#[tokio::test]
async fn failed_drill_names_broken_nodes() {
    let (outcome, _) = played(DrillFault::Flap, &[("wake", 503)], |_| false).await;
    let words = outcome.unwrap_err().to_string();
    assert!(words.contains("east-a1 is still stopped") && !words.contains("(break east-a1)"));
    assert!(words.contains("(wake east-a1:"), "{words}");
}

#[tokio::test]
async fn what_was_never_broken_is_not_mended() {
    let (outcome, orders) =
        played(DrillFault::CutLink, &[("cut", 409), ("heal", 409)], |_| false).await;
    assert!(
        matches!(outcome, Err(DrillError::Lab(LabError::Gateway(what, _))) if what == "cut east-a1")
    );
    assert_eq!(orders, ["cut east-a1"]);
}

#[tokio::test]
async fn interrupted_drill_repairs_its_nodes() {
    let (outcome, orders) = played(DrillFault::HangNode, &[], |_| true).await;
    assert!(matches!(outcome, Err(DrillError::Interrupted)) && orders.is_empty());
    let (outcome, orders) =
        played(DrillFault::HangNode, &[], |state| !state.orders.is_empty()).await;
    assert!(matches!(outcome, Err(DrillError::Mended)), "{outcome:?}");
    assert_eq!(orders, ["hang east-a1", "wake east-a1"]);
    let still = [("wake", 503)];
    let (outcome, _) = played(DrillFault::HangNode, &still, |state| !state.orders.is_empty()).await;
    let words = outcome.unwrap_err().to_string();
    assert!(words.contains("interrupted") && !words.contains("have been repaired"), "{words}");
}

#[tokio::test]
async fn forbidden_drill_opens_no_session() {
    for (kind, trial) in [(DrillFault::KillNode, "wake"), (DrillFault::CutLink, "heal")] {
        let gateway = SmallGateway::start(usize::MAX).await;
        gateway.state().unable = vec![(trial, 403)];
        let refused = run(&drill(kind), || gateway.admin()).await.unwrap_err().to_string();
        assert!(refused.starts_with("no drill at east-a1, and no session was opened"), "{refused}");
        let state = gateway.state();
        assert_eq!((state.opened_ever, &state.orders[..]), (0, &[format!("{trial} east-a1")][..]));
    }
}

#[tokio::test]
async fn drill_breaks_the_node_that_it_asked() {
    let gateway = SmallGateway::start(usize::MAX).await;
    gateway.state().unable = vec![("kill", 403)];
    // The sessions of the drill make the node in the west the busiest.
    run(&drill(DrillFault::KillNode), || gateway.admin()).await.unwrap_err();
    assert_eq!(gateway.state().orders, ["wake east-a1", "kill east-a1"]);
}
