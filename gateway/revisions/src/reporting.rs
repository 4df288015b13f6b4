//! Reports of a lifecycle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lifecycle::Lifecycle;
use crate::progress::Actor;
use crate::report::{Effect, LastRollout, RevokedRevision, RolloutOutcome, RolloutReport, Staged};

impl Lifecycle {
    pub(crate) fn staged(&self, now: Instant) -> Option<Staged> {
        self.revisions.candidate.as_ref().map(|candidate| Staged::of(&candidate.progress, now))
    }

    pub(crate) fn of_active(
        &self,
        outcome: RolloutOutcome,
        by: Actor,
        now: Instant,
    ) -> RolloutReport {
        RolloutReport {
            policy: self.policy.clone(),
            outcome,
            stage: self.staged(now),
            by,
            revision: self.revisions.active_name(),
            previous: None,
            code: None,
            reason: None,
            arrived: now,
            activate: Duration::ZERO,
        }
    }

    pub(crate) fn of_candidate(
        &self,
        outcome: RolloutOutcome,
        by: Actor,
        now: Instant,
    ) -> RolloutReport {
        let revision = self.revisions.candidate.as_ref().map(|it| Arc::clone(&it.revision.name));
        let previous = self.revisions.active_name();
        RolloutReport { revision, previous, ..self.of_active(outcome, by, now) }
    }

    pub(crate) fn report(&mut self, rollout: RolloutReport, now: Instant) -> RolloutReport {
        let at = self.clock.at(now);
        self.last = Some(LastRollout { at, rollout: rollout.clone() });
        self.effects.push(Effect::Report(rollout.clone()));
        rollout
    }

    pub(crate) fn report_candidate(
        &mut self,
        outcome: RolloutOutcome,
        by: Actor,
        now: Instant,
    ) -> RolloutReport {
        self.report(self.of_candidate(outcome, by, now), now)
    }

    pub(crate) fn report_rollback(
        &mut self,
        previous: Option<Arc<str>>,
        reason: &str,
        by: Actor,
        now: Instant,
    ) -> RolloutReport {
        let reason = Some(reason.into());
        let back = self.of_active(RolloutOutcome::RolledBack, by, now);
        self.report(RolloutReport { previous, reason, ..back }, now)
    }

    pub(crate) fn report_revoked(&mut self, revoked: RevokedRevision, now: Instant) {
        let RevokedRevision { revision, reason } = revoked;
        let told = self.of_active(RolloutOutcome::Revoked, Actor::Gateway, now);
        self.effects.push(Effect::Report(RolloutReport {
            stage: None,
            revision: Some(revision),
            code: Some("revoked"),
            reason: Some(reason),
            ..told
        }));
    }
}
