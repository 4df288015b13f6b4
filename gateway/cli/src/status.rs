//! Commands that show the state of a running gateway: `evenkeel status` and `evenkeel modes`.

use std::time::{Duration, SystemTime};

use clap::Args;
use evenkeel_process::unix_us;
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, number, rows, say, text, texts};
use crate::operations::held;

/// Show sessions, nodes and policies of a running gateway.
#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: the objects `status`, `nodes` and `policies` of the API
    #[arg(long)]
    pub(crate) json: bool,
}

impl StatusArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let (status, nodes, policies) = self.api.operate(async |admin| {
            Ok((
                admin.read("/v1/status").await?,
                admin.read("/v1/nodes").await?,
                admin.read("/v1/policies").await?,
            ))
        })?;
        if self.json {
            say(&json!({"status": status, "nodes": nodes, "policies": policies}));
            return Ok(());
        }
        say(&format!(
            "{} sessions in {} rooms · {} packets to nodes, {} to clients{}{}",
            number(&status, "sessions"),
            number(&status, "rooms"),
            number(&status, "packets_to_node"),
            number(&status, "packets_to_client"),
            match status["state"].as_str() {
                Some("starting") => " · starting: compiling policies",
                Some("draining") => " · shutting down",
                _ => "",
            },
            match status["uplink_suspect"] == Value::Bool(true) {
                true => " · most nodes fell silent at once; check this gateway's uplink",
                false => "",
            }
        ));
        say(&format!(
            "  version {}, up {}",
            text(&status, "version"),
            spell(Duration::from_millis(number(&status, "uptime_ms")))
        ));
        let now = SystemTime::now();
        if status["configuration"].is_object() {
            say(&format!("  {}", origin(&status["configuration"], now)));
        }
        if let Some(line) = last_reload(&status["last_reload"], now) {
            say(&format!("  {line}"));
        }
        if let Some(reason) = status["index"]["reason"].as_str() {
            say(&format!("  index {}: {reason}", text(&status["index"], "state")));
        }
        for warning in texts(&status, "warnings") {
            say(&format!("  warning: {warning}"));
        }
        rows(&status, "export_failures").iter().for_each(|it| say(&export_failure_line(it, now)));
        rows(&status, "dependencies").iter().filter_map(dependency_line).for_each(|it| say(&it));
        let now_us = unix_us(now);
        for forecast in rows(&status, "forecasts") {
            say(&forecast_line(forecast, now_us));
        }
        rows(&status, "slos").iter().for_each(|slo| say(&slo_line(slo)));
        rows(&status, "client_breakers").iter().for_each(|it| say(&client_breaker_line(it)));
        rows(&status, "provider_breakers").iter().for_each(|it| say(&provider_breaker_line(it)));
        for node in rows(&nodes, "nodes") {
            say(&format!(
                "  node {:<16} {:<8} {:>3} rooms, {:>3} % load{}{}",
                text(node, "node"),
                text(node, "health"),
                number(node, "rooms"),
                number(node, "load_permille") / 10,
                if node["draining"] == Value::Bool(true) { ", draining" } else { "" },
                accused(node)
            ));
        }
        for policy in rows(&policies, "policies") {
            say(&format!(
                "  policy {:<20} {} ({}){}",
                text(policy, "policy"),
                policy["revision"].as_str().unwrap_or("native default"),
                text(policy, "plugin"),
                failing(policy)
            ));
        }
        Ok(())
    }
}

/// A signal of telemetry that its receiver does not take.
fn export_failure_line(failure: &Value, now: SystemTime) -> String {
    let (signal, failures) = (text(failure, "signal"), number(failure, "failures"));
    let lasts = Duration::from_micros(unix_us(now).saturating_sub(number(failure, "since_us")));
    format!("  {signal} not exported for {}: {failures} attempts failed", spell(lasts))
}

/// A dependency that is down.
fn dependency_line(dependency: &Value) -> Option<String> {
    let (name, reason) = (text(dependency, "dependency"), text(dependency, "reason"));
    let is_down = dependency["up"] == Value::Bool(false);
    is_down.then(|| format!("  dependency {name} is down: {reason}"))
}

/// A service level objective with its highest burn rate.
fn slo_line(slo: &Value) -> String {
    let rates = rows(slo, "windows").iter();
    let rates = rates.filter_map(|it| Some((it["burn_rate"].as_f64()?, text(it, "window"))));
    let burns = match rates.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((rate, window)) => format!("burn rate {rate} within {window}"),
        None => "too few sessions for a burn rate".to_owned(),
    };
    let left = slo["budget"].as_f64().unwrap_or_default() * 100.0;
    let name = format!("{} {}", text(slo, "scenario"), text(slo, "slo"));
    format!("  slo {name:<23} {burns}, {left:.0} % of the budget left")
}

/// A breaker of clients.
fn client_breaker_line(breaker: &Value) -> String {
    let limited = match number(breaker, "voice_only_sessions") {
        0 => String::new(),
        sessions => format!(", {sessions} sessions with voice only"),
    };
    let (label, value) = (text(breaker, "label"), text(breaker, "value"));
    let (state, held) = (text(breaker, "breaker"), held(breaker));
    format!("  clients {label} {value:<16} breaker {state}{held}{limited}")
}

/// A breaker of a provider of nodes.
fn provider_breaker_line(breaker: &Value) -> String {
    let (provider, state) = (text(breaker, "provider"), text(breaker, "breaker"));
    let failures = number(breaker, "failures");
    format!("  provider {provider} breaker {state}: {failures} starts failed in a row")
}

/// A warning of what is expected, with its evidence.
fn forecast_line(forecast: &Value, now_us: u64) -> String {
    let (subject, evidence) = (text(forecast, "subject"), &forecast["evidence"]);
    let left = number(forecast, "expected_us").saturating_sub(now_us);
    let when = match Duration::from_micros(left) {
        left if left < Duration::from_secs(60) => "now".to_owned(),
        left => format!("in {}", spell(left)),
    };
    match text(forecast, "kind") {
        "load" => format!(
            "  forecast: capacity of region {subject} is exhausted {when}: {} of {} kbit/s, {} % certain",
            number(evidence, "load_kbps"),
            number(evidence, "capacity_kbps"),
            number(evidence, "confidence_percent")
        ),
        "decay" => {
            let (sign, value, limit) =
                (text(evidence, "sign"), &evidence["value"], &evidence["limit"]);
            let unit = if sign == "delay" { " ms" } else { "" };
            format!(
                "  forecast: node {subject} decays and reaches its limit {when}: {sign} {value} of {limit}{unit}"
            )
        }
        _ => format!(
            "  forecast: link to node {subject} flaps: {} changes within an hour",
            number(evidence, "changes")
        ),
    }
}

/// The last reload in one line; `None` without one.
fn last_reload(reload: &Value, now: SystemTime) -> Option<String> {
    let at_us = reload["at_us"].as_u64()?;
    let ago = Duration::from_micros(unix_us(now).saturating_sub(at_us));
    let (by, ago) = (text(reload, "by"), spell(ago));
    let outcome = match reload["reason"].as_str() {
        Some(reason) => format!("refused, nothing changed: {reason}"),
        None => {
            let refused = rows(reload, "refused").len();
            let waiting = texts(reload, "requires_restart");
            let refused = (refused > 0).then(|| format!("{refused} policies not replaced"));
            let waiting =
                (!waiting.is_empty()).then(|| format!("restart for {}", waiting.join(", ")));
            let notes: Vec<String> = refused.into_iter().chain(waiting).collect();
            if notes.is_empty() { "applied".to_owned() } else { notes.join("; ") }
        }
    };
    Some(format!("last reload {ago} ago, by {by}: {outcome}"))
}

/// The file in force in one line: its name, digest and age, and the tables of it that wait.
pub(crate) fn origin(configuration: &Value, now: SystemTime) -> String {
    let age = unix_us(now).saturating_sub(number(configuration, "read_us"));
    let read = spell(Duration::from_micros(age));
    let Some(file) = configuration["file"].as_str() else {
        return format!("built-in configuration, in force for {read}");
    };
    let waiting = texts(configuration, "requires_restart");
    let waiting = match waiting.is_empty() {
        true => String::new(),
        false => format!("; restart for {}", waiting.join(", ")),
    };
    let digest = text(configuration, "sha256");
    format!("configuration {file}, SHA-256 {digest}, read {read} ago{waiting}")
}

/// Days and hours, hours and minutes, minutes, or seconds.
pub(crate) fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn accused(node: &Value) -> String {
    let words = texts(node, "suspected_by");
    if words.is_empty() { String::new() } else { format!(", accused by {}", words.join(", ")) }
}

pub(crate) fn failing(policy: &Value) -> String {
    policy["failing"].as_str().map_or(String::new(), |fault| format!(", failing: {fault}"))
}

/// Show measured recovery time, loss and bandwidth of each mode
///
/// Recovery time is the gap at clients when a node died, loss counts packets missing after a switch, and bandwidth is the
/// additional traffic to standbys. Gaps include the distance of packets: with one every 20 ms a gap is never below 20 ms.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ModesArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `modes`, each with `mode`, its `scenarios`, `recoveries` (sessions that failed over while media was
    /// flowing), `recovery_ms` with `p50`, `p99` and `max`, `packets_lost` (missing 500 ms after switches, without sources
    /// that had paused before), and `bandwidth_cost` (bytes to and from standbys per media byte to and from first hops);
    /// null if not measured yet
    #[arg(long)]
    pub(crate) json: bool,
}

impl ModesArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let modes = self.api.read("/v1/modes")?;
        if self.json {
            say(&modes);
            return Ok(());
        }
        mode_lines(&modes).iter().for_each(say);
        Ok(())
    }
}

/// The table of `/v1/modes`.
pub(crate) fn mode_lines(modes: &Value) -> Vec<String> {
    let head = format!(
        "{:<14} {:>10} {:>9} {:>9} {:>9} {:>8} {:>10}  scenarios",
        "mode", "recoveries", "p50 ms", "p99 ms", "max ms", "lost", "bandwidth"
    );
    std::iter::once(head).chain(rows(modes, "modes").iter().map(mode_line)).collect()
}

fn mode_line(mode: &Value) -> String {
    let measured = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let time = |key: &str| measured(mode["recovery_ms"][key].as_f64().map(|ms| format!("{ms:.1}")));
    let lost = measured(mode["packets_lost"].as_u64().map(|lost| lost.to_string()));
    let cost = mode["bandwidth_cost"].as_f64();
    let cost = measured(cost.map(|cost| format!("+{:.1} %", cost * 100.0)));
    let scenarios = texts(mode, "scenarios");
    let line = format!(
        "{:<14} {:>10} {:>9} {:>9} {:>9} {lost:>8} {cost:>10}  {}",
        text(mode, "mode"),
        number(mode, "recoveries"),
        time("p50"),
        time("p99"),
        time("max"),
        if scenarios.is_empty() { "none".to_owned() } else { scenarios.join(", ") },
    );
    let unmeasured = mode["bandwidth_cost"].is_null() && mode["recovery_ms"].is_null();
    if unmeasured { format!("{line} (not measured yet)") } else { line }
}

#[cfg(test)]
mod tests;
