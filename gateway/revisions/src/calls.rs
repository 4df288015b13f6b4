//! Calls and faults of a policy: of its active revision, and of its candidate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_model::PluginFault;
use serde::{Deserialize, Serialize};

use crate::report::{CandidateCalls, PolicyStatus};

/// The outcome of a call that a revision answered or failed.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyCallResult {
    /// The call returned an answer.
    pub answered: bool,
    /// The fault of the call; `None` without one.
    pub fault: Option<PluginFault>,
    /// The plugin could not be started again.
    pub beyond_repair: bool,
}

/// The outcome of a question that a candidate was asked in the shadow stage.
#[derive(Clone, PartialEq, Debug)]
pub enum Compared {
    /// Both revisions gave equal answers.
    Same,
    /// The answers differ.
    Different,
    /// The candidate faulted.
    Faulted(PluginFault),
    /// There was not enough time to ask the candidate.
    Skipped,
}

pub(crate) const BEYOND_REPAIR: &str = "it could not be started again, three times in a row";

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct CallRecord {
    active: FaultWindow,
    candidate: FaultWindow,
    candidate_calls: CandidateCalls,
    /// Answers of the candidate before its share grew last.
    #[serde(default)]
    answered_before_step: u64,
    /// Calls of all revisions so far.
    calls: u64,
    /// Faults of active revisions so far.
    faults: u64,
    /// See [`PolicyStatus::late`].
    #[serde(default)]
    late: u64,
    #[serde(skip)]
    failing: Option<PluginFault>,
    #[serde(skip)]
    last_fault: Option<PluginFault>,
}

impl CallRecord {
    pub(crate) fn new(now: Instant) -> CallRecord {
        CallRecord {
            active: FaultWindow::new(now),
            candidate: FaultWindow::new(now),
            candidate_calls: CandidateCalls::default(),
            answered_before_step: 0,
            calls: 0,
            faults: 0,
            late: 0,
            failing: None,
            last_fault: None,
        }
    }

    /// Another revision is active.
    pub(crate) fn begin_active(&mut self, now: Instant) {
        (self.active, self.failing) = (FaultWindow::new(now), None);
    }

    /// Another revision is the candidate.
    pub(crate) fn begin_candidate(&mut self, now: Instant) {
        self.candidate = FaultWindow::new(now);
        self.candidate_calls = CandidateCalls::default();
        self.begin_step();
    }

    /// The candidate has another share.
    pub(crate) fn begin_step(&mut self) {
        self.answered_before_step = self.candidate_calls.answered();
    }

    /// Calls that the candidate answered with its present share.
    pub(crate) fn answered_in_step(&self) -> u64 {
        self.candidate_calls.answered().saturating_sub(self.answered_before_step)
    }

    /// See [`FaultWindow::is_good`].
    pub(crate) fn is_active_good(&self, now: Instant) -> bool {
        self.active.is_good(now)
    }

    /// Counts a call of the active revision. Returns the reason to remove it, if there is one.
    pub(crate) fn note_active(
        &mut self,
        call: &PolicyCallResult,
        now: Instant,
    ) -> Option<Box<str>> {
        let faulted = call.fault.is_some();
        self.calls += 1;
        self.faults += u64::from(faulted);
        if faulted {
            self.last_fault.clone_from(&call.fault);
        }
        match call.answered {
            true => self.failing = None,
            // A plugin that is down is not called; its last fault stays.
            false if faulted => self.failing.clone_from(&call.fault),
            false => {}
        }
        self.active.count(now, faulted);
        let too_many = faulted && self.active.has_too_many(now);
        reason_to_remove(too_many, "", call.fault.as_ref(), call.beyond_repair)
    }

    /// Counts a call of the candidate, where this many of a thousand calls may fault. Returns the reason to remove it, if there
    /// is one.
    pub(crate) fn note_candidate(
        &mut self,
        call: &PolicyCallResult,
        faults_permille: u32,
        now: Instant,
    ) -> Option<Box<str>> {
        let (calls, faulted) = (&mut self.candidate_calls, call.fault.is_some());
        self.calls += 1;
        calls.calls += 1;
        calls.faults += u64::from(faulted);
        if faulted {
            calls.last_fault.clone_from(&call.fault);
        }
        self.candidate.count(now, faulted);
        let too_many = faulted && self.candidate.exceeds(faults_permille, now);
        reason_to_remove(too_many, "", call.fault.as_ref(), call.beyond_repair)
    }

    /// Counts a call of a revision that is neither active nor the candidate any more.
    pub(crate) fn note_other(&mut self) {
        self.calls += 1;
    }

    pub(crate) fn note_late(&mut self) {
        self.late += 1;
    }

    /// Counts an answer of the candidate in the shadow stage. Returns the reason to remove it, if there is one.
    pub(crate) fn note_compared(
        &mut self,
        compared: &Compared,
        beyond_repair: bool,
        faults_permille: u32,
        now: Instant,
    ) -> Option<Box<str>> {
        let calls = &mut self.candidate_calls;
        let fault = match compared {
            Compared::Same => {
                calls.same += 1;
                None
            }
            Compared::Different => {
                calls.different += 1;
                None
            }
            Compared::Faulted(fault) => {
                calls.faulted += 1;
                calls.last_fault = Some(fault.clone());
                Some(fault)
            }
            Compared::Skipped => return reason_to_remove(false, "", None, beyond_repair),
        };
        self.candidate.count(now, fault.is_some());
        let too_many = fault.is_some() && self.candidate.exceeds(faults_permille, now);
        reason_to_remove(too_many, " in shadow", fault, beyond_repair)
    }

    pub(crate) fn of_candidate(&self) -> &CandidateCalls {
        &self.candidate_calls
    }

    /// The calls and faults of the policy's status.
    pub(crate) fn status(&self) -> PolicyStatus {
        PolicyStatus {
            calls: self.calls,
            faults: self.faults,
            late: self.late,
            failing: self.failing.clone(),
            last_fault: self.last_fault.clone(),
            ..PolicyStatus::default()
        }
    }
}

fn reason_to_remove(
    too_many_faults: bool,
    place: &str,
    last: Option<&PluginFault>,
    beyond_repair: bool,
) -> Option<Box<str>> {
    let last = last.map_or("", PluginFault::name);
    match too_many_faults {
        true => Some(format!("too many faults{place}; the last: {last}").into()),
        false => beyond_repair.then(|| BEYOND_REPAIR.into()),
    }
}

/// Window in which calls and faults are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// More faults than this within [`WINDOW`] roll the active revision back, unless it had so many calls that [`FAULTS_SHARE`]
/// permits more.
const FAULTS_MAX: u64 = 5;

/// One call in this many may fault.
const FAULTS_SHARE: u64 = 1_000;

/// Calls are counted in buckets of this length, since a policy may be asked thousands of times within [`WINDOW`].
const BUCKET: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct FaultWindow {
    #[serde(with = "instant")]
    began: Instant,
    buckets: VecDeque<Bucket>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct Bucket {
    #[serde(with = "instant")]
    began: Instant,
    calls: u64,
    faults: u64,
}

impl FaultWindow {
    fn new(now: Instant) -> FaultWindow {
        FaultWindow { began: now, buckets: VecDeque::new() }
    }

    fn count(&mut self, now: Instant, faulted: bool) {
        let age = |from: Instant| now.saturating_duration_since(from);
        while self.buckets.front().is_some_and(|bucket| age(bucket.began) > WINDOW) {
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|bucket| age(bucket.began) >= BUCKET) {
            self.buckets.push_back(Bucket { began: now, calls: 0, faults: 0 });
        }
        if let Some(bucket) = self.buckets.back_mut() {
            bucket.calls += 1;
            bucket.faults += u64::from(faulted);
        }
    }

    /// True if a rollback may restore this revision: it has no recent fault, or ran for a whole window with few faults.
    fn is_good(&self, now: Instant) -> bool {
        let long = now.saturating_duration_since(self.began) >= WINDOW;
        self.sum(now).1 == 0 || long && !self.has_too_many(now)
    }

    /// More calls faulted than those of an active revision may.
    fn has_too_many(&self, now: Instant) -> bool {
        let (calls, faults) = self.sum(now);
        faults > FAULTS_MAX.max(calls / FAULTS_SHARE)
    }

    /// More than this share of the calls faulted.
    fn exceeds(&self, permille: u32, now: Instant) -> bool {
        let (calls, faults) = self.sum(now);
        faults * 1_000 > calls * u64::from(permille)
    }

    /// Calls and faults within the window.
    fn sum(&self, now: Instant) -> (u64, u64) {
        let recent =
            self.buckets.iter().filter(|it| now.saturating_duration_since(it.began) <= WINDOW);
        recent.fold((0, 0), |(calls, faults), it| (calls + it.calls, faults + it.faults))
    }
}

#[cfg(test)]
mod tests;
