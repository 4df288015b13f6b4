//! Notices as receivers read them: JSON of a webhook, and of Alertmanager's API v2.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_config::AlertReceiverKind;
use evenkeel_process::unix_us;
use evenkeel_telemetry::alerts::RULES;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::alerts::{AlertDelivery, runbook};
use super::outbox::{NOTICE_EVERY, NoticedAlert};

/// The version of the object that webhooks get.
const VERSION: u32 = 1;

/// Alertmanager takes an alert for resolved if it does not hear of it for this time. The next three notices may be lost.
const HOLDS: Duration = NOTICE_EVERY.saturating_mul(4);

impl AlertDelivery {
    /// The body of the request. `gateway`: the name of this gateway, or of its group. `dependencies_down`: the names of those that a fault may
    /// affect as well.
    pub(crate) fn body(
        &self,
        gateway: &str,
        dependencies_down: &[Arc<str>],
        now: SystemTime,
    ) -> Vec<u8> {
        let body = match self.receiver.kind {
            AlertReceiverKind::Webhook => self.webhook(gateway, dependencies_down),
            AlertReceiverKind::Alertmanager => self.alertmanager(gateway, dependencies_down, now),
        };
        body.to_string().into_bytes()
    }

    fn webhook(&self, gateway: &str, dependencies_down: &[Arc<str>]) -> Value {
        let rule = &RULES[self.notice.rule];
        let alerts = self.notice.alerts.iter().map(|alert| {
            json!({
                "status": status(alert.resolved.is_none()),
                "labels": alert.id.labels,
                "summary": rule.summarize(&alert.id.labels, alert.value),
                "value": alert.value,
                "starts_at": rfc3339(alert.fired),
                "ends_at": alert.resolved.map(rfc3339),
            })
        });
        json!({
            "version": VERSION,
            "gateway": gateway,
            "alert": rule.name,
            "severity": rule.tier.name(),
            "status": status(self.notice.firing_count > 0),
            "firing": self.notice.firing_count,
            "escalated": self.notice.is_escalated,
            "runbook": runbook(rule),
            "dependencies_down": dependencies_down,
            "alerts": alerts.collect::<Vec<_>>(),
        })
    }

    fn alertmanager(
        &self,
        gateway: &str,
        dependencies_down: &[Arc<str>],
        now: SystemTime,
    ) -> Value {
        let rule = &RULES[self.notice.rule];
        let alert = |alert: &NoticedAlert| {
            let mut labels: Map<String, Value> = Map::new();
            for (name, value) in &alert.id.labels {
                labels.insert(name.clone(), value.as_str().into());
            }
            labels.insert("alertname".to_owned(), rule.name.into());
            labels.insert("severity".to_owned(), rule.tier.name().into());
            labels.insert("gateway".to_owned(), gateway.into());
            let mut annotations = json!({
                "summary": rule.summarize(&alert.id.labels, alert.value),
                "runbook": runbook(rule),
            });
            if !dependencies_down.is_empty() {
                annotations["dependencies_down"] = dependencies_down.join(", ").into();
            }
            json!({
                "labels": labels,
                "annotations": annotations,
                "startsAt": rfc3339(alert.fired),
                "endsAt": rfc3339(alert.resolved.unwrap_or(now + HOLDS)),
            })
        };
        self.notice.alerts.iter().map(alert).collect()
    }
}

fn status(fires: bool) -> &'static str {
    if fires { "firing" } else { "resolved" }
}

/// A time in UTC (RFC 3339, section 5.6), to the millisecond; empty after the year 9999.
fn rfc3339(at: SystemTime) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us(at)) * 1_000);
    at.ok().and_then(|at| at.format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
