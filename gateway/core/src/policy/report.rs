//! Reports on a policy's revisions: to the caller of a push or rollback, in events, and on request.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Progress, Quarantined, Stage, Version};
use crate::{Fault, PolicyName};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    File,
    /// SIGHUP.
    Signal,
    /// A person, by command or API.
    Operator,
    Gateway,
}

impl Actor {
    /// As in records: `file`.
    pub fn name(self) -> &'static str {
        match self {
            Actor::File => "file",
            Actor::Signal => "signal",
            Actor::Operator => "operator",
            Actor::Gateway => "gateway",
        }
    }
}

/// How far a candidate is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staged {
    pub stage: Stage,
    /// It stays there until it is resumed.
    pub paused: bool,
    /// The next share, per cent; at 100 it is active.
    pub next: u8,
    /// Minimum time until the next step; none while it waits for an operator.
    pub next_in: Option<Duration>,
}

impl Staged {
    pub fn of(progress: &Progress, now: Instant) -> Staged {
        let (stage, paused) = (progress.stage(), progress.is_paused());
        Staged { stage, paused, next: progress.next_share(), next_in: progress.left(now) }
    }
}

/// One step in the life of a revision.
#[derive(Clone, PartialEq, Debug)]
pub struct Rollout {
    pub policy: PolicyName,
    pub outcome: RolloutOutcome,
    /// The stage of the candidate, if there is one.
    pub stage: Option<Staged>,
    pub by: Actor,
    /// The active revision; during a rollout the candidate; after a refusal the revision that was refused, if it came
    /// far enough to have a name.
    pub revision: Option<Arc<str>>,
    /// The revision that was active, or the candidate, before; during a rollout the active one.
    pub previous: Option<Arc<str>>,
    /// Why it was refused, as a stable code: `import`, `unsigned`. `quarantined` where a quarantined revision became the
    /// first one of this process; `revoked` where it was revoked after it was loaded.
    pub code: Option<&'static str>,
    /// Why it was refused, rolled back or revoked, or that it is quarantined.
    pub reason: Option<Box<str>>,
    /// When it was asked for, or the revision failed once too often.
    pub arrived: Instant,
    /// From the decision to the first question it would answer.
    pub activate: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RolloutOutcome {
    Activated,
    /// The same plugin with the same settings was active already.
    Unchanged,
    /// It never answered; the active revision stays.
    Refused,
    RolledBack,
    /// It is a candidate.
    Started,
    /// Its share is larger.
    Advanced,
    Paused,
    Resumed,
    /// The active, candidate or previous revision was revoked after it was loaded.
    Revoked,
}

impl RolloutOutcome {
    /// As in the API and in records: `rolled-back`.
    pub fn name(self) -> &'static str {
        match self {
            RolloutOutcome::Activated => "activated",
            RolloutOutcome::Unchanged => "unchanged",
            RolloutOutcome::Refused => "refused",
            RolloutOutcome::RolledBack => "rolled-back",
            RolloutOutcome::Started => "started",
            RolloutOutcome::Advanced => "advanced",
            RolloutOutcome::Paused => "paused",
            RolloutOutcome::Resumed => "resumed",
            RolloutOutcome::Revoked => "revoked",
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct LastRollout {
    pub at: SystemTime,
    pub rollout: Rollout,
}

/// A revision that was revoked after it was loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoked {
    pub revision: Arc<str>,
    /// By which key or digest, and what to do about it.
    pub reason: Box<str>,
}

/// Why a revision does not become active or a candidate.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// A later push, rollback or reload of the policy came before it was ready.
    Superseded,
    /// It is older than one of its plugin that was active.
    Downgrade { plugin: Arc<str>, found: Box<Version>, ran: Box<Version> },
    /// It did harm before, this long ago.
    Quarantined { quarantined: Quarantined, age: Duration },
    /// Its key or digest was revoked while it was prepared.
    Revoked(Box<str>),
}

impl Refusal {
    /// As in metrics, events and the API; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Superseded => "superseded",
            Refusal::Downgrade { .. } => "downgrade",
            Refusal::Quarantined { .. } => "quarantined",
            Refusal::Revoked(_) => "revoked",
        }
    }
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct CandidateCalls {
    /// Calls for its share, and faults of these.
    pub calls: u64,
    pub faults: u64,
    /// Answers in the shadow stage that decide the same as those of the active revision, and that do not.
    pub same: u64,
    pub different: u64,
    /// Faults in the shadow stage.
    pub faulted: u64,
    /// In the shadow stage or for its share.
    pub last_fault: Option<Fault>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct CandidateStatus {
    pub revision: Arc<str>,
    pub staged: Staged,
    /// Time at this stage, without pauses.
    pub lasted: Duration,
    /// Shares of the canary, per cent.
    pub steps: Vec<u8>,
    pub each: Duration,
    pub calls: CandidateCalls,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct PolicyStatus {
    pub active: Option<Arc<str>>,
    pub candidate: Option<CandidateStatus>,
    pub previous: Option<Arc<str>>,
    /// How long a rollback to the previous revision is possible.
    pub previous_for: Option<Duration>,
    pub last: Option<LastRollout>,
    /// The oldest first.
    pub quarantined: Vec<Quarantined>,
    /// Active and previous revisions that were revoked after they were loaded.
    pub revoked: Vec<Revoked>,
    /// Calls of all revisions so far.
    pub calls: u64,
    /// Faults of active revisions so far.
    pub faults: u64,
    /// The fault of the last call; none if it was answered.
    pub failing: Option<Fault>,
    pub last_fault: Option<Fault>,
}
