//! Exports that the receiver does not take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use evenkeel_process::lock;

/// Failed exports of a signal since its last successful one.
#[derive(Clone, Copy, Debug)]
pub struct ExportFailure {
    /// `spans`, `logs` or `metrics`.
    pub signal: &'static str,
    /// The time of the first failed export.
    pub since: SystemTime,
    /// Failed exports since then.
    pub failures: u64,
}

/// Signals (spans, logs, metrics) with a failed last export.
#[derive(Clone, Default, Debug)]
pub struct ExportFailures(Arc<Mutex<BTreeMap<&'static str, ExportFailure>>>);

impl ExportFailures {
    /// Lists the failing signals by name.
    pub fn list(&self) -> Vec<ExportFailure> {
        lock(&self.0).values().copied().collect()
    }

    /// Returns true for the first failure since the last success.
    pub(super) fn add(&self, signal: &'static str) -> bool {
        let mut failing = lock(&self.0);
        let first = || ExportFailure { signal, since: SystemTime::now(), failures: 0 };
        let failure = failing.entry(signal).or_insert_with(first);
        failure.failures += 1;
        failure.failures == 1
    }

    /// Returns true if the last export of the signal failed.
    pub(super) fn end(&self, signal: &str) -> bool {
        lock(&self.0).remove(signal).is_some()
    }
}
