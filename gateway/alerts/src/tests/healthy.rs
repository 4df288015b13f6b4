//! A day of series that stay below the limit of each rule, or pass it for less time than the rule waits. The metrics of a simulated day stand in
//! `gateway/server/src/counters/tests/day.rs`.

use std::collections::BTreeSet;

use evenkeel_telemetry::registry::{Count, Described, Histogram, Level};

use super::*;
use crate::history::selects;

/// Evaluations in a minute and an hour.
const MINUTE: u64 = 60 / EVERY.as_secs();
const HOUR: u64 = 60 * MINUTE;

const NODES: u64 = 4;

/// A node dies, and is replaced after ten minutes.
const DEATH: u64 = 5 * HOUR;

const UPGRADE: u64 = 8 * HOUR + 7;

const TAKEOVER: u64 = 12 * HOUR;

/// The series that a gateway writes.
struct Series<'a> {
    /// The metrics that rules read.
    metrics: &'a BTreeSet<&'static str>,
    samples: Vec<MetricSample>,
}

impl Series<'_> {
    /// A series with a value of each label that the registry has for the metric.
    fn add(&mut self, metric: Described, ending: &str, labels: &[&str], value: f64) {
        assert_eq!(labels.len(), metric.attributes.len(), "labels of {}", metric.name);
        let name = metric.prometheus_name() + ending;
        let read = self.metrics.get(&*name).copied();
        let read = read.unwrap_or_else(|| panic!("no rule reads {name}"));
        let names = metric.attributes.iter().map(|attribute| attribute.prometheus_label());
        let labels = names.zip(labels.iter().map(|value| (*value).to_owned())).collect();
        self.samples.push(MetricSample { metric: read, labels, value });
    }

    fn count(&mut self, metric: Count, labels: &[&str], value: f64) {
        self.add(metric.described(), "_total", labels, value);
    }

    fn level(&mut self, metric: Level, labels: &[&str], value: f64) {
        self.add(metric.described(), "", labels, value);
    }

    /// A level that has this value for so many steps of an hour, and is 0 otherwise.
    fn brief(&mut self, metric: Level, labels: &[&str], steps: std::ops::Range<u64>, step: u64) {
        let is_set = steps.contains(&(step % HOUR));
        self.level(metric, labels, f64::from(u8::from(is_set)));
    }

    fn of_sessions(&mut self, step: u64, process: u64) {
        let count = |per_minute: f64| (process as f64 / MINUTE as f64 * per_minute).floor();
        // A few refusals, and once an hour a hundred; many are the client's.
        let bursts = (process + HOUR / 2) / HOUR;
        let full = count(6.0) + 100.0 * bursts as f64;
        self.count(Count::SessionsRefused, &["call", "full"], full);
        self.count(Count::SessionsRefused, &["", "unknown-scenario"], count(1_000.0));
        self.count(Count::SessionsClosed, &["call", "requested"], count(300.0));
        self.count(Count::SessionsClosed, &["call", "panicked"], 0.0);
        self.count(Count::SessionsClosed, &["call", "handshake-failed"], count(0.5));
        let busy = 100.0 + (step % HOUR) as f64 / 10.0;
        self.level(Level::ScenarioSessions, &["call", "east", "a"], busy);
        let impaired = (step % 4) as f64;
        self.level(Level::ScenarioImpaired, &["call", "leg", "east", "a", "n0"], impaired);
        self.level(Level::ScenarioImpaired, &["call", "leg", "", "", "other"], impaired);
        self.level(Level::ScenarioImpaired, &["call", "gateway", "", "", ""], impaired);
        self.level(Level::ScenarioImpaired, &["call", "device", "", "", ""], busy / 4.0);
        // Three users of a hundred hear badly.
        let metric = Histogram::SessionR.described();
        self.add(metric, "_count", &["call", "east", "a"], count(600.0));
        self.add(metric, "_bucket", &["call", "east", "a"], count(18.0));
        let bucket = self.samples.last_mut().unwrap();
        bucket.labels.insert("le".to_owned(), "70".to_owned());
        // Two minutes of each hour burn fast, and the longer windows stay low.
        let burns = if step % HOUR < 2 * MINUTE { 20.0 } else { 0.8 };
        for (window, rate) in [("5m", burns), ("1h", 2.0), ("6h", 0.8), ("30d", 0.8)] {
            self.level(Level::SloBurnRate, &["call", "gap", window], rate);
        }
    }

    fn of_nodes(&mut self, step: u64) {
        for number in 0..NODES {
            let name = format!("n{number}");
            let node = [&*name, "east", "a"];
            // Each is restarted once in six hours: drained, gone for a minute, and back.
            let turn = (step + number * HOUR) % (6 * HOUR);
            if (10 * MINUTE..11 * MINUTE).contains(&turn) {
                continue;
            }
            let died = number == 1 && step >= DEATH;
            let is_down = died && step < DEATH + 10 * MINUTE;
            // Suspect for a moment now and then.
            let health = if step % 97 == number { 1.0 } else { 0.0 };
            self.level(Level::NodeHealth, &node, if is_down { 3.0 } else { health });
            self.level(Level::NodeSessions, &node, 30.0);
            self.level(Level::NodeDraining, &node, f64::from(u8::from(turn < 10 * MINUTE)));
            let is_slow = step % HOUR < MINUTE / 2;
            let delay = if is_slow { 0.4 } else { 0.02 + 0.01 * ((step + number) % 7) as f64 };
            if !is_down {
                self.level(Level::NodeRoundTrip, &node, delay);
            }
            let failures = u8::from(died && step < UPGRADE);
            self.count(Count::NodeFailures, &[&*name], f64::from(failures));
        }
    }

    fn of_the_rest(&mut self, step: u64, process: u64) {
        let count = |per_minute: f64| (process as f64 / MINUTE as f64 * per_minute).floor();
        let totals: [(Count, &[&str], f64); 13] = [
            (Count::RoomsStranded, &["node-down"], 0.0),
            (Count::UplinkSuspicions, &[], 0.0),
            (Count::ClusterRefused, &["secret"], 0.0),
            (Count::PolicyRollouts, &["call/routing", "activated"], 0.01),
            (Count::PolicyRollouts, &["call/routing", "rolled-back"], 0.0),
            (Count::PacketsDropped, &["unknown-source"], 9_000.0),
            (Count::PacketsDropped, &["ring-full"], 0.0),
            (Count::PacketsDropped, &["srtp-forged"], 60.0),
            (Count::OwnStalls, &[], 6.0),
            (Count::NodeMessagesRefused, &["clock"], 0.0),
            (Count::IndexDuplicates, &[], 0.0),
            (Count::ApiTokensRefused, &["wrong"], 0.0),
            (Count::TelemetryDropped, &["spans", "not-taken"], 0.0),
        ];
        for (metric, labels, per_minute) in totals {
            self.count(metric, labels, count(per_minute));
        }
        // Shorter than the times for which these rules wait.
        self.brief(Level::RegionBreaker, &["east"], 100..102, step);
        self.brief(Level::ZoneBreaker, &["east", "a"], 120..122, step);
        self.brief(Level::ClientBreaker, &["carrier", "other"], 200..202, step);
        self.brief(Level::GroupBlocked, &[], 220..222, step);
        self.brief(Level::ProviderBreaker, &["cloud"], 280..291, step);
        self.brief(Level::GroupWarnings, &[], 300..311, step);
        self.brief(Level::PolicyFailing, &["call/routing"], 320..331, step);
        self.brief(Level::DocumentUnwritten, &["policies"], 330..341, step);
        self.brief(Level::LossUnplaced, &["node"], 340..363, step);
        self.brief(Level::LossReduced, &["zone"], 550..669, step);
        self.brief(Level::ForecastWarnings, &["decay"], 370..393, step);
        let exhausted = if (400..423).contains(&(step % HOUR)) { 600.0 } else { -1.0 };
        self.level(Level::ForecastExhausted, &["east"], exhausted);
        let missing: [(Level, &[&str], std::ops::Range<u64>); 4] = [
            (Level::GroupOwned, &[], 240..242),
            (Level::GroupMemberUp, &["edge-2"], 260..265),
            (Level::IndexCurrent, &[], 450..509),
            (Level::DependencyUp, &["idp"], 520..531),
        ];
        for (metric, labels, steps) in missing {
            let is_there = !steps.contains(&(step % HOUR));
            self.level(metric, labels, f64::from(u8::from(is_there)));
        }
        let left = 30 * 24 * HOUR - step;
        let credential = ["quic-certificate", "2027-01-31 09:41 UTC"];
        self.level(Level::CredentialExpiry, &credential, (left * EVERY.as_secs()) as f64);
        self.level(Level::GroupRole, &[], if step < TAKEOVER { 1.0 } else { 4.0 });
    }
}

fn healthy(metrics: &BTreeSet<&'static str>, step: u64) -> Vec<MetricSample> {
    let mut series = Series { metrics, samples: Vec::new() };
    // Steps since the process began: its counters begin with 0.
    let process = if step < UPGRADE { step } else { step - UPGRADE };
    series.of_sessions(step, process);
    series.of_nodes(step);
    series.of_the_rest(step, process);
    series.samples
}

#[test]
fn values_short_of_their_limits_send_no_page() {
    let receivers = [receiver("ops", &AlertTier::ALL)];
    let metrics = Alerts::new(&[]).metrics();
    let fed = healthy(&metrics, 0);
    for rule in RULES {
        for value in rule.condition.values() {
            let is_read = |sample: &MetricSample| {
                sample.metric == value.series.metric && selects(&value.series, &sample.labels)
            };
            assert!(fed.iter().any(is_read), "{} reads no series of the day", rule.name);
        }
    }
    let mut world = World::with(&receivers);
    let mut alerts = BTreeSet::new();
    for step in 0..24 * HOUR {
        if step == UPGRADE {
            world.replace_process(&receivers);
            // The gauges of the new process are not set yet.
            world.samples.clear();
        } else {
            world.samples = healthy(&metrics, step);
        }
        for Received { alert, .. } in world.pass(EVERY) {
            let rule = RULES.iter().find(|rule| rule.name == alert).unwrap();
            assert_ne!(rule.tier, AlertTier::Page, "{alert} after {step} steps");
            alerts.insert(alert);
        }
    }
    // The dead node and the takeover, and nothing else.
    let expected = ["EvenkeelNodeDown", "EvenkeelNodeFailed", "EvenkeelRoleChanged"];
    assert_eq!(alerts.into_iter().collect::<Vec<_>>(), expected);
}
