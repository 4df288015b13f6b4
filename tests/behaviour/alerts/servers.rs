//! Prometheus and Alertmanager, as Debian has them, and the receiver of their alerts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_lab::process::ChildProcess;
use evenkeel_telemetry::alerts::rules_file;
use evenkeel_testkit::http::{HttpSink, http_get};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::harness::{Hosts, SECRET, TIMEOUT, wait_until};

const PROMETHEUS: u16 = 9_090;
pub(super) const ALERTMANAGER: u16 = 9_093;
const RECEIVER: u16 = 9_095;

/// A part of each duration of the rules, and the limits of the result in seconds. Counters are read each second, and sessions each ten.
const PART: u64 = 20;
const SECONDS_MIN: u64 = 1;
const SECONDS_MAX: u64 = 20;

/// The rules with shorter times: no test waits for ten minutes. The values of labels stay, such as the windows of burn rates, which are the
/// gateway's.
fn shortened(rules: &str) -> String {
    let lines = rules.lines().map(|line| match line.trim_start().split_once(':') {
        Some(("for", _)) => shortened_times(line),
        Some(("expr", _)) => {
            // Each second part is the value of a label.
            let parts = line.split('"').enumerate();
            let parts = parts.map(|(number, part)| match number % 2 {
                0 => shortened_times(part),
                _ => part.to_owned(),
            });
            parts.collect::<Vec<_>>().join("\"")
        }
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

/// The text with shorter durations: those in brackets, and those after `offset` and `for:`.
fn shortened_times(text: &str) -> String {
    let (mut short, mut rest) = (String::new(), text);
    loop {
        let marks = ["[", "offset ", "for: "].into_iter();
        let found = marks.filter_map(|mark| Some(rest.find(mark)? + mark.len())).min();
        let Some(at) = found else { return short + rest };
        let (before, after) = rest.split_at(at);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (duration, tail) = after.split_at(end);
        short.push_str(before);
        short.push_str(&shortened_duration(duration));
        rest = tail;
    }
}

/// A shorter duration of PromQL; 0 stays.
fn shortened_duration(text: &str) -> String {
    let units = BTreeMap::from([("s", 1), ("m", 60), ("h", 3_600)]);
    let (number, unit) = text.split_at(text.len() - 1);
    match number.parse::<u64>().unwrap() * units[unit] {
        0 => text.to_owned(),
        seconds => format!("{}s", (seconds / PART).clamp(SECONDS_MIN, SECONDS_MAX)),
    }
}

#[test]
fn times_of_rules_are_shortened() {
    let rules = shortened(
        "  - alert: X\n    expr: 'rate(a{b=\"5m\"}[2m]) > 14.4 + avg_over_time(c[1h] offset 5m)'\n    for: 10s\n",
    );
    let expected = "  - alert: X\n    expr: 'rate(a{b=\"5m\"}[6s]) > 14.4 + avg_over_time(c[20s] offset 15s)'\n    for: 1s\n";
    assert_eq!(rules, expected);
    let all = shortened(&rules_file());
    assert!(all.contains("for: 0s") && all.contains("evenkeel_window=\"6h\""), "{all}");
    assert!(!all.contains("[5m]") && !all.contains("for: 1m"), "{all}");
}

/// An alert in a notice of Alertmanager.
#[derive(Clone, Debug)]
pub(super) struct Noticed {
    pub(super) at: Instant,
    pub(super) is_firing: bool,
    pub(super) labels: BTreeMap<String, String>,
}

impl Noticed {
    pub(super) fn alert(&self) -> &str {
        &self.labels["alertname"]
    }

    /// The gateway from which Prometheus read the series; `None` for an alert that a gateway sent.
    pub(super) fn instance(&self) -> Option<&str> {
        self.labels.get("instance").map(String::as_str)
    }
}

/// Prometheus, which scrapes gateways, and Alertmanager behind it, at the host of the client.
pub(super) struct Servers<'a> {
    place: &'a Hosts,
    receiver: HttpSink,
    processes: [ChildProcess; 2],
    _folder: TempDir,
}

impl<'a> Servers<'a> {
    /// Starts both, and waits until all gateways are scraped. `later` is scraped, too, once it is there.
    pub(super) fn start(
        place: &'a Hosts,
        gateways: &[SocketAddr],
        later: SocketAddr,
    ) -> Servers<'a> {
        let folder = tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let _inside = place.client.enter().unwrap();
        let at = |port| address(place, port);
        let receiver = HttpSink::start(at(RECEIVER));
        let alertmanager = write(
            "alertmanager.yml",
            &format!(
                "route: {{receiver: test, group_by: ['...'], group_wait: 100ms, group_interval: 1s, repeat_interval: 1h}}\n\
                 receivers:\n- name: test\n  webhook_configs: [{{url: 'http://{}/', send_resolved: true}}]\n",
                receiver.address()
            ),
        );
        let mut command = Command::new("prometheus-alertmanager");
        command.arg("--config.file").arg(alertmanager);
        command.arg("--storage.path").arg(folder.path().join("alertmanager"));
        command.arg(format!("--web.listen-address={}", at(ALERTMANAGER)));
        // It is alone.
        command.arg("--cluster.listen-address=");
        let alertmanager = ChildProcess::start("alertmanager", &mut command, folder.path());
        write("rules.yml", &shortened(&rules_file()));
        let secret = String::from_utf8_lossy(SECRET);
        let targets: Vec<String> = gateways.iter().map(|it| format!("'{it}'")).collect();
        let prometheus = write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [rules.yml]\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n\
                 scrape_configs:\n- job_name: evenkeel\n  authorization: {{credentials: '{secret}'}}\n  \
                 static_configs: [{{targets: [{}]}}]\n\
                 - job_name: later\n  authorization: {{credentials: '{secret}'}}\n  \
                 static_configs: [{{targets: ['{later}']}}]\n",
                at(ALERTMANAGER),
                targets.join(", "),
            ),
        );
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(prometheus);
        command.arg("--storage.tsdb.path").arg(folder.path().join("prometheus"));
        command.arg(format!("--web.listen-address={}", at(PROMETHEUS)));
        let prometheus = ChildProcess::start("prometheus", &mut command, folder.path());
        let servers = Servers {
            place,
            receiver,
            processes: [alertmanager.unwrap(), prometheus.unwrap()],
            _folder: folder,
        };
        wait_until("Alertmanager listens", || servers.get(ALERTMANAGER, "/-/ready").is_some());
        let scraped = format!("\"{}\"]", gateways.len());
        let deadline = Instant::now() + 3 * TIMEOUT;
        // count(up == 1)
        let query = "/api/v1/query?query=count(up%20%3D%3D%201)";
        while !servers.get(PROMETHEUS, query).is_some_and(|answer| answer.contains(&scraped)) {
            assert!(Instant::now() < deadline, "{}", servers.processes[1].log());
            std::thread::park_timeout(Duration::from_millis(200));
        }
        servers
    }

    /// The body of an answer with status 200.
    pub(super) fn get(&self, port: u16, path: &str) -> Option<String> {
        let _inside = self.place.client.enter().unwrap();
        let answer = http_get(address(self.place, port), path, &[])?;
        (answer.status == 200).then_some(answer.body)
    }

    /// The alerts of all notices so far.
    pub(super) fn noticed(&self) -> Vec<Noticed> {
        let mut noticed = Vec::new();
        for body in self.receiver.bodies() {
            let notice: Value = serde_json::from_slice(&body.bytes).unwrap();
            for alert in notice["alerts"].as_array().into_iter().flatten() {
                let is_firing = alert["status"] == "firing";
                let labels = serde_json::from_value(alert["labels"].clone()).unwrap();
                noticed.push(Noticed { at: body.at, is_firing, labels });
            }
        }
        noticed
    }

    /// Alertmanager lists an alert of this rule that a gateway sent.
    pub(super) fn sends(&self, alert: &str) -> bool {
        let body = self.get(ALERTMANAGER, "/api/v2/alerts").unwrap_or_default();
        let alerts: Vec<Value> = serde_json::from_str(&body).unwrap_or_default();
        let labels = alerts.into_iter().map(|mut alert| alert["labels"].take());
        let mut labels = labels.filter_map(|labels| serde_json::from_value(labels).ok());
        labels.any(|labels| is_sent(&labels, alert))
    }

    /// The receiver heard that an alert of this rule, which a gateway sent, fires or has ended.
    pub(super) fn has_heard(&self, alert: &str, is_firing: bool) -> bool {
        let noticed = self.noticed();
        noticed.iter().any(|it| it.is_firing == is_firing && is_sent(&it.labels, alert))
    }
}

/// An alert that a gateway sent: Prometheus' alerts have an `instance` instead.
fn is_sent(labels: &BTreeMap<String, String>, alert: &str) -> bool {
    labels.get("alertname").is_some_and(|name| name == alert) && labels.contains_key("gateway")
}

fn address(place: &Hosts, port: u16) -> SocketAddr {
    (IpAddr::from(place.client.address()), port).into()
}
