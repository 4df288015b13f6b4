//! Alerts in virtual time.

mod healthy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::{
    AlertEscalation, AlertReceiver, AlertReceiverKind, AlertTier, WebhookTarget,
};
use evenkeel_control::AlertsRecord;
use evenkeel_telemetry::alerts::{RULES, SeriesLabels};
use evenkeel_telemetry::{MetricSample, Moment};

use super::outbox::NoticedAlert;
use super::*;

const HEALTH: &str = "evenkeel_node_health";
const FAILURES: &str = "evenkeel_node_failures_total";
const EXPIRY: &str = "evenkeel_credential_expiry_seconds";

/// Seconds.
const DAY: f64 = 86_400.0;

/// The interval of evaluations.
const EVERY: Duration = Duration::from_secs(5);

struct World {
    alerts: Alerts,
    at: Moment,
    /// The present values.
    samples: Vec<MetricSample>,
    /// Receivers that answer nothing.
    down: Vec<&'static str>,
    /// An alert that all receivers refuse.
    refused: Option<&'static str>,
    /// The last record.
    kept: AlertsRecord,
    /// The gateway owns its group.
    is_owner: bool,
}

/// A notice that a receiver got, or that was lost on the way.
#[derive(Clone, Debug)]
struct Received {
    at: Instant,
    receiver: Arc<str>,
    alert: &'static str,
    firing: Vec<NoticedAlert>,
    resolved: Vec<NoticedAlert>,
}

pub(crate) fn receiver(name: &str, tiers: &[AlertTier]) -> AlertReceiver {
    let target = WebhookTarget { url: "http://127.0.0.1:1".parse().unwrap(), token: None };
    let (kind, tiers) = (AlertReceiverKind::Webhook, tiers.to_vec());
    AlertReceiver { name: name.into(), kind, target, tiers, escalation: None }
}

fn escalating(name: &str, to: &str) -> AlertReceiver {
    let tiers = vec![AlertTier::Page, AlertTier::Ticket];
    let escalation = AlertEscalation { after: Duration::from_secs(300), tiers, to: to.into() };
    AlertReceiver { escalation: Some(escalation), ..receiver(name, &AlertTier::ALL) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn with(receivers: &[AlertReceiver]) -> World {
        let at = Moment { now: Instant::now(), wall: SystemTime::UNIX_EPOCH + seconds(1_000) };
        World {
            alerts: Alerts::new(receivers),
            at,
            samples: Vec::new(),
            down: Vec::new(),
            refused: None,
            kept: AlertsRecord::default(),
            is_owner: true,
        }
    }

    /// Another process continues, with the record as the disk has it.
    fn replace_process(&mut self, receivers: &[AlertReceiver]) {
        self.keep();
        let written = serde_json::to_string(&self.kept).unwrap();
        self.alerts = Alerts::new(receivers);
        self.alerts.restore(&serde_json::from_str(&written).unwrap(), false, self.at);
        self.keep();
    }

    fn keep(&mut self) {
        if let Some(changed) = self.alerts.take_changed_record(self.at) {
            self.kept = changed;
        }
    }

    /// Sets the value of a node's series.
    fn set(&mut self, metric: &'static str, node: &str, value: f64) {
        let labels: SeriesLabels = [("evenkeel_node".to_owned(), node.to_owned())].into();
        self.samples.retain(|it| (it.metric, &it.labels) != (metric, &labels));
        self.samples.push(MetricSample { metric, labels, value });
    }

    /// Sets the value of a series of the gateway.
    fn set_gateway(&mut self, metric: &'static str, value: f64) {
        self.samples.retain(|it| it.metric != metric);
        self.samples.push(MetricSample { metric, labels: SeriesLabels::new(), value });
    }

    /// Evaluates and sends once.
    fn step(&mut self) -> Vec<Received> {
        self.alerts.evaluate(self.samples.clone(), self.at);
        self.send()
    }

    fn send(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let deliveries = self.alerts.deliveries(self.at.now, self.is_owner);
            if deliveries.is_empty() {
                return all;
            }
            for AlertDelivery { receiver, notice } in deliveries {
                let (at, alert) = (self.at.now, RULES[notice.rule].name);
                let is_down = self.down.contains(&&*receiver.name);
                let is_accepted = !is_down && self.refused != Some(alert);
                self.alerts.handle_answer(&receiver.name, is_accepted, at);
                let (resolved, firing) =
                    notice.alerts.into_iter().partition(|alert| alert.resolved.is_some());
                all.push(Received { at, receiver: receiver.name, alert, firing, resolved });
            }
        }
    }

    /// Lets time pass, and returns what was sent meanwhile.
    fn pass(&mut self, time: Duration) -> Vec<Received> {
        let mut all = Vec::new();
        for _ in 0..time.as_secs() / EVERY.as_secs() {
            let Moment { now, wall } = self.at;
            self.at = Moment { now: now + EVERY, wall: wall + EVERY };
            all.extend(self.step());
        }
        all
    }

    fn acknowledge(&mut self, name: &str) -> Result<(), AcknowledgeError> {
        self.alerts.acknowledge(name, Some("ann".into()), self.at.now)
    }
}

/// Receivers and alerts, with the numbers of alerts that fire and are resolved.
fn shown(received: &[Received]) -> Vec<String> {
    let line = |it: &Received| {
        let Received { receiver, alert, firing, resolved, .. } = it;
        let alert = alert.trim_start_matches("Evenkeel");
        format!("{receiver}: {alert} {} {}", firing.len(), resolved.len())
    };
    received.iter().map(line).collect()
}

#[test]
fn alert_fires_after_its_time_and_is_resolved() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.set(HEALTH, "a1", 3.0);
    world.set(HEALTH, "a2", 0.0);
    assert!(world.step().is_empty());
    assert_eq!(shown(&world.pass(seconds(55))), [""; 0]);
    let fired = world.pass(EVERY);
    assert_eq!(shown(&fired), ["ops: NodeDown 1 0"]);
    let alert = &fired[0].firing[0];
    assert_eq!((&*alert.id.labels["evenkeel_node"], alert.value), ("a1", 3.0));
    assert_eq!(shown(&world.pass(seconds(3_600))), [""; 0], "it goes on");
    world.set(HEALTH, "a1", 0.0);
    let resolved = world.pass(EVERY);
    assert_eq!(shown(&resolved), ["ops: NodeDown 0 1"]);
    assert_eq!(resolved[0].resolved[0].resolved, Some(world.at.wall));
    assert_eq!(world.alerts.view().alerts, []);
    // A fault that is shorter is no alert.
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(shown(&world.pass(seconds(55))), [""; 0]);
    world.set(HEALTH, "a1", 0.0);
    assert_eq!(shown(&world.pass(seconds(600))), [""; 0]);
}

#[test]
fn series_that_ends_resolves_its_alert() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(world.pass(seconds(65)).len(), 1);
    world.samples.clear();
    assert_eq!(shown(&world.pass(seconds(60))), ["ops: NodeDown 0 1"]);
}

#[test]
fn restarted_counter_is_no_growth() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.set(FAILURES, "a1", 7.0);
    world.pass(seconds(60));
    world.set(FAILURES, "a1", 0.0);
    assert_eq!(shown(&world.pass(seconds(60))), [""; 0]);
    world.set(FAILURES, "a1", 1.0);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeFailed 1 0"]);
    assert_eq!(shown(&world.pass(seconds(300))), ["ops: NodeFailed 0 1"], "after the window");
}

#[test]
fn receiver_gets_its_tiers() {
    let (pager, log) = (receiver("pager", &[AlertTier::Page]), receiver("log", &[AlertTier::Info]));
    let mut world = World::with(&[pager, log]);
    world.set(FAILURES, "a1", 0.0);
    world.step();
    world.set(FAILURES, "a1", 9.0);
    assert_eq!(shown(&world.pass(EVERY)), ["log: NodeFailed 1 0"], "it flaps, too");
}

#[test]
fn flapping_nodes_make_one_notice_a_minute() {
    let nodes: Vec<String> = (0..500).map(|number| format!("n{number}")).collect();
    for kind in [AlertReceiverKind::Webhook, AlertReceiverKind::Alertmanager] {
        let receivers = [AlertReceiver { kind, ..receiver("ops", &AlertTier::ALL) }];
        let mut world = World::with(&receivers);
        for metric in [FAILURES, HEALTH] {
            nodes.iter().for_each(|node| world.set(metric, node, 0.0));
        }
        world.step();
        let mut received = Vec::new();
        // Each node fails five times in another second of each seventh minute, is down for 90 s, and recovers.
        for step in 0..12 * 20 {
            let flaps =
                |number: usize, after: usize| step >= after && (step - after) % 84 == number % 12;
            for (number, sample) in world.samples.iter_mut().enumerate() {
                if sample.metric == FAILURES && flaps(number, 0) {
                    sample.value += 5.0;
                } else if sample.metric == HEALTH && (flaps(number, 0) || flaps(number, 18)) {
                    sample.value = if flaps(number, 0) { 3.0 } else { 0.0 };
                }
            }
            if step == 100 {
                world.replace_process(&receivers);
            }
            received.extend(world.pass(EVERY));
        }
        let mut by_rule: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
        for notice in &received {
            by_rule.entry(notice.alert).or_default().push(notice.at);
        }
        assert_eq!(
            by_rule.keys().copied().collect::<Vec<_>>(),
            ["EvenkeelNodeDown", "EvenkeelNodeFailed", "EvenkeelNodeFlaps"]
        );
        for (rule, times) in by_rule {
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= seconds(60)), "{rule}");
            assert!(times.len() <= 21, "{rule}: {}", times.len());
        }
        let sent = received.iter().filter(|it| it.alert == "EvenkeelNodeFailed");
        let sent: usize = sent.map(|it| it.firing.len()).sum();
        assert!(sent >= 2 * nodes.len(), "each of them is sent twice: {sent}");
    }
}

#[test]
fn alert_that_nobody_acknowledges_is_escalated() {
    let mut world = World::with(&[escalating("chat", "pager"), receiver("pager", &[])]);
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(shown(&world.pass(seconds(65))), ["chat: NodeDown 1 0"]);
    assert_eq!(shown(&world.pass(seconds(295))), [""; 0]);
    assert_eq!(shown(&world.pass(EVERY)), ["pager: NodeDown 1 0"]);
    // Both of them hear of the end, also after a late acknowledgement.
    world.acknowledge("EvenkeelNodeDown").unwrap();
    world.set(HEALTH, "a1", 0.0);
    let ends = shown(&world.pass(seconds(60)));
    assert_eq!(ends, ["chat: NodeDown 0 1", "pager: NodeDown 0 1"]);
}

#[test]
fn info_is_escalated_only_if_asked() {
    let (chat, pager) = ("chat: NodeFailed 1 0", "pager: NodeFailed 1 0");
    let unasked = vec![AlertTier::Page, AlertTier::Ticket];
    for (tiers, right) in [(unasked, vec![chat]), (vec![AlertTier::Info], vec![chat, pager])] {
        let escalation = AlertEscalation { after: seconds(60), tiers, to: "pager".into() };
        let escalating =
            AlertReceiver { escalation: Some(escalation), ..receiver("chat", &AlertTier::ALL) };
        let mut world = World::with(&[escalating, receiver("pager", &[])]);
        world.set(FAILURES, "a1", 0.0);
        world.step();
        world.set(FAILURES, "a1", 1.0);
        assert_eq!(shown(&world.pass(seconds(120))), right);
    }
}

#[test]
fn acknowledged_alert_is_not_escalated() {
    let mut world = World::with(&[escalating("chat", "pager"), receiver("pager", &[])]);
    let unknown = AcknowledgeError::Unknown("NodeDown".to_owned());
    assert_eq!(world.acknowledge("NodeDown"), Err(unknown));
    let silent = AcknowledgeError::Silent("EvenkeelNodeDown".to_owned());
    assert_eq!(world.acknowledge("EvenkeelNodeDown"), Err(silent));
    world.set(HEALTH, "a1", 3.0);
    world.pass(seconds(120));
    world.acknowledge("EvenkeelNodeDown").unwrap();
    let view = world.alerts.view().alerts.remove(0);
    assert_eq!((view.acknowledged, view.acknowledged_by.as_deref()), (true, Some("ann")));
    assert_eq!((&*view.alert, &*view.summary), ("EvenkeelNodeDown", "node a1 is down"));
    assert_eq!(shown(&world.pass(seconds(3_600))), [""; 0]);
    // One that begins later is another alert.
    world.set(HEALTH, "a2", 3.0);
    let both = shown(&world.pass(seconds(400)));
    assert_eq!(both, ["chat: NodeDown 1 0", "pager: NodeDown 1 0"]);
}

#[test]
fn failed_delivery_is_repeated_with_backoff() {
    let mut world =
        World::with(&[receiver("ops", &AlertTier::ALL), receiver("log", &AlertTier::ALL)]);
    world.down.push("ops");
    world.set(HEALTH, "a1", 3.0);
    let began = world.at.now;
    let received = world.pass(seconds(300));
    assert_eq!(
        received.iter().filter(|it| &*it.receiver == "log").count(),
        1,
        "it delays no other"
    );
    let tries = received.iter().filter(|it| &*it.receiver == "ops");
    let after: Vec<u64> = tries.map(|it| (it.at - began).as_secs()).collect();
    // Pauses of 1, 2, 4 s and so on, rounded up to the next evaluation.
    assert_eq!(after, [65, 70, 75, 80, 90, 110, 145, 205, 265]);
    assert_eq!(world.alerts.view().receivers[0].failures, 9);
    // The receiver may have got one of them without an answer: it hears of the end.
    world.set(HEALTH, "a1", 0.0);
    assert_eq!(shown(&world.pass(EVERY)), ["log: NodeDown 0 1"]);
    world.down.clear();
    assert_eq!(shown(&world.pass(seconds(60))), ["ops: NodeDown 0 1"]);
    let receivers = world.alerts.view().receivers;
    assert!(receivers.iter().all(|it| it.failures == 0 && it.waiting == 0), "{receivers:?}");
}

#[test]
fn refused_notice_delays_no_other_rule() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.refused = Some("EvenkeelNodeFlaps");
    world.set(FAILURES, "a1", 0.0);
    world.step();
    world.set(FAILURES, "a1", 9.0);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeFlaps 1 0"], "the more urgent one");
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeFailed 1 0", "ops: NodeFlaps 1 0"]);
}

#[test]
fn receiver_that_is_down_has_a_bounded_number_waiting() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.down.push("ops");
    for value in [0.0, 1.0] {
        for number in 0..1_100 {
            world.set(FAILURES, &format!("n{number}"), value);
        }
        world.step();
    }
    // Each try names others first.
    world.pass(seconds(60));
    world.samples.clear();
    world.step();
    assert_eq!(world.alerts.view().receivers[0].waiting, 1_000);
}

#[test]
fn new_owner_sends_a_firing_alert_once() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.set(HEALTH, "a1", 3.0);
    // A standby evaluates, and sends nothing.
    for _ in 0..60 {
        world.at.now += EVERY;
        world.alerts.evaluate(world.samples.clone(), world.at);
    }
    assert_eq!(shown(&world.pass(seconds(600))), ["ops: NodeDown 1 0"]);
}

#[test]
fn next_process_sends_no_alert_twice() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world = World::with(&ops);
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(shown(&world.pass(seconds(300))), ["ops: NodeDown 1 0"]);
    let began = world.alerts.view().alerts[0].since_us;
    world.replace_process(&ops);
    // Its gauges are not set yet.
    let samples = std::mem::take(&mut world.samples);
    assert_eq!(shown(&world.pass(seconds(25))), [""; 0]);
    world.samples = samples;
    assert_eq!(shown(&world.pass(seconds(600))), [""; 0]);
    assert_eq!(world.alerts.view().alerts[0].since_us, began);
    world.set(HEALTH, "a1", 0.0);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeDown 0 1"]);
}

#[test]
fn alert_that_the_next_process_does_not_see_is_resolved() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world = World::with(&ops);
    world.set(HEALTH, "a1", 3.0);
    world.pass(seconds(300));
    world.replace_process(&ops);
    world.set(HEALTH, "a1", 0.0);
    assert_eq!(shown(&world.pass(seconds(25))), [""; 0]);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeDown 0 1"]);
}

#[test]
fn growth_before_the_next_process_counts_until_its_window_ends() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world = World::with(&ops);
    world.set(FAILURES, "a1", 0.0);
    world.step();
    world.set(FAILURES, "a1", 1.0);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeFailed 1 0"]);
    world.replace_process(&ops);
    world.set(FAILURES, "a1", 0.0);
    assert_eq!(shown(&world.pass(seconds(295))), [""; 0]);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeFailed 0 1"]);
}

#[test]
fn pause_between_notices_outlives_the_process() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world = World::with(&ops);
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(world.pass(seconds(65)).len(), 1);
    world.replace_process(&ops);
    // The alert ends after 30 s.
    world.set(HEALTH, "a1", 0.0);
    assert_eq!(shown(&world.pass(seconds(55))), [""; 0]);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeDown 0 1"]);
}

#[test]
fn escalation_goes_on_at_the_next_process() {
    let receivers = [escalating("chat", "pager"), receiver("pager", &[])];
    for is_acknowledged in [false, true] {
        let mut world = World::with(&receivers);
        world.set(HEALTH, "a1", 3.0);
        assert_eq!(shown(&world.pass(seconds(200))), ["chat: NodeDown 1 0"]);
        if is_acknowledged {
            world.acknowledge("EvenkeelNodeDown").unwrap();
        }
        world.replace_process(&receivers);
        let by = world.alerts.view().alerts[0].acknowledged_by.clone();
        assert_eq!(by.as_deref(), is_acknowledged.then_some("ann"));
        let escalated = shown(&world.pass(seconds(400)));
        let expected = if is_acknowledged { vec![] } else { vec!["pager: NodeDown 1 0"] };
        assert_eq!(escalated, expected);
    }
}

#[test]
fn end_that_a_receiver_missed_is_sent_by_the_next_process() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world = World::with(&ops);
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(world.pass(seconds(65)).len(), 1);
    world.down.push("ops");
    world.set(HEALTH, "a1", 0.0);
    world.pass(seconds(120));
    world.replace_process(&ops);
    world.down.clear();
    assert_eq!(shown(&world.step()), ["ops: NodeDown 0 1"]);
}

#[test]
fn record_of_another_version_is_read_as_far_as_it_is_known() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world =
        World::with(&[receiver("ops", &AlertTier::ALL), receiver("old", &AlertTier::ALL)]);
    world.set(HEALTH, "a1", 3.0);
    world.pass(seconds(65));
    world.keep();
    let mut unknown = world.kept.alerts[0].clone();
    unknown.alert = "EvenkeelUnheardOf".into();
    world.kept.alerts.insert(0, unknown);
    world.alerts = Alerts::new(&ops);
    world.alerts.restore(&world.kept, false, world.at);
    let alerts: Vec<_> = world.alerts.view().alerts.into_iter().map(|it| it.alert).collect();
    assert_eq!(alerts, ["EvenkeelNodeDown"]);
    assert_eq!(shown(&world.pass(seconds(300))), [""; 0]);
}

#[test]
fn record_has_a_bounded_number_of_alerts() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    for number in 0..1_100 {
        world.set(HEALTH, &format!("n{number}"), 3.0);
    }
    world.pass(seconds(300));
    world.keep();
    assert_eq!(world.kept.alerts.len(), 500);
    world.step();
    assert_eq!(world.alerts.take_changed_record(world.at), None, "nothing changed");
}

#[test]
fn blocked_standby_sends_the_alerts_about_itself() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.is_owner = false;
    world.set(HEALTH, "a1", 3.0);
    world.set_gateway("evenkeel_group_owned", 0.0);
    world.set_gateway("evenkeel_group_blocked", 1.0);
    assert_eq!(shown(&world.step()), [""; 0]);
    assert_eq!(shown(&world.pass(seconds(600))), ["ops: TakeoverBlocked 1 0"], "once");
    world.set_gateway("evenkeel_group_owned", 1.0);
    world.set_gateway("evenkeel_group_blocked", 0.0);
    assert_eq!(shown(&world.pass(seconds(60))), ["ops: TakeoverBlocked 0 1"]);
    // It takes over, and sends the others.
    world.is_owner = true;
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeDown 1 0"]);
}

#[test]
fn doubting_owner_sends_that_none_serves() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.is_owner = false;
    world.set_gateway("evenkeel_group_owned", 0.0);
    assert_eq!(shown(&world.pass(seconds(60))), ["ops: GroupWithoutOwner 1 0"]);
}

#[test]
fn explained_alert_is_not_sent() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    for node in ["a1", "a2"] {
        world.set(FAILURES, node, 0.0);
    }
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(shown(&world.pass(seconds(65))), ["ops: NodeDown 1 0"]);
    world.set(FAILURES, "a1", 9.0);
    world.set(FAILURES, "a2", 1.0);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: NodeFailed 1 0"], "of the other node");
    let inhibited = world.alerts.view().alerts.into_iter().filter(|alert| alert.inhibited);
    let inhibited: Vec<_> = inhibited.map(|it| (it.alert, it.labels)).collect();
    let a1: SeriesLabels = [("evenkeel_node".to_owned(), "a1".to_owned())].into();
    let right = ["EvenkeelNodeFlaps", "EvenkeelNodeFailed"].map(|alert| (alert.into(), a1.clone()));
    assert_eq!(inhibited, right);
    // The explanation ends before they do.
    world.set(HEALTH, "a1", 0.0);
    let sent = shown(&world.pass(seconds(65)));
    assert_eq!(sent, ["ops: NodeFlaps 1 0", "ops: NodeDown 0 1", "ops: NodeFailed 1 0"]);
}

#[test]
fn alert_that_was_sent_is_explained_too_late() {
    let kind = AlertReceiverKind::Alertmanager;
    let mut world = World::with(&[AlertReceiver { kind, ..receiver("am", &AlertTier::ALL) }]);
    world.set(FAILURES, "a1", 0.0);
    world.step();
    world.set(FAILURES, "a1", 1.0);
    world.set(HEALTH, "a1", 3.0);
    let sent = shown(&world.pass(seconds(130)));
    let count = |line: &str| sent.iter().filter(|it| *it == line).count();
    assert_eq!(count("am: NodeFailed 1 0"), 3, "Alertmanager forgets it otherwise: {sent:?}");
}

#[test]
fn alertmanager_hears_of_an_alert_each_minute() {
    let kind = AlertReceiverKind::Alertmanager;
    let mut world = World::with(&[AlertReceiver { kind, ..receiver("am", &AlertTier::ALL) }]);
    world.set(HEALTH, "a1", 3.0);
    let began = world.at.now;
    let received = world.pass(seconds(250));
    let times: Vec<u64> = received.iter().map(|it| (it.at - began).as_secs()).collect();
    assert_eq!(times, [65, 125, 185, 245]);
}

#[test]
fn end_is_sent_beside_many_that_fire() {
    let kind = AlertReceiverKind::Alertmanager;
    let mut world = World::with(&[AlertReceiver { kind, ..receiver("am", &AlertTier::ALL) }]);
    for number in 0..601 {
        world.set(HEALTH, &format!("n{number}"), 3.0);
    }
    world.pass(seconds(185));
    world.set(HEALTH, "n0", 0.0);
    assert_eq!(shown(&world.pass(seconds(60))), ["am: NodeDown 499 1"]);
}

#[test]
fn receiver_at_another_url_is_sent_at_once() {
    let mut ops = receiver("ops", &AlertTier::ALL);
    let mut world = World::with(std::slice::from_ref(&ops));
    world.down.push("ops");
    world.set(HEALTH, "a1", 3.0);
    // After the last one a minute would pass.
    world.pass(seconds(265));
    world.down.clear();
    assert_eq!(shown(&world.send()), [""; 0]);
    ops.target.url = "http://127.0.0.1:2".parse().unwrap();
    world.alerts.set_receivers(&[ops]);
    assert_eq!(world.alerts.view().receivers[0].failures, 0);
    assert_eq!(shown(&world.send()), ["ops: NodeDown 1 0"]);
}

#[test]
fn windows_begin_anew_after_a_time_without_receivers() {
    let ops = receiver("ops", &AlertTier::ALL);
    let mut world = World::with(std::slice::from_ref(&ops));
    world.set(FAILURES, "a1", 0.0);
    world.step();
    world.alerts.set_receivers(&[]);
    world.set(FAILURES, "a1", 1.0);
    world.at.now += seconds(3_600);
    world.alerts.set_receivers(&[ops]);
    assert_eq!(shown(&world.pass(EVERY)), [""; 0]);
}

#[test]
fn reload_keeps_what_a_receiver_was_sent() {
    let mut world = World::with(&[receiver("ops", &AlertTier::ALL)]);
    world.set(HEALTH, "a1", 3.0);
    assert_eq!(world.pass(seconds(65)).len(), 1);
    let (new, ops) = (receiver("new", &AlertTier::ALL), receiver("ops", &AlertTier::ALL));
    world.alerts.set_receivers(&[new, ops]);
    assert_eq!(shown(&world.pass(seconds(120))), ["new: NodeDown 1 0"]);
}

#[test]
fn explained_alert_is_not_sent_by_the_next_process() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut world = World::with(&ops);
    world.set(HEALTH, "a1", 3.0);
    world.set(FAILURES, "a1", 0.0);
    assert_eq!(shown(&world.pass(seconds(65))), ["ops: NodeDown 1 0"]);
    world.set(FAILURES, "a1", 1.0);
    assert_eq!(shown(&world.pass(EVERY)), [""; 0]);
    world.replace_process(&ops);
    assert_eq!(shown(&world.send()), [""; 0], "before it evaluates");
    assert_eq!(shown(&world.pass(seconds(100))), [""; 0]);
}

#[test]
fn new_owner_goes_on_with_alerts_that_it_sent_itself() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let (long, short) = (30.0 * DAY, 10.0 * DAY);
    // The old owner had sent the same alert, without an answer, or its end.
    for (of_old, then) in [(long, long), (short, short), (short, long)] {
        let mut old = World::with(&ops);
        old.down.push("ops");
        for left in [of_old, then] {
            old.set_gateway(EXPIRY, left);
            old.pass(seconds(120));
        }
        old.keep();
        let mut world = World { is_owner: false, at: old.at, ..World::with(&ops) };
        world.set_gateway(EXPIRY, short);
        assert_eq!(shown(&world.pass(seconds(120))), ["ops: CredentialEnds 1 0"]);
        world.is_owner = true;
        world.alerts.restore(&old.kept, false, world.at);
        assert_eq!(shown(&world.pass(seconds(600))), [""; 0], "{of_old} {then}");
        // The record has it, too.
        world.replace_process(&ops);
        assert_eq!(shown(&world.pass(seconds(600))), [""; 0], "{of_old} {then}");
        world.set_gateway(EXPIRY, long);
        assert_eq!(shown(&world.pass(EVERY)), ["ops: CredentialEnds 0 1"]);
    }
}

#[test]
fn new_owner_keeps_pauses_and_continues_acknowledgements_of_alerts_that_it_sent_itself() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut old = World::with(&ops);
    old.set_gateway(EXPIRY, 10.0 * DAY);
    assert_eq!(shown(&old.pass(EVERY)), ["ops: CredentialEnds 1 0"]);
    old.acknowledge("EvenkeelCredentialEnds").unwrap();
    old.keep();
    let mut world = World { is_owner: false, at: old.at, ..World::with(&ops) };
    world.pass(seconds(300));
    world.samples = old.samples;
    assert_eq!(shown(&world.pass(EVERY)), ["ops: CredentialEnds 1 0"]);
    world.is_owner = true;
    world.alerts.restore(&old.kept, false, world.at);
    assert!(world.alerts.view().alerts[0].acknowledged);
    world.set_gateway(EXPIRY, 30.0 * DAY);
    assert_eq!(shown(&world.pass(seconds(55))), [""; 0]);
    assert_eq!(shown(&world.pass(EVERY)), ["ops: CredentialEnds 0 1"]);
}

#[test]
fn new_owner_does_not_send_its_own_alert_that_the_old_one_sent() {
    let ops = [receiver("ops", &AlertTier::ALL)];
    let mut old = World::with(&ops);
    old.set_gateway(EXPIRY, 10.0 * DAY);
    assert_eq!(shown(&old.pass(EVERY)), ["ops: CredentialEnds 1 0"]);
    old.keep();
    let mut world = World { at: old.at, samples: old.samples, ..World::with(&ops) };
    let later = Moment { now: old.at.now + EVERY, wall: old.at.wall + EVERY };
    world.alerts.evaluate(world.samples.clone(), later);
    world.alerts.restore(&old.kept, false, later);
    assert_eq!(shown(&world.pass(seconds(600))), [""; 0]);
}
