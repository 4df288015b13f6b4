//! Questions to policies that are in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AdmitVerdict, Arm, Ask, AskId, CoreEvent, DecisionOutcome, HookAnswer, PluginFault,
    PluginState, PolicyName, PolicyQuestion, RoomId,
};

use super::notes::Noted;
use super::question::{FaultSubject, QuestionSubject};
use crate::GatewayEffect;
use crate::effects::Effects;
use crate::interner::Interner;
use crate::sessions::SessionTable;
use crate::timer::Timer;

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
        }
    }
}

/// Questions in flight, and the states and notes from answers.
#[derive(Debug)]
pub(crate) struct QuestionsInFlight {
    asks: BTreeMap<AskId, PendingQuestion>,
    next: u64,
    started: Instant,
    /// Rooms to ask about, by routing policy and arm, also where the set binds no routing policy.
    reroutes: BTreeMap<(PolicyName, Arm), BTreeSet<RoomId>>,
    /// Policies that fail, with the start of the failure.
    failing: BTreeMap<PolicyName, Instant>,
    pub(crate) noted: Noted,
    states: Interner<PluginState>,
}

impl QuestionsInFlight {
    pub(crate) fn new(now: Instant) -> QuestionsInFlight {
        QuestionsInFlight {
            asks: BTreeMap::new(),
            next: 1,
            started: now,
            reroutes: BTreeMap::new(),
            failing: BTreeMap::new(),
            noted: Noted::default(),
            states: Interner::default(),
        }
    }

    /// Sends a question. Returns it if too many questions are in flight; the native default decides then.
    pub(crate) fn ask(
        &mut self,
        set: &Arc<str>,
        arm: Arm,
        about: QuestionSubject,
        (question, revision): (PolicyQuestion, Option<Arc<str>>),
        deadline: Instant,
        (now, effects): (Instant, &mut Effects),
    ) -> Option<PendingQuestion> {
        let policy = PolicyName { set: set.clone(), hook: about.hook() };
        let id = AskId(self.next);
        self.next += 1;
        let asked = PendingQuestion {
            id,
            policy: policy.clone(),
            arm,
            revision: revision.clone(),
            about,
            at: now,
        };
        if self.asks.len() >= ASKS_IN_FLIGHT_MAX {
            return Some(asked);
        }
        effects.set(Timer::AskLate(id), deadline);
        self.asks.insert(id, asked);
        let now_us = now.saturating_duration_since(self.started).as_micros() as u64;
        effects.push(GatewayEffect::Ask(Ask {
            id,
            policy,
            arm,
            revision,
            now_us,
            deadline,
            question,
        }));
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

    pub(crate) fn in_flight(&self) -> impl ExactSizeIterator<Item = &PendingQuestion> {
        self.asks.values()
    }

    /// Reports once that a policy fails, and once that it answers again.
    pub(crate) fn note_standing(
        &mut self,
        policy: &PolicyName,
        fault: Option<&PluginFault>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let failing = self.failing.contains_key(policy);
        if fault.is_some() {
            self.failing.entry(policy.clone()).or_insert(now);
        } else {
            self.failing.remove(policy);
        }
        if failing != fault.is_some() {
            let (hook, policy) = (policy.hook, policy.clone());
            effects.event(CoreEvent::Standing { hook, policy, fault: fault.cloned() });
        }
    }

    pub(crate) fn failing_since(&self, policy: &PolicyName) -> Option<Instant> {
        self.failing.get(policy).copied()
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
        self.noted.forget(FaultSubject::Room(id));
        for waiting in self.reroutes.values_mut() {
            waiting.remove(&id);
        }
    }

    /// Rooms that wait for a question, or for its answer.
    pub(crate) fn waiting(&self) -> BTreeSet<RoomId> {
        let asked = self.asks.values().flat_map(|asked| match &asked.about {
            QuestionSubject::Reroute(rooms) => &rooms[..],
            QuestionSubject::Resolve(_)
            | QuestionSubject::Admit(_)
            | QuestionSubject::Place(_)
            | QuestionSubject::Tick(_) => &[],
        });
        self.reroutes.values().flatten().copied().chain(asked.map(|(room, _)| *room)).collect()
    }

    /// The start of the time that policies see.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Continues the time that policies saw in another process, since their states refer to it.
    pub(crate) fn resume_time(&mut self, started: Instant) {
        self.started = self.started.min(started);
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
    let HookAnswer::Admit { verdict, .. } = answer else { return false };
    matches!(verdict, AdmitVerdict::Redirect(_) | AdmitVerdict::Reject(_))
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
