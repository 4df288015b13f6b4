//! The report of the demo: as JSON, on whose keys scripts rely, and as text; and the checks of the demo with their limits.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::ledger::GapSpread;
use crate::machine::Timeliness;

/// The longest gap at a receiver when a node is killed, p99.
const GAP_KILLED_MS: f64 = 50.0;
/// The longest gap when a node is stopped, p99.
const GAP_SILENT_MS: f64 = 70.0;
/// The longest gap when a gateway is killed and its standby takes over, p99.
const GAP_TAKEN_OVER_MS: f64 = 60.0;
/// The longest gap on a machine with high scheduling latency.
const GAP_LATE_MS: f64 = 150.0;
/// The swapped policy reroutes at least this share of the rooms.
const DECIDED_OTHERWISE_PERCENT: usize = 10;
/// Drop reasons of unauthorised traffic, at the gateway and at the node.
const UNAUTHORISED_REASONS: [&str; 4] =
    ["unknown-source", "bad-integrity", "unknown-flow", "unknown-tag"];
/// Policies that must have applied answers. Streams degrade too late to be included.
const POLICIES: [&str; 7] = [
    "call/scenario",
    "call/admission",
    "call/routing",
    "call/degradation",
    "live/scenario",
    "live/admission",
    "live/routing",
];
/// Spans that a demo must produce. Sessions end after the receiver.
const SPANS: [&str; 6] = [
    "session.open",
    "session.move",
    "admission",
    "policy.decide",
    "policy.rollout",
    "node.failover",
];

/// Maximum characters of a reason in the table.
const REASON_MAX: usize = 110;

#[derive(Serialize, Debug)]
pub(super) struct DemoReport {
    pub(super) sessions: SessionFigures,
    pub(super) rooms: RoomFigures,
    pub(super) packets: PacketFigures,
    pub(super) failovers: Vec<FailoverFigures>,
    pub(super) control: ControlFigures,
    /// Null if it was skipped.
    pub(super) takeover: Option<Takeover>,
    /// Acts that this machine does not permit, with the reason.
    pub(super) skipped: Vec<String>,
    pub(super) continuity_breaks: usize,
    pub(super) degradation: DegradationFigures,
    pub(super) reloads: Vec<ReloadFigures>,
    pub(super) policy_calls: PolicyCalls,
    pub(super) strangers: StrangerFigures,
    pub(super) spans_received: BTreeMap<String, u64>,
    pub(super) machine: Timeliness,
    pub(super) checks: Vec<PromiseCheck>,
    pub(super) ok: bool,
}

#[derive(Serialize, Debug)]
pub(super) struct SessionFigures {
    pub(super) udp: usize,
    pub(super) quic: usize,
    pub(super) lost: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct RoomFigures {
    pub(super) calls: usize,
    pub(super) streams: usize,
    pub(super) split: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct PacketFigures {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: usize,
    pub(super) lost_to_faults: usize,
    pub(super) shed: usize,
    pub(super) twice: usize,
    pub(super) misdelivered: usize,
}

/// One failover or move, for receivers of one transport.
#[derive(Serialize, Debug)]
pub(super) struct FailoverFigures {
    pub(super) cause: &'static str,
    pub(super) silent: bool,
    pub(super) unattended: bool,
    pub(super) ingress: &'static str,
    pub(super) node: String,
    pub(super) sessions: usize,
    pub(super) detect_ms: DetectionFigures,
    pub(super) gap_ms: GapFigures,
    pub(super) packets_lost: usize,
    /// Sessions by the witness that accused the node when it was marked down.
    pub(super) by_witness: BTreeMap<String, usize>,
}

/// Time from the death until the node was marked down. Null without a death or without an event.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub(super) struct DetectionFigures {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
}

#[derive(Serialize, Clone, Copy, Debug)]
pub(super) struct GapFigures {
    #[serde(flatten)]
    pub(super) spread: GapSpread,
    /// `kernel` for UDP, `reader` for QUIC.
    pub(super) clock: &'static str,
}

#[derive(Serialize, Debug)]
pub(super) struct ControlFigures {
    pub(super) gap_ms: GapFigures,
    pub(super) gap_ms_quic: GapFigures,
}

/// The takeover of a gateway that was killed.
#[derive(Serialize, Clone, Copy, Debug)]
pub(super) struct Takeover {
    pub(super) sessions: usize,
    /// Sessions without a packet at the end.
    pub(super) unheard: usize,
    pub(super) gap_ms: GapFigures,
    pub(super) packets_lost: u64,
    pub(super) twice: u64,
    pub(super) misdelivered: u64,
}

#[derive(Serialize, Debug)]
pub(super) struct DegradationFigures {
    pub(super) behind_bad_network: usize,
    /// Sessions with any degradation, and their peers.
    pub(super) degraded: usize,
    /// Sessions with a bitrate cap.
    pub(super) capped: usize,
    pub(super) voice_only: usize,
    pub(super) restored: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct ReloadFigures {
    pub(super) policy: &'static str,
    /// `good`, or the defect of the plugin.
    pub(super) plugin: &'static str,
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    pub(super) activate_us: u64,
    pub(super) packets_lost: usize,
    pub(super) rooms_moved: usize,
}

/// Answers of policies. Those of one policy are in `applied_by`.
#[derive(Serialize, Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PolicyCalls {
    pub(super) total: u64,
    pub(super) applied: u64,
    pub(super) applied_by: BTreeMap<String, u64>,
    pub(super) differs_from_native: u64,
    pub(super) faults: u64,
}

/// Unauthorised traffic.
#[derive(Serialize, Clone, Default, Debug)]
pub(super) struct StrangerFigures {
    pub(super) sent: u64,
    /// Packets that reached a client.
    pub(super) forwarded: u64,
    /// Packets and checks that were answered as if their sender were known.
    pub(super) learned: u64,
    /// Drop counters of the gateway and the probed node, by reason.
    pub(super) counted: BTreeMap<String, u64>,
}

#[derive(Serialize, Debug)]
pub(super) struct PromiseCheck {
    pub(super) promise: String,
    /// Null if undecided: the machine is late, and the gap exceeds the limit by less than a late machine may add.
    pub(super) kept: Option<bool>,
    pub(super) found: String,
}

impl fmt::Display for DemoReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DemoReport {
            sessions,
            rooms,
            packets,
            control,
            degradation,
            strangers,
            policy_calls,
            ..
        } = self;
        writeln!(
            out,
            "\n{} sessions over UDP and {} over QUIC, in {} calls and {} streams",
            sessions.udp, sessions.quic, rooms.calls, rooms.streams
        )?;
        writeln!(
            out,
            "{} packets sent, {} received; lost: {} to faults and {} unexplained; {} dropped by degradation",
            packets.sent, packets.received, packets.lost_to_faults, packets.lost, packets.shed
        )?;
        writeln!(
            out,
            "\n{:<34}{:>9}{:>11}{:>10}{:>8}{:>8}{:>7}",
            "gap at the receiver, ms", "sessions", "detected", "p50", "p99", "max", "lost"
        )?;
        let mut row = |name: &str, sessions: &str, detected: &str, gap: GapFigures, lost: &str| {
            let GapSpread { p50, p99, max } = gap.spread;
            writeln!(
                out,
                "{name:<34}{sessions:>9}{detected:>11}{p50:>10.1}{p99:>8.1}{max:>8.1}{lost:>7}"
            )
        };
        row("no fault, UDP", "", "", control.gap_ms, "")?;
        row("no fault, QUIC", "", "", control.gap_ms_quic, "")?;
        if let Some(Takeover { sessions, gap_ms, packets_lost, .. }) = self.takeover {
            let (sessions, lost) = (sessions.to_string(), packets_lost.to_string());
            row("gateway killed, UDP", &sessions, "", gap_ms, &lost)?;
        }
        for failover in &self.failovers {
            let detected =
                failover.detect_ms.max.map_or("–".to_owned(), |detect| format!("{detect:.1}"));
            let (sessions, lost) =
                (failover.sessions.to_string(), failover.packets_lost.to_string());
            row(&name(failover), &sessions, &detected, failover.gap_ms, &lost)?;
        }
        writeln!(
            out,
            "\nlossy network: {} sessions capped, {} on voice only, {} restored",
            degradation.capped, degradation.voice_only, degradation.restored
        )?;
        writeln!(
            out,
            "policies: {} answers, {} applied, {} other than the native default, {} faults",
            policy_calls.total,
            policy_calls.applied,
            policy_calls.differs_from_native,
            policy_calls.faults
        )?;
        for reload in &self.reloads {
            let reason = reload.reason.as_deref().unwrap_or("");
            writeln!(out, "  {} plugin: {}{}", reload.plugin, reload.outcome, shortened(reason))?;
        }
        writeln!(
            out,
            "unauthorised: {} packets, {} forwarded, {} learned ({})",
            strangers.sent,
            strangers.forwarded,
            strangers.learned,
            counts(&strangers.counted)
        )?;
        writeln!(out, "spans received: {}", counts(&self.spans_received))?;
        for skipped in &self.skipped {
            writeln!(out, "skipped: {skipped}")?;
        }
        writeln!(out)?;
        for check in &self.checks {
            let mark = match check.kept {
                Some(true) => "ok    ",
                Some(false) => "FAILED",
                None => "LATE  ",
            };
            writeln!(out, "{mark}  {:<62} {}", check.promise, check.found)?;
        }
        let count = |kept| self.checks.iter().filter(|check| check.kept == kept).count();
        writeln!(out, "\n{} of {} checks passed", count(Some(true)), self.checks.len())?;
        if self.machine.is_late() {
            writeln!(out, "this machine is slow to wake threads: {}", self.machine)?;
        }
        if count(None) > 0 {
            writeln!(
                out,
                "LATE: the gap exceeds its limit, which this machine may cause; repeat on an idle one"
            )?;
        }
        Ok(())
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    counts.join(", ")
}

fn name(failover: &FailoverFigures) -> String {
    let what = match (failover.cause, failover.silent, failover.unattended) {
        ("node-down", false, false) => "killed",
        ("node-down", true, _) => "stopped",
        ("node-down", false, true) => "killed, no control",
        _ => "moved by a policy",
    };
    format!("{what}, {}", failover.ingress.to_uppercase())
}

/// The first line of a reason, up to [`REASON_MAX`] characters.
fn shortened(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or("");
    match line.char_indices().nth(REASON_MAX) {
        _ if line.is_empty() => String::new(),
        Some((end, _)) => format!(" ({}…)", &line[..end]),
        None => format!(" ({line})"),
    }
}

pub(super) fn check(report: &DemoReport) -> Vec<PromiseCheck> {
    let deaths = report.failovers.iter().filter(|failover| failover.cause == "node-down");
    let mut checks: Vec<PromiseCheck> =
        deaths.map(|death| gap(death, report.machine.is_late())).collect();
    checks.extend(report.takeover.iter().flat_map(|it| taken_over(it, report.machine.is_late())));
    let mut check = |promise: &str, kept: bool, found: String| {
        checks.push(PromiseCheck { promise: promise.to_owned(), kept: Some(kept), found });
    };
    let DemoReport { sessions, rooms, packets, degradation, strangers, .. } = report;
    check("no session is lost", sessions.lost == 0, format!("{} lost", sessions.lost));
    check("no call is split between nodes", rooms.split == 0, format!("{} split", rooms.split));
    check(
        "no packet is lost except to faults",
        packets.lost == 0,
        format!("{} lost", packets.lost),
    );
    let strays = packets.misdelivered + packets.twice;
    check("no packet is duplicated or misdelivered", strays == 0, format!("{strays} did"));
    let breaks = report.continuity_breaks;
    check(
        "sequence numbers and timestamps stay continuous",
        breaks == 0,
        format!("{breaks} breaks"),
    );
    let seen = degradation.capped > 0 && degradation.voice_only > 0;
    let given_up = format!("{} capped, {} voice only", degradation.capped, degradation.voice_only);
    check("a lossy network: bitrate caps, then voice only", seen, given_up);
    let shed = format!("{} packets", packets.shed);
    check("packets dropped by voice only are reported", packets.shed > 0, shed);
    let restored = degradation.restored == degradation.degraded;
    check(
        "all degradations are restored",
        seen && restored,
        format!("{} of {} restored", degradation.restored, degradation.degraded),
    );
    for reload in &report.reloads {
        let (promise, kept) = if reload.plugin == "good" {
            let all = rooms.calls + rooms.streams;
            let enough = reload.rooms_moved * 100 >= all * DECIDED_OTHERWISE_PERCENT;
            (
                "a policy swap reroutes at least 10 % of the rooms".to_owned(),
                reload.outcome == "activated" && enough,
            )
        } else {
            let kept_out = matches!(reload.outcome.as_str(), "refused" | "rolled-back");
            let reasoned = reload.reason.as_ref().is_some_and(|reason| !reason.is_empty());
            (format!("{} plugin: refused or rolled back", reload.plugin), kept_out && reasoned)
        };
        let found = format!(
            "{}, {} rooms, {} packets lost",
            reload.outcome, reload.rooms_moved, reload.packets_lost
        );
        check(&promise, kept && reload.packets_lost == 0, found);
    }
    let calls = &report.policy_calls;
    let idle = absent(&POLICIES, &calls.applied_by);
    check(
        "plugins decide at every hook",
        idle.is_empty() && calls.differs_from_native > 0,
        if idle.is_empty() {
            format!("{} of {} answers applied", calls.applied, calls.total)
        } else {
            found_of(&idle)
        },
    );
    let kept_out = strangers.sent > 0 && strangers.forwarded == 0 && strangers.learned == 0;
    check("no unauthorised packet is forwarded", kept_out, format!("{} packets", strangers.sent));
    let missing = absent(&UNAUTHORISED_REASONS, &strangers.counted);
    check("unauthorised traffic is counted by reason", missing.is_empty(), found_of(&missing));
    let missing = absent(&SPANS, &report.spans_received);
    check("spans of every kind reached the receiver", missing.is_empty(), found_of(&missing));
    checks
}

/// Compares the gap after a death with its budget.
fn gap(failover: &FailoverFigures, machine_is_late: bool) -> PromiseCheck {
    let (budget, how) = match (failover.silent, failover.unattended) {
        (true, _) => (GAP_SILENT_MS, "stopped"),
        (false, false) => (GAP_KILLED_MS, "killed"),
        (false, true) => (GAP_KILLED_MS, "killed with plugins, API and receiver dead"),
    };
    let promise = format!("{how}: gap over {} at most {budget} ms (p99)", failover.ingress);
    within(budget, promise, failover.sessions, failover.gap_ms.spread.p99, machine_is_late)
}

fn taken_over(takeover: &Takeover, machine_is_late: bool) -> [PromiseCheck; 2] {
    let Takeover { sessions, unheard, gap_ms, twice, misdelivered, .. } = *takeover;
    let promise = format!("gateway killed: gap over udp at most {GAP_TAKEN_OVER_MS} ms (p99)");
    let gap = within(GAP_TAKEN_OVER_MS, promise, sessions, gap_ms.spread.p99, machine_is_late);
    let sessions = PromiseCheck {
        promise: "gateway killed: its standby continues every session".to_owned(),
        kept: Some(unheard == 0 && twice == 0 && misdelivered == 0),
        found: format!(
            "{unheard} lost, {} packets duplicated or misdelivered",
            twice + misdelivered
        ),
    };
    [gap, sessions]
}

fn within(
    budget: f64,
    promise: String,
    sessions: usize,
    p99: f64,
    machine_is_late: bool,
) -> PromiseCheck {
    let kept = sessions > 0 && p99 <= budget;
    let by_the_machine = machine_is_late && sessions > 0 && p99 <= GAP_LATE_MS;
    PromiseCheck {
        promise,
        kept: (kept || !by_the_machine).then_some(kept),
        found: format!("{p99:.1} ms, {sessions} sessions"),
    }
}

/// The names that were not counted. `unknown-flow` includes `unknown-flow-streams`.
fn absent(names: &[&str], counts: &BTreeMap<String, u64>) -> Vec<String> {
    let is_counted =
        |name: &str| counts.iter().any(|(key, &count)| key.starts_with(name) && count > 0);
    let absent = names.iter().filter(|&&name| !is_counted(name));
    absent.map(|&name| name.to_owned()).collect()
}

fn found_of(missing: &[String]) -> String {
    if missing.is_empty() { "all".to_owned() } else { format!("none of {}", missing.join(", ")) }
}

#[cfg(test)]
mod tests;
