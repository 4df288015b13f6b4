//! Exports that the receiver does not take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use evenkeel_process::lock;

/// Failed exports of a signal since its last successful one.
#[derive(Clone, Debug)]
pub struct ExportFailure {
    /// `spans`, `logs` or `metrics`.
    pub signal: &'static str,
    /// The time of the first failed export.
    pub since: SystemTime,
    /// Failed exports since then.
    pub failures: u64,
    /// The reason of the last one: `HTTP status 401`.
    pub reason: String,
}

/// Signals (spans, logs, metrics) with a failed last export.
#[derive(Clone, Default, Debug)]
pub struct ExportFailures(Arc<Mutex<BTreeMap<&'static str, ExportFailure>>>);

impl ExportFailures {
    /// Lists the failing signals by name.
    pub fn list(&self) -> Vec<ExportFailure> {
        lock(&self.0).values().cloned().collect()
    }

    /// Returns true for the first failure since the last success, and for one of another reason than the last.
    pub(super) fn add(&self, signal: &'static str, reason: &str) -> bool {
        let mut failing = lock(&self.0);
        let (since, none) = (SystemTime::now(), String::new());
        let first = || ExportFailure { signal, since, failures: 0, reason: none };
        let failure = failing.entry(signal).or_insert_with(first);
        failure.failures += 1;
        let is_new = failure.failures == 1 || failure.reason != reason;
        failure.reason = reason.to_owned();
        is_new
    }

    /// Returns true if the last export of the signal failed.
    pub(super) fn end(&self, signal: &str) -> bool {
        lock(&self.0).remove(signal).is_some()
    }
}
