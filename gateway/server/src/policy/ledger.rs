//! What was refused last. For the life of the process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use evenkeel_core::PolicyName;

/// Refusals kept: what one looks through after a bad night.
const REFUSALS_MAX: usize = 128;

/// A revision, or a plugin, that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// When.
    pub at: SystemTime,
    /// For which policy it came.
    pub policy: PolicyName,
    /// Where it came from: `pushed`, or a file.
    pub origin: Box<str>,
    /// Why, in a word that never changes.
    pub code: &'static str,
    /// Why, as a sentence.
    pub reason: Box<str>,
}

/// Written by rollouts, read by whoever asks.
#[derive(Default, Debug)]
pub(crate) struct Ledger(Mutex<VecDeque<Refusal>>);

impl Ledger {
    /// Nobody panics while holding it.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was refused; the oldest of too many is forgotten.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let mut kept = self.kept();
        if kept.len() == REFUSALS_MAX {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// What was refused, oldest first.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.kept().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Hook;

    use super::*;

    fn routing() -> PolicyName {
        PolicyName { set: "call".into(), hook: Hook::Routing }
    }

    #[test]
    fn the_last_refusals_are_kept_and_no_more() {
        let ledger = Ledger::default();
        for number in 0..=REFUSALS_MAX {
            let reason = number.to_string().into();
            let (at, origin) = (SystemTime::UNIX_EPOCH, "pushed".into());
            ledger.refuse(Refusal { at, policy: routing(), origin, code: "import", reason });
        }
        let kept = ledger.refusals();
        assert_eq!((kept.len(), &*kept[0].reason), (REFUSALS_MAX, "1"));
    }
}
