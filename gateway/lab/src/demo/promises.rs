//! What the demo promises, held against what was reckoned.

use std::collections::BTreeMap;

use super::report::{Check, Failover, Report};

/// What a receiver may hear when a node dies, p99.
const GAP_KILLED_MS: f64 = 50.0;
/// And when it dies without a word.
const GAP_SILENT_MS: f64 = 70.0;
/// What no receiver hears when a node dies, on however late a machine.
const GAP_LATE_MS: f64 = 150.0;
/// Of the rooms, this many per cent are decided otherwise by the policy that is swapped in.
const DECIDED_OTHERWISE_PERCENT: usize = 10;
/// Reasons by which each kind of stranger is counted: by the gateway, and by the node that they knock at.
const KNOCK_REASONS: [&str; 4] = ["unknown-source", "bad-integrity", "unknown-flow", "unknown-tag"];
/// Each has answers that are applied within a demo. Streams go down their ladder too late to be counted on.
const POLICIES: [&str; 7] = [
    "call/scenario",
    "call/admission",
    "call/routing",
    "call/degradation",
    "live/scenario",
    "live/admission",
    "live/routing",
];
/// Spans that a demo makes.
const SPANS: [&str; 5] =
    ["session.open", "admission", "policy.decide", "policy.rollout", "node.failover"];

/// Each promise, kept or not, and what was found.
pub(super) fn check(report: &Report) -> Vec<Check> {
    let deaths = report.failovers.iter().filter(|failover| failover.cause == "node-down");
    let mut checks: Vec<Check> = deaths.map(|death| gap(death, report.machine.is_late())).collect();
    let mut check = |promise: &str, kept: bool, found: String| {
        checks.push(Check { promise: promise.to_owned(), kept: Some(kept), found });
    };
    let Report { sessions, rooms, packets, degradation, strangers, .. } = report;
    check("no session is lost", sessions.lost == 0, format!("{} lost", sessions.lost));
    check("no call is split between nodes", rooms.split == 0, format!("{} split", rooms.split));
    check("no packet is lost but to faults", packets.lost == 0, format!("{} lost", packets.lost));
    let strays = packets.misdelivered + packets.twice;
    check("no packet comes twice, or to another room", strays == 0, format!("{strays} did"));
    let breaks = report.continuity_breaks;
    check("numbers and timestamps go on at every switch", breaks == 0, format!("{breaks} breaks"));
    let seen = degradation.capped > 0 && degradation.voice_only > 0;
    let given_up = format!("{} capped, {} voice only", degradation.capped, degradation.voice_only);
    check("a bad network: less is sent, then voice only", seen, given_up);
    let shed = format!("{} packets", packets.shed);
    check("what voice only drops is told by number", packets.shed > 0, shed);
    let restored = degradation.restored == degradation.degraded;
    check(
        "and all of it comes back",
        seen && restored,
        format!("{} of {} restored", degradation.restored, degradation.degraded),
    );
    for reload in &report.reloads {
        let (promise, kept) = if reload.plugin == "good" {
            let all = rooms.calls + rooms.streams;
            let enough = reload.rooms_moved * 100 >= all * DECIDED_OTHERWISE_PERCENT;
            (
                "a policy is swapped: 10 % of rooms are decided otherwise".to_owned(),
                reload.outcome == "activated" && enough,
            )
        } else {
            let kept_out = matches!(reload.outcome.as_str(), "refused" | "rolled-back");
            let reasoned = reload.reason.as_ref().is_some_and(|reason| !reason.is_empty());
            (format!("{} plugin: it does not come into force", reload.plugin), kept_out && reasoned)
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
        "plugins decide, at every hook",
        idle.is_empty() && calls.differs_from_native > 0,
        if idle.is_empty() {
            format!("{} of {} answers applied", calls.applied, calls.total)
        } else {
            found_of(&idle)
        },
    );
    let kept_out = strangers.sent > 0 && strangers.forwarded == 0 && strangers.learned == 0;
    check("no stranger is forwarded or learned", kept_out, format!("{} knocks", strangers.sent));
    let missing = absent(&KNOCK_REASONS, &strangers.counted);
    check("each kind of stranger is counted", missing.is_empty(), found_of(&missing));
    let missing = absent(&SPANS, &report.spans_received);
    check("spans of every kind reached the receiver", missing.is_empty(), found_of(&missing));
    checks
}

/// What was heard of one death, held against its budget.
fn gap(failover: &Failover, machine_is_late: bool) -> Check {
    let (budget, how) = match (failover.silent, failover.unattended) {
        (true, _) => (GAP_SILENT_MS, "stopped in silence"),
        (false, false) => (GAP_KILLED_MS, "killed"),
        (false, true) => (GAP_KILLED_MS, "killed with plugins, API and receiver dead"),
    };
    let p99 = failover.gap_ms.spread.p99;
    let kept = failover.sessions > 0 && p99 <= budget;
    let by_the_machine = machine_is_late && failover.sessions > 0 && p99 <= GAP_LATE_MS;
    Check {
        promise: format!("{how}: {} hears a gap of at most {budget} ms (p99)", failover.ingress),
        kept: (kept || !by_the_machine).then_some(kept),
        found: format!("{p99:.1} ms, {} sessions", failover.sessions),
    }
}

/// Those of the names that nothing was counted by; `unknown-flow` counts by `unknown-flow-streams` too.
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
mod tests {
    use super::*;
    use crate::demo::report::{Detection, Gap};
    use crate::ledger::Spread;

    fn heard(p99: f64, sessions: usize) -> Failover {
        Failover {
            cause: "node-down",
            silent: false,
            unattended: false,
            ingress: "udp",
            node: "east-a1".to_owned(),
            sessions,
            detect_ms: Detection::default(),
            gap_ms: Gap { spread: Spread { p50: p99, p99, max: p99 }, clock: "kernel" },
            packets_lost: 0,
            by_witness: BTreeMap::new(),
        }
    }

    #[test]
    fn late_machine_breaks_no_promise_by_milliseconds_alone() {
        let [timely, late] = [false, true];
        let kept =
            |p99, sessions, machine_is_late| gap(&heard(p99, sessions), machine_is_late).kept;
        assert_eq!(kept(50.0, 9, timely), Some(true));
        assert_eq!(kept(50.1, 9, timely), Some(false));
        assert_eq!(kept(50.0, 9, late), Some(true));
        assert_eq!(kept(50.1, 9, late), None);
        assert_eq!(kept(150.1, 9, late), Some(false), "no machine is that late");
        assert_eq!(kept(10.0, 0, late), Some(false), "nobody heard it");
    }
}
