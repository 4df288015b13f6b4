use evenkeel_config::ScenarioSettings;
use opentelemetry_sdk::Resource;

use super::super::alerts::RULES;
use super::super::alerts::condition::SeriesFunction;
use super::super::instruments::{Meters, meters};
use super::*;

fn settings() -> GatewayConfig {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    let node = "[[node]]\nname = \"east-a1\"\naddress = \"10.0.1.11:5000\"\nregion = \"east\"\nzone = \"a\"\n\
                driver = \"plain\"\ncapacity = \"1 Mbit/s\"\nstart = { command = [\"/bin/media\"] }\n";
    std::fs::write(&file, node).unwrap();
    GatewayConfig::load(Some(&file), None, &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS))
        .unwrap()
}

#[test]
fn series_with_known_labels_begin_with_0() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    instruments.begin(&settings());
    let text = prometheus.render();
    for series in [
        "evenkeel_node_failures_total{evenkeel_node=\"east-a1\"}",
        "evenkeel_rooms_stranded_total{evenkeel_cause=\"node-down\"}",
        "evenkeel_sessions_closed_total{evenkeel_reason=\"panicked\",evenkeel_scenario=\"call\"}",
        "evenkeel_scenario_packets_total{evenkeel_direction=\"up\",evenkeel_scenario=\"call\"}",
        "evenkeel_sessions_opened_total{evenkeel_scenario=\"call\"}",
        "evenkeel_policy_rollouts_total{evenkeel_outcome=\"rolled-back\",evenkeel_policy=\"call/routing\"}",
        "evenkeel_node_starts_total{evenkeel_node=\"east-a1\",evenkeel_outcome=\"refused\"}",
        "evenkeel_node_stops_total{evenkeel_node=\"east-a1\",evenkeel_outcome=\"failed\"}",
        "evenkeel_session_freezes_total{evenkeel_region=\"east\",evenkeel_scenario=\"call\",evenkeel_zone=\"a\"}",
        "evenkeel_scenario_repair_bytes_total{evenkeel_direction=\"up\",evenkeel_repair=\"fec\",evenkeel_scenario=\"call\"}",
        "evenkeel_sessions_refused_total{evenkeel_reason=\"no-node\",evenkeel_scenario=\"call\"}",
        "evenkeel_rooms_moved_total{evenkeel_by=\"native\",evenkeel_cause=\"link\"}",
        "media_packets_dropped_total{evenkeel_reason=\"shed\"}",
        "media_packets_total{evenkeel_direction=\"up\"}",
        "evenkeel_event_loop_stalls_total",
    ] {
        let line = format!("{series} 0");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn panicked_sessions_of_many_scenarios_begin_with_0() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    let mut settings = settings();
    let scenarios = &mut settings.sets[0].scenarios;
    let call = scenarios[0].clone();
    scenarios.extend((0..200).map(|number| {
        let name = format!("s{number}").into();
        ScenarioSettings { name, ..call.clone() }
    }));
    instruments.begin(&settings);
    let text = prometheus.render();
    let closed = text.lines().filter(|line| line.starts_with("evenkeel_sessions_closed_total{"));
    let closed: Vec<&str> = closed.collect();
    assert!(closed.len() > 200, "{closed:#?}");
    assert!(closed.iter().all(|line| line.contains("\"panicked\"")), "{closed:#?}");
}

#[test]
fn series_that_exist_go_on() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    instruments.count(Count::NodeFailures, 3, &[(Attribute::Node, "east-a1")]);
    instruments.begin(&settings());
    let line = "evenkeel_node_failures_total{evenkeel_node=\"east-a1\"} 3";
    let text = prometheus.render();
    assert!(text.lines().any(|found| found == line), "{text}");
}

/// Otherwise the first event fires no alert.
#[test]
fn counters_of_alerts_begin_with_0() {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    instruments.begin(&settings());
    let text = prometheus.render();
    let values = RULES.iter().flat_map(|rule| rule.condition.values());
    let counters: Vec<&str> = values
        .filter(|value| matches!(value.function, SeriesFunction::Increase(_)))
        .map(|value| value.series.metric)
        .collect();
    assert!(counters.len() >= 9, "{counters:?}");
    // The member of a group begins its own.
    for counter in counters.into_iter().filter(|it| *it != "evenkeel_cluster_refused_total") {
        let begins = |line: &str| line.starts_with(counter) && line.ends_with(" 0");
        assert!(text.lines().any(begins), "{counter} does not begin\n{text}");
    }
}
