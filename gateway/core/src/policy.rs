//! Questions to policies, the state kept of their answers, and the lifecycle of their revisions.

mod faults;
mod judge;
mod lifecycle;
mod memory;
mod notes;
mod parts;
mod policies;
mod progress;
mod quarantine;
mod questions;
mod report;
mod revision;
mod subjects;
#[cfg(test)]
pub(crate) mod tests;
mod version;

pub use judge::Judging;
pub(crate) use judge::Newcomer;
pub(crate) use lifecycle::Effect;
pub use lifecycle::{Call, Compared, Lifecycle, RolloutRequest, RolloutRules, Verb, WallClock};
pub(crate) use memory::{Memory, Memos};
pub(crate) use notes::{Noted, Subject};
pub use notes::{Quarantine, Said};
pub(crate) use parts::{Batch, Part, Parts};
pub(crate) use policies::{Harmful, Policies};
pub(crate) use progress::CohortSize;
pub use progress::{Progress, Stage, Strategy};
pub use quarantine::{AcceptedRevision, Quarantined, Remembered};
pub(crate) use questions::{About, Asked, Beside, Questions, mismatched, reasons_given, was_taken};
pub use report::{
    Actor, CandidateCalls, CandidateStatus, LastRollout, PolicyStatus, Refusal, Revoked, Rollout,
    RolloutOutcome, Staged,
};
#[cfg(test)]
use revision::{Candidate, Previous};
pub use revision::{Revision, is_in_cohort};
pub(crate) use revision::{Revisions, unit};
pub(crate) use subjects::Subjects;
pub use subjects::{Cohort, Tally};
pub use version::Version;
