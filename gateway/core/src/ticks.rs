//! Ticks: degradation policies are asked about sessions in batches, and their actions change the sessions' plans. A
//! native ladder replaces a policy that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, CapBounds, CoreEvent, Decider, DecisionOutcome, DegradeOnFault, GuardRule, Hook,
    HookAnswer, IdSet, Metric, Op, Plan, PluginFault, PluginState, PolicyName, PolicyQuestion, Row,
    SessionId, SessionRow,
};

use crate::effects::GatewayEffect;
use crate::policy::policies::Policies;
use crate::policy::questions::{
    AnswerDetails, BatchOutcome, FaultSubject, PartCounts, PartOutcome, QuestionSubject,
    QuestionsInFlight, mismatched,
};
use crate::policy::subjects::{SubjectHistory, Subjects};
use crate::rooms::placement::{CoreTables, Placement};
use crate::rooms::routes::Routes;
use crate::sessions::{Session, SessionPhase, SessionTable};

/// Maximum sessions in one question; the others follow with the next tick.
const SESSIONS_PER_ASK: usize = 4_096;

/// Maximum sessions scanned for one question to a canary, most of which are outside its cohort.
const SESSIONS_PASSED: usize = 16_384;

/// Sessions keep their plans while their degradation policy fails for less than this.
const FAILING_FOR: Duration = Duration::from_secs(2);

/// The next sessions that degradation policies are asked about, and the sessions on the native ladder.
#[derive(Default, Debug)]
pub(crate) struct DegradationTurns {
    pub(crate) tick_cursors: BTreeMap<(PolicyName, Arm), SessionId>,
    /// Sessions that no policy answers for.
    pub(crate) climbs: BTreeMap<SessionId, NativeLadder>,
}

impl DegradationTurns {
    /// The next sessions of `ours` for a question to one arm of a degradation policy.
    pub(crate) fn next_ticked(
        &mut self,
        cursor: (PolicyName, Arm),
        ours: &IdSet<SessionId>,
        asks: impl Fn(SessionId) -> bool,
    ) -> Vec<SessionId> {
        let from = self.tick_cursors.get(&cursor).copied().unwrap_or(SessionId(0));
        let (mut ids, mut next) = (Vec::new(), SessionId(0));
        for (passed, id) in ours.range(from..).enumerate() {
            if ids.len() == SESSIONS_PER_ASK || passed == SESSIONS_PASSED {
                next = id;
                break;
            }
            if asks(id) {
                ids.push(id);
            }
        }
        self.tick_cursors.insert(cursor, next);
        ids
    }
}

/// Asks degradation policies about sessions, and applies their actions.
pub(crate) struct Ticks<'a> {
    pub(crate) tables: &'a mut CoreTables,
    pub(crate) degradation: &'a mut DegradationTurns,
    pub(crate) policies: &'a mut Policies,
    pub(crate) questions: &'a mut QuestionsInFlight,
    pub(crate) subject_history: &'a SubjectHistory,
}

impl Ticks<'_> {
    /// The question to one arm about the next batch of its sessions.
    pub(crate) fn question(
        &mut self,
        policy: &PolicyName,
        arm: Arm,
        now: Instant,
    ) -> Option<(QuestionSubject, PolicyQuestion)> {
        if self.questions.is_asking(policy, arm, |about| matches!(about, QuestionSubject::Tick(_)))
        {
            return None;
        }
        let ours = self.tables.sessions.ticked(policy).filter(|ours| !ours.is_empty())?;
        let asks = |id: SessionId| self.policies.arm(policy, id.0) == arm;
        let ids = self.degradation.next_ticked((policy.clone(), arm), ours, asks);
        let reads = self.policies.revision(policy, arm).cloned();
        let state = Placement(self.tables);
        let CoreTables { settings, slos, .. } = state.0;
        let scenarios = settings.scenarios.keys();
        let burns: BTreeMap<_, _> = scenarios
            .filter_map(|name| Some((name, slos.burn_centi(name, settings, now)?)))
            .collect();
        let of = ids.iter().filter_map(|id| state.0.sessions.get(id));
        let sessions: Vec<SessionRow> = of
            .map(|session| {
                let mut measures = state.session_measures(session, now);
                if let Some(burn) = burns.get(&session.request.scenario) {
                    measures.set(Metric::SloBurn, *burn);
                }
                SessionRow {
                    row: Row { id: session.id.0, measures },
                    room: session.room,
                    scenario: session.request.scenario.clone(),
                    labels: session.request.labels.clone(),
                    state: (session.memory.read(reads.as_ref()))
                        .map(|state| PluginState::clone(state)),
                }
            })
            .collect();
        if sessions.is_empty() {
            return None;
        }
        let version = |id| state.0.sessions.get(&id).map_or(0, |session| session.plans);
        let ids = sessions.iter().map(|row| SessionId(row.row.id)).map(|id| (id, version(id)));
        let ids = ids.collect();
        let memo = self.policies.memo(policy, arm);
        Some((QuestionSubject::Tick(ids), PolicyQuestion::Tick { sessions, memo }))
    }

    /// Applies the actions of a policy. Sessions without a decision, because the policy failed or was not asked about
    /// them, keep their plans or take the native ladder after a while. Actions on a session with a changed plan are
    /// outdated.
    pub(crate) fn ticked(
        &mut self,
        (policy, arm): (&PolicyName, Arm),
        sessions: &[(SessionId, u32)],
        answer: Result<HookAnswer, PluginFault>,
        (by, beside): (&Decider, &AnswerDetails),
        now: Instant,
    ) -> BatchOutcome {
        let (actions, states, memo) = match answer {
            Ok(HookAnswer::Actions { actions, states, memo }) => (actions, states, memo),
            Ok(_) => return BatchOutcome::one(mismatched()),
            Err(fault) => {
                self.climb_natively(policy, sessions, now);
                return BatchOutcome::one(DecisionOutcome::Faulted(fault));
            }
        };
        let fresh = sessions.iter().map(|(id, plans)| {
            self.tables.sessions.get(id).filter(|session| session.plans == *plans).map(|_| *id)
        });
        let fresh: Vec<Option<SessionId>> = fresh.collect();
        if !fresh.iter().any(Option::is_some) {
            return BatchOutcome::one(DecisionOutcome::Stale);
        }
        memo.into_iter().for_each(|memo| self.policies.keep_memo(policy, arm, memo));
        let (mut parts, mut replans) = (PartCounts::default(), Replans::default());
        for action in actions {
            let part = match fresh.get(action.row as usize) {
                Some(Some(id)) => self.replan(*id, (action.op, action.arg), &mut replans),
                Some(None) => Err(GuardRule::Outdated),
                None => Err(GuardRule::UnknownRow),
            };
            parts.note(action.row, part);
        }
        replans.put_in_force(self.tables, by);
        parts.note_ungranted(beside.ungranted);
        parts.report_broken(policy, &mut self.tables.effects);
        // A session keeps its old state if all its actions were rejected.
        let revisions = self.policies.revisions(policy);
        for (row, state) in states {
            let id = fresh.get(row as usize).copied().flatten();
            let kept = id.filter(|_| parts.keeps_state(row));
            if let Some(session) = kept.and_then(|id| self.tables.sessions.deferred_mut(&id)) {
                session.memory.write(self.questions.state(state), revisions);
            }
        }
        let last = parts.last_own().map(|(row, rule)| {
            let session = sessions.get(row as usize).map(|(id, _)| FaultSubject::Session(*id));
            Placement(self.tables).name_decision(Some(rule), None, session)
        });
        let (decided, effects) = (parts.count(), &mut self.tables.effects);
        self.policies.note_conduct(policy, arm, decided, last, now, effects);
        self.climb_left_out(sessions, beside, now);
        BatchOutcome { outcome: parts.outcome(), parts }
    }

    /// The policy faulted on these sessions. If their scenario says so, the native ladder takes them after a while.
    fn climb_natively(&mut self, policy: &PolicyName, sessions: &[(SessionId, u32)], now: Instant) {
        let failure = self.questions.failing.get(policy);
        if failure.is_some_and(|it| now.saturating_duration_since(it.since) >= FAILING_FOR) {
            for (session, _) in sessions {
                self.climb_one(*session, now);
            }
        }
    }

    /// Sessions that the policy was not asked about may take the native ladder. The others leave it.
    fn climb_left_out(
        &mut self,
        sessions: &[(SessionId, u32)],
        beside: &AnswerDetails,
        now: Instant,
    ) {
        if beside.apart.is_none() && self.degradation.climbs.is_empty() {
            return;
        }
        for (row, (session, _)) in (0..).zip(sessions) {
            if !beside.apart.as_ref().is_some_and(|apart| apart.leaves_out(row)) {
                self.degradation.climbs.remove(session);
                continue;
            }
            let subject = FaultSubject::Session(*session);
            let since = self.subject_history.quarantined_since(subject, Hook::Degradation);
            if since.is_some_and(|since| now.saturating_duration_since(since) >= FAILING_FOR) {
                self.climb_one(*session, now);
            }
        }
    }

    fn climb_one(&mut self, id: SessionId, now: Instant) {
        let session = self.tables.sessions.get(&id).filter(|it| it.phase == SessionPhase::Live);
        let Some(session) = session else { return };
        let scenario = self.tables.settings.scenarios.get(&session.request.scenario);
        if scenario.is_none_or(|s| s.on_degradation_fault != DegradeOnFault::NativeLadder) {
            return;
        }
        let look = LadderInput::of(session, Placement(self.tables).obeys_caps(session));
        let ladder = self.degradation.climbs.entry(id).or_insert_with(|| NativeLadder::begin(now));
        if let Some((op, arg)) = ladder.step(look, now) {
            // The ladder respects the bounds and the node's support for caps. An action that breaks a rule has no effect.
            let _ = self.act(id, (op as u32, arg), &Decider::Native);
        }
    }

    /// Applies one action.
    pub(crate) fn act(
        &mut self,
        id: SessionId,
        action: (u32, u64),
        by: &Decider,
    ) -> Result<PartOutcome, GuardRule> {
        let mut replans = Replans::default();
        let part = self.replan(id, action, &mut replans)?;
        replans.put_in_force(self.tables, by);
        Ok(part)
    }

    /// Returns the effect of the action, or the rule that it broke. `differs` is true, since the native default changes
    /// no session's quality.
    fn replan(
        &mut self,
        id: SessionId,
        (op, arg): (u32, u64),
        replans: &mut Replans,
    ) -> Result<PartOutcome, GuardRule> {
        let Some((op, plan)) = Replans::after(Placement(self.tables), id, op, arg)? else {
            return Ok(PartOutcome::Kept);
        };
        let CoreTables { settings, sessions, rooms, .. } = &*self.tables;
        self.policies.enrol(id, Subjects { settings, sessions, rooms });
        replans.replan(&mut self.tables.sessions, id, (op, arg), plan);
        Ok(PartOutcome::Applied { differs: true })
    }
}

#[derive(Default)]
pub(crate) struct Replans(BTreeMap<SessionId, Replan>);

struct Replan {
    before: Plan,
    /// The last action of each kind, in the order given.
    last: Vec<(Op, u64)>,
}

impl Replans {
    /// The session's plan after the action if it differs, or the rule that the action violates.
    pub(crate) fn after(
        state: Placement,
        id: SessionId,
        op: u32,
        arg: u64,
    ) -> Result<Option<(Op, Plan)>, GuardRule> {
        let op = Op::from_number(op).ok_or(GuardRule::UnknownAction)?;
        let Some(session) = state.0.sessions.get(&id) else { return Ok(None) };
        if session.exceeds_device(op, arg) {
            return Err(GuardRule::AboveDevice);
        }
        let plan = session
            .plan
            .after(op, arg, &session.request.media, session.request.bounds)
            .ok_or(GuardRule::CapOutOfBounds)?;
        if plan == session.plan {
            return Ok(None);
        }
        if op == Op::Cap && plan.cap_kbps > 0 && !state.obeys_caps(session) {
            return Err(GuardRule::CapUnsupported);
        }
        Ok(Some((op, plan)))
    }

    /// Changes the session's plan without its consequences.
    pub(crate) fn replan(
        &mut self,
        sessions: &mut SessionTable,
        id: SessionId,
        (op, arg): (Op, u64),
        plan: Plan,
    ) {
        if let Some(session) = sessions.get_mut(&id) {
            let new = Replan { before: session.plan, last: Vec::new() };
            let last = &mut self.0.entry(id).or_insert(new).last;
            last.retain(|(other, _)| *other != op);
            last.push((op, arg));
            session.plan = plan;
        }
    }

    /// Applies the consequences of an answer once per session and room, however many plans it changed: rooms may be as
    /// large as a batch.
    pub(crate) fn put_in_force(self, tables: &mut CoreTables, by: &Decider) {
        let (mut capped, mut see_again) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        for (id, Replan { before, last }) in self.0 {
            let Some(session) = tables.sessions.get_mut(&id).filter(|s| s.plan != before) else {
                continue;
            };
            session.plans = session.plans.wrapping_add(1);
            let (room, kept, plan) = (session.room, session.plan, session.plan_now());
            let in_force = session.plan_in_force();
            tables.effects.push(GatewayEffect::Plan { session: id, plan: in_force });
            let room_name = tables.rooms.name_of(room);
            for (op, arg) in last {
                let differs = match op {
                    Op::Cap => before.cap_kbps != kept.cap_kbps,
                    Op::VoiceOnly => before.shed != kept.shed,
                };
                if differs {
                    let (room_name, rung, by) = (room_name.clone(), plan.rung(), by.clone());
                    let degraded =
                        CoreEvent::Degraded { session: id, room_name, op, arg, rung, by };
                    tables.effects.event(degraded);
                }
            }
            if before.cap_kbps != kept.cap_kbps {
                capped.insert(room);
            }
            if before.shed != 0 && kept.shed == 0 {
                see_again.entry(room).or_default().push(id);
            }
        }
        for room in capped {
            Routes(tables).settle_peer_caps(room);
        }
        for (room, receivers) in see_again {
            tables.request_key_frames(room, &receivers);
        }
    }
}

/// Loss in ppm from which the native ladder steps down: 5 %, where speech begins to suffer.
const DOWN_AT_PPM: u32 = 50_000;

/// Loss in ppm up to which it climbs. Loss between the thresholds changes nothing, so a session that a rung helps stays
/// on it.
const UP_BELOW_PPM: u32 = 20_000;

/// Interval between two steps down, in which a cap takes effect and its loss is measured.
const DOWN_EVERY: Duration = Duration::from_secs(1);

/// Time of low loss before each step up. Climbing too early costs as much as it gains.
const UP_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct LadderInput {
    pub(crate) plan: Plan,
    /// The higher loss of both directions; `None` without a measurement.
    pub(crate) loss_ppm: Option<u32>,
    pub(crate) bounds: CapBounds,
    pub(crate) caps: bool,
    pub(crate) video: bool,
}

impl LadderInput {
    pub(crate) fn of(session: &Session, caps: bool) -> LadderInput {
        LadderInput {
            plan: session.plan,
            loss_ppm: session.measured(Metric::LossDown).max(session.measured(Metric::LossUp)),
            bounds: session.request.bounds,
            caps,
            video: session.has_video(),
        }
    }
}

/// A session on the native ladder. Each step down halves its rate to the floor; the last one removes its video. Steps
/// up reverse this slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeLadder {
    /// The earliest time of the next step down.
    down_from: Instant,
    /// The time since which loss is low and the rung unchanged.
    calm_since: Option<Instant>,
}

impl NativeLadder {
    pub(crate) fn begin(now: Instant) -> NativeLadder {
        NativeLadder { down_from: now, calm_since: None }
    }

    pub(crate) fn step(&mut self, look: LadderInput, now: Instant) -> Option<(Op, u64)> {
        let loss_ppm = look.loss_ppm?;
        if loss_ppm > UP_BELOW_PPM {
            self.calm_since = None;
            if loss_ppm < DOWN_AT_PPM || now < self.down_from {
                return None;
            }
            self.down_from = now + DOWN_EVERY;
            return look.down();
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(calm_since) < UP_AFTER {
            return None;
        }
        self.calm_since = Some(now);
        look.up()
    }
}

impl LadderInput {
    fn down(self) -> Option<(Op, u64)> {
        let CapBounds { floor_kbps, ceiling_kbps } = self.bounds;
        let from = if self.plan.cap_kbps == 0 { ceiling_kbps } else { self.plan.cap_kbps };
        let to = (from / 2).max(floor_kbps);
        if self.caps && to < from {
            return Some((Op::Cap, u64::from(to)));
        }
        (self.video && self.plan.shed == 0).then_some((Op::VoiceOnly, 1))
    }

    fn up(self) -> Option<(Op, u64)> {
        if self.plan.shed != 0 {
            return Some((Op::VoiceOnly, 0));
        }
        let to = u64::from(self.plan.cap_kbps) * 2;
        let lifted = if to >= u64::from(self.bounds.ceiling_kbps) { 0 } else { to };
        (self.plan.cap_kbps > 0).then_some((Op::Cap, lifted))
    }
}

#[cfg(test)]
mod tests;
