//! What was revoked since it came in. In force it answers on, since nobody may have anything better yet; one that is tried
//! goes, and nobody goes back to one that was kept for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::thread::{Desk, Revision};
use super::{Rules, Word};
use crate::control::{Actor, Revoked, Rollout, RolloutOutcome};

/// Why a candidate does not answer for all.
pub(super) const CANDIDATE_REVOKED: &str = "it is revoked in [trust] since it came: push another";

/// Why the last good revision does not answer again.
pub(super) const PREVIOUS_REVOKED: &str =
    "the revision before this one is revoked in [trust] since it came: push another";

/// Where a revision stands, and what is to be done about it.
const IN_FORCE: &str = "in force, and stays so until you push another or roll back";
const TRIED: &str = "on its way no more: push another";
const KEPT: &str = "kept to go back to, and nothing goes back to it: push another for that";

/// A revision in force that did harm, and stays for want of another.
pub(super) struct Doomed {
    revision: Arc<str>,
    /// What it did.
    reason: Box<str>,
}

/// Whether it may answer again.
fn may_return(previous: &Option<Revision>, rules: &Rules) -> bool {
    previous.as_ref().is_some_and(|good| good.revoked(rules, KEPT).is_none())
}

impl Desk {
    /// Rules, or the revisions that they are asked about, changed: what is revoked by now is told of, each once.
    pub(super) fn judge(&mut self) {
        let rulings = self.standing.rulings();
        if self.judged == rulings {
            return;
        }
        self.judged = rulings;
        let rules = self.standing.rules();
        let tried = self.candidate.as_ref().map(|candidate| &candidate.revision);
        if let Some(revoked) = tried.and_then(|tried| tried.revoked(&rules, TRIED)) {
            // Whoever goes has the others looked at again.
            self.let_candidate_go(&revoked.reason, Actor::Gateway, Instant::now());
            return;
        }
        if let Some(Doomed { reason, .. }) =
            self.doomed.take_if(|_| may_return(&self.previous, &rules))
        {
            self.roll_back(&reason, Instant::now());
            return;
        }
        let all = [(&self.active, IN_FORCE), (&self.previous, KEPT)];
        let all = all.into_iter().filter_map(|(one, place)| Some((one.as_ref()?, place)));
        let revoked: Vec<Revoked> =
            all.filter_map(|(one, place)| one.revoked(&rules, place)).collect();
        let known = self.standing.revoked(revoked.clone());
        let is_known = |one: &Revoked| known.iter().any(|known| known.revision == one.revision);
        for one in revoked.into_iter().filter(|one| !is_known(one)) {
            self.tell(Word::Revoked(Box::new(self.told_revoked(one))));
        }
    }

    /// The same where other revisions are there.
    pub(super) fn judge_anew(&mut self) {
        self.judged = 0;
        self.judge();
    }

    /// Whether there is a revision to go back to.
    pub(super) fn may_go_back(&self) -> bool {
        may_return(&self.previous, &self.standing.rules())
    }

    /// The revision in force did harm, and there is none to go back to that was not revoked: it stays until another comes,
    /// and does not come in again. Told once.
    pub(super) fn doom(&mut self, revision: Arc<str>, why: &str) {
        if self.doomed.as_ref().is_some_and(|doomed| doomed.revision == revision) {
            return;
        }
        self.standing.quarantine(&revision, why);
        self.standing.take_back(&revision);
        let reason = format!("{why}; it stays in force: {PREVIOUS_REVOKED}").into();
        let told = self.told_revoked(Revoked { revision: Arc::clone(&revision), reason });
        self.doomed = Some(Doomed { revision, reason: why.into() });
        self.tell(Word::Revoked(Box::new(told)));
    }

    fn told_revoked(&self, revoked: Revoked) -> Rollout {
        let Revoked { revision, reason } = revoked;
        Rollout {
            policy: self.standing.policy().clone(),
            outcome: RolloutOutcome::Revoked,
            stage: None,
            by: Actor::Gateway,
            revision: Some(revision),
            previous: None,
            code: Some("revoked"),
            reason: Some(reason),
            arrived: Instant::now(),
            activate: Duration::ZERO,
        }
    }
}

impl Revision {
    /// That it would not be taken any more, if so.
    pub(super) fn revoked(&self, rules: &Rules, place: &str) -> Option<Revoked> {
        let refused = rules.revoked(&self.seal)?;
        let revision = self.policy.revision().into();
        Some(Revoked { revision, reason: format!("{refused}; it is {place}").into() })
    }
}
