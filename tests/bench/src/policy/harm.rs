//! A policy that makes media worse for its cohort, and the time until it is rolled back.

use std::time::Instant;

use serde_json::Value;

use super::Effort;
use super::gateway::{Api, Gateway, encoded};
use super::report::{Report, Tail};

const POLICY: &str = "call/degradation";

/// The first cap, kbit/s. Each push uses another one, since a harmful revision is quarantined.
const FIRST_CAP: usize = 40;

/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    gateway: &mut Gateway,
    plugin: &[u8],
    effort: Effort,
    report: &mut Report,
) -> Result<(), String> {
    let mut api = gateway.api()?;
    let mut times = Vec::new();
    for round in 0..effort.harms {
        let cap = FIRST_CAP + round;
        let ((took, reason), flow) = gateway.under_load(|| undone(&mut api, plugin, cap))?;
        times.push(took);
        report.harm_reason = Some(reason);
        report.harm_packets_lost += flow.lost;
    }
    report.bad_policy_rollback_ms = Tail::of(&mut times);
    Ok(())
}

/// Pushes the plugin as a canary for half of all sessions. Returns the time until the previous revision is active
/// again, in milliseconds, and the reason of the rollback. The time begins at or before the plugin's first decision.
fn undone(api: &mut Api, plugin: &[u8], cap: usize) -> Result<(f64, String), String> {
    let settings = encoded(&format!("{{\"cap\":{cap}}}"));
    let before = api.policy(POLICY)?["revision"].clone();
    let query = format!("?canary=50&pace=60s&settings={settings}");
    let begun = api.push_to(POLICY, &query, plugin)?;
    let began = Instant::now();
    if begun["outcome"] != "started" {
        return Err(format!("the harmful revision was not activated: {begun}"));
    }
    // The outcome is reported a moment after the rollback.
    let is_over = |policy: &Value| {
        policy["rollout"].is_null() && policy["last_rollout"]["outcome"] != "started"
    };
    let now = api.wait(POLICY, is_over)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let last = &now["last_rollout"];
    if last["by"] != "gateway" || last["outcome"] != "rolled-back" || now["revision"] != before {
        return Err(format!("the harmful revision was not rolled back: {now}"));
    }
    Ok((took, last["reason"].as_str().unwrap_or_default().to_owned()))
}
