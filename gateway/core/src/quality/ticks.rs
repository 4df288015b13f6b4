//! Ticks: degradation policies are asked about sessions in batches, and their actions change the sessions' plans.

use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, Decider, DecisionOutcome, DegradeOnFault, GuardRule, Hook, HookAnswer, PluginFault,
    PluginState, PolicyName, PolicyQuestion, Row, SessionId, SessionRow,
};

use super::{LadderInput, Quality, Replans};
use crate::policy::{
    AnswerDetails, BatchOutcome, FaultSubject, PartCounts, PartOutcome, Policies, QuestionSubject,
    QuestionsInFlight, Subjects, mismatched,
};
use crate::rooms::Routes;
use crate::sessions::SessionPhase;

/// Sessions keep their plans while their degradation policy fails for less than this.
const FAILING_FOR: Duration = Duration::from_secs(2);

/// Asks degradation policies about sessions, and applies their actions.
pub(crate) struct Ticks<'a> {
    pub(crate) routes: Routes<'a>,
    pub(crate) quality: &'a mut Quality,
    pub(crate) policies: &'a mut Policies,
    pub(crate) questions: &'a mut QuestionsInFlight,
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
        let ours = self.routes.sessions.ticked(policy).filter(|ours| !ours.is_empty())?;
        let asks = |id: SessionId| self.policies.arm(policy, id.0) == arm;
        let ids = self.quality.next_ticked((policy.clone(), arm), ours, asks);
        let reads = self.policies.revision(policy, arm).cloned();
        let state = self.routes.placement();
        let of = ids.iter().filter_map(|id| state.sessions.get(id));
        let sessions: Vec<SessionRow> = of
            .map(|session| SessionRow {
                row: Row { id: session.id.0, measures: state.session_measures(session, now) },
                room: session.room,
                scenario: session.request.scenario.clone(),
                labels: session.request.labels.clone(),
                state: session.memory.read(reads.as_ref()).map(|state| PluginState::clone(state)),
            })
            .collect();
        if sessions.is_empty() {
            return None;
        }
        let version = |id| state.sessions.get(&id).map_or(0, |session| session.plans);
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
            self.routes.sessions.get(id).filter(|session| session.plans == *plans).map(|_| *id)
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
        replans.put_in_force(&mut self.routes, by);
        parts.note_ungranted(beside.ungranted);
        parts.report_broken(policy, self.routes.effects);
        // A session keeps its old state if all its actions were rejected.
        let revisions = self.policies.revisions(policy);
        for (row, state) in states {
            let id = fresh.get(row as usize).copied().flatten();
            let kept = id.filter(|_| parts.keeps_state(row));
            if let Some(session) = kept.and_then(|id| self.routes.sessions.deferred_mut(&id)) {
                session.memory.write(self.questions.state(state), revisions);
            }
        }
        self.policies.note_conduct(policy, arm, parts.count(), now, self.routes.effects);
        self.climb_left_out(sessions, beside, now);
        BatchOutcome { outcome: parts.outcome(), parts }
    }

    /// The policy faulted on these sessions. If their scenario says so, the native ladder takes them after a while.
    fn climb_natively(&mut self, policy: &PolicyName, sessions: &[(SessionId, u32)], now: Instant) {
        let since = self.questions.failing_since(policy);
        if since.is_some_and(|since| now.saturating_duration_since(since) >= FAILING_FOR) {
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
        if beside.apart.is_none() && !self.quality.climbs_any() {
            return;
        }
        for (row, (session, _)) in (0..).zip(sessions) {
            if !beside.apart.as_ref().is_some_and(|apart| apart.leaves_out(row)) {
                self.quality.leave_ladder(*session);
                continue;
            }
            let subject = FaultSubject::Session(*session);
            let since = self.questions.noted.held_since(subject, Hook::Degradation);
            if since.is_some_and(|since| now.saturating_duration_since(since) >= FAILING_FOR) {
                self.climb_one(*session, now);
            }
        }
    }

    fn climb_one(&mut self, id: SessionId, now: Instant) {
        let session = self.routes.sessions.get(&id).filter(|it| it.phase == SessionPhase::Live);
        let Some(session) = session else { return };
        let scenario = self.routes.settings.scenarios.get(&session.request.scenario);
        if scenario.is_none_or(|s| s.on_degradation_fault != DegradeOnFault::NativeLadder) {
            return;
        }
        let look = LadderInput::of(session, self.routes.placement().obeys_caps(session));
        if let Some((op, arg)) = self.quality.climb(id, look, now) {
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
        replans.put_in_force(&mut self.routes, by);
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
        let Some((op, plan)) = Replans::after(self.routes.placement(), id, op, arg)? else {
            return Ok(PartOutcome::Kept);
        };
        let Routes { settings, sessions, rooms, .. } = &self.routes;
        self.policies.enrol(id, Subjects { settings, sessions, rooms });
        replans.replan(self.routes.sessions, id, (op, arg), plan);
        Ok(PartOutcome::Applied { differs: true })
    }
}
