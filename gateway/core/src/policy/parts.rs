//! The parts of an answer are judged one by one: valid parts are applied; parts that break a rule are rejected and
//! reported.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::{BreachCount, CoreEvent, DecisionOutcome, GuardRule, PolicyName};

use crate::effects::Effects;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PartOutcome {
    /// The part changes nothing, or came too late.
    Kept,
    Applied {
        /// The part differs from the native default.
        differs: bool,
    },
}

#[derive(Debug)]
pub(crate) struct BatchOutcome {
    pub(crate) outcome: DecisionOutcome,
    pub(crate) parts: PartCounts,
}

impl BatchOutcome {
    /// The result for a question that is not a batch.
    pub(crate) fn one(outcome: DecisionOutcome) -> BatchOutcome {
        BatchOutcome { outcome, parts: PartCounts::default() }
    }
}

/// Outcomes of the parts so far, by row.
#[derive(Default, Debug)]
pub(crate) struct PartCounts {
    taken: BTreeSet<u32>,
    /// Changed rows; true if a part differs from the native default.
    applied: BTreeMap<u32, bool>,
    refused: BTreeMap<u32, GuardRule>,
    last_broken: Option<GuardRule>,
    broken: BTreeMap<GuardRule, u32>,
    /// All parts, and how many broke a rule by the policy's own fault.
    count: BreachCount,
}

impl PartCounts {
    /// True if the new state of the row is kept: not all decisions on the row were refused.
    pub(crate) fn keeps_state(&self, row: u32) -> bool {
        self.taken.contains(&row) || !self.refused.contains_key(&row)
    }

    pub(crate) fn refused(&self, row: u32) -> bool {
        self.refused.contains_key(&row)
    }

    pub(crate) fn count(&self) -> BreachCount {
        self.count
    }

    pub(crate) fn note(&mut self, row: u32, part: Result<PartOutcome, GuardRule>) {
        self.count.of += 1;
        match part {
            Ok(part) => {
                self.taken.insert(row);
                if let PartOutcome::Applied { differs } = part {
                    *self.applied.entry(row).or_default() |= differs;
                }
            }
            Err(guard) => {
                self.refused.insert(row, guard);
                self.note_broken(guard, 1);
                self.count.worse += u32::from(guard.is_its_own());
            }
        }
    }

    /// Counts actions without a grant, which the host has removed.
    pub(crate) fn note_ungranted(&mut self, times: u32) {
        self.count.of = self.count.of.saturating_add(times);
        self.count.worse = self.count.worse.saturating_add(times);
        self.note_broken(GuardRule::UnknownAction, times);
    }

    fn note_broken(&mut self, guard: GuardRule, times: u32) {
        if times > 0 {
            self.last_broken = Some(guard);
            let count = self.broken.entry(guard).or_default();
            *count = count.saturating_add(times);
        }
    }

    /// Reports each broken rule with its count. One answer may break a rule a million times.
    pub(crate) fn report_broken(&self, policy: &PolicyName, effects: &mut Effects) {
        for (&guard, &times) in &self.broken {
            effects.event(CoreEvent::Guarded { policy: policy.clone(), guard, times });
        }
    }

    pub(crate) fn outcome(&self) -> DecisionOutcome {
        match (self.applied.is_empty(), self.last_broken) {
            (false, _) => {
                DecisionOutcome::Applied { differs: self.applied.values().any(|differs| *differs) }
            }
            (true, Some(guard)) => DecisionOutcome::Guarded(guard),
            (true, None) => DecisionOutcome::Kept,
        }
    }

    pub(crate) fn outcome_of(&self, row: u32) -> DecisionOutcome {
        match (self.applied.get(&row), self.refused.get(&row)) {
            (Some(&differs), _) => DecisionOutcome::Applied { differs },
            (None, Some(guard)) => DecisionOutcome::Guarded(*guard),
            (None, None) => DecisionOutcome::Kept,
        }
    }
}
