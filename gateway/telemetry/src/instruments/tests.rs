use evenkeel_control::NodeName;
use evenkeel_model::{Health, NodeId};

use super::*;
use crate::node_levels::NodeLevel;

#[test]
fn prometheus_uses_base_units() {
    let (_provider, instruments, prometheus, _) =
        meters(Resource::builder_empty().build()).unwrap();
    instruments.count(Count::SessionsOpened, 2, &[(Attribute::Scenario, "call")]);
    instruments.level(Level::RegionBreaker, 1.0, &[(Attribute::Region, "east")]);
    instruments.time(
        Histogram::Detection,
        Duration::from_millis(15),
        &[(Attribute::Node, "east-a1")],
    );
    let text = prometheus.render();
    for line in [
        "# HELP evenkeel_sessions_opened_total Sessions opened.",
        "evenkeel_sessions_opened_total{evenkeel_scenario=\"call\"} 2",
        "evenkeel_region_breaker{evenkeel_region=\"east\"} 1",
        "evenkeel_node_detection_duration_seconds_bucket{evenkeel_node=\"east-a1\",le=\"0.02\"} 1",
        "evenkeel_node_detection_duration_seconds_bucket{evenkeel_node=\"east-a1\",le=\"0.01\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn levels_of_a_removed_node_end() {
    let (_provider, instruments, prometheus, _) =
        meters(Resource::builder_empty().build()).unwrap();
    let nodes = instruments.nodes();
    let levels = || -> Vec<String> {
        let text = prometheus.render();
        let of_nodes = text.lines().filter(|line| line.starts_with("evenkeel_node_"));
        let place = ",evenkeel_region=\"east\",evenkeel_zone=\"z\"";
        of_nodes.map(|line| line.replace(place, "").replace("evenkeel_node", "")).collect()
    };
    let name =
        || NodeName { node: "a".into(), region: "east".into(), zone: "z".into(), carrier: None };
    nodes.health(NodeId(0), name(), Health::Up);
    nodes.draining(NodeId(0), name(), true);
    assert_eq!(levels(), ["_draining{=\"a\"} 1", "_health{=\"a\"} 0"]);
    // A removed node and its replacement may have the same name: the replacement's values are reported.
    let level = |leaving, health, draining| NodeLevel {
        name: name(),
        leaving,
        health,
        draining,
        load: None,
    };
    let new = (NodeId(0), level(false, Health::Up, false));
    nodes.set([new, (NodeId(1), level(true, Health::Down, true))]);
    nodes.draining(NodeId(1), name(), true);
    assert_eq!(levels(), ["_draining{=\"a\"} 0", "_health{=\"a\"} 0"]);
    nodes.remove_node(NodeId(0));
    assert_eq!(levels(), ["_draining{=\"a\"} 1", "_health{=\"a\"} 3"]);
    nodes.remove_node(NodeId(1));
    assert_eq!(levels(), [""; 0]);
}

#[test]
fn samples_are_those_of_the_chosen_metrics() {
    let (_provider, instruments, prometheus, _) =
        meters(Resource::builder_empty().build()).unwrap();
    instruments.count(Count::NodeFailures, 2, &[(Attribute::Node, "east-a1")]);
    instruments.level(Level::UplinkSuspect, 1.0, &[]);
    instruments.level(Level::IndexCurrent, 1.0, &[]);
    instruments.value(Histogram::SessionR, 68.0, &[(Attribute::Scenario, "call")]);
    let chosen = [
        "evenkeel_node_failures_total",
        "evenkeel_uplink_suspect",
        "evenkeel_session_r_factor_bucket",
        "evenkeel_session_r_factor_count",
    ];
    let samples = prometheus.samples(&chosen.into());
    let value = |metric: &str, labels: &[(&str, &str)]| {
        let labels: SeriesLabels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = samples.iter().find(|it| it.metric == metric && it.labels == labels);
        found.map(|it| it.value)
    };
    assert_eq!(value(chosen[0], &[("evenkeel_node", "east-a1")]), Some(2.0));
    assert_eq!(value(chosen[1], &[]), Some(1.0));
    let scenario = ("evenkeel_scenario", "call");
    assert_eq!(value(chosen[2], &[scenario, ("le", "70")]), Some(1.0));
    assert_eq!(value(chosen[2], &[scenario, ("le", "65")]), Some(0.0));
    assert_eq!(value(chosen[3], &[scenario]), Some(1.0));
    assert!(samples.iter().all(|it| chosen.contains(&it.metric)));
}
