//! A day of healthy traffic.

use std::collections::BTreeSet;

use super::*;

/// Interval of evaluations in this test. A day has too many of the real one.
const STEP: Duration = Duration::from_secs(15);

const NODES: u64 = 4;

/// A series with its value after some steps.
fn sample(metric: &'static str, labels: &[(&str, &str)], value: f64) -> MetricSample {
    let labels =
        labels.iter().map(|(name, value)| (format!("evenkeel_{name}"), (*value).to_owned()));
    MetricSample { metric, labels: labels.collect(), value }
}

/// Normal values of all metrics that rules read, `step` steps after the start.
fn healthy(step: u64) -> Vec<MetricSample> {
    let count = |per_step: f64| (step as f64 * per_step).floor();
    let busy = 100.0 + (step % 40) as f64;
    let mut all = vec![
        sample("evenkeel_rooms_stranded_total", &[("cause", "node-down")], 0.0),
        // A refusal now and then, and many that are the client's.
        sample("evenkeel_sessions_refused_total", &[("reason", "full")], count(0.2)),
        sample("evenkeel_sessions_refused_total", &[("reason", "unknown-scenario")], count(90.0)),
        sample("evenkeel_region_breaker", &[("region", "east")], 0.0),
        sample("evenkeel_zone_breaker", &[("region", "east"), ("zone", "a")], 0.0),
        sample("evenkeel_client_breaker", &[("label", "carrier"), ("label_value", "ct")], 0.0),
        sample("evenkeel_forecast_exhausted_seconds", &[("region", "east")], -1.0),
        sample("evenkeel_forecast_warnings", &[("reason", "decay")], 0.0),
        sample("evenkeel_uplink_suspect", &[], 0.0),
        sample("evenkeel_scenario_sessions", &[("scenario", "call")], busy),
        sample(
            "evenkeel_scenario_impaired",
            &[("scenario", "call"), ("segment", "leg")],
            (step % 4) as f64,
        ),
        sample(
            "evenkeel_scenario_impaired",
            &[("scenario", "call"), ("segment", "device")],
            busy / 4.0,
        ),
        sample("evenkeel_provider_breaker", &[("provider", "cloud")], 0.0),
        sample("evenkeel_group_warnings", &[], 0.0),
        sample("evenkeel_group_blocked", &[], 0.0),
        sample("evenkeel_group_owned", &[], 1.0),
        sample("evenkeel_group_member_up", &[("gateway", "edge-2")], 1.0),
        sample(
            "evenkeel_credential_expiry_seconds",
            &[("credential", "quic-certificate")],
            30.0 * 86_400.0 - (step * STEP.as_secs()) as f64,
        ),
        sample("evenkeel_loss_unplaced", &[("scope", "node")], 0.0),
        sample("evenkeel_cluster_refused_total", &[("reason", "secret")], 0.0),
        sample("evenkeel_policy_failing", &[("policy", "call/routing")], 0.0),
        sample("evenkeel_policy_rollouts_total", &[("outcome", "activated")], count(0.01)),
        sample("evenkeel_policy_rollouts_total", &[("outcome", "rolled-back")], 0.0),
        sample("evenkeel_sessions_closed_total", &[("reason", "closed")], count(30.0)),
        sample("evenkeel_sessions_closed_total", &[("reason", "panicked")], 0.0),
        sample("media_packets_dropped_total", &[("reason", "unknown-source")], count(500.0)),
        sample("media_packets_dropped_total", &[("reason", "ring-full")], 0.0),
        sample("evenkeel_event_loop_stalls_total", &[], count(0.5)),
        sample("evenkeel_node_messages_refused_total", &[("reason", "clock")], 0.0),
        sample("evenkeel_index_current", &[], 1.0),
        sample("evenkeel_index_duplicates_total", &[], 0.0),
        sample("evenkeel_dependency_up", &[("dependency", "idp")], 1.0),
        sample("evenkeel_group_role", &[], 4.0),
        sample("evenkeel_api_tokens_refused_total", &[("reason", "wrong")], 0.0),
        sample("evenkeel_telemetry_dropped_total", &[("signal", "spans")], 0.0),
    ];
    // Some users hear badly, three of a hundred.
    for (metric, labels, per_step) in [
        ("evenkeel_session_r_factor_bucket", vec![("scenario", "call")], 3.0),
        ("evenkeel_session_r_factor_count", vec![("scenario", "call")], 100.0),
    ] {
        let mut values = sample(metric, &labels, count(per_step));
        if metric.ends_with("bucket") {
            values.labels.insert("le".to_owned(), "70".to_owned());
        }
        all.push(values);
    }
    for window in ["5m", "1h", "6h", "30d"] {
        let labels = [("scenario", "call"), ("slo", "gap"), ("window", window)];
        // A minute of each hour burns fast, and the long windows stay low.
        let is_spike = window == "5m" && step % 240 < 4;
        all.push(sample("evenkeel_slo_burn_rate", &labels, if is_spike { 20.0 } else { 0.8 }));
    }
    for number in 0..NODES {
        let name = format!("n{number}");
        let node = [("node", name.as_str())];
        // Suspect for a moment now and then, and drained for half an hour each day.
        let health = if step % 97 == number { 1.0 } else { 0.0 };
        let drained = (step + 960 * number) % 5_760 < 120;
        let delay = 0.02 + 0.01 * ((step + number) % 7) as f64;
        all.push(sample("evenkeel_node_health", &node, health));
        all.push(sample("evenkeel_node_draining", &node, f64::from(u8::from(drained))));
        all.push(sample("evenkeel_node_round_trip_seconds", &node, delay));
        all.push(sample("evenkeel_node_failures_total", &node, 0.0));
    }
    all
}

#[test]
fn day_of_healthy_traffic_has_no_alert() {
    let mut alerts = Alerts::new(&[receiver("ops", &AlertTier::ALL)]);
    let fed: BTreeSet<&str> = healthy(0).iter().map(|sample| sample.metric).collect();
    assert_eq!(fed, alerts.metrics(), "all metrics that rules read");
    let mut at = Moment { now: Instant::now(), wall: SystemTime::UNIX_EPOCH };
    for step in 0..24 * 3_600 / STEP.as_secs() {
        alerts.evaluate(healthy(step), at);
        assert_eq!(alerts.view().alerts, [], "step {step}");
        assert_eq!(alerts.deliveries(at.now, true), [], "step {step}");
        at = Moment { now: at.now + STEP, wall: at.wall + STEP };
    }
}
