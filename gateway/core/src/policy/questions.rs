//! Questions to policies: their subjects, those in flight, and the outcomes of their answers. The parts of an answer are
//! judged one by one: valid parts are applied; parts that break a rule are rejected and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AdmitVerdict, Arm, Ask, AskId, BreachCount, CoreEvent, DecisionNote, DecisionOutcome,
    GuardRule, Hook, HookAnswer, IsolatedRows, NO_NODE, PluginFault, PluginState, PolicyName,
    PolicyQuestion, Reasons, RevisionAnswer, RoomId, SessionId,
};

use crate::collections::Interner;
use crate::effects::{Effects, GatewayEffect, Timer};
use crate::rooms::RoomTable;
use crate::rooms::placement::UsableNodes;
use crate::sessions::{Session, SessionTable};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum FaultSubject {
    Session(SessionId),
    Room(RoomId),
}

impl FaultSubject {
    pub(crate) fn exists(self, sessions: &SessionTable, rooms: &RoomTable) -> bool {
        match self {
            FaultSubject::Session(session) => sessions.contains_key(&session),
            FaultSubject::Room(room) => rooms.contains_key(&room),
        }
    }
}

/// The subject of a question, with its version at that time.
#[derive(Debug)]
pub(crate) enum QuestionSubject {
    Resolve(SessionId),
    Admit(SessionId),
    Place(RoomId),
    /// Rooms with the versions of their routes, sorted by id.
    Reroute(Vec<(RoomId, u64)>),
    /// Sorted by id.
    Tick(Vec<TickedSession>),
}

/// A session, as a question showed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickedSession {
    session: SessionId,
    /// The version of its plan.
    plans: u32,
    obeys_caps: bool,
}

impl TickedSession {
    /// `obeys_caps`: an endpoint obeys caps on the session.
    pub(crate) fn new(session: &Session, obeys_caps: bool) -> TickedSession {
        TickedSession { session: session.id(), plans: session.plan_version(), obeys_caps }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// The session has the plan that the question showed.
    pub(crate) fn has_plan_of(&self, session: &Session) -> bool {
        session.plan_version() == self.plans
    }

    /// The rule that the answer broke. If the question showed a session that obeys caps, the revision could not know that it no
    /// longer does: the answer is outdated, which is no fault of the revision.
    pub(crate) fn rule_of(&self, broken: GuardRule) -> GuardRule {
        match broken {
            GuardRule::CapUnsupported if self.obeys_caps => GuardRule::Outdated,
            broken => broken,
        }
    }
}

#[derive(Default, Debug)]
pub(crate) struct AnswerDetails {
    pub(crate) notes: Vec<DecisionNote>,
    pub(crate) isolated: Option<Box<IsolatedRows>>,
    pub(crate) reasons: Option<Reasons>,
    pub(crate) ungranted: u32,
    pub(crate) took: Duration,
}

impl AnswerDetails {
    /// The revision that answered, its answer, and the rest.
    pub(crate) fn split(
        result: Result<RevisionAnswer, PluginFault>,
    ) -> (Option<Arc<str>>, Result<HookAnswer, PluginFault>, AnswerDetails) {
        match result {
            Ok(RevisionAnswer { answer, revision, notes, took, isolated, reasons, ungranted }) => {
                let reasons = Some(reasons);
                let beside = AnswerDetails { notes, isolated, reasons, ungranted, took };
                (Some(revision), Ok(answer), beside)
            }
            Err(fault) => (None, Err(fault), AnswerDetails::default()),
        }
    }

    /// The name of a reason, or its number if it has no name.
    pub(crate) fn word_for(&self, reason: u32) -> Arc<str> {
        let reasons = self.reasons.as_deref().unwrap_or_default();
        match reasons.binary_search_by_key(&reason, |(number, _)| *number) {
            Ok(at) => Arc::clone(&reasons[at].1),
            Err(_) => reason.to_string().into(),
        }
    }
}

impl QuestionSubject {
    pub(crate) fn rows(&self) -> u32 {
        match self {
            QuestionSubject::Resolve(_) | QuestionSubject::Admit(_) | QuestionSubject::Place(_) => {
                1
            }
            QuestionSubject::Reroute(rooms) => rooms.len() as u32,
            QuestionSubject::Tick(sessions) => sessions.len() as u32,
        }
    }

    /// The session and the room of a question about one of them.
    pub(crate) fn one(&self, sessions: &SessionTable) -> (Option<SessionId>, Option<RoomId>) {
        match *self {
            QuestionSubject::Resolve(session) | QuestionSubject::Admit(session) => {
                (Some(session), sessions.get(&session).map(Session::room))
            }
            QuestionSubject::Place(room) => (None, Some(room)),
            QuestionSubject::Reroute(_) | QuestionSubject::Tick(_) => (None, None),
        }
    }

    /// True if a client waits for the answer.
    pub(crate) fn is_of_offer(&self) -> bool {
        matches!(
            self,
            QuestionSubject::Resolve(_) | QuestionSubject::Admit(_) | QuestionSubject::Place(_)
        )
    }

    pub(crate) fn subject(&self, row: u32) -> Option<FaultSubject> {
        match self {
            QuestionSubject::Resolve(session) | QuestionSubject::Admit(session) => {
                (row == 0).then_some(FaultSubject::Session(*session))
            }
            QuestionSubject::Place(room) => (row == 0).then_some(FaultSubject::Room(*room)),
            QuestionSubject::Reroute(rooms) => {
                rooms.get(row as usize).map(|(room, _)| FaultSubject::Room(*room))
            }
            QuestionSubject::Tick(sessions) => {
                sessions.get(row as usize).map(|row| FaultSubject::Session(row.session))
            }
        }
    }

    /// The row of a batch that is about this subject.
    pub(crate) fn row_of(&self, subject: FaultSubject) -> Option<u32> {
        let row = match (self, subject) {
            (QuestionSubject::Reroute(rooms), FaultSubject::Room(room)) => {
                rooms.binary_search_by_key(&room, |(room, _)| *room)
            }
            (QuestionSubject::Tick(sessions), FaultSubject::Session(session)) => {
                sessions.binary_search_by_key(&session, |row| row.session)
            }
            _ => return None,
        };
        row.ok().map(|row| row as u32)
    }

    pub(crate) fn hook(&self) -> Hook {
        match self {
            QuestionSubject::Resolve(_) => Hook::Scenario,
            QuestionSubject::Admit(_) => Hook::Admission,
            QuestionSubject::Place(_) | QuestionSubject::Reroute(_) => Hook::Routing,
            QuestionSubject::Tick(_) => Hook::Degradation,
        }
    }
}

/// Maximum questions in flight: enough for every hook of a few sets and a burst of offers. Beyond it the native default
/// answers at once.
const ASKS_IN_FLIGHT_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct PendingQuestion {
    pub(crate) id: AskId,
    pub(crate) policy: PolicyName,
    pub(crate) arm: Arm,
    pub(crate) revision: Option<Arc<str>>,
    pub(crate) about: QuestionSubject,
    /// The nodes that a question about rooms showed.
    pub(crate) usable: UsableNodes,
    pub(crate) at: Instant,
}

impl PendingQuestion {
    /// The event for a withdrawn question, since its answer is ignored.
    pub(crate) fn withdrawn(&self, sessions: &SessionTable) -> CoreEvent {
        let (session, room) = self.about.one(sessions);
        CoreEvent::Decided {
            ask: self.id,
            policy: self.policy.clone(),
            arm: self.arm,
            revision: None,
            outcome: DecisionOutcome::Stale,
            reason: None,
            session,
            room,
            rows: self.about.rows(),
            asked: self.at,
            took: Duration::ZERO,
            notes: Vec::new(),
            native: Vec::new(),
        }
    }
}

/// A failure ends after this time without another fault: a policy that is asked no more cannot recover by an answer. Longer than the
/// minute for which the level must hold before its alert is sent.
const FAILURE_ENDS_AFTER: Duration = Duration::from_secs(5 * 60);

/// A policy without an answer since its last good one.
#[derive(Debug)]
struct PolicyFailure {
    since: Instant,
    last: Instant,
    is_reported: bool,
}

/// Questions in flight, and the states and notes from answers.
#[derive(Debug)]
pub(crate) struct QuestionsInFlight {
    asks: BTreeMap<AskId, PendingQuestion>,
    next: u64,
    /// The start of the time that policies see.
    started: Instant,
    /// Rooms to ask about, by routing policy and arm, also where the set binds no routing policy.
    reroutes: BTreeMap<(PolicyName, Arm), BTreeSet<RoomId>>,
    failing: BTreeMap<PolicyName, PolicyFailure>,
    states: Interner<PluginState>,
}

impl QuestionsInFlight {
    pub(crate) fn new(now: Instant) -> QuestionsInFlight {
        QuestionsInFlight {
            asks: BTreeMap::new(),
            next: 0,
            started: now,
            reroutes: BTreeMap::new(),
            failing: BTreeMap::new(),
            states: Interner::default(),
        }
    }

    /// The start of the time that policies see.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Continues the time that policies saw in another process.
    pub(crate) fn resume_clock(&mut self, started: Instant) {
        self.started = self.started.min(started);
    }

    pub(crate) fn next_id(&mut self) -> AskId {
        self.next += 1;
        AskId(self.next)
    }

    /// Sends a question. Returns it if too many questions are in flight; the native default decides then.
    pub(crate) fn ask(
        &mut self,
        asked: PendingQuestion,
        question: PolicyQuestion,
        deadline: Instant,
        effects: &mut Effects,
    ) -> Option<PendingQuestion> {
        if self.asks.len() >= ASKS_IN_FLIGHT_MAX {
            return Some(asked);
        }
        let PendingQuestion { id, ref policy, arm, ref revision, at, .. } = asked;
        let (policy, revision) = (policy.clone(), revision.clone());
        let now_us = at.saturating_duration_since(self.started).as_micros() as u64;
        effects.set(Timer::AskLate(id), deadline);
        let ask = Ask { id, policy, arm, revision, now_us, deadline, question };
        effects.push(GatewayEffect::Ask(ask));
        self.asks.insert(id, asked);
        None
    }

    pub(crate) fn is_asking(
        &self,
        policy: &PolicyName,
        arm: Arm,
        like: fn(&QuestionSubject) -> bool,
    ) -> bool {
        let asks = |asked: &PendingQuestion| asked.policy == *policy && asked.arm == arm;
        self.asks.values().any(|asked| asks(asked) && like(&asked.about))
    }

    pub(crate) fn take(&mut self, id: AskId) -> Option<PendingQuestion> {
        self.asks.remove(&id)
    }

    /// Questions that this revision has not answered.
    pub(crate) fn of_revision(&self, policy: &PolicyName, revision: &str) -> Vec<AskId> {
        let is_of = |asked: &&PendingQuestion| {
            asked.policy == *policy && asked.revision.as_deref() == Some(revision)
        };
        self.asks.values().filter(is_of).map(|asked| asked.id).collect()
    }

    /// Questions that the policy has not answered.
    pub(crate) fn of_policy(&self, policy: &PolicyName) -> Vec<AskId> {
        self.asks.values().filter(|asked| asked.policy == *policy).map(|asked| asked.id).collect()
    }

    pub(crate) fn in_flight(&self) -> impl ExactSizeIterator<Item = &PendingQuestion> {
        self.asks.values()
    }

    /// Reports once that a policy fails, and once that it answers again. A single late answer is not reported: the policy may not be
    /// asked again for long.
    pub(crate) fn note_standing(
        &mut self,
        policy: &PolicyName,
        fault: Option<&PluginFault>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let changed = match (fault, self.failing.get_mut(policy)) {
            (Some(fault), None) => {
                let is_reported = *fault != PluginFault::Late;
                let failure = PolicyFailure { since: now, last: now, is_reported };
                self.failing.insert(policy.clone(), failure);
                is_reported
            }
            (Some(_), Some(failure)) => {
                failure.last = now;
                !std::mem::replace(&mut failure.is_reported, true)
            }
            (None, _) => self.failing.remove(policy).is_some_and(|failure| failure.is_reported),
        };
        if changed {
            let (hook, policy) = (policy.hook, policy.clone());
            effects.event(CoreEvent::Standing { hook, policy, fault: fault.cloned() });
        }
    }

    /// The time since which the policy fails.
    pub(crate) fn fails_since(&self, policy: &PolicyName) -> Option<Instant> {
        self.failing.get(policy).map(|failure| failure.since)
    }

    /// Ends failures without a recent fault.
    pub(crate) fn end_old_failures(&mut self, now: Instant, effects: &mut Effects) {
        let is_old = |_: &PolicyName, failure: &mut PolicyFailure| {
            now.saturating_duration_since(failure.last) >= FAILURE_ENDS_AFTER
        };
        for (policy, failure) in self.failing.extract_if(.., is_old) {
            if failure.is_reported {
                effects.event(CoreEvent::Standing { hook: policy.hook, policy, fault: None });
            }
        }
    }

    pub(crate) fn state(&mut self, state: PluginState) -> Arc<PluginState> {
        self.states.intern(state)
    }

    pub(crate) fn want_reroute(&mut self, policy: &PolicyName, arm: Arm, room: RoomId) {
        self.reroutes.entry((policy.clone(), arm)).or_default().insert(room);
    }

    /// The next room that waits for a question to this arm.
    pub(crate) fn next_reroute(&mut self, place: &(PolicyName, Arm)) -> Option<RoomId> {
        self.reroutes.get_mut(place).and_then(BTreeSet::pop_first)
    }

    pub(crate) fn forget_room(&mut self, id: RoomId) {
        for waiting in self.reroutes.values_mut() {
            waiting.remove(&id);
        }
    }

    /// The largest number of rooms that wait for one arm.
    pub(crate) fn most_rerouted(&self) -> usize {
        self.reroutes.values().map(BTreeSet::len).max().unwrap_or(0)
    }
}

/// The outcome of an answer of the wrong kind, which the host rules out.
pub(crate) fn mismatched() -> DecisionOutcome {
    DecisionOutcome::Faulted(PluginFault::Malformed("an answer to another question".into()))
}

/// True for an answer that came while its subject was still present.
pub(crate) fn was_taken(outcome: &DecisionOutcome) -> bool {
    !matches!(outcome, DecisionOutcome::Stale | DecisionOutcome::Faulted(_))
}

/// The client is refused or redirected.
pub(crate) fn turns_away(answer: &HookAnswer) -> bool {
    match answer {
        HookAnswer::Admit { verdict, .. } => {
            matches!(verdict, AdmitVerdict::Redirect(_) | AdmitVerdict::Reject(_))
        }
        HookAnswer::Placed { hops, .. } => *hops == [NO_NODE],
        _ => false,
    }
}

/// The reasons of an answer, by row; a reason of 0 means none.
pub(crate) fn reasons_given(answer: &HookAnswer) -> Vec<(u32, u32)> {
    match answer {
        HookAnswer::Params(_) => Vec::new(),
        HookAnswer::Admit { reason, .. } | HookAnswer::Placed { reason, .. } => vec![(0, *reason)],
        HookAnswer::Moves { moves, .. } => {
            moves.iter().map(|step| (step.row, step.reason)).collect()
        }
        HookAnswer::Actions { actions, .. } => {
            actions.iter().map(|action| (action.row, action.reason)).collect()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PartOutcome {
    /// The part changes nothing, or came too late.
    Kept,
    Applied {
        /// The part differs from the native default.
        differs: bool,
    },
}

#[derive(Debug)]
pub(crate) struct BatchOutcome {
    pub(crate) outcome: DecisionOutcome,
    pub(crate) parts: PartCounts,
}

impl BatchOutcome {
    /// The result for a question that is not a batch.
    pub(crate) fn one(outcome: DecisionOutcome) -> BatchOutcome {
        BatchOutcome { outcome, parts: PartCounts::default() }
    }
}

/// Outcomes of the parts so far, by row.
#[derive(Default, Debug)]
pub(crate) struct PartCounts {
    taken: BTreeSet<u32>,
    /// Changed rows; true if a part differs from the native default.
    applied: BTreeMap<u32, bool>,
    refused: BTreeMap<u32, GuardRule>,
    /// The last row with a part that broke a rule by the policy's own fault, and the rule.
    last_own: Option<(u32, GuardRule)>,
    last_broken: Option<GuardRule>,
    broken: BTreeMap<GuardRule, u32>,
    /// All parts, and how many broke a rule by the policy's own fault.
    count: BreachCount,
}

impl PartCounts {
    /// True if the new state of the row is kept: not all decisions on the row were refused.
    pub(crate) fn keeps_state(&self, row: u32) -> bool {
        self.taken.contains(&row) || !self.refused.contains_key(&row)
    }

    pub(crate) fn refused(&self, row: u32) -> bool {
        self.refused.contains_key(&row)
    }

    pub(crate) fn count(&self) -> BreachCount {
        self.count
    }

    pub(crate) fn last_own(&self) -> Option<(u32, GuardRule)> {
        self.last_own
    }

    pub(crate) fn note(&mut self, row: u32, part: Result<PartOutcome, GuardRule>) {
        self.count.of += 1;
        match part {
            Ok(part) => {
                self.taken.insert(row);
                if let PartOutcome::Applied { differs } = part {
                    *self.applied.entry(row).or_default() |= differs;
                }
            }
            Err(guard) => {
                self.refused.insert(row, guard);
                self.note_broken(guard, 1);
                if guard.is_fault_of_decision() {
                    self.count.worse += 1;
                    self.last_own = Some((row, guard));
                }
            }
        }
    }

    /// Counts actions without a grant, which the host has removed.
    pub(crate) fn note_ungranted(&mut self, times: u32) {
        self.count.of = self.count.of.saturating_add(times);
        self.count.worse = self.count.worse.saturating_add(times);
        self.note_broken(GuardRule::UnknownAction, times);
    }

    fn note_broken(&mut self, guard: GuardRule, times: u32) {
        if times > 0 {
            self.last_broken = Some(guard);
            let count = self.broken.entry(guard).or_default();
            *count = count.saturating_add(times);
        }
    }

    /// Reports each broken rule with its count. One answer may break a rule a million times.
    pub(crate) fn report_broken(&self, policy: &PolicyName, effects: &mut Effects) {
        for (&guard, &times) in &self.broken {
            effects.event(CoreEvent::Guarded { policy: policy.clone(), guard, times });
        }
    }

    pub(crate) fn outcome(&self) -> DecisionOutcome {
        match (self.applied.is_empty(), self.last_broken) {
            (false, _) => {
                DecisionOutcome::Applied { differs: self.applied.values().any(|differs| *differs) }
            }
            (true, Some(guard)) => DecisionOutcome::Guarded(guard),
            (true, None) => DecisionOutcome::Kept,
        }
    }

    pub(crate) fn outcome_of(&self, row: u32) -> DecisionOutcome {
        match (self.applied.get(&row), self.refused.get(&row)) {
            (Some(&differs), _) => DecisionOutcome::Applied { differs },
            (None, Some(guard)) => DecisionOutcome::Guarded(*guard),
            (None, None) => DecisionOutcome::Kept,
        }
    }
}
