//! `[[alert]]`: receivers of the alerts that this gateway sends itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use toml::Spanned;

use super::address::Url;
use super::check::ConfigCheck;
use super::webhook::{WebhookTarget, hook_at};

/// Maximum number of receivers.
pub(super) const RECEIVERS_MAX: usize = 16;

const URL: &str = "a URL such as `https://alerts.example.org/hook`";

/// The path of Alertmanager's API v2 below its URL.
const ALERTMANAGER_PATH: &str = "/api/v2/alerts";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct AlertTable {
    name: Spanned<String>,
    #[serde(default)]
    kind: AlertReceiverKind,
    url: Spanned<String>,
    token_file: Option<Spanned<String>>,
    tiers: Option<Vec<AlertTier>>,
    escalate_after: Option<Spanned<DurationText>>,
    escalate_to: Option<Spanned<String>>,
    escalate_tiers: Option<Spanned<Vec<AlertTier>>>,
}

/// How urgent an alert is; the label `severity`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertTier {
    /// Calls suffer now: it needs an answer at any hour.
    Page,
    /// Calls go on, and the next fault may end them: within a working day.
    Ticket,
    /// An event to know when others are looked at.
    Info,
}

impl AlertTier {
    /// All tiers, the most urgent first.
    pub const ALL: [AlertTier; 3] = [AlertTier::Page, AlertTier::Ticket, AlertTier::Info];

    /// The value of the label `severity`.
    pub fn name(self) -> &'static str {
        match self {
            AlertTier::Page => "page",
            AlertTier::Ticket => "ticket",
            AlertTier::Info => "info",
        }
    }
}

/// The form in which a receiver takes alerts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertReceiverKind {
    /// A JSON object for each notice.
    #[default]
    Webhook,
    /// The API v2 of Prometheus' Alertmanager.
    Alertmanager,
}

impl AlertReceiverKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            AlertReceiverKind::Webhook => "webhook",
            AlertReceiverKind::Alertmanager => "alertmanager",
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct AlertReceiver {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Default: a webhook.
    pub kind: AlertReceiverKind,
    /// URL and token for the posts.
    pub target: WebhookTarget,
    /// The tiers that it gets at once. Default: all. Empty: escalated alerts only.
    pub tiers: Vec<AlertTier>,
    /// Escalation of unacknowledged alerts. Default: none.
    pub escalation: Option<AlertEscalation>,
}

/// Another receiver, which gets unacknowledged alerts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlertEscalation {
    /// From the time at which the alert was due at the first receiver.
    pub after: Duration,
    /// The tiers that are escalated. Default: all but [`AlertTier::Info`].
    pub tiers: Vec<AlertTier>,
    /// The name of the other one.
    pub to: Arc<str>,
}

pub(super) fn check(raw: &[Spanned<AlertTable>], check: &mut ConfigCheck) -> Vec<AlertReceiver> {
    check.at_most(raw, RECEIVERS_MAX, "receivers of alerts");
    let names: Vec<&Spanned<String>> = raw.iter().map(|raw| &raw.get_ref().name).collect();
    check.unique_names(&names);
    let receivers: Vec<AlertReceiver> =
        raw.iter().filter_map(|raw| receiver(raw.get_ref(), check)).collect();
    for raw in raw.iter().map(Spanned::get_ref) {
        let Some(to) = &raw.escalate_to else { continue };
        let all: BTreeSet<&str> = names.iter().map(|name| name.get_ref().as_str()).collect();
        let is_other = |name: &&str| *name != raw.name.get_ref().as_str();
        let others: Vec<&str> = all.into_iter().filter(is_other).collect();
        if !others.contains(&to.get_ref().as_str()) {
            check.refuse_unknown(to, "receiver", others);
        }
    }
    receivers
}

fn receiver(raw: &AlertTable, check: &mut ConfigCheck) -> Option<AlertReceiver> {
    let name = check.name(&raw.name);
    let allowed = Duration::from_secs(60)..=Duration::from_secs(24 * 3_600);
    let after = check.duration(&raw.escalate_after, Duration::from_secs(300), allowed);
    let tiers = raw.escalate_tiers.as_ref().map(Spanned::get_ref).cloned();
    let escalation = raw.escalate_to.as_ref().map(|to| AlertEscalation {
        after,
        tiers: tiers.unwrap_or_else(|| vec![AlertTier::Page, AlertTier::Ticket]),
        to: to.get_ref().as_str().into(),
    });
    if escalation.is_none() {
        let after = raw.escalate_after.as_ref().map(Spanned::span);
        let tiers = raw.escalate_tiers.as_ref().map(Spanned::span);
        for (key, span) in [("escalate_after", after), ("escalate_tiers", tiers)] {
            let Some(span) = span else { continue };
            let expected = "`escalate_to`, the receiver that gets the alert then";
            check.refuse(span, format!("`{key}` without `escalate_to`"), expected);
        }
    }
    let mut target = hook_at(&raw.url, raw.token_file.as_ref(), URL, check)?;
    if raw.kind == AlertReceiverKind::Alertmanager {
        target.url = alertmanager(&raw.url, &target.url, check)?;
    }
    let tiers = raw.tiers.clone().unwrap_or_else(|| AlertTier::ALL.to_vec());
    Some(AlertReceiver { name, kind: raw.kind, target, tiers, escalation })
}

/// The URL of the API below that of Alertmanager.
fn alertmanager(raw: &Spanned<String>, url: &Url, check: &mut ConfigCheck) -> Option<Url> {
    if url.path().contains('?') {
        check.refuse_text(raw, "the URL of Alertmanager without a query");
        return None;
    }
    let whole = format!("{}{ALERTMANAGER_PATH}", url.to_string().trim_end_matches('/'));
    whole.parse().ok()
}

#[cfg(test)]
mod tests;
