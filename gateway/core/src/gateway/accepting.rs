//! An answer of many parts is taken part by part: what fits is done, what breaks a rule is left out and told of.

use std::collections::BTreeSet;

use super::Gateway;
use crate::{Event, Guard, Outcome, PolicyName};

/// What one part changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Nothing: what it asks for is in force already, or came too late.
    Kept,
    /// Something.
    Applied {
        /// Whether it differs from what the native default would have done.
        differs: bool,
    },
}

/// What became of the parts so far, by the rows they are about.
#[derive(Default, Debug)]
pub(super) struct Parts {
    taken: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    applied: bool,
    differs: bool,
    broken: Option<Guard>,
}

impl Parts {
    /// Whether what was written about the row is kept: not where all that was decided for it was refused.
    pub(super) fn keeps_state(&self, row: u32) -> bool {
        self.taken.contains(&row) || !self.refused.contains(&row)
    }

    /// Whether a part about the row was refused.
    pub(super) fn refused(&self, row: u32) -> bool {
        self.refused.contains(&row)
    }

    pub(super) fn outcome(&self) -> Outcome {
        match (self.applied, self.broken) {
            (true, _) => Outcome::Applied { differs: self.differs },
            (false, Some(guard)) => Outcome::Guarded(guard),
            (false, None) => Outcome::Kept,
        }
    }
}

impl Gateway {
    /// Notes what became of a part.
    pub(super) fn note_part(
        &mut self,
        parts: &mut Parts,
        policy: &PolicyName,
        row: u32,
        part: Result<Part, Guard>,
    ) {
        match part {
            Ok(part) => {
                parts.taken.insert(row);
                if let Part::Applied { differs } = part {
                    parts.applied = true;
                    parts.differs |= differs;
                }
            }
            Err(guard) => {
                parts.refused.insert(row);
                parts.broken = Some(guard);
                self.event(Event::Guarded { policy: policy.clone(), guard });
            }
        }
    }
}
