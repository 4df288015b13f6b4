//! The revisions of a policy, for the API.

use std::sync::Arc;
use std::time::Instant;

use crate::lifecycle::Lifecycle;
use crate::report::{CandidateStatus, PolicyStatus, Staged};
use crate::revision::CandidateRevision;

impl Lifecycle {
    /// Returns the state of the policy for the API.
    pub fn status(&self, now: Instant) -> PolicyStatus {
        let candidate = self.revisions.candidate.as_ref();
        let previous = self.revisions.previous.as_ref();
        PolicyStatus {
            active: self.revisions.active_name(),
            candidate: candidate.map(|CandidateRevision { revision, progress, .. }| {
                CandidateStatus {
                    revision: Arc::clone(&revision.name),
                    staged: Staged::of(progress, now),
                    lasted: progress.lasted(now),
                    steps: progress.strategy().steps.clone(),
                    each: progress.strategy().each,
                    calls: self.calls.of_candidate().clone(),
                }
            }),
            previous: previous.map(|previous| Arc::clone(&previous.revision.name)),
            previous_for: previous.map(|it| it.until.saturating_duration_since(now)),
            last: self.last.clone(),
            quarantined: self.remembered.quarantined.clone(),
            revoked: self.reported.clone(),
            ..self.calls.status()
        }
    }
}
