//! The checks of the demo and their limits.

use std::collections::BTreeMap;

use super::report::{DemoReport, FailoverFigures, PromiseCheck, Takeover};

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
/// Spans that a demo must produce.
const SPANS: [&str; 5] =
    ["session.open", "admission", "policy.decide", "policy.rollout", "node.failover"];

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
                "a policy swap reroutes 10 % of the rooms".to_owned(),
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
