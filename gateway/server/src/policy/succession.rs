//! Which revision of a policy follows which. All of them are alive, so that each step is a swap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core as core;
use evenkeel_core::{Pace, Walk};

use super::candidate::Candidate;
use super::record::Record;
use super::revoked::{CANDIDATE_REVOKED, PREVIOUS_REVOKED};
use super::rollout::Unfit;
use super::thread::{Desk, Revision};
use super::{Back, Ready, Rolled, Stand, Word};
use crate::control::{Actor, Quarantined, Rollout, RolloutOutcome, Staged};

/// Whoever means a candidate means the one that he saw.
const ANOTHER_ON_ITS_WAY: &str = "another revision of it is on its way by now";

/// How a revision that did harm is told of.
struct Told<'a> {
    reason: &'a str,
    by: Actor,
    arrived: Instant,
}

impl Desk {
    /// The revision answers for all from now on; one that was tried gives way to it.
    pub(super) fn activate(&mut self, ready: Ready) {
        if let Err(unfit) = self.admit(&ready) {
            let _ = ready.reply.send(Err(unfit));
            return;
        }
        let Ready { revision, by, arrived, since, reply, .. } = ready;
        self.let_candidate_go("superseded by a later word on this policy", by, Instant::now());
        let standing = self.revision_in_force();
        if standing.as_deref() == Some(revision.policy.revision()) {
            let rollout = Rollout {
                arrived,
                activate: since.elapsed(),
                ..self.rollout(RolloutOutcome::Unchanged, by)
            };
            let _ = reply.send(Ok(Rollout { previous: standing, ..rollout }));
            return;
        }
        let rollout = self.put_in_force(revision, by, arrived, since);
        let _ = reply.send(Ok(rollout));
    }

    /// It comes in, and what it did is forgiven where somebody insists on it: not before, since much may come of it until
    /// then.
    ///
    /// # Errors
    /// Why one that was fit when it was looked at does not come in: that may be a while ago. Where there is nothing else, it
    /// does all the same.
    fn admit(&self, ready: &Ready) -> Result<(), Unfit> {
        if !self.standing.is_last(ready.word) {
            return Err(Unfit::Superseded);
        }
        let refused = self.standing.rules().revoked(&ready.revision.seal);
        if let Some(refused) = refused.filter(|_| self.active.is_some()) {
            return Err(Unfit::Refused(refused));
        }
        let revision = ready.revision.policy.revision();
        if ready.force {
            self.standing.forgive(revision);
        }
        if self.active.is_none() {
            return Ok(());
        }
        match self.standing.quarantined(revision) {
            Some(harm) => Err(Unfit::Quarantined(harm)),
            None => Ok(()),
        }
    }

    /// The revision is tried from now on; another that was gives way to it. Where none is in force it is at once.
    pub(super) fn try_out(&mut self, ready: Ready, pace: Pace) {
        let standing = self.revision_in_force();
        if standing.is_none() || standing.as_deref() == Some(ready.revision.policy.revision()) {
            self.activate(ready);
            return;
        }
        if let Err(unfit) = self.admit(&ready) {
            let _ = ready.reply.send(Err(unfit));
            return;
        }
        let Ready { revision, by, arrived, since, reply, .. } = ready;
        self.let_candidate_go("superseded by a later word on this policy", by, Instant::now());
        let record = Record::new(Instant::now());
        let candidate = Candidate { revision, record, arrived, answers: false };
        self.standing.tries(Some(candidate.shown()));
        let revision = Some(candidate.name());
        self.candidate = Some(candidate);
        self.learn();
        let begun = self.rollout(RolloutOutcome::Started, by);
        // Control walks it; who pushed it is told how that begins.
        let now = Instant::now();
        let stage = Some(Staged::of(&Walk::begin(pace.clone(), now), now));
        let (previous, activate) = (standing, since.elapsed());
        let rollout = Rollout { revision, previous, stage, arrived, activate, ..begun };
        self.tell_rolled(rollout.clone(), Some(pace));
        let _ = reply.send(Ok(rollout));
    }

    /// This one, which is tried, answers for all from now on. Another that is tried by now has its own way before it.
    pub(super) fn promote(&mut self, revision: &str, by: Actor) -> Result<Rollout, &'static str> {
        let since = Instant::now();
        let rules = self.standing.rules();
        let is_this = |candidate: &Candidate| *candidate.name() == *revision;
        let found = self.candidate.as_ref().filter(|candidate| is_this(candidate));
        if found.is_some_and(|found| rules.revoked(&found.revision.seal).is_some()) {
            return Err(CANDIDATE_REVOKED);
        }
        let candidate = self.candidate.take_if(|candidate| is_this(candidate));
        let candidate = candidate.ok_or(match self.candidate {
            Some(_) => ANOTHER_ON_ITS_WAY,
            None => "no revision of it is on its way",
        })?;
        self.standing.tries(None);
        let Candidate { revision, arrived, .. } = candidate;
        Ok(self.put_in_force(revision, by, arrived, since))
    }

    fn put_in_force(
        &mut self,
        revision: Revision,
        by: Actor,
        arrived: Instant,
        since: Instant,
    ) -> Rollout {
        let now = Instant::now();
        let standing = self.revision_in_force();
        let name: Box<str> = revision.policy.revision().into();
        // One that did harm before a restart, and that files name all the same. It is no measure for what mends it.
        let harm = self.standing.quarantined(&name);
        if harm.is_none() {
            self.standing.accept(&name, revision.policy.component().manifest());
        }
        let replaced = self.active.replace(revision);
        let did_harm = self.doomed.take().is_some();
        let is_kept = !did_harm && (self.record.is_good(now) || !self.may_go_back());
        // What goes is taken apart when nobody waits for it any more.
        let mut gone =
            if is_kept { std::mem::replace(&mut self.previous, replaced) } else { replaced };
        // What was good before, and comes again, leaves nothing to go back to.
        if self.previous.as_ref().is_some_and(|good| good.policy.revision() == &*name) {
            gone = self.previous.take();
        }
        self.record = Record::new(now);
        self.learn();
        self.show();
        let activated = self.rollout(RolloutOutcome::Activated, by);
        let rollout = Rollout {
            previous: standing,
            code: harm.as_ref().map(|_| "quarantined"),
            reason: harm.as_ref().map(in_force_all_the_same),
            arrived,
            activate: since.elapsed(),
            ..activated
        };
        self.tell_rolled(rollout.clone(), None);
        drop(gone);
        rollout
    }

    /// What nothing came of was no word on this policy.
    pub(super) fn roll_back_as_asked(
        &mut self,
        asked: Instant,
        after: u64,
        back: Back,
    ) -> Result<Rollout, &'static str> {
        let (reason, by) = ("asked for", Actor::Operator);
        if let (Back::Candidate(Some(seen)), Some(candidate)) = (&back, &self.candidate)
            && candidate.name() != *seen
        {
            return Err(ANOTHER_ON_ITS_WAY);
        }
        let gone = self.let_candidate_go(reason, by, asked);
        let rollout = match (gone, back) {
            (Some(rollout), _) => rollout,
            (None, Back::Candidate(_)) => return Err("no revision of it is on its way"),
            (None, Back::Last) if self.previous.is_some() && !self.may_go_back() => {
                return Err(PREVIOUS_REVOKED);
            }
            (None, Back::Last) => self
                .bring_back(&Told { reason, by, arrived: asked })
                .ok_or("there is no revision before this one")?,
        };
        self.standing.spoke_after(after);
        Ok(rollout)
    }

    /// The revision in force failed, and the last good one is back; it does not come in again. `None` where there is none, or
    /// it was revoked: then the one in force stays until another comes, or nobody revokes that one any more.
    pub(super) fn roll_back(&mut self, reason: &str, arrived: Instant) -> Option<Rollout> {
        let failed = self.revision_in_force()?;
        if self.previous.is_some() && !self.may_go_back() {
            self.doom(failed, reason);
            return None;
        }
        // Before anybody hears of it: who pushes the same again at once is told why not.
        if self.previous.is_some() {
            self.standing.quarantine(&failed, reason);
        }
        self.bring_back(&Told { reason, by: Actor::Gateway, arrived })
    }

    /// A revision did harm: it goes, wherever it stands, and does not come in again.
    pub(super) fn condemn(&mut self, revision: &str, reason: &str, now: Instant) {
        if self.candidate.as_ref().is_some_and(|candidate| *candidate.name() == *revision) {
            self.standing.quarantine(revision, reason);
            self.let_candidate_go(reason, Actor::Gateway, now);
        } else if self.revision_in_force().is_some_and(|standing| *standing == *revision) {
            self.roll_back(reason, now);
        }
    }

    /// The last good revision is not wanted back any more.
    pub(super) fn forget(&mut self, previous: &str) {
        self.previous = self.previous.take().filter(|good| good.policy.revision() != previous);
        self.show();
        self.judge_anew();
    }

    /// `None` where there is nothing to go back to, or what there is was revoked.
    fn bring_back(&mut self, told: &Told<'_>) -> Option<Rollout> {
        let since = Instant::now();
        if !self.may_go_back() {
            return None;
        }
        let good = self.previous.take()?;
        // As one that is promoted: nothing is told in between, or what was kept for it would be let go.
        let is_good = |candidate: &mut Candidate| *candidate.name() == *good.policy.revision();
        if self.candidate.take_if(is_good).is_some() {
            self.standing.tries(None);
        }
        self.doomed = None;
        let failed = self.active.replace(good);
        self.record = Record::new(since);
        self.show();
        let previous: Option<Arc<str>> = failed.map(|it| Arc::from(it.policy.revision()));
        previous.iter().for_each(|failed| self.standing.take_back(failed));
        Some(self.rolled_back(previous, told, since))
    }

    /// Nobody is asked of the candidate any more. `None` where there is none.
    pub(super) fn let_candidate_go(
        &mut self,
        reason: &str,
        by: Actor,
        arrived: Instant,
    ) -> Option<Rollout> {
        let since = Instant::now();
        let candidate = self.candidate.take()?;
        self.standing.tries(None);
        let told = Told { reason, by, arrived };
        Some(self.rolled_back(Some(candidate.name()), &told, since))
    }

    fn rolled_back(
        &mut self,
        previous: Option<Arc<str>>,
        told: &Told<'_>,
        since: Instant,
    ) -> Rollout {
        let Told { reason, by, arrived } = *told;
        let back = self.rollout(RolloutOutcome::RolledBack, by);
        let (reason, activate) = (Some(reason.into()), since.elapsed());
        let rollout = Rollout { previous, reason, arrived, activate, ..back };
        self.tell_rolled(rollout.clone(), None);
        rollout
    }

    /// What became of the policy just now, with the revision that is in force.
    fn rollout(&self, outcome: RolloutOutcome, by: Actor) -> Rollout {
        Rollout {
            policy: self.standing.policy().clone(),
            outcome,
            stage: None,
            by,
            revision: self.revision_in_force(),
            previous: None,
            code: None,
            reason: None,
            arrived: Instant::now(),
            activate: Duration::ZERO,
        }
    }

    fn revision_in_force(&self) -> Option<Arc<str>> {
        self.active.as_ref().map(|active| Arc::from(active.policy.revision()))
    }

    fn tell_rolled(&mut self, rollout: Rollout, pace: Option<Pace>) {
        let stand = Stand {
            standing: self.active.as_ref().map(Revision::known),
            candidate: self.candidate.as_ref().map(|candidate| candidate.revision.known()),
            previous: self.previous.as_ref().map(Revision::known),
        };
        self.tell(Word::Rolled(Box::new(Rolled { rollout, stand, pace })));
        self.judge_anew();
    }
}

/// Why a revision that did harm answers.
fn in_force_all_the_same(harm: &Quarantined) -> Box<str> {
    let since = harm.since_text();
    format!("quarantined for {since}: {}; in force since nothing else is there", harm.reason).into()
}

impl Revision {
    /// As the core knows it.
    fn known(&self) -> core::Revision {
        let manifest = self.policy.component().manifest();
        core::Revision {
            name: self.policy.revision().into(),
            plugin: Arc::clone(&manifest.name),
            schema: manifest.state_schema,
        }
    }
}
