//! Revisions of policies in the gateway: which one answers, which states it reads, and whether it does harm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use crate::policy::{
    About, Asked, Bad, CohortSize, Conduct, Effect, Judge, Lifecycle, Newcomer, Revisions, unit,
};
use crate::rooms::Room;
use crate::sessions::Session;
use crate::timer::Timer;
use crate::{
    Arm, AskId, Breach, Call, Compared, Count, Event, Figure, Hook, Metric, Outcome, Output,
    PolicyName, PolicyStatus, Refusal, Remembered, Revision, Rollout, RolloutRequest, RolloutRules,
    RoomId, SessionId, State, Verb, WallClock,
};

/// Interval at which judges check for the end of their round.
const JUDGES_TURN: Duration = Duration::from_secs(1);

/// Interval at which rollouts check for their next step. A check may count every session.
const ROLLOUTS_EVERY: Duration = Duration::from_millis(100);

/// Mismatches with a fresh instance before the revision is rolled back.
const HIDDEN_MAX: u32 = 2;

/// A policy's revisions and their judges.
#[derive(Debug)]
pub(super) struct Revised {
    pub(super) life: Lifecycle,
    /// During a canary.
    judge: Option<Judge>,
    /// During a canary, and while a rollback to the previous revision is possible.
    conduct: Option<Conduct>,
    /// By arm: a breach was reported.
    told: [bool; 2],
}

impl Revised {
    /// Rooms or sessions that its judge knows.
    pub(super) fn known(&self) -> usize {
        self.judge.as_ref().map_or(0, Judge::known)
    }
}

/// A harmful revision that is still to be removed.
#[derive(Debug)]
pub(super) struct Harmful {
    policy: PolicyName,
    revision: Arc<str>,
    reason: Box<str>,
}

/// Statistics of the sessions and rooms of one arm of a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Cohort {
    pub arm: Arm,
    /// Live sessions.
    pub sessions: u32,
    /// Placed rooms.
    pub rooms: u32,
    /// Mean over sessions of the worse direction, parts per million; none if no session is measured.
    pub loss_ppm: Option<u32>,
    /// Mean R-factor times 100; none if no session is measured.
    pub r_factor_centi: Option<u32>,
    /// Mean rung times 100.
    pub rung_centi: u32,
    /// Per figure, the count of rooms, sessions, decisions or newcomers that got worse in this round.
    pub worse: Vec<(Figure, Count)>,
}

impl Gateway {
    /// Adds a policy that has no revision yet.
    pub fn handle_policy(
        &mut self,
        policy: &PolicyName,
        rules: RolloutRules,
        remembered: Remembered,
        clock: WallClock,
    ) {
        let life = Lifecycle::new(policy.clone(), rules, remembered, clock);
        let revised = Revised { life, judge: None, conduct: None, told: [false; 2] };
        self.revised.insert(policy.clone(), revised);
    }

    /// Begins a push and returns its number. Pushes still under way are superseded.
    pub fn handle_push(&mut self, policy: &PolicyName) -> Option<u64> {
        self.revised.get_mut(policy).map(|revised| revised.life.next_push())
    }

    /// Checks a compiled revision before it is proved, which takes long.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn handle_compiled(
        &self,
        policy: &PolicyName,
        request: &RolloutRequest,
        new: &Revision,
        now: Instant,
    ) -> Result<(), Refusal> {
        let revised = self.revised.get(policy).ok_or(Refusal::Superseded)?;
        revised.life.handle_compiled(request, new, now)
    }

    /// Takes a revision into use that was proved at `ready`. `revoked` is the reason if it was revoked meanwhile.
    /// Unless the outcome is [`Unchanged`](crate::RolloutOutcome::Unchanged), it is asked questions from now on.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn handle_ready(
        &mut self,
        policy: &PolicyName,
        request: &RolloutRequest,
        new: Revision,
        revoked: Option<Box<str>>,
        (ready, now): (Instant, Instant),
    ) -> Result<Rollout, Refusal> {
        let change = |life: &mut Lifecycle| life.handle_ready(request, new, revoked, (ready, now));
        self.change_revisions(policy, now, change).ok_or(Refusal::Superseded)?
    }

    /// A revision answered, or failed.
    pub fn handle_call(&mut self, policy: &PolicyName, revision: &str, call: &Call, now: Instant) {
        let revised = self.revised.get_mut(policy);
        let reason = revised.and_then(|revised| revised.life.note_call(revision, call, now));
        self.remove_harmful(policy, revision, reason, now);
    }

    /// A candidate was asked in the shadow stage.
    pub fn handle_compared(
        &mut self,
        policy: &PolicyName,
        revision: &str,
        (compared, beyond_repair): (&Compared, bool),
        now: Instant,
    ) {
        let reason = self.revised.get_mut(policy).and_then(|revised| {
            revised.life.note_compared(revision, (compared, beyond_repair), now)
        });
        self.remove_harmful(policy, revision, reason, now);
    }

    /// Drops the candidate or, if there is none, restores the previous revision. None if the policy is unknown.
    ///
    /// # Errors
    /// Why nothing changes.
    pub fn handle_rollback(
        &mut self,
        policy: &PolicyName,
        now: Instant,
    ) -> Option<Result<Rollout, &'static str>> {
        self.change_revisions(policy, now, |life| life.handle_rollback(now))
    }

    /// An operator promotes, pauses, resumes or aborts a rollout. None if the policy is unknown.
    pub fn handle_verb(
        &mut self,
        policy: &PolicyName,
        verb: Verb,
        now: Instant,
    ) -> Option<Result<Rollout, &'static str>> {
        self.change_revisions(policy, now, |life| life.handle_verb(verb, now))
    }

    /// Replaces the revoked ones among the policy's loaded revisions; each comes with the reason.
    pub fn handle_revoked(
        &mut self,
        policy: &PolicyName,
        revoked: BTreeMap<Arc<str>, Box<str>>,
        now: Instant,
    ) {
        self.change_revisions(policy, now, |life| life.handle_revoked(revoked, now));
    }

    pub fn handle_rollout_rules(&mut self, policy: &PolicyName, rules: RolloutRules, now: Instant) {
        self.change_revisions(policy, now, |life| life.set_rules(rules, now));
    }

    pub fn policy_status(&self, policy: &PolicyName, now: Instant) -> Option<PolicyStatus> {
        self.revised.get(policy).map(|revised| revised.life.status(now))
    }

    pub fn active_revision(&self, policy: &PolicyName) -> Option<Arc<str>> {
        self.revisions(policy)?.active_name()
    }

    fn remove_harmful(
        &mut self,
        policy: &PolicyName,
        revision: &str,
        reason: Option<Box<str>>,
        now: Instant,
    ) {
        if let Some(reason) = reason {
            self.change_revisions(policy, now, |life| life.remove_harmful(revision, &reason, now));
        }
    }

    pub(super) fn change_revisions<T>(
        &mut self,
        policy: &PolicyName,
        now: Instant,
        change: impl FnOnce(&mut Lifecycle) -> T,
    ) -> Option<T> {
        let life = &mut self.revised.get_mut(policy)?.life;
        let before = life.revisions().clone();
        let result = change(life);
        self.revisions_changed(policy, &before, now);
        Some(result)
    }

    /// Takes rollout steps that are due, ends rollback windows, and removes harmful revisions.
    pub(super) fn poll_rollouts(&mut self, now: Instant) {
        for Harmful { policy, revision, reason } in std::mem::take(&mut self.harmful) {
            self.remove_harmful(&policy, &revision, Some(reason), now);
        }
        let changes = |revised: &Revised| {
            let revisions = revised.life.revisions();
            revisions.candidate.is_some() || revisions.previous.is_some()
        };
        let changing = self.revised.iter().filter(|(_, revised)| changes(revised));
        let policies: Vec<PolicyName> = changing.map(|(policy, _)| policy.clone()).collect();
        for policy in policies {
            let Some(mut revised) = self.revised.remove(&policy) else { continue };
            let before = revised.life.revisions().clone();
            let judge = revised.judge.as_ref();
            revised.life.poll(|| self.cohort_size(&policy, &before, judge), now);
            self.revised.insert(policy.clone(), revised);
            self.revisions_changed(&policy, &before, now);
            self.effects.set_if_idle(Timer::Rollouts, now + ROLLOUTS_EVERY);
        }
    }

    /// Follows a change of revisions: rooms that another revision routes now are asked about, and open questions to a
    /// removed revision go to the active one.
    fn revisions_changed(&mut self, policy: &PolicyName, before: &Revisions, at: Instant) {
        let Some(revised) = self.revised.get_mut(policy) else { return };
        let effects = revised.life.take_effects();
        for effect in effects {
            self.effects.push(match effect {
                Effect::Report(rollout) => Output::Rollout(rollout),
                Effect::Remember(remembered) => {
                    Output::Remember { policy: policy.clone(), remembered }
                }
            });
        }
        let judging = revised.life.judging();
        if let Some(judge) = &mut revised.judge {
            judge.judge_by(judging);
        }
        let now = revised.life.revisions();
        if before == now {
            return;
        }
        self.memos.entry(policy.clone()).or_default().turn(before, now);
        let tried =
            |it: &Revisions| it.canary().map(|it| (Arc::clone(&it.revision.name), it.arrived));
        let share = |it: &Revisions| it.canary()?.share();
        let (had, has) = (tried(before), tried(now));
        let is_same = had == has && before.active_name() == now.active_name();
        if !is_same {
            (revised.judge, revised.conduct, revised.told) = (None, None, [false; 2]);
        }
        if has.is_some() {
            let judge = revised.judge.get_or_insert_with(|| Judge::new(judging, at));
            if is_same && share(before) != share(now) {
                judge.begin_round(at);
            }
        }
        let is_watched = has.is_some() || now.previous.is_some();
        revised.conduct =
            is_watched.then(|| revised.conduct.take().unwrap_or_else(|| Conduct::new(at)));
        let is_gone = |revision: &&Revision| !now.has(&revision.name);
        let gone: Vec<Arc<str>> =
            before.all().filter(is_gone).map(|revision| Arc::clone(&revision.name)).collect();
        if now.candidate.is_some() || now.previous.is_some() {
            self.effects.set_if_idle(Timer::Rollouts, at + ROLLOUTS_EVERY);
        }
        self.keeps_older |= is_watched;
        self.judged = self.revised.values().filter(|revised| revised.judge.is_some()).count();
        if self.judged > 0 {
            self.effects.set_if_idle(Timer::Judge, at + JUDGES_TURN);
        }
        for revision in gone {
            let unloaded = Arc::clone(&revision);
            self.effects.push(Output::Unload { policy: policy.clone(), revision: unloaded });
            self.ask_again(policy, &revision, at);
        }
        if had != has {
            self.quality.restart_ticks(policy, Arm::Canary);
        }
        self.reroute_others(policy, before, at);
    }

    fn reroute_others(&mut self, policy: &PolicyName, before: &Revisions, now: Instant) {
        let Some(revisions) = self.revisions(policy).filter(|_| policy.hook == Hook::Routing)
        else {
            return;
        };
        let by = |revisions: &Revisions, id: RoomId| -> Option<Arc<str>> {
            revisions.of(revisions.arm(id.0)).map(|revision| Arc::clone(&revision.name))
        };
        let of_set = |room: &Room| {
            self.settings
                .scenarios
                .get(&room.scenario)
                .is_some_and(|scenario| scenario.set == policy.set)
        };
        let others: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| room.is_placed() && of_set(room))
            .map(|room| room.id)
            .filter(|id| by(before, *id) != by(revisions, *id))
            .collect();
        for room in others {
            self.want_reroute(room, now);
        }
    }

    /// Asks the active revision the questions that a removed one has not answered. A late answer of that one is
    /// ignored: its question may contain states of another schema.
    fn ask_again(&mut self, policy: &PolicyName, revision: &str, now: Instant) {
        let is_of =
            |asked: &Asked| asked.policy == *policy && asked.revision.as_deref() == Some(revision);
        let ids: Vec<AskId> =
            self.questions.in_flight().filter(|it| is_of(it)).map(|asked| asked.id).collect();
        for id in ids {
            self.effects.cancel(&Timer::AskLate(id));
            let Some(Asked { policy, arm, about, at: asked, .. }) = self.questions.take(id) else {
                continue;
            };
            let (session, room) = match about {
                About::Resolve(session) | About::Admit(session) => {
                    (Some(session), self.sessions.get(&session).map(|session| session.room))
                }
                About::Place(room) => (None, Some(room)),
                About::Reroute(_) | About::Tick(_) => (None, None),
            };
            self.effects.event(Event::Decided {
                ask: id,
                policy,
                arm,
                revision: None,
                outcome: Outcome::Stale,
                reason: None,
                session,
                room,
                rows: about.rows(),
                asked,
                took: Duration::ZERO,
                notes: Vec::new(),
            });
            match about {
                About::Resolve(session) => self.ask_scenario(session, now),
                About::Admit(session) => self.ask_admission(session, now),
                About::Place(room) => self.place_again(room, now),
                About::Reroute(rooms) => {
                    rooms.into_iter().for_each(|(room, _)| self.want_reroute(room, now));
                }
                About::Tick(_) => {}
            }
        }
    }

    fn place_again(&mut self, id: RoomId, now: Instant) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.placing = false;
            if !room.is_placed() {
                self.place(id, false, now);
            }
        }
    }

    /// The revisions of a policy, once one is active.
    pub(super) fn revisions(&self, policy: &PolicyName) -> Option<&Revisions> {
        let revisions = self.revised.get(policy).map(|revised| revised.life.revisions());
        revisions.filter(|revisions| revisions.active.is_some())
    }

    /// The arm that is asked about the room or session of this number.
    pub(super) fn arm(&self, policy: &PolicyName, unit: u64) -> Arm {
        self.revisions(policy).map_or(Arm::Standing, |revisions| revisions.arm(unit))
    }

    pub(super) fn arms(&self, policy: &PolicyName) -> &'static [Arm] {
        let canary = self.revisions(policy).is_some_and(|revisions| revisions.canary().is_some());
        if canary { &Arm::ALL } else { &[Arm::Standing] }
    }

    /// The revision of an arm; it determines which states the arm reads.
    pub(super) fn reads(&self, policy: &PolicyName, arm: Arm) -> Option<&Revision> {
        self.revisions(policy).and_then(|revisions| revisions.of(arm))
    }

    pub(super) fn memo(&self, policy: &PolicyName, arm: Arm) -> Option<State> {
        self.memos.get(policy).and_then(|memos| memos.read(arm)).cloned()
    }

    /// Runs with each turn of the sweep: sessions up to `until`, and their rooms, keep only states that a revision may
    /// still read.
    pub(super) fn forget_older_states(&mut self, until: Option<SessionId>) {
        let from = SessionId(self.sessions.swept_last().0.saturating_add(1));
        let until = until.unwrap_or(SessionId(u64::MAX));
        if !self.keeps_older || from > until {
            return;
        }
        let mut done: Vec<(RoomId, Revision)> = Vec::new();
        let settled = |name: &PolicyName| {
            let revisions = self.revised.get(name)?.life.revisions();
            let over = revisions.previous.is_none() && revisions.canary().is_none();
            revisions.active.clone().filter(|_| over)
        };
        for session in self.sessions.range_mut(from..=until).map(|(_, session)| session) {
            let Some(scenario) = self.settings.scenarios.get(&session.wanted.scenario) else {
                continue;
            };
            if session.memory.keeps_other()
                && let Some(standing) = settled(&scenario.policy(Hook::Degradation))
            {
                session.memory.settle(&standing);
            }
            let room = self.rooms.get(&session.room).filter(|room| room.memory.keeps_other());
            if let Some(room) = room
                && let Some(standing) = settled(&scenario.policy(Hook::Routing))
            {
                done.push((room.id, standing));
            }
        }
        for (id, standing) in done {
            if let Some(room) = self.rooms.get_mut(&id) {
                room.memory.settle(&standing);
            }
        }
    }

    /// Adds the session, or its room, to the judges. Its present state is the baseline.
    pub(super) fn enrol(&mut self, id: SessionId) {
        if self.judged == 0 {
            return;
        }
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(set) = self.settings.scenarios.get(&session.wanted.scenario).map(|it| &it.set)
        else {
            return;
        };
        let mut revised = std::mem::take(&mut self.revised);
        for (policy, revised) in revised.iter_mut().filter(|(policy, _)| policy.set == *set) {
            let unit = unit(policy.hook, session.room, id);
            let arm = revised.life.revisions().arm(unit);
            if let Some(judge) = revised.judge.as_mut().filter(|judge| !judge.knows(unit)) {
                let bad = match policy.hook {
                    Hook::Routing | Hook::Scenario => self.bad_room(session.room, judge),
                    Hook::Admission | Hook::Degradation => bad_before(session, judge),
                };
                judge.enrol(unit, arm, bad);
            }
        }
        self.revised = revised;
    }

    /// The baseline of a room: the worst of its sessions.
    fn bad_room(&self, id: RoomId, judge: &Judge) -> Bad {
        let Some(room) = self.rooms.get(&id) else {
            return Bad::default();
        };
        let sessions = room.sessions.iter().filter_map(|id| self.sessions.get(id));
        let bad = sessions.fold(Bad::default(), |bad, session| bad.and(bad_before(session, judge)));
        bad.with(Figure::Moves, room.moves_noted() >= judge.judging().moves_per_minute as usize)
    }

    /// Judges a session, or its room, by the latest measures.
    pub(super) fn weigh_session(&mut self, id: SessionId) {
        self.weigh_by(id, bad_session);
    }

    /// Judges a session by its media flow. `missed` packets were missing when another hop took over.
    pub(super) fn weigh_flow(&mut self, id: SessionId, missed: u32, now: Instant) {
        self.weigh_by(id, |session, judge| {
            let (judging, Some(track)) = (judge.judging(), &session.track) else {
                return Bad::default();
            };
            let gap = track.silent_for(now).max(track.lasts(missed));
            Bad::default()
                .with(Figure::Gap, gap >= judging.gap)
                .with(Figure::Loss, track.loses(judging.loss_ppm))
        });
    }

    fn weigh_by(&mut self, id: SessionId, bad: impl Fn(&Session, &Judge) -> Bad) {
        if self.judged == 0 {
            return;
        }
        self.enrol(id);
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(set) = self.settings.scenarios.get(&session.wanted.scenario).map(|it| &it.set)
        else {
            return;
        };
        let mut breaches = Vec::new();
        for (policy, revised) in self.revised.iter_mut().filter(|(policy, _)| policy.set == *set) {
            if let Some(judge) = &mut revised.judge {
                let bad = bad(session, judge);
                let breach = judge.note(unit(policy.hook, session.room, id), bad);
                breaches.extend(breach.map(|breach| (policy.clone(), breach)));
            }
        }
        breaches
            .into_iter()
            .for_each(|(policy, breach)| self.breached(&policy, Arm::Canary, breach));
    }

    /// Counts a move of the room. Too many are a breach of its routing revision.
    pub(super) fn weigh_moves(&mut self, id: RoomId, now: Instant) {
        if self.judged == 0 {
            return;
        }
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let moves = room.recent_moves(now);
        let Some(scenario) = self.settings.scenarios.get(&room.scenario) else {
            return;
        };
        let policy = scenario.policy(Hook::Routing);
        let breach = self.revised.get_mut(&policy).and_then(|revised| {
            let judge = revised.judge.as_mut()?;
            let often = moves >= judge.judging().moves_per_minute as usize;
            judge.note(id.0, Bad::default().with(Figure::Moves, often))
        });
        if let Some(breach) = breach {
            self.breached(&policy, Arm::Canary, breach);
        }
    }

    /// Counts decisions of a revision, and how many of them broke a rule.
    pub(super) fn note_conduct(
        &mut self,
        policy: &PolicyName,
        arm: Arm,
        decided: Count,
        now: Instant,
    ) {
        let breach = self.revised.get_mut(policy).and_then(|revised| {
            let Revised { life, conduct, .. } = revised;
            // The active revision is judged only while a rollback is possible.
            let matters = arm == Arm::Canary || life.revisions().previous.is_some();
            let breach = conduct.as_mut()?.note(arm, decided, &life.judging(), now);
            breach.filter(|_| matters)
        });
        if let Some(breach) = breach {
            self.breached(policy, arm, breach);
        }
    }

    /// An admission policy answered about a newcomer.
    pub(super) fn weigh_newcomer(&mut self, policy: &PolicyName, newcomer: Newcomer, now: Instant) {
        let breach = self.revised.get_mut(policy).and_then(|revised| {
            let percent = revised.life.revisions().canary()?.share()?;
            revised.judge.as_mut()?.note_newcomer(newcomer, percent, now)
        });
        if let Some(breach) = breach {
            self.breached(policy, Arm::Canary, breach);
        }
    }

    /// Counts answers that differed from those of a fresh instance. A revision without an alternative stays.
    pub(super) fn weigh_hidden_state(
        &mut self,
        policy: &PolicyName,
        revision: &str,
        answers: Count,
    ) {
        let Some(revised) = self.revised.get(policy).filter(|_| answers.worse >= HIDDEN_MAX) else {
            return;
        };
        let revisions = revised.life.revisions();
        let breach =
            Breach { figure: Figure::HiddenState, canary: answers, rest: Count::default() };
        if revisions.canary().is_some_and(|canary| *canary.revision.name == *revision) {
            self.breached(policy, Arm::Canary, breach);
        } else if revisions.is_candidate(revision) {
            let Count { of, worse } = answers;
            let reason = format!("hidden state, seen in shadow: {worse} of {of} answers");
            self.remove_harmful_soon(policy, revision.into(), reason.into());
        } else if revisions.is_active(revision) && revisions.previous.is_some() {
            self.breached(policy, Arm::Standing, breach);
        }
    }

    /// Reports the first breach of an arm, and removes its revision soon.
    fn breached(&mut self, policy: &PolicyName, arm: Arm, breach: Breach) {
        let Some(revised) = self.revised.get_mut(policy) else { return };
        if std::mem::replace(&mut revised.told[arm as usize], true) {
            return;
        }
        let Some(revision) = revised.life.revisions().of(arm).map(|it| Arc::clone(&it.name)) else {
            return;
        };
        let reason = breach.to_string().into();
        self.effects.event(Event::Breached {
            policy: policy.clone(),
            revision: revision.clone(),
            breach,
        });
        self.remove_harmful_soon(policy, revision, reason);
    }

    /// Removes the revision with the next timer, after the answer or report in which the breach was found.
    fn remove_harmful_soon(&mut self, policy: &PolicyName, revision: Arc<str>, reason: Box<str>) {
        self.harmful.push(Harmful { policy: policy.clone(), revision, reason });
        if let Some(revised) = self.revised.get(policy) {
            self.effects.set(Timer::Rollouts, revised.life.began());
        }
    }

    pub(super) fn turn_judges(&mut self, now: Instant) {
        for judge in self.revised.values_mut().filter_map(|revised| revised.judge.as_mut()) {
            judge.turn(now);
        }
        if self.judged > 0 {
            self.effects.set(Timer::Judge, now + JUDGES_TURN);
        }
    }

    pub(super) fn leave_judges(&mut self, session: SessionId, scenario: &str) {
        if self.judged == 0 {
            return;
        }
        let Some(scenario) = self.settings.scenarios.get(scenario) else {
            return;
        };
        for policy in [Hook::Admission, Hook::Degradation].map(|hook| scenario.policy(hook)) {
            self.leave_judge_of(&policy, session.0);
        }
    }

    pub(super) fn leave_judge(&mut self, room: RoomId, scenario: &str) {
        if self.judged == 0 {
            return;
        }
        let Some(scenario) = self.settings.scenarios.get(scenario) else {
            return;
        };
        for policy in [Hook::Routing, Hook::Scenario].map(|hook| scenario.policy(hook)) {
            self.leave_judge_of(&policy, room.0);
        }
    }

    fn leave_judge_of(&mut self, policy: &PolicyName, unit: u64) {
        if let Some(judge) = self.revised.get_mut(policy).and_then(|it| it.judge.as_mut()) {
            judge.leave(unit);
        }
    }

    /// Visits every session or room.
    fn cohort_size(
        &self,
        policy: &PolicyName,
        revisions: &Revisions,
        judge: Option<&Judge>,
    ) -> CohortSize {
        let Some(judge) = judge else { return CohortSize::default() };
        let in_canary = |unit: u64| revisions.arm(unit) == Arm::Canary;
        let present = match policy.hook {
            Hook::Routing | Hook::Scenario => {
                let ours = self.rooms.values().filter(|room| self.is_of(room, policy));
                ours.filter(|room| in_canary(room.id.0)).count()
            }
            Hook::Admission | Hook::Degradation => {
                let ours = self.sessions.values().filter(|it| self.belongs(it, policy));
                ours.filter(|session| in_canary(session.id.0)).count()
            }
        };
        let (measured, required) = (judge.cohort(), judge.judging().cohort_min);
        CohortSize { present: present as u32, measured, required }
    }

    #[cfg(test)]
    pub(super) fn cohort_of(&self, policy: &PolicyName) -> CohortSize {
        let revised = &self.revised[policy];
        self.cohort_size(policy, revised.life.revisions(), revised.judge.as_ref())
    }

    fn is_of(&self, room: &Room, policy: &PolicyName) -> bool {
        self.settings
            .scenarios
            .get(&room.scenario)
            .is_some_and(|scenario| scenario.set == policy.set)
    }

    fn belongs(&self, session: &Session, policy: &PolicyName) -> bool {
        let scenario = self.settings.scenarios.get(&session.wanted.scenario);
        scenario.is_some_and(|scenario| scenario.set == policy.set)
    }

    /// Statistics of both cohorts during a canary. Visits every session and room.
    pub fn cohorts(&self, policy: &PolicyName) -> Option<[Cohort; 2]> {
        let revised = self.revised.get(policy)?;
        let (judge, revisions) = (revised.judge.as_ref()?, revised.life.revisions());
        Some(Arm::ALL.map(|arm| {
            let of_arm = |session: &&Session| {
                let unit = unit(policy.hook, session.room, session.id);
                self.belongs(session, policy) && revisions.arm(unit) == arm
            };
            let sessions: Vec<&Session> = self.sessions.values().filter(of_arm).collect();
            let rooms = self.rooms.values().filter(|room| {
                let by_session = matches!(policy.hook, Hook::Admission | Hook::Degradation);
                self.is_of(room, policy) && !by_session && revisions.arm(room.id.0) == arm
            });
            let of = |session: &Session, metric| session.measures.as_ref()?.measured(metric);
            let loss =
                |session: &&Session| of(session, Metric::LossUp).max(of(session, Metric::LossDown));
            let rungs: u64 = sessions.iter().map(|it| u64::from(it.plan_now().rung()) * 100).sum();
            let worse = judge.figures().map(|(figure, canary, rest)| match arm {
                Arm::Canary => (figure, canary),
                Arm::Standing => (figure, rest),
            });
            Cohort {
                arm,
                sessions: sessions.len() as u32,
                rooms: rooms.count() as u32,
                loss_ppm: mean(sessions.iter().filter_map(loss)),
                r_factor_centi: mean(sessions.iter().filter_map(|it| of(it, Metric::RFactor))),
                rung_centi: (rungs / (sessions.len() as u64).max(1)) as u32,
                worse: worse.collect(),
            }
        }))
    }
}

fn mean(values: impl Iterator<Item = u32>) -> Option<u32> {
    let (sum, count) =
        values.fold((0, 0), |(sum, count), value| (sum + u64::from(value), count + 1));
    sum.checked_div(count).map(|mean| mean as u32)
}

/// Figures by which a session is bad, according to its last measures.
fn bad_session(session: &Session, judge: &Judge) -> Bad {
    let judging = judge.judging();
    let measured = |metric| session.measures.as_ref().and_then(|all| all.measured(metric));
    let lossy = |metric| measured(metric).is_some_and(|loss| loss >= judging.loss_ppm);
    let poor = measured(Metric::RFactor).is_some_and(|r| r < judging.r_factor_centi);
    Bad::default()
        .with(Figure::Loss, lossy(Metric::LossUp) || lossy(Metric::LossDown))
        .with(Figure::RFactor, poor)
        .with(Figure::Rung, session.plan_now().rung() >= judging.rung)
}

/// The baseline of a session: one that is silent already is not at risk.
fn bad_before(session: &Session, judge: &Judge) -> Bad {
    let track = session.track.as_ref();
    bad_session(session, judge)
        .with(Figure::Gap, track.is_some_and(|track| track.is_silent()))
        .with(Figure::Loss, track.is_some_and(|track| track.loses(judge.judging().loss_ppm)))
}
