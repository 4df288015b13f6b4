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

pub(crate) use judge::AdmissionSample;
pub use judge::Judging;
pub(crate) use lifecycle::Effect;
pub use lifecycle::{
    Compared, Lifecycle, PolicyCallResult, RolloutAction, RolloutRequest, RolloutRules, WallClock,
};
pub(crate) use memory::{Memos, StateVersions};
pub(crate) use notes::{FaultSubject, Noted};
pub use notes::{Said, SubjectQuarantine};
pub(crate) use parts::{BatchOutcome, PartCounts, PartOutcome};
pub(crate) use policies::{HarmfulRevision, Policies};
pub(crate) use progress::CohortSize;
pub use progress::{RolloutProgress, RolloutStage, Strategy};
pub use quarantine::{AcceptedRevision, QuarantinedRevision, Remembered};
pub(crate) use questions::{
    AnswerDetails, PendingQuestion, QuestionSubject, QuestionsInFlight, mismatched, reasons_given,
    was_taken,
};
pub use report::{
    Actor, CandidateCalls, CandidateStatus, LastRollout, PolicyStatus, RevisionRefusal,
    RevokedRevision, RolloutOutcome, RolloutReport, Staged,
};
#[cfg(test)]
use revision::{CandidateRevision, Previous};
pub use revision::{Revision, is_in_cohort};
pub(crate) use revision::{Revisions, unit};
pub(crate) use subjects::Subjects;
pub use subjects::{ArmStatistics, ArmTally};
pub use version::Version;
