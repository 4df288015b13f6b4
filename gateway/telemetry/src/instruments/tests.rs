use evenkeel_control::NodeName;
use evenkeel_model::{Health, NodeId};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ScopeMetrics};

use super::*;
use crate::node_levels::{NodeLevel, NodeLoad};
use crate::registry::Attribute;

#[test]
fn prometheus_uses_base_units() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
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
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
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
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
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

#[test]
fn capacity_left_is_that_of_nodes_that_take_rooms() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    let load = NodeLoad {
        share: 0.25,
        capacity_kbps: 800,
        rooms: 3,
        sessions: Some(6),
        round_trip: None,
        loss: 0.125,
    };
    let node = |number: u32, zone: &str, health, draining| {
        let node = format!("n{number}").into();
        let name = NodeName { node, region: "east".into(), zone: zone.into(), carrier: None };
        (NodeId(number), NodeLevel { name, leaving: false, health, draining, load: Some(load) })
    };
    instruments.nodes().set([
        node(0, "a", Health::Up, false),
        node(1, "a", Health::Suspect, false),
        node(2, "a", Health::Down, false),
        node(3, "b", Health::Up, true),
    ]);
    let text = prometheus.render();
    for line in [
        "evenkeel_zone_capacity_left_bytes_per_second{evenkeel_region=\"east\",evenkeel_zone=\"a\"} 150000",
        "evenkeel_zone_capacity_left_bytes_per_second{evenkeel_region=\"east\",evenkeel_zone=\"b\"} 0",
        "evenkeel_node_sessions{evenkeel_node=\"n0\",evenkeel_region=\"east\",evenkeel_zone=\"a\"} 6",
        "evenkeel_node_loss_ratio{evenkeel_node=\"n0\",evenkeel_region=\"east\",evenkeel_zone=\"a\"} 0.125",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn former_revisions_end() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    for revision in ["0123456789ab", "ba9876543210"] {
        let mut table = LevelTable::new(Level::PolicyRevision);
        let policy = (Attribute::Policy, "call/routing");
        table.add(&[policy, (Attribute::Revision, revision), (Attribute::Arm, "active")], 1.0);
        instruments.replace(table);
        let text = prometheus.render();
        let series: Vec<&str> =
            text.lines().filter(|line| line.starts_with("evenkeel_policy_revision{")).collect();
        let [series] = series[..] else { panic!("{text}") };
        assert!(series.ends_with("} 1"), "{series}");
    }
}

/// Prometheus has no exponential histograms, and OTLP no bounds that would have to fit.
#[test]
fn times_are_exponential_over_otlp_alone() {
    let Meters { providers: _providers, instruments, prometheus, collector } =
        meters(&Resource::builder_empty().build(), true).unwrap();
    let took = Duration::from_millis(15);
    instruments.time(Histogram::Detection, took, &[(Attribute::Node, "east-a1")]);
    instruments.value(Histogram::SessionR, 68.0, &[(Attribute::Scenario, "call")]);
    instruments.level(Level::UplinkSuspect, 1.0, &[]);
    let text = prometheus.render();
    assert!(text.contains("evenkeel_node_detection_duration_seconds_bucket{"), "{text}");
    let mut metrics = ResourceMetrics::default();
    collector.collect(&mut metrics).unwrap();
    let metrics = metrics.scope_metrics().flat_map(ScopeMetrics::metrics);
    let kinds: Vec<(&str, bool)> = metrics
        .filter_map(|metric| match metric.data() {
            AggregatedMetrics::F64(MetricData::ExponentialHistogram(_)) => {
                Some((metric.name(), true))
            }
            AggregatedMetrics::F64(MetricData::Histogram(_)) => Some((metric.name(), false)),
            _ => None,
        })
        .collect();
    let expected =
        [("evenkeel.node.detection.duration", true), ("evenkeel.session.r_factor", false)];
    assert_eq!(kinds, expected);
}
