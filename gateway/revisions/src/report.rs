//! Effects of a lifecycle, and reports on a policy's revisions: to the caller of a push or rollback, in events, and on
//! request. Also the revisions that are remembered over a restart: the quarantine and the version floor.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_model::{PluginFault, PolicyName};
use serde::{Deserialize, Serialize};

use crate::progress::{Actor, RolloutProgress, RolloutStage};
use crate::revision::{Revision, Revisions, Version};

/// The stage of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staged {
    /// The stage in force.
    pub stage: RolloutStage,
    /// The candidate stays at its stage until it is resumed.
    pub paused: bool,
    /// The next share, per cent; at 100 the candidate becomes active.
    pub next: u8,
    /// Minimum time until the next step; `None` while the candidate waits for an operator.
    pub next_in: Option<Duration>,
}

impl Staged {
    /// Returns the progress at this time.
    pub fn of(progress: &RolloutProgress, now: Instant) -> Staged {
        let (stage, paused) = (progress.stage(), progress.is_paused());
        Staged { stage, paused, next: progress.next_share(), next_in: progress.left(now) }
    }
}

/// Instructions to the owner of the lifecycle.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Report a step of a revision.
    Report(RolloutReport),
    /// The [`LifecycleRecord`](crate::LifecycleRecord) changed.
    RecordChanged,
    /// The revision gets no more questions. Questions in flight go to the active revision.
    Unload(Arc<str>),
    /// A canary began or ended.
    CanaryChanged,
    /// Rooms or sessions may have another revision than under these previous revisions.
    DecidersChanged(Box<Revisions>),
}

/// One step in the life of a revision.
#[derive(Clone, PartialEq, Debug)]
pub struct RolloutReport {
    /// The policy, by set and hook.
    pub policy: PolicyName,
    /// The step that was taken.
    pub outcome: RolloutOutcome,
    /// The stage of the candidate, if there is one.
    pub stage: Option<Staged>,
    /// The author of the step.
    pub by: Actor,
    /// The active revision; during a rollout the candidate; after a refusal the refused revision, if its name is known.
    pub revision: Option<Arc<str>>,
    /// The previous active revision or candidate; during a rollout the active revision.
    pub previous: Option<Arc<str>>,
    /// Stable code of a refusal: `import`, `unsigned`. `quarantined` if a quarantined revision became the first one of
    /// this process; `revoked` if the revision was revoked after it was loaded.
    pub code: Option<&'static str>,
    /// The reason of a refusal, rollback, revocation or quarantine.
    pub reason: Option<Box<str>>,
    /// Time of the request, or of the fault that exceeded the limit.
    pub arrived: Instant,
    /// Time from the decision until the revision can answer.
    pub activate: Duration,
}

evenkeel_model::named! {
    /// The kind of a step in the life of a revision.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum RolloutOutcome {
        /// The revision answers all questions.
        Activated = "activated",
        /// The same plugin with the same settings was active already.
        Unchanged = "unchanged",
        /// The revision never answered; the active one stays.
        Refused = "refused",
        /// The previous revision is active again.
        RolledBack = "rolled-back",
        /// The revision became a candidate.
        Started = "started",
        /// The candidate's share grew.
        Advanced = "advanced",
        /// The rollout holds its stage.
        Paused = "paused",
        /// The rollout continues.
        Resumed = "resumed",
        /// The active, candidate or previous revision was revoked after it was loaded.
        Revoked = "revoked",
    }
}

/// Translates the virtual clock to wall time, for records that outlive the process.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The reading of the monotonic clock.
    pub instant: Instant,
    /// The reading of the wall clock at that instant.
    pub time: SystemTime,
}

impl WallClock {
    pub(crate) fn at(&self, now: Instant) -> SystemTime {
        self.time + now.saturating_duration_since(self.instant)
    }
}

/// The last report about a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct LastRollout {
    /// The wall clock at the report.
    pub at: SystemTime,
    pub rollout: RolloutReport,
}

/// A revision that was revoked after it was loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevokedRevision {
    /// The name of the revision: a hash of plugin and settings.
    pub revision: Arc<str>,
    /// The revoked key or digest, and the remedy.
    pub reason: Box<str>,
}

/// The reason why a revision does not become active or a candidate.
#[derive(Clone, PartialEq, Debug)]
pub enum RevisionRefusal {
    /// A later push, rollback or reload of the policy came before the revision was ready.
    Superseded,
    /// A newer version of the plugin, `ran`, was active before.
    Downgrade {
        /// The name of the plugin.
        plugin: Arc<str>,
        /// The version of the pushed plugin.
        found: Box<Version>,
        /// The highest version that was active.
        ran: Box<Version>,
    },
    /// The revision did harm before; `age` is its time in quarantine.
    Quarantined {
        /// The entry of the quarantine.
        quarantined: QuarantinedRevision,
        /// The time since the quarantine began.
        age: Duration,
    },
    /// The revision's key or digest was revoked while it was prepared.
    Revoked(Box<str>),
    /// Another revision is being rolled out, and the push does not replace it.
    Running { candidate: Arc<str>, stage: RolloutStage },
}

impl RevisionRefusal {
    /// The stable code in metrics, events and the API: `superseded`.
    pub fn code(&self) -> &'static str {
        match self {
            RevisionRefusal::Superseded => "superseded",
            RevisionRefusal::Downgrade { .. } => "downgrade",
            RevisionRefusal::Quarantined { .. } => "quarantined",
            RevisionRefusal::Revoked(_) => "revoked",
            RevisionRefusal::Running { .. } => "rollout-running",
        }
    }
}

/// An age in its largest unit, rounded down: `18 min`.
pub fn age_text(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Counts of calls of a candidate.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct CandidateCalls {
    /// Calls of the canary, and their faults.
    pub calls: u64,
    /// Calls that faulted.
    pub faults: u64,
    /// Answers in the shadow stage with the active revision's decision, and with a different one.
    pub same: u64,
    /// Answers that differed from those of the active revision.
    pub different: u64,
    /// Faults in the shadow stage.
    pub faulted: u64,
    /// Includes faults in the shadow stage.
    #[serde(skip)]
    pub last_fault: Option<PluginFault>,
}

impl CandidateCalls {
    /// Calls of the canary that it answered.
    pub(crate) fn answered(&self) -> u64 {
        self.calls.saturating_sub(self.faults)
    }
}

/// A candidate, for the API.
#[derive(Clone, PartialEq, Debug)]
pub struct CandidateStatus {
    /// The name of the revision: a hash of plugin and settings.
    pub revision: Arc<str>,
    /// The stage, and the time in it.
    pub staged: Staged,
    /// Time at this stage, without pauses.
    pub lasted: Duration,
    /// Shares of the canary, per cent.
    pub steps: Vec<u8>,
    /// The duration of each stage.
    pub each: Duration,
    /// Counts of its calls.
    pub calls: CandidateCalls,
}

/// The revisions of a policy, for the API.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct PolicyStatus {
    /// The name of the active revision.
    pub active: Option<Arc<str>>,
    /// The revision in a rollout.
    pub candidate: Option<CandidateStatus>,
    /// The name of the revision to which a rollback returns.
    pub previous: Option<Arc<str>>,
    /// Remaining time in which a rollback to the previous revision is possible.
    pub previous_for: Option<Duration>,
    /// The last report; `None` before the first.
    pub last: Option<LastRollout>,
    /// The oldest first.
    pub quarantined: Vec<QuarantinedRevision>,
    /// Active and previous revisions that were revoked after they were loaded.
    pub revoked: Vec<RevokedRevision>,
    /// Calls of all revisions so far.
    pub calls: u64,
    /// Faults of active revisions so far.
    pub faults: u64,
    /// Questions so far without an answer in time. No revision is blamed: the machine may have been late.
    pub late: u64,
    /// The fault of the last call; `None` if it was answered.
    pub failing: Option<PluginFault>,
    /// The last fault of the active revision.
    pub last_fault: Option<PluginFault>,
}

/// Maximum quarantined revisions of a policy; the oldest is dropped first.
const QUARANTINED_MAX: usize = 16;

/// Maximum revisions kept for the version floor: two months with one release a day.
const ACCEPTED_MAX: usize = 64;

/// A revision that did harm. It is refused unless the push forces it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct QuarantinedRevision {
    /// The name of the revision: a hash of plugin and settings.
    pub revision: Arc<str>,
    /// The wall clock at the start of the quarantine.
    #[serde(rename = "since_us", with = "unix_us")]
    pub since: SystemTime,
    /// The harm that it did, in words.
    pub reason: Box<str>,
}

/// Times as microseconds since the Unix epoch.
mod unix_us {
    use super::{Deserialize, Duration, SystemTime};

    pub(super) fn serialize<S: serde::Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serializer.serialize_u64(since.as_micros() as u64)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let since = Duration::from_micros(u64::deserialize(deserializer)?);
        Ok(SystemTime::UNIX_EPOCH + since)
    }
}

/// A revision that became active and was not rolled back since.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct AcceptedRevision {
    /// The name of the revision: a hash of plugin and settings.
    pub revision: Arc<str>,
    /// The name of the plugin.
    pub plugin: Arc<str>,
    /// The version of the plugin.
    pub version: Version,
}

/// Revisions of one policy that are remembered over a restart, the oldest first.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Remembered {
    /// Revisions that were active, for the version floor.
    pub accepted: Vec<AcceptedRevision>,
    /// Revisions that did harm.
    pub quarantined: Vec<QuarantinedRevision>,
}

impl Remembered {
    /// The newest of these facts, as many as are kept.
    pub(crate) fn limited(mut self) -> Remembered {
        self.accepted.drain(..self.accepted.len().saturating_sub(ACCEPTED_MAX));
        self.quarantined.drain(..self.quarantined.len().saturating_sub(QUARANTINED_MAX));
        self
    }

    pub(crate) fn quarantined(&self, revision: &str) -> Option<&QuarantinedRevision> {
        self.quarantined.iter().find(|it| *it.revision == *revision)
    }

    pub(crate) fn quarantine(&mut self, quarantined: QuarantinedRevision) {
        self.release(&quarantined.revision);
        if self.quarantined.len() == QUARANTINED_MAX {
            self.quarantined.remove(0);
        }
        self.quarantined.push(quarantined);
    }

    pub(crate) fn release(&mut self, revision: &str) {
        self.quarantined.retain(|it| *it.revision != *revision);
    }

    /// Checks the version floor: the newest version of the plugin that became active and was not rolled back.
    ///
    /// # Errors
    /// [`RevisionRefusal::Downgrade`] below the floor.
    pub(crate) fn check_version(&self, new: &Revision) -> Result<(), RevisionRefusal> {
        let newer = |it: &&AcceptedRevision| it.plugin == new.plugin && new.version < it.version;
        match self.accepted.iter().find(newer) {
            Some(newer) => Err(RevisionRefusal::Downgrade {
                plugin: Arc::clone(&new.plugin),
                found: Box::new(new.version.clone()),
                ran: Box::new(newer.version.clone()),
            }),
            None => Ok(()),
        }
    }

    /// Returns true if the revision was active and was not rolled back since.
    pub(crate) fn has_accepted(&self, revision: &str) -> bool {
        self.accepted.iter().any(|it| *it.revision == *revision)
    }

    /// Forgets newer versions of the plugin: this one is active in spite of them.
    pub(crate) fn lower_floor(&mut self, new: &Revision) {
        self.accepted.retain(|it| it.plugin != new.plugin || it.version <= new.version);
    }

    pub(crate) fn accept(&mut self, new: &Revision) {
        self.withdraw(&new.name);
        if self.accepted.len() == ACCEPTED_MAX {
            // A version does not set the floor if a later entry of its plugin is as new: drop it, else the oldest.
            let covers = |one: &AcceptedRevision, other: &AcceptedRevision| {
                one.plugin == other.plugin && one.version <= other.version
            };
            let is_covered = |at: &usize| {
                self.accepted[at + 1..].iter().any(|other| covers(&self.accepted[*at], other))
            };
            self.accepted.remove((0..ACCEPTED_MAX).find(is_covered).unwrap_or(0));
        }
        let Revision { name, plugin, version, .. } = new.clone();
        self.accepted.push(AcceptedRevision { revision: name, plugin, version });
    }

    /// Forgets a revision that was rolled back: an older version may be the fix.
    pub(crate) fn withdraw(&mut self, revision: &str) {
        self.accepted.retain(|it| *it.revision != *revision);
    }
}

#[cfg(test)]
mod tests;
