//! Commands that show the state of a running gateway: `evenkeel status` and `evenkeel modes`.

use std::time::{Duration, SystemTime};

use clap::Args;
use evenkeel_contract::alerts::Dependency;
use evenkeel_contract::gateway::{
    ClientBreaker, ConfigurationOrigin, Credential, ExportFailure, Forecast, ForecastEvidence,
    Mode, ModeList, ProviderBreaker, ReloadReport, Slo, SloWindow, Status,
};
use evenkeel_contract::nodes::{Node, NodeList};
use evenkeel_contract::policies::{Policy, PolicyList};
use evenkeel_contract::sessions::{RatedGroup, RatingComparison};
use evenkeel_process::unix_us;
use serde_json::json;

use crate::command::{ApiArgs, CommandError, counted, say, show_lines, typed};
use crate::operations::held;
use crate::session::{hundredths, r_factor};

/// Show sessions, nodes and policies of a running gateway.
#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// Compare the ratings of users with the measured quality, by scenario, node and revision
    #[arg(long)]
    ratings: bool,
    /// Print JSON: the objects `status`, `nodes` and `policies` of the API, or its comparison of ratings
    #[arg(long)]
    pub(crate) json: bool,
}

impl StatusArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        if self.ratings {
            let answer = self.api.read("/v1/ratings")?;
            let compared = typed(&answer)?;
            show_lines(self.json, &answer, || rating_lines(&compared));
            return Ok(());
        }
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
        let status: Status = typed(&status)?;
        let NodeList { nodes } = typed(&nodes)?;
        let PolicyList::<Policy> { policies } = typed(&policies)?;
        say(&format!(
            "{} sessions in {} rooms · {} packets to nodes, {} to clients{}{}",
            status.sessions,
            status.rooms,
            status.packets_to_node,
            status.packets_to_client,
            match &*status.state {
                "starting" => " · starting: compiling policies",
                "draining" => " · shutting down",
                _ => "",
            },
            match status.uplink_suspect {
                true => " · most nodes fell silent at once; check this gateway's uplink",
                false => "",
            }
        ));
        let uptime = spell(Duration::from_millis(status.uptime_ms));
        say(&format!("  version {}, up {uptime}", status.version));
        let now = SystemTime::now();
        if let Some(configuration) = &status.configuration {
            say(&format!("  {}", origin(configuration, now)));
        }
        if let Some(reload) = &status.last_reload {
            say(&format!("  {}", last_reload(reload, now)));
        }
        if let Some(index) = &status.index
            && let Some(reason) = &index.reason
        {
            say(&format!("  index {}: {reason}", index.state));
        }
        for warning in &status.warnings {
            say(&format!("  warning: {warning}"));
        }
        status.credentials.iter().for_each(|it| say(&credential_line(it, now)));
        status.export_failures.iter().for_each(|it| say(&export_failure_line(it, now)));
        let dependencies = status.dependencies.iter().flatten();
        dependencies.filter_map(dependency_line).for_each(|it| say(&it));
        let now_us = unix_us(now);
        for forecast in &status.forecasts {
            say(&forecast_line(forecast, now_us));
        }
        status.slos.iter().for_each(|slo| say(&slo_line(slo)));
        status.client_breakers.iter().for_each(|it| say(&client_breaker_line(it)));
        status.provider_breakers.iter().for_each(|it| say(&provider_breaker_line(it)));
        for node in &nodes {
            say(&format!(
                "  node {:<16} {:<8} {:>3} rooms, {:>3} % load{}{}",
                node.hop.place.node,
                node.health,
                node.rooms,
                node.load_permille / 10,
                if node.draining { ", draining" } else { "" },
                accused(node)
            ));
        }
        for policy in &policies {
            say(&format!(
                "  policy {:<20} {} ({}){}",
                policy.policy,
                policy.revision.as_deref().unwrap_or("native default"),
                policy.plugin,
                failing(policy)
            ));
        }
        Ok(())
    }
}

/// A line for each scenario, node and revision with ratings.
fn rating_lines(compared: &RatingComparison) -> String {
    let RatingComparison { scenarios, nodes, revisions } = compared;
    let line = |kind: &str, group: &RatedGroup| {
        let RatedGroup { name, ratings, mean_rating_centi, measured, mean_r_centi } = group;
        let mean = hundredths(*mean_rating_centi);
        let of = match measured {
            1.. if measured < ratings => format!(" (of {measured})"),
            _ => String::new(),
        };
        let (ratings, measured) = (counted(*ratings, "rating"), r_factor(*mean_r_centi));
        format!("  {kind:<8} {name:<32} {ratings}, mean {mean} of 5, {measured}{of}")
    };
    let lines = [("scenario", scenarios), ("node", nodes), ("revision", revisions)];
    let lines = lines.into_iter().flat_map(|(kind, groups)| {
        groups.iter().map(move |group| line(kind, group)).collect::<Vec<_>>()
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "no ratings".to_owned() } else { lines.join("\n") }
}

/// A certificate or token with its end.
fn credential_line(
    Credential { credential, ends_us, ends }: &Credential,
    now: SystemTime,
) -> String {
    match ends_us.checked_sub(unix_us(now)) {
        Some(left) => {
            format!("  {credential} ends on {ends}, in {}", spell(Duration::from_micros(left)))
        }
        None => format!("  {credential} ended on {ends}: renew it"),
    }
}

/// A signal of telemetry that its receiver does not take.
fn export_failure_line(failure: &ExportFailure, now: SystemTime) -> String {
    let ExportFailure { signal, since_us, failures, reason } = failure;
    let lasts = Duration::from_micros(unix_us(now).saturating_sub(*since_us));
    let last = reason.as_ref().map(|reason| format!(", the last: {reason}")).unwrap_or_default();
    format!("  {signal} not exported for {}: {failures} attempts failed{last}", spell(lasts))
}

/// A dependency that is down.
fn dependency_line(dependency: &Dependency) -> Option<String> {
    let reason = dependency.reason.as_deref().unwrap_or_default();
    let name = &dependency.dependency;
    (!dependency.up).then(|| format!("  dependency {name} is down: {reason}"))
}

/// A service level objective with its highest burn rate.
fn slo_line(slo: &Slo) -> String {
    let counted = |window: &SloWindow| window.counted_ms.map(Duration::from_millis);
    let rates = slo.windows.iter().filter_map(|it| Some((it.burn_rate?, it)));
    let burns = match rates.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((rate, window)) => match counted(window) {
            Some(counted) => {
                format!("burn rate {rate} within the {} counted so far", spell(counted))
            }
            None => format!("burn rate {rate} within {}", window.window),
        },
        None => "too few sessions for a burn rate".to_owned(),
    };
    let left = slo.budget * 100.0;
    let so_far = slo.windows.last().and_then(counted).map_or("", |_| " so far");
    let name = format!("{} {}", slo.scenario, slo.slo);
    format!("  slo {name:<23} {burns}, {left:.0} % of the budget left{so_far}")
}

/// A breaker of clients.
fn client_breaker_line(breaker: &ClientBreaker) -> String {
    let limited = match breaker.voice_only_sessions {
        0 => String::new(),
        sessions => format!(", {sessions} sessions with voice only"),
    };
    let (label, value) = (&breaker.group.label, &breaker.group.value);
    let (state, held) = (&breaker.breaker, held(&breaker.breaker_mode));
    format!("  clients {label} {value:<16} breaker {state}{held}{limited}")
}

/// A breaker of a provider of nodes.
fn provider_breaker_line(breaker: &ProviderBreaker) -> String {
    let ProviderBreaker { provider, breaker: state, failures, .. } = breaker;
    format!("  provider {provider} breaker {state}: {failures} starts failed in a row")
}

/// A warning of what is expected, with its evidence.
fn forecast_line(forecast: &Forecast, now_us: u64) -> String {
    let subject = &forecast.subject;
    let left = forecast.expected_us.saturating_sub(now_us);
    let when = match Duration::from_micros(left) {
        left if left < Duration::from_secs(60) => "now".to_owned(),
        left => format!("in {}", spell(left)),
    };
    match &forecast.evidence {
        ForecastEvidence::Load { load_kbps, capacity_kbps, confidence_percent } => format!(
            "  forecast: capacity of region {subject} is exhausted {when}: {load_kbps} of {capacity_kbps} kbit/s, {confidence_percent} % certain"
        ),
        ForecastEvidence::Decay { sign, value, limit } => {
            let unit = if sign == "delay" { " ms" } else { "" };
            format!(
                "  forecast: node {subject} decays and reaches its limit {when}: {sign} {value:?} of {limit:?}{unit}"
            )
        }
        ForecastEvidence::Flap { changes } => {
            format!("  forecast: link to node {subject} flaps: {changes} changes within an hour")
        }
        ForecastEvidence::Delay { round_trip_ms, usual_ms } => format!(
            "  forecast: round trip to node {subject} is {round_trip_ms} ms, usually {usual_ms} ms at this hour"
        ),
        ForecastEvidence::Unknown {} => {
            let kind = &forecast.kind;
            format!("  forecast: {kind} of {subject}, which this version does not know")
        }
    }
}

/// The last reload in one line.
fn last_reload(reload: &ReloadReport, now: SystemTime) -> String {
    let ago = Duration::from_micros(unix_us(now).saturating_sub(reload.at_us));
    let (by, ago) = (&reload.by, spell(ago));
    let outcome = match &reload.reason {
        Some(reason) => format!("refused, nothing changed: {reason}"),
        None => {
            let changes = reload.changes.clone().unwrap_or_default();
            let (refused, waiting) = (changes.refused.len(), changes.requires_restart);
            let refused = (refused > 0).then(|| format!("{refused} policies not replaced"));
            let waiting =
                (!waiting.is_empty()).then(|| format!("restart for {}", waiting.join(", ")));
            let notes: Vec<String> = refused.into_iter().chain(waiting).collect();
            if notes.is_empty() { "applied".to_owned() } else { notes.join("; ") }
        }
    };
    format!("last reload {ago} ago, by {by}: {outcome}")
}

/// The file in force in one line: its name, digest and age, and the tables of it that wait.
pub(crate) fn origin(configuration: &ConfigurationOrigin, now: SystemTime) -> String {
    let age = unix_us(now).saturating_sub(configuration.read_us);
    let read = spell(Duration::from_micros(age));
    let Some(file) = &configuration.file else {
        return format!("built-in configuration, in force for {read}");
    };
    let waiting = match &configuration.requires_restart[..] {
        [] => String::new(),
        waiting => format!("; restart for {}", waiting.join(", ")),
    };
    let digest = configuration.sha256.as_deref().unwrap_or_default();
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

fn accused(node: &Node) -> String {
    match &node.suspected_by[..] {
        [] => String::new(),
        witnesses => format!(", accused by {}", witnesses.join(", ")),
    }
}

pub(crate) fn failing(policy: &Policy) -> String {
    policy.failing.as_ref().map_or(String::new(), |fault| format!(", failing: {fault}"))
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let modes = self.api.read("/v1/modes")?;
        if self.json {
            say(&modes);
            return Ok(());
        }
        let ModeList { modes } = typed(&modes)?;
        mode_lines(&modes).iter().for_each(say);
        Ok(())
    }
}

/// The table of `/v1/modes`.
pub(crate) fn mode_lines(modes: &[Mode]) -> Vec<String> {
    let head = format!(
        "{:<14} {:>10} {:>9} {:>9} {:>9} {:>8} {:>10}  scenarios",
        "mode", "recoveries", "p50 ms", "p99 ms", "max ms", "lost", "bandwidth"
    );
    std::iter::once(head).chain(modes.iter().map(mode_line)).collect()
}

fn mode_line(mode: &Mode) -> String {
    let measured = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let time = |ms: Option<f64>| measured(ms.map(|ms| format!("{ms:.1}")));
    let recovery = mode.recovery_ms;
    let lost = measured(mode.packets_lost.map(|lost| lost.to_string()));
    let cost = measured(mode.bandwidth_cost.map(|cost| format!("+{:.1} %", cost * 100.0)));
    let line = format!(
        "{:<14} {:>10} {:>9} {:>9} {:>9} {lost:>8} {cost:>10}  {}",
        mode.mode,
        mode.recoveries,
        time(recovery.map(|it| it.p50)),
        time(recovery.map(|it| it.p99)),
        time(recovery.map(|it| it.max)),
        if mode.scenarios.is_empty() { "none".to_owned() } else { mode.scenarios.join(", ") },
    );
    let is_unmeasured = mode.bandwidth_cost.is_none() && recovery.is_none();
    if is_unmeasured { format!("{line} (not measured yet)") } else { line }
}

#[cfg(test)]
mod tests;
