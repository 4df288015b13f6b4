//! The text of `evenkeel policy status`.

use std::time::Duration;

use serde_json::Value;

use crate::say;
use crate::status::{failing, text};

pub(super) fn show(policy: &Value) {
    say(&format!(
        "{}: {} ({}, {}), {} calls, {} faults{}",
        text(policy, "policy"),
        policy["revision"].as_str().unwrap_or("(native)"),
        text(policy, "plugin"),
        text(policy, "origin"),
        count(policy, "calls"),
        count(policy, "faults"),
        last_fault(policy)
    ));
    if let Some(previous) = policy["previous"].as_str() {
        let left = policy["rollback_window_ms"].as_u64().map(Duration::from_millis);
        let left = left.map_or(String::new(), |left| format!(", for {} s more", left.as_secs()));
        say(&format!("  previous: {previous}, available for rollback{left}"));
    }
    let rollout = &policy["rollout"];
    if rollout.is_object() {
        show_rollout(rollout);
    }
    let last = &policy["last_rollout"];
    if last.is_object() {
        let reason = last["reason"].as_str().map_or(String::new(), |why| format!(": {why}"));
        say(&format!("  last: {} by {}{reason}", text(last, "outcome"), text(last, "by")));
    }
    for one in policy["quarantined_revisions"].as_array().map_or(&[][..], Vec::as_slice) {
        let (revision, reason) = (text(one, "revision"), text(one, "reason"));
        say(&format!("  quarantined: {revision}: {reason}"));
    }
    for one in policy["revoked_revisions"].as_array().map_or(&[][..], Vec::as_slice) {
        let (revision, reason) = (text(one, "revision"), text(one, "reason"));
        say(&format!("  revoked: {revision}: {reason}"));
    }
}

/// The current fault of the policy, or its last one.
fn last_fault(policy: &Value) -> String {
    match policy["last_fault"].as_str() {
        Some(fault) if policy["failing"].is_null() => format!(", last fault: {fault}"),
        Some(_) | None => failing(policy),
    }
}

fn show_rollout(rollout: &Value) {
    let steps = rollout["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let steps: Vec<String> = steps.iter().map(Value::to_string).collect();
    let pace = match text(rollout, "stage") {
        "canary" => format!(" of at least {} s", count(rollout, "pace_ms") / 1_000),
        _ => String::new(),
    };
    say(&format!(
        "  rollout: {} ({}, {}), {} for {} s{}; steps {} %{}",
        text(rollout, "revision"),
        text(rollout, "plugin"),
        text(rollout, "origin"),
        stage(rollout),
        count(rollout, "lasted_ms") / 1_000,
        pace,
        if steps.is_empty() { "100".to_owned() } else { steps.join(", ") },
        next(rollout)
    ));
    let shadow = &rollout["shadow"];
    let (same, different) = (count(shadow, "same"), count(shadow, "different"));
    if same + different + count(shadow, "faulted") > 0 {
        let faulted = count(shadow, "faulted");
        say(&format!("    shadow answers: {same} equal, {different} different, {faulted} failed"));
    }
    let (calls, faults) = (count(rollout, "calls"), count(rollout, "faults"));
    if calls > 0 {
        say(&format!("    canary: {calls} calls, {faults} faults"));
    }
    if let Some(fault) = rollout["last_fault"].as_str() {
        say(&format!("    last fault: {fault}"));
    }
    for (name, words) in [("canary", "canary"), ("active", "active")] {
        let cohort = &rollout["cohorts"][name];
        if cohort.is_object() {
            let shown = |key: &str, unit: &str| {
                cohort[key].as_f64().map_or("unknown".to_owned(), |it| format!("{it:.1}{unit}"))
            };
            say(&format!(
                "    {words}: {} sessions, {} rooms; loss {}, R {}, rung {}{}",
                count(cohort, "sessions"),
                count(cohort, "rooms"),
                shown("loss_percent", " %"),
                shown("r_factor", ""),
                shown("rung", ""),
                worse(cohort)
            ));
        }
    }
}

fn worse(cohort: &Value) -> String {
    let all = cohort["worse"].as_object();
    let some = all.into_iter().flatten().filter(|(_, it)| count(it, "worse") > 0);
    let words: Vec<String> = some
        .map(|(figure, it)| format!("{figure} {} of {}", count(it, "worse"), count(it, "of")))
        .collect();
    if words.is_empty() { String::new() } else { format!("; worse: {}", words.join(", ")) }
}

/// The stage of a rollout: `canary at 5 %`.
pub(super) fn stage(rollout: &Value) -> String {
    let paused = if rollout["paused"] == Value::Bool(true) { ", paused" } else { "" };
    match text(rollout, "stage") {
        "canary" => format!("canary at {} %{paused}", count(rollout, "percent")),
        "shadow" => format!("in shadow{paused}"),
        _ => "starting".to_owned(),
    }
}

pub(super) fn next(rollout: &Value) -> String {
    let Some(percent) = rollout["next_percent"].as_u64() else {
        return String::new();
    };
    let then = if percent < 100 { ", and so on to 100 %" } else { "" };
    match rollout["next_in_ms"].as_u64() {
        Some(ms) => {
            let seconds = ms.div_ceil(1_000);
            format!("; {percent} % in {seconds} s or later unless it regresses{then}")
        }
        None if rollout["paused"] == Value::Bool(true) => String::new(),
        None => "; waits for `evenkeel policy promote`".to_owned(),
    }
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}
