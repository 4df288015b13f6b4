//! The notices of one receiver: what it was sent, what it is due, and when.
//!
//! Nothing queues: a notice is made of the present state when it is sent, so that a receiver that is down for long gets one notice
//! of each rule afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::{AlertReceiver, AlertReceiverKind};
use evenkeel_control::{AlertRecord, NoticeRecord, SentAlertRecord};
use evenkeel_process::unix_us;
use evenkeel_telemetry::Moment;
use evenkeel_telemetry::alerts::AlertRule;

use super::active::{ActiveAlerts, AlertId, FiringAlert};
use super::record::{moment_at, time_us};

/// A receiver gets at most one notice of a rule in this time, however many alerts of the rule begin and end. Alertmanager gets alerts
/// that fire again as often, since it forgets those that it does not hear of.
pub(crate) const NOTICE_EVERY: Duration = Duration::from_secs(60);

/// Alerts in a notice, which stays below 1 MiB then. The others follow with the next one.
const ALERTS_PER_NOTICE: usize = 500;

/// Resolved alerts that wait for a receiver that is down. Beyond it the oldest are forgotten.
const RESOLVED_MAX: usize = 1_000;

/// Pause after a failure; it doubles with each further one.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The pause after a failure that follows this many.
pub(crate) fn retry_pause(failures: u32) -> Duration {
    (RETRY_AFTER * (1 << failures.min(6))).min(RETRY_AFTER_MAX)
}

/// A receiver, and what it was sent.
pub(crate) struct Outbox {
    pub(crate) receiver: AlertReceiver,
    sent: BTreeMap<AlertId, SentAlert>,
    /// The last delivered notice of each rule.
    noticed: BTreeMap<usize, Instant>,
    /// The notice that waits for its answer.
    unanswered: Option<UnansweredNotice>,
    /// Failed deliveries since the last success.
    pub(crate) failures: u32,
    retry_at: Option<Instant>,
    /// Failed deliveries of each rule since its last success.
    failed: BTreeMap<usize, u32>,
}

/// An alert that the receiver takes for firing.
struct SentAlert {
    /// The beginning that it was sent.
    fired: Moment,
    value: f64,
    at: Instant,
    /// The receiver answered. It may have got the alert without an answer, too.
    is_delivered: bool,
    /// The end that it is to be sent.
    resolved: Option<SystemTime>,
}

struct UnansweredNotice {
    rule: usize,
    sent: Instant,
    firing: Vec<AlertId>,
    resolved: Vec<AlertId>,
}

/// A notice to send: the alerts of one rule.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct AlertNotice {
    /// Index of the rule.
    pub(crate) rule: usize,
    /// The receiver gets the alerts by escalation.
    pub(crate) is_escalated: bool,
    /// Alerts of the rule that fire, also those that the receiver knows.
    pub(crate) firing_count: usize,
    pub(crate) alerts: Vec<NoticedAlert>,
}

/// An alert in a notice.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct NoticedAlert {
    pub(crate) id: AlertId,
    pub(crate) value: f64,
    pub(crate) fired: SystemTime,
    /// `None`: it fires.
    pub(crate) resolved: Option<SystemTime>,
}

impl Outbox {
    pub(crate) fn new(receiver: AlertReceiver) -> Outbox {
        Outbox {
            receiver,
            sent: BTreeMap::new(),
            noticed: BTreeMap::new(),
            unanswered: None,
            failures: 0,
            retry_at: None,
            failed: BTreeMap::new(),
        }
    }

    /// Notes the end of an alert.
    pub(crate) fn resolve(&mut self, id: &AlertId, at: SystemTime) {
        let Some(sent) = self.sent.get_mut(id) else { return };
        sent.resolved = Some(at);
        let ended = self.sent.iter().filter_map(|(id, sent)| Some((sent.resolved?, id)));
        if ended.clone().count() > RESOLVED_MAX
            && let Some(oldest) = ended.min().map(|(_, id)| id.clone())
        {
            self.sent.remove(&oldest);
        }
    }

    /// The next notice. `is_due`: an alert that fires is due at this receiver. `is_sent`: this gateway sends the alerts of a rule.
    pub(crate) fn next_notice(
        &mut self,
        active: &ActiveAlerts,
        is_due: impl Fn(&FiringAlert<'_>) -> bool,
        is_sent: impl Fn(usize) -> bool,
        now: Instant,
    ) -> Option<AlertNotice> {
        if self.unanswered.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let mut by_rule: BTreeMap<usize, Vec<FiringAlert<'_>>> = BTreeMap::new();
        let is_explained =
            |alert: &FiringAlert<'_>| alert.is_inhibited && !self.sent.contains_key(alert.id);
        for alert in active.firing().filter(|alert| is_due(alert) && !is_explained(alert)) {
            by_rule.entry(alert.id.rule).or_default().push(alert);
        }
        let sent_rules = self.sent.keys().map(|id| id.rule);
        let rules: BTreeSet<usize> = by_rule.keys().copied().chain(sent_rules).collect();
        let is_quiet = |rule: &usize| {
            let noticed = self.noticed.get(rule);
            noticed.is_none_or(|at| now.saturating_duration_since(*at) >= NOTICE_EVERY)
        };
        let rules = rules.into_iter().filter(|rule| is_sent(*rule) && is_quiet(rule));
        let mut rules: Vec<usize> = rules.collect();
        // A receiver that refuses the notices of one rule gets those of the others.
        rules.sort_by_key(|rule| self.failed.get(rule).copied().unwrap_or(0));
        for rule in rules {
            let firing = by_rule.remove(&rule).unwrap_or_default();
            if let Some(notice) = self.notice(rule, &firing, active, now) {
                return Some(notice);
            }
        }
        None
    }

    fn notice(
        &mut self,
        rule: usize,
        firing: &[FiringAlert<'_>],
        active: &ActiveAlerts,
        now: Instant,
    ) -> Option<AlertNotice> {
        let last_sent = |id: &AlertId| self.sent.get(id).map(|sent| sent.at);
        let mut news: Vec<FiringAlert<'_>> =
            firing.iter().copied().filter(|alert| self.is_news(alert, now)).collect();
        news.sort_by_key(|alert| last_sent(alert.id));
        let due: BTreeSet<&AlertId> = firing.iter().map(|alert| alert.id).collect();
        let ended = self
            .sent
            .iter()
            .filter(|(id, sent)| id.rule == rule && sent.resolved.is_some() && !due.contains(id));
        let ended = ended.take(ALERTS_PER_NOTICE).map(|(id, sent)| NoticedAlert {
            id: id.clone(),
            value: sent.value,
            fired: sent.fired.wall,
            resolved: sent.resolved,
        });
        let mut alerts: Vec<NoticedAlert> = ended.collect();
        // Ends first: each is sent once, and alerts that fire are repeated.
        news.truncate(ALERTS_PER_NOTICE - alerts.len());
        let resolved: Vec<AlertId> = alerts.iter().map(|alert| alert.id.clone()).collect();
        for &FiringAlert { id, value, fired, .. } in &news {
            let (id, resolved) = (id.clone(), None);
            alerts.push(NoticedAlert { id: id.clone(), value, fired: fired.wall, resolved });
            let sent = SentAlert { fired, value, at: now, is_delivered: false, resolved };
            self.sent.insert(id, sent);
        }
        if alerts.is_empty() {
            return None;
        }
        let news = news.iter().map(|alert| alert.id.clone()).collect();
        self.unanswered = Some(UnansweredNotice { rule, sent: now, firing: news, resolved });
        let tiers = &self.receiver.tiers;
        let is_escalated = active.rules.get(rule).is_some_and(|rule| !tiers.contains(&rule.tier));
        Some(AlertNotice { rule, is_escalated, firing_count: firing.len(), alerts })
    }

    /// The receiver does not know that the alert fires, or is to hear of it again.
    fn is_news(&self, alert: &FiringAlert<'_>, now: Instant) -> bool {
        let Some(sent) = self.sent.get(alert.id) else { return true };
        let is_late = now.saturating_duration_since(sent.at) >= NOTICE_EVERY;
        let repeats = self.receiver.kind == AlertReceiverKind::Alertmanager && is_late;
        sent.fired.now != alert.fired.now || !sent.is_delivered || repeats
    }

    /// The receiver answered the last notice, or did not.
    pub(crate) fn handle_answer(&mut self, is_accepted: bool, now: Instant) {
        let Some(UnansweredNotice { rule, sent, firing, resolved }) = self.unanswered.take() else {
            return;
        };
        if !is_accepted {
            *self.failed.entry(rule).or_default() += 1;
            self.retry_at = Some(now + retry_pause(self.failures));
            self.failures = self.failures.saturating_add(1);
            return;
        }
        (self.failures, self.retry_at) = (0, None);
        self.failed.remove(&rule);
        self.noticed.insert(rule, sent);
        for id in &firing {
            if let Some(alert) = self.sent.get_mut(id) {
                alert.is_delivered = true;
            }
        }
        for id in &resolved {
            self.sent.remove(id);
        }
    }

    /// The alerts that the receiver takes for firing, with their values, for another process.
    pub(crate) fn sent(
        &self,
        present: Moment,
    ) -> impl Iterator<Item = (&AlertId, f64, SentAlertRecord)> {
        self.sent.iter().map(move |(id, sent)| {
            let record = SentAlertRecord {
                receiver: (*self.receiver.name).into(),
                fired_us: unix_us(sent.fired.wall),
                at_us: time_us(sent.at, present),
                is_delivered: sent.is_delivered,
                resolved_us: sent.resolved.map(unix_us),
            };
            (id, sent.value, record)
        })
    }

    /// The last delivered notice of each rule, for another process.
    pub(crate) fn notices(
        &self,
        rules: &'static [AlertRule],
        present: Moment,
    ) -> impl Iterator<Item = NoticeRecord> {
        self.noticed.iter().filter_map(move |(rule, at)| {
            Some(NoticeRecord {
                receiver: (*self.receiver.name).into(),
                alert: rules.get(*rule)?.name.into(),
                at_us: time_us(*at, present),
            })
        })
    }

    /// Continues an alert that another process sent, unless the receiver was sent it by this one. `fired`: the beginning of the alert.
    pub(crate) fn restore(
        &mut self,
        id: AlertId,
        alert: &AlertRecord,
        sent: &SentAlertRecord,
        fired: Option<Moment>,
        present: Moment,
    ) {
        if self.sent.get(&id).is_some_and(|own| own.resolved.is_none()) {
            return;
        }
        let ended = alert.fired_us.is_none().then_some(present.wall);
        let fired = fired.filter(|_| alert.fired_us == Some(sent.fired_us));
        let sent = SentAlert {
            fired: fired.unwrap_or_else(|| moment_at(sent.fired_us, present)),
            value: alert.value,
            at: moment_at(sent.at_us, present).now,
            is_delivered: sent.is_delivered,
            resolved: sent.resolved_us.map(|us| moment_at(us, present).wall).or(ended),
        };
        self.sent.insert(id, sent);
    }

    /// Continues the pause after a notice that another process sent.
    pub(crate) fn restore_notice(&mut self, rule: usize, at: Instant) {
        let last = self.noticed.entry(rule).or_insert(at);
        *last = at.max(*last);
    }

    /// The receiver has another URL or token, so earlier failures say nothing.
    pub(crate) fn forget_failures(&mut self) {
        (self.failures, self.retry_at) = (0, None);
        self.failed.clear();
    }

    /// Alerts that the receiver was sent without an answer so far, and those that ended since it was sent them.
    pub(crate) fn waiting(&self) -> usize {
        self.sent.values().filter(|sent| !sent.is_delivered || sent.resolved.is_some()).count()
    }
}
