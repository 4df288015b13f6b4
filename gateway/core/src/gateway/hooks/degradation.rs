//! The hook `degradation`: actions on sessions, in batches. A native ladder replaces a policy that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, Decider, DecisionOutcome, DegradeOnFault, GuardRule, Hook, HookAnswer, Impairment,
    ImpairmentSign, Measures, Metric, PluginState, PolicyName, PolicyQuestion, Row, SessionId,
    SessionRow,
};

use crate::degradation::{LadderInput, Replans};
use crate::gateway::hooks::question::{Answer, Question};
use crate::gateway::{Gateway, Tables};
use crate::policy::questions::{
    AnswerDetails, BatchOutcome, FaultSubject, PartCounts, QuestionSubject, TickedSession,
    mismatched,
};
use crate::sessions::Session;

/// Sessions keep their plans while their degradation policy fails for less than this.
const FAILING_FOR: Duration = Duration::from_secs(2);

/// The next sessions of one arm of a policy.
pub(super) struct DegradationQuestion<'a> {
    policy: &'a PolicyName,
    arm: Arm,
}

impl Question for DegradationQuestion<'_> {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let DegradationQuestion { policy, arm } = self;
        let is_tick = |about: &_| matches!(about, QuestionSubject::Tick(_));
        if gateway.questions.is_asking(policy, arm, is_tick) {
            return;
        }
        let ours = gateway.tables.sessions.ticked(policy).filter(|ours| !ours.is_empty());
        let Some(ours) = ours else { return };
        let asks = |id: SessionId| gateway.policies.arm(policy, id.0) == arm;
        let ids = gateway.degradation.next_ticked((policy.clone(), arm), ours, asks);
        let reads = gateway.policies.revision(policy, arm);
        let Tables { slos, settings, .. } = &gateway.tables;
        let scenarios = settings.scenarios.keys();
        let burns: BTreeMap<_, _> = scenarios
            .filter_map(|name| Some((name, slos.burn_centi(name, settings, now)?)))
            .collect();
        let of = ids.iter().filter_map(|id| gateway.tables.sessions.get(id));
        let sessions: Vec<SessionRow> = of
            .map(|session| {
                let mut measures = session_measures(gateway, session, now);
                if let Some(burn) = burns.get(session.scenario()) {
                    measures.set(Metric::SloBurn, *burn);
                }
                SessionRow {
                    row: Row { id: session.id().0, measures },
                    room: session.room(),
                    scenario: session.scenario().clone(),
                    labels: session.labels().clone(),
                    state: session.memory().read(reads).map(|state| PluginState::clone(state)),
                }
            })
            .collect();
        if sessions.is_empty() {
            return;
        }
        let of =
            sessions.iter().filter_map(|row| gateway.tables.sessions.get(&SessionId(row.row.id)));
        let shown = of.map(|session| TickedSession::new(session, gateway.obeys_caps(session)));
        let about = QuestionSubject::Tick(shown.collect());
        let memo = gateway.policies.memo(policy, arm);
        gateway.ask(&policy.set, arm, about, PolicyQuestion::Tick { sessions, memo }, now);
    }

    /// Applies the actions of a policy. Sessions without a decision, because the policy failed or was not asked about
    /// them, keep their plans or take the native ladder after a while. Actions on a session with a changed plan are
    /// outdated.
    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        let DegradationQuestion { policy, arm } = self;
        let QuestionSubject::Tick(sessions) = &given.asked.about else {
            return BatchOutcome::one(mismatched());
        };
        let (actions, states, memo) = match given.answer {
            Ok(HookAnswer::Actions { actions, states, memo }) => (actions, states, memo),
            Ok(_) => return BatchOutcome::one(mismatched()),
            Err(fault) => {
                self.climb_natively(gateway, sessions, now);
                return BatchOutcome::one(DecisionOutcome::Faulted(fault));
            }
        };
        let fresh = sessions.iter().map(|shown| {
            let session = gateway.tables.sessions.get(&shown.session());
            session.filter(|session| shown.has_plan_of(session)).map(|_| shown)
        });
        let fresh: Vec<Option<&TickedSession>> = fresh.collect();
        if !fresh.iter().any(Option::is_some) {
            return BatchOutcome::one(DecisionOutcome::Stale);
        }
        // While a canary is judged, each of its sessions counts at each tick.
        let may_rest = memo.is_none()
            && given.beside.isolated.is_none()
            && gateway.policies.canary(policy).is_none();
        let written = states.iter().map(|(row, _)| *row);
        let changed: BTreeSet<u32> =
            actions.iter().map(|action| action.row).chain(written).collect();
        memo.into_iter().for_each(|memo| gateway.policies.keep_memo(policy, arm, memo));
        let (mut parts, mut replans) = (PartCounts::default(), Replans::default());
        for action in actions {
            let part = match fresh.get(action.row as usize) {
                Some(Some(shown)) => gateway
                    .replan(shown.session(), action.op, action.arg, &mut replans)
                    .map_err(|rule| shown.rule_of(rule)),
                Some(None) => Err(GuardRule::Outdated),
                None => Err(GuardRule::UnknownRow),
            };
            parts.note(action.row, part);
        }
        gateway.put_in_force(replans, given.by);
        parts.note_ungranted(given.beside.ungranted);
        parts.report_broken(policy, &mut gateway.tables.effects);
        // A session keeps its old state if all its actions were rejected.
        let revisions = gateway.policies.revisions(policy);
        for (row, state) in states {
            let shown = fresh.get(row as usize).copied().flatten();
            let kept = shown.filter(|_| parts.keeps_state(row)).map(TickedSession::session);
            if let Some(session) = kept.and_then(|id| gateway.tables.sessions.deferred_mut(&id)) {
                session.remember(gateway.questions.state(state), revisions);
            }
        }
        for (row, session) in (0..).zip(fresh.iter().map(|shown| shown.map(TickedSession::session)))
        {
            match session {
                Some(session) if changed.contains(&row) => gateway.tables.sessions.wake(session),
                Some(session) if may_rest => gateway.tables.sessions.rest(policy, session),
                Some(_) | None => {}
            }
        }
        let last = parts.last_own().map(|(row, rule)| {
            gateway.name_decision(Some(rule), None, given.asked.about.subject(row))
        });
        let effects = &mut gateway.tables.effects;
        gateway.policies.note_conduct(policy, arm, parts.count(), last, now, effects);
        self.climb_left_out(gateway, sessions, given.beside, now);
        BatchOutcome { outcome: parts.outcome(), parts }
    }
}

impl<'a> DegradationQuestion<'a> {
    pub(super) fn to(policy: &'a PolicyName, arm: Arm) -> DegradationQuestion<'a> {
        DegradationQuestion { policy, arm }
    }

    /// The policy faulted on these sessions. If their scenario says so, the native ladder takes them after a while.
    fn climb_natively(&self, gateway: &mut Gateway, sessions: &[TickedSession], now: Instant) {
        let since = gateway.questions.fails_since(self.policy);
        if since.is_some_and(|since| now.saturating_duration_since(since) >= FAILING_FOR) {
            for shown in sessions {
                climb(gateway, shown.session(), now);
            }
        }
    }

    /// Sessions that the policy was not asked about may take the native ladder. The others leave it.
    fn climb_left_out(
        &self,
        gateway: &mut Gateway,
        sessions: &[TickedSession],
        beside: &AnswerDetails,
        now: Instant,
    ) {
        if beside.isolated.is_none() && gateway.degradation.is_idle() {
            return;
        }
        for (row, session) in (0..).zip(sessions.iter().map(TickedSession::session)) {
            if !beside.isolated.as_ref().is_some_and(|isolated| isolated.leaves_out(row)) {
                gateway.degradation.end_climb(session);
                continue;
            }
            let subject = FaultSubject::Session(session);
            let since = gateway.subject_history.quarantined_since(subject, Hook::Degradation);
            if since.is_some_and(|since| now.saturating_duration_since(since) >= FAILING_FOR) {
                climb(gateway, session, now);
            }
        }
    }
}

/// The native ladder changes the session's plan, if its scenario says so.
fn climb(gateway: &mut Gateway, id: SessionId, now: Instant) {
    let session = gateway.tables.sessions.get(&id).filter(|it| it.is_live());
    let Some(session) = session else { return };
    let scenario = gateway.tables.settings.scenarios.get(session.scenario());
    if scenario.is_none_or(|s| s.on_degradation_fault != DegradeOnFault::NativeLadder) {
        return;
    }
    let look = LadderInput::of(session, gateway.obeys_caps(session));
    if let Some((op, arg)) = gateway.degradation.climb(id, now).step(look, now) {
        // The ladder respects the bounds and the node's support for caps. An action that breaks a rule has no effect.
        let _ = gateway.apply_action(id, op as u32, arg, &Decider::Native);
    }
}

/// If no endpoint supports caps, the minimum cap that policies see is 0, no cap.
fn session_measures(gateway: &Gateway, session: &Session, now: Instant) -> Measures {
    let mut measures = session.measures(now);
    if let Some(room) = gateway.rooms.get(&session.room()) {
        measures.set(Metric::Sessions, room.sessions().len() as u64);
    }
    if !gateway.obeys_caps(session) {
        measures.set(Metric::Floor, u64::from(session.bounds().ceiling_kbps));
    }
    let impairment = gateway.diagnosis.impairment(session.id());
    let has_few_frames =
        |it: Impairment| it.sign == ImpairmentSign::FewFrames && it.at == session.id();
    // 0 is no segment.
    measures
        .set(Metric::ImpairedSegment, impairment.map_or(0, |it| it.segment as u64 + 1))
        .set(Metric::FewFrames, u64::from(impairment.is_some_and(has_few_frames)));
    measures
}
