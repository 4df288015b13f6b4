//! The last refused revisions and plugins. The list is lost when the process ends.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use evenkeel_model::PolicyName;
use serde::Serialize;

/// Maximum refusals kept: enough to look through after an incident.
const REFUSALS_MAX: usize = 128;

/// A refused revision or plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RefusalRecord {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// The policy that the plugin was for.
    #[serde(serialize_with = "evenkeel_process::as_text")]
    pub policy: PolicyName,
    /// `pushed`, or the path of a file.
    pub origin: Box<str>,
    /// The stable code of the reason.
    pub code: &'static str,
    /// One sentence with the next step.
    pub reason: Box<str>,
}

impl RefusalRecord {
    /// A refusal at this moment.
    pub fn now(
        policy: PolicyName,
        origin: Box<str>,
        code: &'static str,
        reason: Box<str>,
    ) -> RefusalRecord {
        RefusalRecord {
            at_us: evenkeel_process::unix_us(SystemTime::now()),
            policy,
            origin,
            code,
            reason,
        }
    }
}

/// Rollouts append to it; the API reads it.
#[derive(Default, Debug)]
pub struct RefusalLedger(Mutex<VecDeque<RefusalRecord>>);

impl RefusalLedger {
    /// The list of refusals. No thread panics while it holds the lock.
    fn kept(&self) -> MutexGuard<'_, VecDeque<RefusalRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a refusal and drops the oldest one if the list is full.
    pub fn refuse(&self, refusal: RefusalRecord) {
        let mut kept = self.kept();
        if kept.len() == REFUSALS_MAX {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// The oldest refusal is first.
    pub fn refusals(&self) -> Vec<RefusalRecord> {
        self.kept().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
