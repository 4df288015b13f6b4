//! All policies: the revisions of each, the memos of their plugins, and the judges that find harmful revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, Breach, BreachCount, CoreEvent, CoreSettings, Figure, GuardRule, Hook, NodeId,
    PluginState, PolicyName, SessionId,
};
use evenkeel_revisions::{
    AdmissionSample, BadFigures, CandidateRevision, CohortSize, Effect, Judge, Judging, Lifecycle,
    LifecycleRecord, Memos, Revision, Revisions, RuleBreaches, WallClock, is_by_room, unit,
};
use evenkeel_slo::ActivationBreach;

use crate::effects::{Effects, GatewayEffect, Timer};
use crate::policy::questions::FaultSubject;
use crate::policy::subjects::{ArmStatistics, ArmTally, Subjects};
use crate::rooms::room::Room;
use crate::sessions::Session;

/// Interval at which judges check for the end of their round.
const JUDGES_TURN: Duration = Duration::from_secs(1);

/// Interval at which rollouts check for their next step.
const ROLLOUTS_EVERY: Duration = Duration::from_millis(100);

/// Sessions that a tally visits at a time.
const TALLIED_AT_ONCE: usize = 1_024;

/// Mismatches with a fresh instance before the revision is rolled back.
const HIDDEN_MAX: u32 = 2;

#[derive(Default, Debug)]
pub(crate) struct Policies {
    all: BTreeMap<PolicyName, Policy>,
    memos: BTreeMap<PolicyName, Memos>,
    harmful: Vec<HarmfulRevision>,
    /// Sessions and rooms may keep states of revisions that are no longer loaded.
    keeps_older: bool,
    /// Another process decides about revisions.
    are_held: bool,
}

#[derive(Debug)]
struct Policy {
    life: Lifecycle,
    judge: Option<Judge>,
    /// During a canary, and while a rollback to the previous revision is possible.
    conduct: Option<RuleBreaches>,
    /// During a canary: routes without the standby that the native default has.
    unprotected: Option<RuleBreaches>,
    /// By arm: true after a reported breach.
    reported: [bool; 2],
}

/// A harmful revision that is still to be removed.
#[derive(Debug)]
pub(crate) struct HarmfulRevision {
    policy: PolicyName,
    revision: Arc<str>,
    reason: Box<str>,
}

impl HarmfulRevision {
    pub(crate) fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// Removes the revision from those of its policy.
    pub(crate) fn remove_from(&self, life: &mut Lifecycle, now: Instant) {
        life.remove_harmful(&self.revision, &self.reason, now);
    }
}

impl Policies {
    pub(crate) fn add(&mut self, policy: PolicyName, life: Lifecycle) {
        let (judge, reported) = (None, [false; 2]);
        let new = Policy { life, judge, conduct: None, unprotected: None, reported };
        self.all.insert(policy, new);
    }

    pub(crate) fn remove(&mut self, policy: &PolicyName) {
        self.all.remove(policy);
        self.memos.remove(policy);
    }

    pub(crate) fn set_clock(&mut self, clock: WallClock) {
        self.all.values_mut().for_each(|policy| policy.life.set_clock(clock));
    }

    pub(crate) fn get(&self, policy: &PolicyName) -> Option<&Lifecycle> {
        self.all.get(policy).map(|policy| &policy.life)
    }

    pub(crate) fn revisions(&self, policy: &PolicyName) -> Option<&Revisions> {
        self.get(policy).map(Lifecycle::revisions)
    }

    /// The arm that is asked about the room or session of this number.
    pub(crate) fn arm(&self, policy: &PolicyName, unit: u64) -> Arm {
        self.revisions(policy).map_or(Arm::Standing, |revisions| revisions.arm(unit))
    }

    /// The revision of an arm; it determines which states the arm reads.
    pub(crate) fn revision(&self, policy: &PolicyName, arm: Arm) -> Option<&Revision> {
        self.revisions(policy)?.of(arm)
    }

    pub(crate) fn canary(&self, policy: &PolicyName) -> Option<&CandidateRevision> {
        self.revisions(policy)?.canary()
    }

    pub(crate) fn memo(&self, policy: &PolicyName, arm: Arm) -> Option<PluginState> {
        self.memos.get(policy)?.read(arm).cloned()
    }

    pub(crate) fn keep_memo(&mut self, policy: &PolicyName, arm: Arm, memo: PluginState) {
        // A canary may become active before it answers a question.
        let arm = if self.canary(policy).is_some() { arm } else { Arm::Standing };
        self.memos.entry(policy.clone()).or_default().write(arm, memo);
    }

    pub(crate) fn memos(&self) -> impl Iterator<Item = (&PolicyName, &Memos)> {
        self.memos.iter().filter(|(_, memos)| memos.read(Arm::Standing).is_some())
    }

    /// Continues the memos of another process.
    pub(crate) fn restore_memos(&mut self, policy: PolicyName, memos: Memos) {
        let memos = match self.revisions(&policy) {
            Some(revisions) => memos.readable_by(revisions),
            None => memos,
        };
        self.memos.insert(policy, memos);
    }

    /// Returns the record of a policy, with the evidence of its judges.
    pub(crate) fn record(&self, policy: &PolicyName) -> Option<LifecycleRecord> {
        let Policy { life, judge, conduct, unprotected, .. } = self.all.get(policy)?;
        let mut record = life.record();
        (record.judge, record.breaches) = (judge.as_ref().map(Judge::record), conduct.clone());
        record.unprotected.clone_from(unprotected);
        Some(record)
    }

    /// Continues the record of another process. Returns the consequences.
    pub(crate) fn restore(
        &mut self,
        name: &PolicyName,
        mut record: LifecycleRecord,
        is_loaded: impl Fn(&Revision) -> bool,
        now: Instant,
        effects: &mut Effects,
    ) -> Vec<Effect> {
        let (judged, breaches) = (record.judge.take(), record.breaches.take());
        let bare = record.unprotected.take();
        let changed = self.change(name, now, effects, |life| life.restore(record, is_loaded));
        if let Some(Policy { judge, conduct, unprotected, .. }) = self.all.get_mut(name) {
            if let Some((judge, judged)) = judge.as_mut().zip(judged) {
                judge.resume(judged, now);
            }
            if let Some((conduct, breaches)) = conduct.as_mut().zip(breaches) {
                *conduct = breaches;
            }
            if let Some((unprotected, bare)) = unprotected.as_mut().zip(bare) {
                *unprotected = bare;
            }
        }
        changed.map(|((), follows)| follows).unwrap_or_default()
    }

    /// The largest number of rooms or sessions that one judge knows.
    pub(crate) fn most_judged(&self) -> usize {
        let judges = self.all.values().filter_map(|policy| policy.judge.as_ref());
        judges.map(Judge::known).max().unwrap_or(0)
    }

    /// Changes a policy's revisions. Returns the consequences, or `None` if the policy is unknown.
    pub(crate) fn change<T>(
        &mut self,
        policy: &PolicyName,
        now: Instant,
        effects: &mut Effects,
        change: impl FnOnce(&mut Lifecycle) -> T,
    ) -> Option<(T, Vec<Effect>)> {
        let life = &mut self.all.get_mut(policy)?.life;
        let before = life.revisions().clone();
        let result = change(life);
        Some((result, self.follow(policy, before, now, effects)))
    }

    /// Another process decides about revisions: no step of a rollout is taken.
    pub(crate) fn hold(&mut self) {
        self.are_held = true;
    }

    pub(crate) fn release(&mut self) {
        self.are_held = false;
    }

    pub(crate) fn are_held(&self) -> bool {
        self.are_held
    }

    /// Sessions and rooms of a record keep states of revisions that may not be loaded here.
    pub(crate) fn expect_older_states(&mut self) {
        self.keeps_older = true;
    }

    pub(crate) fn take_harmful(&mut self) -> Vec<HarmfulRevision> {
        std::mem::take(&mut self.harmful)
    }

    /// An active revision burns an error budget fast. It is reported if it can be rolled back.
    pub(crate) fn activation_breached(&mut self, found: ActivationBreach, effects: &mut Effects) {
        let ActivationBreach { policy, revision, breach } = found;
        let is_active = self
            .revisions(&policy)
            .is_some_and(|it| it.is_active(&revision) && it.previous.is_some());
        if is_active {
            self.breached(&policy, Arm::Standing, Some(breach), effects);
        }
    }

    pub(crate) fn sets_with_canary(&self) -> BTreeSet<Arc<str>> {
        let decides = |policy: &PolicyName| self.canary(policy).is_some();
        self.changing().into_iter().filter(decides).map(|policy| policy.set).collect()
    }

    /// Policies with a candidate or a rollback window.
    pub(crate) fn changing(&self) -> Vec<PolicyName> {
        let changing = self.all.iter().filter(|(_, policy)| policy.life.revisions().are_changing());
        changing.filter(|_| !self.are_held).map(|(policy, _)| policy.clone()).collect()
    }

    /// Takes a rollout step that is due, or ends a rollback window. Returns the consequences.
    pub(crate) fn poll(
        &mut self,
        policy: &PolicyName,
        now: Instant,
        effects: &mut Effects,
    ) -> Vec<Effect> {
        let Some(Policy { life, judge, .. }) = self.all.get_mut(policy) else { return Vec::new() };
        let before = life.revisions().clone();
        life.poll(|| judge.as_ref().map(Judge::cohort_size).unwrap_or_default(), now);
        let follows = self.follow(policy, before, now, effects);
        effects.set_if_idle(Timer::Rollouts, now + ROLLOUTS_EVERY);
        follows
    }

    /// The canary as far as it was judged in its present step; `None` without one.
    pub(crate) fn judged(&self, policy: &PolicyName) -> Option<CohortSize> {
        let Policy { life, judge, .. } = self.all.get(policy)?;
        Some(life.judged(judge.as_ref()?.cohort_size()))
    }

    /// Updates memos, judges and timers after a change of revisions. Returns the consequences for other parts.
    fn follow(
        &mut self,
        policy: &PolicyName,
        before: Revisions,
        at: Instant,
        effects: &mut Effects,
    ) -> Vec<Effect> {
        let Some(Policy { life, judge, conduct, unprotected, reported }) = self.all.get_mut(policy)
        else {
            return Vec::new();
        };
        let mut follows = life.take_effects();
        let (judging, now) = (life.judging(), life.revisions());
        if let Some(judge) = judge {
            judge.judge_by(judging);
        }
        if before == *now {
            return follows;
        }
        self.memos.entry(policy.clone()).or_default().turn(&before, now);
        let tried =
            |it: &Revisions| it.canary().map(|it| (Arc::clone(&it.revision.name), it.arrived));
        let share = |it: &Revisions| it.canary()?.share();
        let (had, has) = (tried(&before), tried(now));
        let is_same = had == has && before.active_name() == now.active_name();
        if !is_same {
            (*judge, *conduct, *unprotected, *reported) = (None, None, None, [false; 2]);
        }
        if has.is_some() {
            let judge = judge.get_or_insert_with(|| Judge::new(judging, at));
            if is_same && share(&before) != share(now) {
                judge.begin_round(at);
            }
            unprotected.get_or_insert_with(|| RuleBreaches::new(at));
        }
        let is_watched = has.is_some() || now.previous.is_some();
        *conduct = is_watched.then(|| conduct.take().unwrap_or_else(|| RuleBreaches::new(at)));
        if now.are_changing() {
            effects.set_if_idle(Timer::Rollouts, at + ROLLOUTS_EVERY);
        }
        let gone = before.all().filter(|revision| !now.has(&revision.name));
        follows.extend(gone.map(|revision| Effect::Unload(Arc::clone(&revision.name))));
        if had != has {
            follows.push(Effect::CanaryChanged);
        }
        follows.push(Effect::DecidersChanged(Box::new(before)));
        if !follows.contains(&Effect::RecordChanged) {
            follows.push(Effect::RecordChanged);
        }
        self.keeps_older |= is_watched;
        if self.is_judging() {
            effects.set_if_idle(Timer::Judge, at + JUDGES_TURN);
        }
        follows
    }

    /// Sessions and rooms may keep states of revisions that are no longer loaded.
    pub(crate) fn keep_older_states(&self) -> bool {
        self.keeps_older
    }

    /// The active revision, if no other one may still read states.
    pub(crate) fn settled(&self, policy: &PolicyName) -> Option<&Revision> {
        let revisions = self.revisions(policy)?;
        let over = revisions.previous.is_none() && revisions.canary().is_none();
        revisions.active.as_ref().filter(|_| over)
    }

    fn is_judging(&self) -> bool {
        self.all.values().any(|policy| policy.judge.is_some())
    }

    /// Judges of a set's policies, with the revisions that they compare.
    fn judges<'a>(
        &'a mut self,
        set: &'a str,
    ) -> impl Iterator<Item = (&'a PolicyName, &'a Revisions, &'a mut Judge)> {
        self.all.iter_mut().filter(move |(name, _)| *name.set == *set).filter_map(
            |(name, policy)| Some((name, policy.life.revisions(), policy.judge.as_mut()?)),
        )
    }

    /// Adds the session, or its room, to the judges, with its present state as the baseline.
    pub(crate) fn enrol(&mut self, id: SessionId, subjects: Subjects) {
        if !self.is_judging() {
            return;
        }
        if let Some((session, set)) = subjects.session(id) {
            for (policy, revisions, judge) in self.judges(set) {
                subjects.enrol(session, policy.hook, revisions, judge);
            }
        }
    }

    /// Judges a session, or its room, by the latest measures.
    pub(crate) fn weigh_measures(
        &mut self,
        id: SessionId,
        subjects: Subjects,
        effects: &mut Effects,
    ) {
        self.weigh(id, subjects, effects, Session::bad_by_measures);
    }

    /// Judges a session by its media flow. `missed` packets were missing when another hop took over.
    pub(crate) fn weigh_flow(
        &mut self,
        id: SessionId,
        missed: u32,
        subjects: Subjects,
        now: Instant,
        effects: &mut Effects,
    ) {
        self.weigh(id, subjects, effects, |session, judging| {
            let Some(track) = session.track() else { return BadFigures::default() };
            let gap = track.silent_for(now).max(track.lasts(missed));
            BadFigures::default()
                .with(Figure::Gap, gap >= judging.gap)
                .with(Figure::Slo, subjects.misses_slo(session, missed))
                .with(Figure::Loss, track.loses(judging.loss_ppm))
        });
    }

    fn weigh(
        &mut self,
        id: SessionId,
        subjects: Subjects,
        effects: &mut Effects,
        bad: impl Fn(&Session, &Judging) -> BadFigures,
    ) {
        if !self.is_judging() {
            return;
        }
        let Some((session, set)) = subjects.session(id) else { return };
        let mut breaches = Vec::new();
        for (policy, revisions, judge) in self.judges(set) {
            subjects.enrol(session, policy.hook, revisions, judge);
            let bad = bad(session, judge.judging());
            let unit = unit(policy.hook, session.room(), id);
            let breach = judge.note(unit, bad);
            let on = subjects.node_of(session);
            let on = on.filter(|_| policy.hook == Hook::Routing);
            let breach = breach.or_else(|| judge.note_node(unit, on?));
            breaches.extend(breach.map(|breach| (policy.clone(), breach)));
        }
        for (policy, breach) in breaches {
            self.breached(&policy, Arm::Canary, Some(breach), effects);
        }
    }

    /// Counts a move of the room. Too many moves are a breach of the room's routing revision.
    pub(crate) fn weigh_moves(
        &mut self,
        room: &Room,
        settings: &CoreSettings,
        effects: &mut Effects,
    ) {
        if !self.is_judging() {
            return;
        }
        let moves = room.moves_noted();
        let Some(scenario) = settings.scenarios.get(room.scenario()) else { return };
        let policy = scenario.policy(Hook::Routing);
        let judge = self.all.get_mut(&policy).and_then(|policy| policy.judge.as_mut());
        let breach = judge.and_then(|judge| {
            let often = moves >= judge.judging().moves_per_minute as usize;
            judge.note(room.id().0, BadFigures::default().with(Figure::Moves, often))
        });
        self.breached(&policy, Arm::Canary, breach, effects);
    }

    /// Counts decisions of a revision, and how many of them broke a rule. `last` names the last one that did.
    pub(crate) fn note_conduct(
        &mut self,
        policy: &PolicyName,
        arm: Arm,
        decided: BreachCount,
        last: Option<Box<str>>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let breach = self.all.get_mut(policy).and_then(|policy| {
            let Policy { life, conduct, .. } = policy;
            // The active revision is judged only while a rollback is possible.
            let matters = arm == Arm::Canary || life.revisions().previous.is_some();
            let (figure, judging) = (Figure::Guarded, life.judging());
            let breach = conduct.as_mut()?.note(figure, arm, decided, &judging, now);
            breach.filter(|_| matters)
        });
        self.breached_by(policy, arm, breach, last, effects);
    }

    /// Counts routes, and how many of them have less redundancy than the native default would give. `last` names the last
    /// one that has.
    pub(crate) fn note_routes(
        &mut self,
        policy: &PolicyName,
        arm: Arm,
        routes: BreachCount,
        last: Option<Box<str>>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let breach = self.all.get_mut(policy).and_then(|policy| {
            let (figure, judging) = (Figure::Redundancy, policy.life.judging());
            policy.unprotected.as_mut()?.note(figure, arm, routes, &judging, now)
        });
        let breach = breach.filter(|_| arm == Arm::Canary);
        self.breached_by(policy, arm, breach, last, effects);
    }

    /// Counts the placement of a new room, which `last` names.
    pub(crate) fn weigh_placement(
        &mut self,
        policy: &PolicyName,
        arm: Arm,
        on: NodeId,
        last: Option<Box<str>>,
        effects: &mut Effects,
    ) {
        let judge = self.all.get_mut(policy).and_then(|policy| policy.judge.as_mut());
        let breach = judge.and_then(|judge| judge.note_placement(arm, on));
        self.breached_by(policy, Arm::Canary, breach, last, effects);
    }

    /// Counts an admission policy's decision on a newcomer.
    pub(crate) fn weigh_newcomer(
        &mut self,
        policy: &PolicyName,
        newcomer: AdmissionSample,
        now: Instant,
        effects: &mut Effects,
    ) {
        let breach = self.all.get_mut(policy).and_then(|policy| {
            let percent = policy.life.revisions().canary()?.share()?;
            policy.judge.as_mut()?.note_newcomer(newcomer, percent, now)
        });
        self.breached(policy, Arm::Canary, breach, effects);
    }

    /// Counts answers that differed from those of a fresh instance. An active revision without a previous one stays.
    pub(crate) fn handle_hidden_state(
        &mut self,
        policy: &PolicyName,
        revision: &Arc<str>,
        differs: Box<str>,
        answers: BreachCount,
        effects: &mut Effects,
    ) {
        let (name, guard) = (policy.clone(), GuardRule::HiddenState);
        effects.event(CoreEvent::Guarded { policy: name.clone(), guard, times: 1 });
        let found = Arc::clone(revision);
        effects.event(CoreEvent::HiddenState { policy: name, revision: found, differs });
        let Some(revisions) = self.revisions(policy).filter(|_| answers.worse >= HIDDEN_MAX) else {
            return;
        };
        let (figure, rest) = (Figure::HiddenState, BreachCount::default());
        let breach = Some(Breach { figure, canary: answers, rest });
        if revisions.canary().is_some_and(|canary| canary.revision.name == *revision) {
            self.breached(policy, Arm::Canary, breach, effects);
        } else if revisions.is_candidate(revision) {
            let BreachCount { of, worse } = answers;
            let reason = format!("hidden state, seen in shadow: {worse} of {of} answers");
            self.remove_harmful_soon(policy, Arc::clone(revision), reason.into(), effects);
        } else if revisions.is_active(revision) && revisions.previous.is_some() {
            self.breached(policy, Arm::Standing, breach, effects);
        }
    }

    pub(super) fn breached(
        &mut self,
        name: &PolicyName,
        arm: Arm,
        breach: Option<Breach>,
        effects: &mut Effects,
    ) {
        self.breached_by(name, arm, breach, None, effects);
    }

    /// Reports the first breach of an arm, and removes its revision soon. `last` names the last decision in the count.
    fn breached_by(
        &mut self,
        name: &PolicyName,
        arm: Arm,
        breach: Option<Breach>,
        last: Option<Box<str>>,
        effects: &mut Effects,
    ) {
        let (Some(breach), Some(policy)) = (breach, self.all.get_mut(name)) else { return };
        if std::mem::replace(&mut policy.reported[arm as usize], true) {
            return;
        }
        let Some(revision) = policy.life.revisions().of(arm).map(|it| Arc::clone(&it.name)) else {
            return;
        };
        let reason = match &last {
            Some(last) => format!("{breach}; the last: {last}"),
            None => breach.to_string(),
        };
        let policy = name.clone();
        effects.event(CoreEvent::Breached { policy, revision: revision.clone(), breach, last });
        self.remove_harmful_soon(name, revision, reason.into(), effects);
    }

    /// Removes the revision with the next timer, after the answer or report in which the breach was found.
    fn remove_harmful_soon(
        &mut self,
        policy: &PolicyName,
        revision: Arc<str>,
        reason: Box<str>,
        effects: &mut Effects,
    ) {
        self.harmful.push(HarmfulRevision { policy: policy.clone(), revision, reason });
        if let Some(life) = self.get(policy) {
            effects.set(Timer::Rollouts, life.began());
        }
    }

    pub(crate) fn turn_judges(&mut self, now: Instant, effects: &mut Effects) {
        for (name, policy) in &mut self.all {
            if let Some(judge) = &mut policy.judge {
                judge.turn(now);
                // Evidence and calls count on in the record.
                effects.push(GatewayEffect::PolicyChanged(name.clone()));
            }
        }
        if self.is_judging() {
            effects.set(Timer::Judge, now + JUDGES_TURN);
        }
    }

    /// The session or room ended.
    pub(crate) fn leave(&mut self, subject: FaultSubject, scenario: &str, settings: &CoreSettings) {
        let Some(scenario) = settings.scenarios.get(scenario) else { return };
        let (is_room, unit) = match subject {
            FaultSubject::Session(session) => (false, session.0),
            FaultSubject::Room(room) => (true, room.0),
        };
        for (policy, _, judge) in self.judges(&scenario.set) {
            if is_by_room(policy.hook) == is_room {
                judge.leave(unit);
            }
        }
    }

    /// Adds the sessions after this one to the tallies of policies with a canary, up to [`TALLIED_AT_ONCE`]. Returns the
    /// last of them if more may follow.
    pub(crate) fn tally(
        &self,
        tallies: &mut BTreeMap<PolicyName, ArmTally>,
        after: SessionId,
        subjects: Subjects,
    ) -> Option<SessionId> {
        let judged = self.all.iter().filter(|(_, policy)| policy.judge.is_some());
        let judged: Vec<_> = judged.map(|(name, it)| (name, it.life.revisions())).collect();
        if judged.is_empty() {
            return None;
        }
        let rest = subjects.sessions_after(after);
        let turn: Vec<&Session> = rest.take(TALLIED_AT_ONCE).map(|(_, session)| session).collect();
        for (policy, revisions) in judged {
            let tally = tallies.entry(policy.clone()).or_default();
            turn.iter().for_each(|it| subjects.tally(policy, revisions, it, tally));
        }
        turn.get(TALLIED_AT_ONCE - 1).map(|last| last.id())
    }

    /// Statistics of both cohorts during a canary, from a complete tally.
    pub(crate) fn cohorts(
        &self,
        policy: &PolicyName,
        tally: &ArmTally,
    ) -> Option<[ArmStatistics; 2]> {
        let judge = self.all.get(policy)?.judge.as_ref()?;
        Some(Arm::ALL.map(|arm| tally.cohort(arm, judge)))
    }
}

#[cfg(test)]
mod tests;
