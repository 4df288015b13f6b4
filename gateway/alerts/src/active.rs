//! The active alerts: those that are pending or fire, and their acknowledgements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::{AcknowledgementRecord, AlertRecord};
use evenkeel_telemetry::alerts::condition::SeriesFunction;
use evenkeel_telemetry::alerts::{AlertRule, INHIBITIONS, SeriesLabels};
use evenkeel_telemetry::{MetricSample, Moment};

use super::history::MetricHistory;
use super::record::{moment_at, time_us};

/// Gauges of a process that continues another one are set within this time: nodes are probed, and losses were checked once.
const GAUGES_WITHIN: Duration = Duration::from_secs(30);

/// An alert of a rule: one for each series or sum for which the rule holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct AlertId {
    /// Index of the rule: the most urgent ones come first.
    pub(crate) rule: usize,
    pub(crate) labels: SeriesLabels,
}

/// An alert that is pending or fires: its condition holds.
struct ActiveAlert {
    active_since: Instant,
    /// The time at which the alert began to fire; `None`: it is pending.
    fired: Option<Moment>,
    value: f64,
    acknowledged: Option<Acknowledgement>,
    /// It fired at another process, and fires here until then also while the metrics of this one do not show its condition.
    held_until: Option<Instant>,
}

/// An alert that fires.
#[derive(Clone, Copy)]
pub(crate) struct FiringAlert<'a> {
    pub(crate) id: &'a AlertId,
    pub(crate) rule: &'static AlertRule,
    pub(crate) fired: Moment,
    pub(crate) value: f64,
    pub(crate) acknowledged: Option<&'a Acknowledgement>,
    /// Another alert explains it: only receivers that know it hear more of it.
    pub(crate) is_inhibited: bool,
}

#[derive(Clone)]
pub(crate) struct Acknowledgement {
    /// `None`: the request named no user.
    pub(crate) by: Option<Arc<str>>,
    pub(crate) at: Instant,
}

impl Acknowledgement {
    pub(crate) fn record(&self, present: Moment) -> AcknowledgementRecord {
        let at_us = time_us(self.at, present);
        AcknowledgementRecord { by: self.by.as_deref().map(Box::from), at_us }
    }
}

/// A request to acknowledge an alert cannot be executed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// No rule has this name.
    #[error("there is no alert `{0}`")]
    Unknown(String),
    /// The rule does not fire.
    #[error("`{0}` does not fire")]
    Silent(String),
    /// It is not escalated, but the next process does not know; the reason.
    #[error("acknowledged, but not kept for the next process: {0}")]
    NotWritten(Arc<str>),
    /// No alert is evaluated without a receiver.
    #[error("this gateway sends no alerts; [[alert]] in its configuration names a receiver")]
    NoReceiver,
}

/// Evaluates rules. Time is an argument.
pub(crate) struct ActiveAlerts {
    pub(crate) rules: &'static [AlertRule],
    pub(crate) history: MetricHistory,
    active: BTreeMap<AlertId, ActiveAlert>,
    /// Alerts that fire, and that another one explains.
    inhibited: BTreeSet<AlertId>,
}

impl ActiveAlerts {
    pub(crate) fn new(rules: &'static [AlertRule]) -> ActiveAlerts {
        let history = MetricHistory::of(rules);
        ActiveAlerts { rules, history, active: BTreeMap::new(), inhibited: BTreeSet::new() }
    }

    /// Evaluates all rules, and returns the alerts that fired and are resolved now.
    pub(crate) fn evaluate(&mut self, samples: Vec<MetricSample>, at: Moment) -> Vec<AlertId> {
        self.history.record(samples, at.now);
        let mut before = std::mem::take(&mut self.active);
        for (number, rule) in self.rules.iter().enumerate() {
            for (labels, value) in self.history.holding(&rule.condition, at.now) {
                let id = AlertId { rule: number, labels };
                let mut alert = before.remove(&id).unwrap_or(ActiveAlert {
                    active_since: at.now,
                    fired: None,
                    value,
                    acknowledged: None,
                    held_until: None,
                });
                (alert.value, alert.held_until) = (value, None);
                if at.now.saturating_duration_since(alert.active_since) >= rule.lasts {
                    alert.fired.get_or_insert(at);
                }
                self.active.insert(id, alert);
            }
        }
        let is_held = |_: &AlertId, alert: &mut ActiveAlert| {
            alert.held_until.is_some_and(|until| at.now < until)
        };
        self.active.extend(before.extract_if(.., is_held));
        self.inhibit();
        before.retain(|_, alert| alert.fired.is_some());
        before.into_keys().collect()
    }

    /// Continues an alert of another process, and returns its beginning. One that fires here, too, keeps its own if this gateway may have
    /// sent it: that of a member, and each one if it owned already.
    pub(crate) fn restore(
        &mut self,
        id: &AlertId,
        record: &AlertRecord,
        owned: bool,
        present: Moment,
    ) -> Option<Moment> {
        let (rule, fired) = (self.rules.get(id.rule)?, moment_at(record.fired_us?, present));
        let acknowledged = record.acknowledged.as_ref().map(|it| Acknowledgement {
            by: it.by.as_deref().map(Arc::from),
            at: moment_at(it.at_us, present).now,
        });
        if let Some(own) = self.active.get_mut(id)
            && own.fired.is_some()
            && (owned || rule.is_of_member())
        {
            own.acknowledged = own.acknowledged.take().or(acknowledged);
            return own.fired;
        }
        // The growth of a counter before this process is unknown here until the window has passed.
        let windows = rule.condition.values().into_iter().map(|value| match value.function {
            SeriesFunction::Mean { before, .. } => before,
            function => function.reach(),
        });
        let until = present.now + windows.fold(GAUGES_WITHIN, Duration::max);
        let (active_since, value) = (fired.now, record.value);
        let (fired, held_until) = (Some(fired), Some(until));
        let alert = ActiveAlert { active_since, fired, value, acknowledged, held_until };
        self.active.insert(id.clone(), alert);
        fired
    }

    /// Finds the alerts that others explain.
    pub(crate) fn inhibit(&mut self) {
        // An inhibition, and the values of its labels.
        let mut sources = BTreeSet::new();
        let values = |id: &AlertId, equal: &[&str]| -> Vec<Option<String>> {
            equal.iter().map(|label| id.labels.get(*label).cloned()).collect()
        };
        let mut inhibited = BTreeSet::new();
        // A source stands before its targets.
        for FiringAlert { id, rule, .. } in self.firing() {
            for (number, inhibition) in INHIBITIONS.iter().enumerate() {
                let key = || (number, values(id, inhibition.equal));
                if inhibition.source == rule.name {
                    sources.insert(key());
                } else if inhibition.targets.contains(&rule.name) && sources.contains(&key()) {
                    inhibited.insert(id.clone());
                }
            }
        }
        self.inhibited = inhibited;
    }

    /// The alerts that fire, the most urgent first.
    pub(crate) fn firing(&self) -> impl Iterator<Item = FiringAlert<'_>> {
        self.active.iter().filter_map(|(id, alert)| {
            Some(FiringAlert {
                id,
                rule: self.rules.get(id.rule)?,
                fired: alert.fired?,
                value: alert.value,
                acknowledged: alert.acknowledged.as_ref(),
                is_inhibited: self.inhibited.contains(id),
            })
        })
    }

    /// Acknowledges all alerts of a rule that fire now. One that begins later is a new one.
    pub(crate) fn acknowledge(
        &mut self,
        name: &str,
        by: Option<Arc<str>>,
        now: Instant,
    ) -> Result<(), AcknowledgeError> {
        let Some(rule) = self.rules.iter().position(|rule| rule.name == name) else {
            return Err(AcknowledgeError::Unknown(name.to_owned()));
        };
        let of_rule = self.active.iter_mut().filter(|(id, _)| id.rule == rule);
        let acknowledgement = Acknowledgement { by, at: now };
        let mut is_silent = true;
        for (_, alert) in of_rule.filter(|(_, alert)| alert.fired.is_some()) {
            is_silent = false;
            alert.acknowledged.get_or_insert_with(|| acknowledgement.clone());
        }
        if is_silent { Err(AcknowledgeError::Silent(name.to_owned())) } else { Ok(()) }
    }
}
