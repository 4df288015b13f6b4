//! Questions to policies, what is kept of their answers, and the life of their revisions.

mod faults;
mod judge;
mod lifecycle;
mod memory;
mod notes;
mod parts;
mod progress;
mod quarantine;
mod questions;
mod report;
mod revision;
#[cfg(test)]
pub(crate) mod tests;
mod version;

pub(crate) use judge::{Bad, Conduct, Judge, Newcomer};
pub use judge::{Breach, Count, Figure, Judging};
pub use lifecycle::{Call, Compared, RolloutRequest, RolloutRules, Verb, WallClock};
pub(crate) use lifecycle::{Effect, Lifecycle};
pub(crate) use memory::{Memory, Memos};
pub(crate) use notes::{Noted, Subject};
pub use notes::{Quarantine, Said};
pub(crate) use parts::{Batch, Part, Parts};
pub(crate) use progress::CohortSize;
pub use progress::{Progress, Stage, Strategy};
pub use quarantine::{AcceptedRevision, Quarantined, Remembered};
pub(crate) use questions::{
    About, Asked, Beside, Questions, mismatched, reasons_given, turns_away, was_taken,
};
pub use report::{
    Actor, CandidateCalls, CandidateStatus, LastRollout, PolicyStatus, Refusal, Revoked, Rollout,
    RolloutOutcome, Staged,
};
pub use revision::{Arm, Revision, is_in_cohort};
#[cfg(test)]
use revision::{Candidate, Previous};
pub(crate) use revision::{Revisions, unit};
pub use version::Version;
