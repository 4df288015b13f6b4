//! The life of one policy's revisions: candidate in shadow, canary, active, previous, quarantined.
//!
//! | from | input | to |
//! |---|---|---|
//! | (new) | `handle_ready` at once, or no active revision | active; the active one becomes previous if it was good |
//! | (new) | `handle_ready` with a strategy | candidate; one that it replaces is dropped |
//! | (new) | `handle_ready` superseded, quarantined, revoked, or during a rollout that it does not replace | refused |
//! | (new) | `handle_compiled` below the version floor, unless it was active before or comes from a file | refused |
//! | previous | `handle_ready` of its file, or as an older version | active |
//! | candidate | its time passed, and its cohort suffices | next share, or active |
//! | candidate | promote, pause, resume | next share or active; paused; resumed |
//! | candidate | abort, rollback, revoked | dropped |
//! | candidate | too many faults, breach | dropped and quarantined |
//! | active | too many faults, breach | quarantined; the previous one is active |
//! | active | the same, and the previous one is revoked | quarantined, and active until another comes |
//! | active | rollback, unless the previous one is quarantined | dropped; the previous one is active |
//! | previous | its window ends | dropped |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{Hook, PolicyName};

use crate::calls::{CallRecord, Compared, PolicyCallResult};
use crate::judging::Judging;
use crate::progress::{
    Actor, CohortSize, RolloutAction, RolloutProgress, RolloutRequest, RolloutRules, RolloutStep,
};
use crate::record::{LifecycleRecord, Stuck};
use crate::report::{
    CandidateStatus, Effect, LastRollout, PolicyStatus, QuarantinedRevision, Remembered,
    RevisionRefusal, RevokedRevision, RolloutOutcome, RolloutReport, Staged, WallClock, age_text,
};
use crate::revision::{CandidateRevision, Previous, Revision, Revisions};

const NO_ROLLOUT: &str = "no rollout is running";
const NO_PREVIOUS: &str = "there is no revision before this one";
const PREVIOUS_REVOKED: &str =
    "the revision before this one is revoked in [trust] since it came: push another";
const PREVIOUS_QUARANTINED: &str =
    "the revision before this one is quarantined: roll back with `--force`, or push another";
const RETURNED: &str = "an older version was pushed, or the file of this revision restored";
const SUPERSEDED: &str = "superseded by a later push or reload of this policy";

/// The revisions of one policy. Inputs go in by `Gateway::change_policy`.
#[derive(Debug)]
pub struct Lifecycle {
    policy: PolicyName,
    rules: RolloutRules,
    began: Instant,
    clock: WallClock,
    /// Pushes and rollbacks so far: a revision becomes active or a candidate only for the last one.
    pushes: u64,
    revisions: Revisions,
    calls: CallRecord,
    stuck: Option<Stuck>,
    remembered: Remembered,
    /// Loaded revisions that are revoked, with the reasons.
    revoked: BTreeMap<Arc<str>, Box<str>>,
    /// Active and previous revisions that were reported as revoked.
    reported: Vec<RevokedRevision>,
    last: Option<LastRollout>,
    effects: Vec<Effect>,
}

impl Lifecycle {
    /// Starts without a revision.
    pub fn new(policy: PolicyName, rules: RolloutRules, clock: WallClock) -> Lifecycle {
        Lifecycle {
            policy,
            rules,
            began: clock.instant,
            clock,
            pushes: 0,
            revisions: Revisions::default(),
            calls: CallRecord::new(clock.instant),
            stuck: None,
            remembered: Remembered::default(),
            revoked: BTreeMap::new(),
            reported: Vec::new(),
            last: None,
            effects: Vec::new(),
        }
    }

    /// Returns the time at which this lifecycle began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Follows a step of the wall clock.
    pub fn set_clock(&mut self, clock: WallClock) {
        self.clock = clock;
    }

    /// Returns the active, candidate and previous revisions.
    pub fn revisions(&self) -> &Revisions {
        &self.revisions
    }

    /// Returns the record for the process that continues these revisions, without the evidence of judges.
    pub fn record(&self) -> LifecycleRecord {
        LifecycleRecord {
            revisions: self.revisions.clone(),
            remembered: self.remembered.clone(),
            stuck: self.stuck.clone(),
            calls: self.calls.clone(),
            judge: None,
            breaches: None,
            unprotected: None,
        }
    }

    /// Continues the revisions of another process. Revisions that are not loaded here are left out; without an active
    /// revision the native default answers.
    pub fn restore(&mut self, record: LifecycleRecord, is_loaded: impl Fn(&Revision) -> bool) {
        let LifecycleRecord { revisions, remembered, stuck, calls, .. } = record;
        let active = revisions.active.filter(&is_loaded);
        let candidate =
            revisions.candidate.filter(|it| active.is_some() && is_loaded(&it.revision));
        let previous = revisions.previous.filter(|it| is_loaded(&it.revision));
        self.revisions = Revisions { active, candidate, previous };
        (self.remembered, self.stuck, self.calls) = (remembered.limited(), stuck, calls);
        self.note_change();
    }

    /// Reports that the record changed.
    pub fn note_change(&mut self) {
        self.effects.retain(|effect| *effect != Effect::RecordChanged);
        self.effects.push(Effect::RecordChanged);
    }

    /// Returns the thresholds by which a candidate is judged.
    pub fn judging(&self) -> Judging {
        self.rules.judging
    }

    /// Takes the effects since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Numbers a push or a changed file; earlier pushes are superseded.
    pub fn next_push(&mut self) -> u64 {
        self.pushes += 1;
        self.pushes
    }

    /// Checks a compiled revision before it is proved, since the proof takes long.
    ///
    /// # Errors
    /// The reason of the refusal. The first revision of a policy is accepted, as no other could answer instead.
    pub fn handle_compiled(
        &self,
        request: &RolloutRequest,
        new: &Revision,
        now: Instant,
    ) -> Result<(), RevisionRefusal> {
        self.check_last(request)?;
        self.check_running(request)?;
        let Some(active) = &self.revisions.active else { return Ok(()) };
        // Changed settings of the active version are accepted, even if a newer version was pushed before a restart.
        let is_same_version =
            active.plugin == new.plugin && active.version.to_string() == new.version.to_string();
        // A quarantined revision is active only where no other could be loaded: each way back from it is open.
        let is_harmful = self.remembered.quarantined(&active.name).is_some();
        let is_known = is_same_version || self.remembered.has_accepted(&new.name);
        if !(request.force || request.returns || is_known || is_harmful) {
            self.remembered.check_version(new)?;
        }
        if request.force { Ok(()) } else { self.check_quarantine(&new.name, now) }
    }

    /// Puts a revision into use that was proved at `ready`. `revoked` is the reason if it was revoked meanwhile. Unless
    /// the outcome is [`RolloutOutcome::Unchanged`], the revision is asked from now on.
    ///
    /// # Errors
    /// The reason of the refusal, though [`handle_compiled`](Lifecycle::handle_compiled) accepted the revision before.
    pub fn handle_ready(
        &mut self,
        request: &RolloutRequest,
        new: Revision,
        revoked: Option<Box<str>>,
        (ready, now): (Instant, Instant),
    ) -> Result<RolloutReport, RevisionRefusal> {
        self.check_last(request)?;
        self.check_running(request)?;
        let is_first = self.revisions.active.is_none();
        match revoked {
            Some(reason) if !is_first => return Err(RevisionRefusal::Revoked(reason)),
            Some(reason) => _ = self.revoked.insert(Arc::clone(&new.name), reason),
            None => _ = self.revoked.remove(&new.name),
        }
        if request.force {
            self.remembered.release(&new.name);
            self.note_change();
        }
        if !is_first {
            self.check_quarantine(&new.name, now)?;
        }
        let returns = self.returns(request, &new);
        let is_active = self.revisions.is_active(&new.name);
        let RolloutRequest { by, arrived, .. } = *request;
        let activate = now.saturating_duration_since(ready);
        let ended = self.revisions.candidate.as_ref().map(ended_text);
        self.drop_candidate(SUPERSEDED, by, now);
        let strategy = request.strategy.clone().filter(|_| !(returns || is_first || is_active));
        let rollout = match strategy {
            Some(strategy) => {
                let progress = RolloutProgress::begin(strategy, now);
                self.calls.begin_candidate(now);
                self.revisions.candidate =
                    Some(CandidateRevision { revision: new, progress, arrived });
                let begun = self.of_candidate(RolloutOutcome::Started, by, now);
                self.report(RolloutReport { arrived, activate, reason: ended, ..begun }, now)
            }
            None if is_active => {
                let previous = self.revisions.active_name();
                let unchanged = self.of_active(RolloutOutcome::Unchanged, by, now);
                let rollout =
                    RolloutReport { previous, arrived, activate, reason: ended, ..unchanged };
                self.effects.push(Effect::Report(rollout.clone()));
                rollout
            }
            None => match returns.then(|| self.restore_previous(RETURNED, by, now)).flatten() {
                Some(rollout) => rollout,
                None => self.activate(new, by, (arrived, activate), ended, now),
            },
        };
        self.review(now);
        Ok(rollout)
    }

    fn check_running(&self, request: &RolloutRequest) -> Result<(), RevisionRefusal> {
        match &self.revisions.candidate {
            Some(CandidateRevision { revision, progress, .. }) if !request.replace => {
                let (candidate, stage) = (Arc::clone(&revision.name), progress.stage());
                Err(RevisionRefusal::Running { candidate, stage })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_last(&self, request: &RolloutRequest) -> Result<(), RevisionRefusal> {
        if request.push == self.pushes { Ok(()) } else { Err(RevisionRefusal::Superseded) }
    }

    fn check_quarantine(&self, revision: &str, now: Instant) -> Result<(), RevisionRefusal> {
        let Some(quarantined) = self.remembered.quarantined(revision).cloned() else {
            return Ok(());
        };
        let age = self.age(&quarantined, now);
        Err(RevisionRefusal::Quarantined { quarantined, age })
    }

    /// Time in quarantine. Zero if the wall clock was set back since.
    fn age(&self, quarantined: &QuarantinedRevision, now: Instant) -> Duration {
        self.clock.at(now).duration_since(quarantined.since).unwrap_or_default()
    }

    /// Returns true if this goes back to the previous revision: as an older version, or as the restored file.
    fn returns(&self, request: &RolloutRequest, new: &Revision) -> bool {
        let is_older =
            |active: &Revision| active.plugin == new.plugin && new.version < active.version;
        (request.returns || self.revisions.active.as_ref().is_some_and(is_older))
            && self.revisions.is_previous(&new.name)
    }

    fn activate(
        &mut self,
        new: Revision,
        by: Actor,
        (arrived, activate): (Instant, Duration),
        ended: Option<Box<str>>,
        now: Instant,
    ) -> RolloutReport {
        let name = Arc::clone(&new.name);
        let before = self.revisions.active_name();
        // A revision that did harm before a restart sets no version floor.
        let harm = self.remembered.quarantined(&name).cloned();
        if harm.is_none() {
            self.remembered.lower_floor(&new);
            self.remembered.accept(&new);
            self.note_change();
        }
        let replaced = self.revisions.active.replace(new);
        self.stuck = None;
        // No rollback leads to a revision that did harm.
        let replaced =
            replaced.filter(|revision| self.remembered.quarantined(&revision.name).is_none());
        let until = now + self.rules.keep;
        if let Some(revision) = replaced
            && (self.calls.is_active_good(now) || !self.may_go_back())
        {
            self.revisions.previous = Some(Previous { revision, until });
        }
        // The previous revision became active again: none is left to roll back to.
        self.revisions.previous.take_if(|previous| previous.revision.name == name);
        // Each active revision can be rolled back for the whole window.
        if let Some(previous) = &mut self.revisions.previous {
            previous.until = until;
        }
        self.calls.begin_active(now);
        let reason: Option<Box<str>> = harm.as_ref().map(|harm| {
            let (age, reason) = (age_text(self.age(harm, now)), &harm.reason);
            let why = "active because no other revision is loaded";
            format!("quarantined {age} ago: {reason}; {why}").into()
        });
        let activated = self.of_active(RolloutOutcome::Activated, by, now);
        let activated = RolloutReport {
            previous: before,
            code: harm.map(|_| "quarantined"),
            reason: reason.or(ended),
            arrived,
            activate,
            ..activated
        };
        self.report(activated, now)
    }

    /// Drops the candidate or, if there is none, restores the previous revision; a quarantined one only by `force`.
    ///
    /// # Errors
    /// The reason why nothing changes. Pushes under way continue then.
    pub fn handle_rollback(
        &mut self,
        force: bool,
        now: Instant,
    ) -> Result<RolloutReport, &'static str> {
        let rollout = match self.drop_candidate("asked for", Actor::Operator, now) {
            Some(rollout) => rollout,
            None => {
                match (self.check_way_back(), &self.revisions.previous) {
                    (Err(PREVIOUS_QUARANTINED), Some(previous)) if force => {
                        self.remembered.release(&previous.revision.name);
                    }
                    (checked, _) => checked?,
                }
                self.restore_previous("asked for", Actor::Operator, now).ok_or(NO_PREVIOUS)?
            }
        };
        self.next_push();
        self.review(now);
        Ok(rollout)
    }

    /// # Errors
    /// If there is no candidate.
    pub fn handle_action(
        &mut self,
        verb: RolloutAction,
        now: Instant,
    ) -> Result<RolloutReport, &'static str> {
        let by = Actor::Operator;
        let candidate = self.revisions.candidate.as_mut().ok_or(NO_ROLLOUT)?;
        let rollout = match verb {
            RolloutAction::Promote => {
                let step = candidate.progress.advance(now);
                self.take_step(step, by, now).ok_or(NO_ROLLOUT)?
            }
            RolloutAction::PromoteAll => self.promote(by, now).ok_or(NO_ROLLOUT)?,
            RolloutAction::Pause => {
                candidate.progress.pause(now);
                self.report_candidate(RolloutOutcome::Paused, by, now)
            }
            RolloutAction::Resume => {
                candidate.progress.resume(now);
                self.report_candidate(RolloutOutcome::Resumed, by, now)
            }
            RolloutAction::Abort => {
                self.next_push();
                self.drop_candidate("asked for", by, now).ok_or(NO_ROLLOUT)?
            }
        };
        self.review(now);
        Ok(rollout)
    }

    /// Takes the steps that are due, and ends the rollback window.
    pub fn poll(&mut self, cohort: impl FnOnce() -> CohortSize, now: Instant) {
        let (hook, answered) = (self.policy.hook, self.calls.answered_in_step());
        let cohort = || judged(hook, answered, cohort());
        let candidate = self.revisions.candidate.as_mut();
        if let Some(step) = candidate.and_then(|it| it.progress.poll(cohort, now)) {
            self.take_step(step, Actor::Gateway, now);
            self.review(now);
        }
        if self.revisions.previous.take_if(|previous| previous.until <= now).is_some() {
            self.review(now);
        }
    }

    /// The part of a cohort that the candidate's answers reached in this step.
    pub fn judged(&self, cohort: CohortSize) -> CohortSize {
        judged(self.policy.hook, self.calls.answered_in_step(), cohort)
    }

    fn take_step(&mut self, step: RolloutStep, by: Actor, now: Instant) -> Option<RolloutReport> {
        let RolloutStep::Expose(_) = step else { return self.promote(by, now) };
        self.calls.begin_step();
        Some(self.report_candidate(RolloutOutcome::Advanced, by, now))
    }

    fn promote(&mut self, by: Actor, now: Instant) -> Option<RolloutReport> {
        let CandidateRevision { revision, arrived, .. } = self.revisions.candidate.take()?;
        Some(self.activate(revision, by, (arrived, Duration::ZERO), None, now))
    }

    /// Counts a call of a revision, and removes the revision after too many faults.
    pub fn handle_call(&mut self, revision: &str, call: &PolicyCallResult, now: Instant) {
        let reason = if self.revisions.is_candidate(revision) {
            self.calls.note_candidate(call, self.rules.judging.faults_permille, now)
        } else if self.revisions.is_active(revision) {
            self.calls.note_active(call, now)
        } else {
            self.calls.note_other();
            None
        };
        if let Some(reason) = reason {
            self.remove_harmful(revision, &reason, now);
        }
    }

    /// Counts a question without an answer in time.
    pub fn note_late(&mut self) {
        self.calls.note_late();
    }

    /// Counts a comparison in shadow, and removes a candidate that faults.
    pub fn handle_compared(
        &mut self,
        revision: &str,
        compared: &Compared,
        beyond_repair: bool,
        now: Instant,
    ) {
        let faults_permille = self.rules.judging.faults_permille;
        if self.revisions.is_candidate(revision)
            && let Some(reason) =
                self.calls.note_compared(compared, beyond_repair, faults_permille, now)
        {
            self.remove_harmful(revision, &reason, now);
        }
    }

    /// Removes a harmful revision, if it is the candidate or the active one.
    pub fn remove_harmful(&mut self, revision: &str, reason: &str, now: Instant) {
        if self.revisions.is_candidate(revision) {
            self.quarantine(revision, reason, now);
            self.drop_candidate(reason, Actor::Gateway, now);
        } else if self.revisions.is_active(revision) {
            self.replace_harmful(reason, now);
        }
        self.review(now);
    }

    /// Rolls the active revision back to the previous one. If the previous one is revoked or quarantined, the active one
    /// stays. Without a previous revision, the active one is not quarantined.
    fn replace_harmful(&mut self, reason: &str, now: Instant) {
        let Some(harmful) =
            self.revisions.active_name().filter(|_| self.revisions.previous.is_some())
        else {
            return;
        };
        if let Err(obstacle) = self.check_way_back() {
            if self.stuck.as_ref().is_some_and(|stuck| stuck.revision == harmful) {
                return;
            }
            self.quarantine(&harmful, reason, now);
            self.withdraw(&harmful);
            let stays = format!("{reason}; it stays active: {obstacle}").into();
            self.report_revoked(
                RevokedRevision { revision: Arc::clone(&harmful), reason: stays },
                now,
            );
            self.stuck = Some(Stuck { revision: harmful, reason: reason.into() });
        } else {
            self.quarantine(&harmful, reason, now);
            self.restore_previous(reason, Actor::Gateway, now);
        }
    }

    /// Returns `None` if there is no way back.
    fn restore_previous(&mut self, reason: &str, by: Actor, now: Instant) -> Option<RolloutReport> {
        self.check_way_back().ok()?;
        let Previous { revision: good, .. } = self.revisions.previous.take()?;
        self.revisions.candidate.take_if(|candidate| candidate.revision.name == good.name);
        self.stuck = None;
        let failed = self.revisions.active.replace(good);
        self.calls.begin_active(now);
        let previous = failed.map(|failed| failed.name);
        previous.iter().for_each(|failed| self.withdraw(failed));
        Some(self.report_rollback(previous, reason, by, now))
    }

    fn drop_candidate(&mut self, reason: &str, by: Actor, now: Instant) -> Option<RolloutReport> {
        let candidate = self.revisions.candidate.take()?;
        Some(self.report_rollback(Some(candidate.revision.name), reason, by, now))
    }

    fn may_go_back(&self) -> bool {
        self.check_way_back().is_ok()
    }

    /// Checks the previous revision. The error says why no rollback leads to it.
    fn check_way_back(&self) -> Result<(), &'static str> {
        let Revision { name, .. } = &self.revisions.previous.as_ref().ok_or(NO_PREVIOUS)?.revision;
        if self.revoked.contains_key(name) {
            return Err(PREVIOUS_REVOKED);
        }
        self.remembered.quarantined(name).map_or(Ok(()), |_| Err(PREVIOUS_QUARANTINED))
    }

    /// Sets which loaded revisions are revoked, with the reasons.
    pub fn handle_revoked(&mut self, revoked: BTreeMap<Arc<str>, Box<str>>, now: Instant) {
        self.revoked = revoked;
        self.review(now);
    }

    /// Acts on revoked revisions. Runs after each change of the revocations or of the policy's revisions.
    fn review(&mut self, now: Instant) {
        let revoked = |revision: &Revision, place: &str| {
            let reason = self.revoked.get(&revision.name)?;
            let reason = format!("{reason}; it is {place}").into();
            Some(RevokedRevision { revision: Arc::clone(&revision.name), reason })
        };
        let candidate = self.revisions.candidate.as_ref().map(|it| &it.revision);
        let candidate = candidate.and_then(|it| revoked(it, "dropped: push another revision"));
        if let Some(RevokedRevision { reason, .. }) = candidate {
            self.drop_candidate(&reason, Actor::Gateway, now);
            return self.review(now);
        }
        if self.stuck.is_some() && self.may_go_back() {
            let reason = self.stuck.take().map(|stuck| stuck.reason).unwrap_or_default();
            self.replace_harmful(&reason, now);
            return self.review(now);
        }
        let active = self.revisions.active.as_ref();
        let active =
            active.and_then(|it| revoked(it, "still active: push another revision or roll back"));
        let previous =
            self.revisions.previous.as_ref().and_then(|it| {
                revoked(&it.revision, "not a rollback target: push another revision")
            });
        let revoked: Vec<RevokedRevision> = active.into_iter().chain(previous).collect();
        let known = std::mem::replace(&mut self.reported, revoked.clone());
        let is_known =
            |one: &RevokedRevision| known.iter().any(|known| known.revision == one.revision);
        for one in revoked.into_iter().filter(|one| !is_known(one)) {
            self.report_revoked(one, now);
        }
    }

    /// Replaces the rules, also those of a rollout under way.
    pub fn set_rules(&mut self, rules: RolloutRules, now: Instant) {
        let was = std::mem::replace(&mut self.rules, rules);
        let Some(candidate) = &mut self.revisions.candidate else { return };
        let strategy = self.rules.strategy.clone();
        if let Some(paused) = candidate.progress.follow(&was.strategy, strategy, now) {
            let outcome = if paused { RolloutOutcome::Paused } else { RolloutOutcome::Resumed };
            self.report_candidate(outcome, Actor::File, now);
        }
    }

    fn quarantine(&mut self, revision: &str, reason: &str, now: Instant) {
        // A previous revision may do harm as a candidate.
        self.revisions.previous.take_if(|previous| *previous.revision.name == *revision);
        let (revision, reason, since) = (revision.into(), reason.into(), self.clock.at(now));
        self.remembered.quarantine(QuarantinedRevision { revision, since, reason });
        self.note_change();
    }

    fn withdraw(&mut self, revision: &str) {
        self.remembered.withdraw(revision);
        self.note_change();
    }

    /// Replaces the revisions without effects.
    #[cfg(any(test, feature = "samples"))]
    pub fn set_revisions(&mut self, revisions: Revisions) {
        self.revisions = revisions;
    }

    fn staged(&self, now: Instant) -> Option<Staged> {
        self.revisions.candidate.as_ref().map(|candidate| Staged::of(&candidate.progress, now))
    }

    fn of_active(&self, outcome: RolloutOutcome, by: Actor, now: Instant) -> RolloutReport {
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

    fn of_candidate(&self, outcome: RolloutOutcome, by: Actor, now: Instant) -> RolloutReport {
        let revision = self.revisions.candidate.as_ref().map(|it| Arc::clone(&it.revision.name));
        let previous = self.revisions.active_name();
        RolloutReport { revision, previous, ..self.of_active(outcome, by, now) }
    }

    fn report(&mut self, rollout: RolloutReport, now: Instant) -> RolloutReport {
        let at = self.clock.at(now);
        self.last = Some(LastRollout { at, rollout: rollout.clone() });
        self.effects.push(Effect::Report(rollout.clone()));
        rollout
    }

    fn report_candidate(
        &mut self,
        outcome: RolloutOutcome,
        by: Actor,
        now: Instant,
    ) -> RolloutReport {
        self.report(self.of_candidate(outcome, by, now), now)
    }

    fn report_rollback(
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

    fn report_revoked(&mut self, revoked: RevokedRevision, now: Instant) {
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

fn ended_text(ended: &CandidateRevision) -> Box<str> {
    let (name, stage) = (&ended.revision.name, ended.progress.stage());
    format!("ends the rollout of revision {name}, {stage}").into()
}

/// Newcomers are judged by their answers; rooms and sessions once the candidate answered at all.
fn judged(hook: Hook, answered: u64, cohort: CohortSize) -> CohortSize {
    let judged = match hook {
        Hook::Admission | Hook::Scenario => u32::try_from(answered).unwrap_or(u32::MAX),
        Hook::Routing | Hook::Degradation if answered == 0 => 0,
        Hook::Routing | Hook::Degradation => cohort.judged,
    };
    CohortSize { judged, ..cohort }
}

#[cfg(test)]
mod tests;
