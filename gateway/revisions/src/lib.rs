//! The lifecycle of a policy's revisions: shadow, canary, activation, rollback, quarantine, and the judgement of canaries.

// Tests start their virtual clock at the current time.
#![cfg_attr(any(test, feature = "samples"), allow(clippy::disallowed_methods))]

mod calls;
mod judge;
mod judging;
mod lifecycle;
mod progress;
mod record;
mod report;
mod revision;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod spread;

pub use calls::{Compared, PolicyCallResult};
pub use judge::{AdmissionSample, BadFigures, Judge, JudgeRecord, RuleBreaches};
pub use judging::Judging;
pub use lifecycle::Lifecycle;
pub use progress::{
    Actor, CohortSize, RolloutAction, RolloutProgress, RolloutRequest, RolloutRules, RolloutStage,
    Strategy,
};
pub use record::LifecycleRecord;
pub use report::{
    AcceptedRevision, CandidateCalls, CandidateStatus, Effect, LastRollout, PolicyStatus,
    QuarantinedRevision, Remembered, RevisionRefusal, RevokedRevision, RolloutOutcome,
    RolloutReport, Staged, WallClock, age_text,
};
pub use revision::{
    CandidateRevision, Memos, Previous, Revision, Revisions, StateVersions, Version, is_by_room,
    is_in_cohort, unit,
};
