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

/// The interval of scrapes, and the time that one may take. One that takes longer begins the time anew for which each condition has to hold, and
/// a busy test machine is late by more than a second.
const SCRAPE: &str = "4s";

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
    /// Prometheus has scraped all gateways since then.
    pub(super) began: Instant,
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
        write("rules.yml", &rules_file());
        let secret = String::from_utf8_lossy(SECRET);
        let targets: Vec<String> = gateways.iter().map(|it| format!("'{it}'")).collect();
        let prometheus = write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: {SCRAPE}, scrape_timeout: {SCRAPE}, evaluation_interval: 1s}}\n\
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
        let mut servers = Servers {
            place,
            receiver,
            began: Instant::now(),
            processes: [alertmanager.unwrap(), prometheus.unwrap()],
            _folder: folder,
        };
        wait_until("Alertmanager listens", || servers.get(ALERTMANAGER, "/-/ready").is_some());
        let scraped = format!("\"{}\"]", gateways.len());
        let deadline = Instant::now() + 6 * TIMEOUT;
        while !servers.query("count(up == 1)").is_some_and(|answer| answer.contains(&scraped)) {
            assert!(Instant::now() < deadline, "{}", servers.processes[1].log());
            std::thread::park_timeout(Duration::from_millis(200));
        }
        servers.began = Instant::now();
        servers
    }

    /// Prometheus' answer to this expression of PromQL.
    fn query(&self, expression: &str) -> Option<String> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(PROMETHEUS, &format!("/api/v1/query?query={encoded}"))
    }

    /// This gateway has found that it impaired sessions itself.
    pub(super) fn impaired_itself(&self, instance: &str) -> bool {
        let answer = self.query(&format!(
            "max_over_time(evenkeel_scenario_impaired{{evenkeel_segment=\"gateway\", instance=\"{instance}\"}}[1h]) > 0"
        ));
        answer.is_some_and(|answer| answer.contains("\"metric\""))
    }

    /// The alerts of rules that hold now, but not for long enough yet.
    pub(super) fn pending(&self) -> Vec<Value> {
        let body = self.get(PROMETHEUS, "/api/v1/alerts").unwrap_or_default();
        let mut listed: Value = serde_json::from_str(&body).unwrap_or_default();
        let alerts = listed["data"]["alerts"].as_array_mut().map(std::mem::take);
        alerts.into_iter().flatten().filter(|alert| alert["state"] == "pending").collect()
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

    /// When the receiver first heard, after this time, that an alert of this rule, which a gateway sent, fires or has ended.
    pub(super) fn heard_at(&self, alert: &str, is_firing: bool, after: Instant) -> Option<Instant> {
        let noticed = self.noticed();
        let heard = noticed.iter().filter(|it| it.is_firing == is_firing && it.at >= after);
        heard.filter(|it| is_sent(&it.labels, alert)).map(|it| it.at).min()
    }
}

/// An alert that a gateway sent: Prometheus' alerts have an `instance` instead.
fn is_sent(labels: &BTreeMap<String, String>, alert: &str) -> bool {
    labels.get("alertname").is_some_and(|name| name == alert) && labels.contains_key("gateway")
}

fn address(place: &Hosts, port: u16) -> SocketAddr {
    (IpAddr::from(place.client.address()), port).into()
}
