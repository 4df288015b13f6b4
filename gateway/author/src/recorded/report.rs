//! The result of a replay.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use evenkeel_host::Manifest;
use evenkeel_model::Metric;
use evenkeel_recording::RecordedCall;
use serde_json::{Value, json};

use crate::inspection::thousands;
use crate::measure::Exceeded;
use crate::verdict::Violation;

/// The result of a replay. As text for people; see [`json`](ReplayReport::json) for tools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReplayReport {
    /// Recorded calls that were asked again.
    pub calls: u64,
    /// Names of the policies asked.
    pub policies: BTreeSet<String>,
    /// True if the manifest declares costs.
    pub(crate) promises: bool,
    /// Calls checked against declared costs: no row was new to the plugin.
    pub judged: u64,
    /// Metrics that the plugin reads and the recording does not contain.
    pub unmeasured: BTreeSet<Metric>,
    /// Violations by kind and question: their number, and the first of each.
    pub violations: BTreeMap<(&'static str, &'static str), (u64, RecordingPosition, Violation)>,
    /// Exceeded costs by call: their number, and the largest excess.
    pub exceeded: BTreeMap<&'static str, (u64, RecordingPosition, Exceeded)>,
}

/// A call in a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingPosition {
    pub(crate) policy: String,
    pub(crate) ask: u64,
    /// Gateway time, microseconds since its start.
    pub(crate) now_us: u64,
}

impl RecordingPosition {
    pub(super) fn of(call: &RecordedCall) -> RecordingPosition {
        let policy = call.revision.policy.to_string();
        RecordingPosition { policy, ask: call.ask.0, now_us: call.now_us }
    }

    fn json(&self) -> Value {
        json!({"policy": self.policy, "ask": self.ask, "now_us": self.now_us})
    }
}

impl fmt::Display for RecordingPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordingPosition { policy, ask, now_us } = self;
        write!(f, "question {ask} of {policy}, at {now_us} µs")
    }
}

impl ReplayReport {
    /// True if the plugin was asked and its answers have no violations. Answers that the gateway would
    /// reject as guarded are violations here: they count against a revision in a rollout.
    pub fn is_passed(&self) -> bool {
        self.calls > 0 && self.violations.is_empty() && self.exceeded.is_empty()
    }

    pub(super) fn asked(&mut self, call: &RecordedCall, manifest: &Manifest) {
        self.calls += 1;
        self.promises = !manifest.cost.is_empty();
        self.policies.insert(call.revision.policy.to_string());
        let grant = &call.revision.grant;
        let missing = |reads: &[Metric], recorded: &[Metric]| {
            reads.iter().copied().filter(|one| !recorded.contains(one)).collect::<Vec<_>>()
        };
        self.unmeasured.extend(missing(&manifest.subject_metrics, &grant.subject_metrics));
        self.unmeasured.extend(missing(&manifest.node_metrics, &grant.node_metrics));
    }

    pub(super) fn find(
        &mut self,
        question: &'static str,
        place: RecordingPosition,
        violation: Violation,
    ) {
        let key = (violation.name(), question);
        self.violations.entry(key).or_insert((0, place, violation)).0 += 1;
    }

    pub(super) fn exceed(&mut self, place: RecordingPosition, exceeded: Exceeded) {
        let over = |of: &Exceeded| of.found - of.promised;
        let known =
            self.exceeded.entry(exceeded.call).or_insert((0, place.clone(), exceeded.clone()));
        known.0 += 1;
        if over(&exceeded) > over(&known.2) {
            (known.1, known.2) = (place, exceeded);
        }
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let violation = |(&(name, question), (count, place, violation)): (
            &(&str, &str),
            &(u64, RecordingPosition, Violation),
        )| {
            json!({
                "breach": name, "question": question, "count": count, "first": place.json(),
                "said": violation.to_string(),
            })
        };
        let exceeded = |(count, place, exceeded): &(u64, RecordingPosition, Exceeded)| {
            json!({
                "call": exceeded.call, "count": count, "most": place.json(), "rows": exceeded.rows,
                "found": exceeded.found, "promised": exceeded.promised,
            })
        };
        json!({
            "passed": self.is_passed(),
            "calls": self.calls,
            "policies": self.policies,
            "judged": if self.promises { json!(self.judged) } else { Value::Null },
            "unmeasured": self.unmeasured.iter().map(|metric| metric.key()).collect::<Vec<_>>(),
            "breaches": self.violations.iter().map(violation).collect::<Vec<_>>(),
            "exceeded": self.exceeded.values().map(exceeded).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies: Vec<&str> = self.policies.iter().map(String::as_str).collect();
        write!(f, "{} calls of {}", thousands(self.calls), policies.join(", "))?;
        if self.promises {
            write!(f, "; {} checked against declared costs", thousands(self.judged))?;
        } else {
            write!(f, "; no declared costs")?;
        }
        if !self.unmeasured.is_empty() {
            let names: Vec<&str> = self.unmeasured.iter().map(|metric| metric.key()).collect();
            write!(f, "\n  not in the recording, so not measured: {}", names.join(", "))?;
        }
        for ((_, question), (count, place, violation)) in &self.violations {
            let word = if violation.is_guarded() { "guarded" } else { "wrong" };
            let said = violation.to_string().replace(|c: char| c.is_control(), " ");
            write!(f, "\n  {word:<8} {question}, {} times: {said}", thousands(count))?;
            write!(f, "\n           first: {place}")?;
        }
        if self.violations.values().any(|(.., violation)| violation.is_guarded()) {
            write!(f, "\n  The gateway drops guarded answers, and they count against a revision.")?;
        }
        for (count, place, exceeded) in self.exceeded.values() {
            write!(f, "\n  cost exceeded {} times: {exceeded}", thousands(count))?;
            write!(f, "\n           the dearest: {place}")?;
        }
        Ok(())
    }
}
