//! The lifecycle of a policy's revisions: shadow, canary, activation, rollback, quarantine, and the judgement of canaries.

// Tests start their virtual clock at the current time.
#![cfg_attr(any(test, feature = "samples"), allow(clippy::disallowed_methods))]

mod calls;
mod faults;
mod input;
mod judge;
mod lifecycle;
mod memory;
mod progress;
mod quarantine;
mod report;
mod revision;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod version;

pub use input::{
    Compared, PolicyCallResult, RolloutAction, RolloutRequest, RolloutRules, WallClock,
};
pub use judge::{AdmissionSample, Bad, Judge, Judging, RuleBreaches};
pub use lifecycle::Lifecycle;
pub use memory::{Memos, StateVersions};
pub use progress::{CohortSize, RolloutProgress, RolloutStage, Strategy};
pub use quarantine::{AcceptedRevision, QuarantinedRevision, Remembered};
pub use report::{
    Actor, CandidateCalls, CandidateStatus, Effect, LastRollout, PolicyStatus, RevisionRefusal,
    RevokedRevision, RolloutOutcome, RolloutReport, Staged,
};
pub use revision::{
    CandidateRevision, Previous, Revision, Revisions, is_by_room, is_in_cohort, unit,
};
pub use version::Version;
