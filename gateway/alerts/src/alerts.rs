//! Rules, receivers and escalation: decides which notice goes to which receiver. No clock and no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_config::AlertReceiver;
use evenkeel_process::unix_us;
use evenkeel_telemetry::alerts::{AlertRule, RULES, SeriesLabels};
use evenkeel_telemetry::{MetricSample, Moment};
use serde::Serialize;

use super::active::{AcknowledgeError, ActiveAlerts, FiringAlert};
use super::outbox::{AlertNotice, Outbox};

/// All alerts of a gateway, and the receivers of them.
pub struct Alerts {
    active: ActiveAlerts,
    outboxes: Vec<Outbox>,
}

/// A notice for one receiver.
#[derive(Clone, PartialEq, Debug)]
pub struct AlertDelivery {
    /// The receiver.
    pub receiver: AlertReceiver,
    pub(crate) notice: AlertNotice,
}

/// An alert that fires.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AlertView {
    /// Such as `EvenkeelNodeDown`.
    pub alert: &'static str,
    /// `page`, `ticket` or `info`.
    pub severity: &'static str,
    /// Labels of the series.
    pub labels: SeriesLabels,
    /// One line.
    pub summary: String,
    /// The value at the last evaluation.
    pub value: f64,
    /// Since when it fires, Unix time in microseconds.
    pub since_us: u64,
    /// An operator acknowledged it.
    pub acknowledged: bool,
    /// The user of the request, unverified.
    pub acknowledged_by: Option<Arc<str>>,
    /// Another alert that fires explains it, so that it is not sent.
    pub inhibited: bool,
    /// The section that says what to do.
    pub runbook: String,
}

/// A receiver as operators see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AlertReceiverView {
    /// Its name.
    pub receiver: Arc<str>,
    /// Failed deliveries since the last success.
    pub failures: u32,
    /// Alerts that it was sent without an answer so far, and those that ended since it was sent them.
    pub waiting: usize,
}

/// Alerts that fire, the most urgent first, and all receivers.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct AlertsView {
    /// Alerts that fire.
    pub alerts: Vec<AlertView>,
    /// All receivers.
    pub receivers: Vec<AlertReceiverView>,
}

impl Alerts {
    /// All rules, for these receivers.
    pub fn new(receivers: &[AlertReceiver]) -> Alerts {
        let mut alerts = Alerts { active: ActiveAlerts::new(RULES), outboxes: Vec::new() };
        alerts.set_receivers(receivers);
        alerts
    }

    /// Replaces the receivers. One of the same name keeps the alerts that it was sent.
    pub fn set_receivers(&mut self, receivers: &[AlertReceiver]) {
        if receivers.is_empty() {
            // Nothing is evaluated without receivers, so windows begin anew with the next one.
            self.active = ActiveAlerts::new(RULES);
        }
        let mut before = std::mem::take(&mut self.outboxes);
        self.outboxes = receivers
            .iter()
            .map(|receiver| {
                let at = before.iter().position(|outbox| outbox.receiver.name == receiver.name);
                let outbox = at.map(|at| before.swap_remove(at));
                let mut outbox = outbox.unwrap_or_else(|| Outbox::new(receiver.clone()));
                if outbox.receiver.target != receiver.target {
                    outbox.forget_failures();
                }
                outbox.receiver = receiver.clone();
                outbox
            })
            .collect();
    }

    /// There is a receiver.
    pub fn has_receivers(&self) -> bool {
        !self.outboxes.is_empty()
    }

    /// The metrics that the rules read.
    pub fn metrics(&self) -> BTreeSet<&'static str> {
        self.active.history.metrics()
    }

    /// Evaluates all rules on the present values of metrics.
    pub fn evaluate(&mut self, samples: Vec<MetricSample>, at: Moment) {
        for resolved in self.active.evaluate(samples, at) {
            self.outboxes.iter_mut().for_each(|outbox| outbox.resolve(&resolved, at.wall));
        }
    }

    /// The notices that are due now, at most one for each receiver. Each is answered by [`Alerts::handle_answer`]. `is_owner`: this gateway
    /// owns its group, or has none. Others send only alerts about themselves.
    pub fn deliveries(&mut self, now: Instant, is_owner: bool) -> Vec<AlertDelivery> {
        let receivers: Vec<AlertReceiver> =
            self.outboxes.iter().map(|outbox| outbox.receiver.clone()).collect();
        let (active, mut due) = (&self.active, Vec::new());
        let is_sent =
            |rule: usize| is_owner || active.rules.get(rule).is_some_and(AlertRule::is_of_member);
        for (number, outbox) in self.outboxes.iter_mut().enumerate() {
            let is_due = |alert: &FiringAlert<'_>| {
                let since = due_since(&receivers, number, alert, receivers.len());
                since.is_some_and(|since| since <= now)
            };
            if let Some(notice) = outbox.next_notice(active, is_due, is_sent, now) {
                due.push(AlertDelivery { receiver: outbox.receiver.clone(), notice });
            }
        }
        due
    }

    /// A receiver answered, or did not in time. Returns its failures before and now.
    pub fn handle_answer(
        &mut self,
        receiver: &str,
        is_accepted: bool,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let outbox = self.outboxes.iter_mut().find(|outbox| *outbox.receiver.name == *receiver)?;
        let before = outbox.failures;
        outbox.handle_answer(is_accepted, now);
        Some((before, outbox.failures))
    }

    /// Acknowledges all alerts of this name that fire: they are not escalated.
    pub fn acknowledge(
        &mut self,
        name: &str,
        by: Option<Arc<str>>,
        now: Instant,
    ) -> Result<(), AcknowledgeError> {
        self.active.acknowledge(name, by, now)
    }

    /// Alerts and receivers as operators see them.
    pub fn view(&self) -> AlertsView {
        let alerts = self.active.firing().map(|alert| {
            let FiringAlert { id, rule, fired, value, acknowledged, is_inhibited } = alert;
            AlertView {
                alert: rule.name,
                severity: rule.tier.name(),
                labels: id.labels.clone(),
                summary: rule.summarize(&id.labels, value),
                value,
                since_us: unix_us(fired.wall),
                acknowledged: acknowledged.is_some(),
                acknowledged_by: acknowledged.and_then(|it| it.by.clone()),
                inhibited: is_inhibited,
                runbook: runbook(rule),
            }
        });
        let receivers = self.outboxes.iter().map(|outbox| AlertReceiverView {
            receiver: Arc::clone(&outbox.receiver.name),
            failures: outbox.failures,
            waiting: outbox.waiting(),
        });
        AlertsView { alerts: alerts.collect(), receivers: receivers.collect() }
    }
}

/// The page and section that say what to do about alerts of a rule.
pub(crate) fn runbook(rule: &AlertRule) -> String {
    format!("docs/{}", rule.runbook)
}

/// Since when an alert is due at a receiver: by its tier, or without an acknowledgement in time after another one. `depth`: receivers
/// that may escalate to one another.
fn due_since(
    receivers: &[AlertReceiver],
    number: usize,
    alert: &FiringAlert<'_>,
    depth: usize,
) -> Option<Instant> {
    let receiver = receivers.get(number)?;
    let at_once = receiver.tiers.contains(&alert.rule.tier).then_some(alert.fired.now);
    let escalated = receivers.iter().enumerate().filter_map(|(other, it)| {
        let escalation = it.escalation.as_ref().filter(|it| it.to == receiver.name)?;
        let depth = depth.checked_sub(1)?;
        let since = due_since(receivers, other, alert, depth)? + escalation.after;
        alert.acknowledged.is_none_or(|it| it.at >= since).then_some(since)
    });
    at_once.into_iter().chain(escalated).min()
}
