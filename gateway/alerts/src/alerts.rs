//! Rules, receivers and escalation: decides which notice goes to which receiver. No clock and no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_config::{AlertEscalation, AlertReceiver};
use evenkeel_contract::alerts::{self as contract, Alert, AlertList};
use evenkeel_control::{AlertRecord, AlertsRecord};
use evenkeel_process::unix_us;
use evenkeel_telemetry::alerts::{AlertRule, RULES};
use evenkeel_telemetry::{MetricSample, Moment};

use super::active::{AcknowledgeError, ActiveAlerts, AlertId, FiringAlert};
use super::outbox::{AlertNotice, Outbox};
use super::record::moment_at;

/// Alerts in a record, which a standby reads while it sends no beat. The next process sends the others once more.
const RECORDED_MAX: usize = 500;

/// All alerts of a gateway, and the receivers of them.
pub struct Alerts {
    active: ActiveAlerts,
    outboxes: Vec<Outbox>,
    /// The record differs from the last one.
    is_changed: bool,
}

/// A notice for one receiver.
#[derive(Clone, PartialEq, Debug)]
pub struct AlertDelivery {
    pub receiver: AlertReceiver,
    pub(crate) notice: AlertNotice,
}

impl Alerts {
    /// All rules, for these receivers.
    pub fn new(receivers: &[AlertReceiver]) -> Alerts {
        let active = ActiveAlerts::new(RULES);
        let mut alerts = Alerts { active, outboxes: Vec::new(), is_changed: false };
        alerts.set_receivers(receivers);
        alerts.is_changed = false;
        alerts
    }

    /// Replaces the receivers. One of the same name keeps the alerts that it was sent.
    pub fn set_receivers(&mut self, receivers: &[AlertReceiver]) {
        if receivers.is_empty() {
            // Nothing is evaluated without receivers, so windows begin anew with the next one.
            self.active = ActiveAlerts::new(RULES);
        }
        self.is_changed = true;
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
        let firing = self.active.firing().count();
        let resolved = self.active.evaluate(samples, at);
        self.is_changed |= !resolved.is_empty() || self.active.firing().count() != firing;
        for resolved in resolved {
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
        self.is_changed |= !due.is_empty();
        due
    }

    /// A receiver answered, or did not in time. Returns its failures before and now.
    pub fn handle_answer(
        &mut self,
        receiver: &str,
        is_accepted: bool,
        now: Instant,
    ) -> Option<(u32, u32)> {
        self.is_changed |= is_accepted;
        let outbox = self.outbox(receiver)?;
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
        self.active.acknowledge(name, by, now)?;
        self.is_changed = true;
        Ok(())
    }

    /// The record with which another process continues, if it changed since the last call.
    pub fn take_changed_record(&mut self, present: Moment) -> Option<AlertsRecord> {
        std::mem::take(&mut self.is_changed).then(|| self.record(present))
    }

    fn record(&self, present: Moment) -> AlertsRecord {
        let rules = self.active.rules;
        let ended = |id: &AlertId, value: f64| AlertRecord {
            alert: rules.get(id.rule).map_or("", |rule| rule.name).into(),
            labels: id.labels.clone(),
            // JSON has no infinity.
            value: value.clamp(f64::MIN, f64::MAX),
            fired_us: None,
            acknowledged: None,
            sent: Vec::new(),
        };
        let mut alerts: BTreeMap<&AlertId, AlertRecord> = BTreeMap::new();
        for FiringAlert { id, fired, value, acknowledged, .. } in self.active.firing() {
            let (fired_us, acknowledged) =
                (Some(unix_us(fired.wall)), acknowledged.map(|it| it.record(present)));
            alerts.insert(id, AlertRecord { fired_us, acknowledged, ..ended(id, value) });
        }
        let mut notices = Vec::new();
        for outbox in &self.outboxes {
            for (id, value, sent) in outbox.sent(present) {
                alerts.entry(id).or_insert_with(|| ended(id, value)).sent.push(sent);
            }
            notices.extend(outbox.notices(rules, present));
        }
        AlertsRecord { alerts: alerts.into_values().take(RECORDED_MAX).collect(), notices }
    }

    /// Continues the alerts of another process, of rules that this version has and at receivers that are configured. Alerts that this
    /// member sent itself go on. `owned`: it sent those of all rules already.
    pub fn restore(&mut self, record: &AlertsRecord, owned: bool, present: Moment) {
        if !self.has_receivers() {
            return;
        }
        let rules = self.active.rules;
        let rule = |name: &str| rules.iter().position(|rule| rule.name == name);
        for alert in &record.alerts {
            let Some(rule) = rule(&alert.alert) else { continue };
            let id = AlertId { rule, labels: alert.labels.clone() };
            let fired = self.active.restore(&id, alert, owned, present);
            for sent in &alert.sent {
                if let Some(outbox) = self.outbox(&sent.receiver) {
                    outbox.restore(id.clone(), alert, sent, fired, present);
                }
            }
        }
        for notice in &record.notices {
            if let (Some(rule), Some(outbox)) = (rule(&notice.alert), self.outbox(&notice.receiver))
            {
                outbox.restore_notice(rule, moment_at(notice.at_us, present).now);
            }
        }
        self.active.inhibit();
    }

    fn outbox(&mut self, receiver: &str) -> Option<&mut Outbox> {
        self.outboxes.iter_mut().find(|outbox| *outbox.receiver.name == *receiver)
    }

    /// Alerts and receivers as operators see them.
    pub fn view(&self) -> AlertList {
        let alerts = self.active.firing().map(|alert| {
            let FiringAlert { id, rule, fired, value, acknowledged, is_inhibited } = alert;
            Alert {
                alert: rule.name.into(),
                severity: rule.tier.name().into(),
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
        let receivers = self.outboxes.iter().map(|outbox| contract::AlertReceiver {
            receiver: Arc::clone(&outbox.receiver.name),
            failures: outbox.failures,
            waiting: outbox.waiting(),
        });
        AlertList { alerts: alerts.collect(), receivers: receivers.collect() }
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
        let escalates =
            |it: &&AlertEscalation| it.to == receiver.name && it.tiers.contains(&alert.rule.tier);
        let escalation = it.escalation.as_ref().filter(escalates)?;
        let depth = depth.checked_sub(1)?;
        let since = due_since(receivers, other, alert, depth)? + escalation.after;
        alert.acknowledged.is_none_or(|it| it.at >= since).then_some(since)
    });
    at_once.into_iter().chain(escalated).min()
}
