//! Questions in flight, and what becomes of their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::accepting::Batch;
use super::noting::Subject;
use super::{Gateway, Output};
use crate::judge::{Count, Newcomer};
use crate::timer::Timer;
use crate::{
    AdmitVerdict, Answer, Answered, Apart, Arm, Ask, AskId, Event, Fault, Hook, NodeId, Note,
    Outcome, PolicyName, Question, Reasons, RegionId, RoomId, Row, SessionId, State,
};

/// Enough for every hook of a few sets and a burst of offers; past this the native default answers at once.
const ASKS_IN_FLIGHT_MAX: usize = 256;

/// A question in flight.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: AskId,
    pub(crate) policy: PolicyName,
    pub(crate) arm: Arm,
    pub(crate) about: About,
    pub(crate) at: Instant,
}

/// What was asked about, as it stood.
#[derive(Debug)]
pub(crate) enum About {
    Resolve(SessionId),
    Admit(SessionId),
    Place(RoomId),
    /// Each room with the version of its route, in the order of their numbers.
    Reroute(Vec<(RoomId, u64)>),
    /// Each session with the version of its plan, in the order of their numbers.
    Tick(Vec<(SessionId, u32)>),
}

/// What came with an answer.
#[derive(Default, Debug)]
pub(crate) struct Beside {
    pub(crate) notes: Vec<Note>,
    pub(crate) apart: Option<Box<Apart>>,
    pub(crate) reasons: Option<Reasons>,
    pub(crate) ungranted: u32,
    took: Duration,
}

impl About {
    pub(crate) fn rows(&self) -> u32 {
        match self {
            About::Resolve(_) | About::Admit(_) | About::Place(_) => 1,
            About::Reroute(rooms) => rooms.len() as u32,
            About::Tick(sessions) => sessions.len() as u32,
        }
    }

    /// Somebody waits for the answer.
    pub(crate) fn is_of_offer(&self) -> bool {
        matches!(self, About::Resolve(_) | About::Admit(_) | About::Place(_))
    }

    /// Whom a row of the question is about.
    pub(crate) fn subject(&self, row: u32) -> Option<Subject> {
        match self {
            About::Resolve(session) | About::Admit(session) => {
                (row == 0).then_some(Subject::Session(*session))
            }
            About::Place(room) => (row == 0).then_some(Subject::Room(*room)),
            About::Reroute(rooms) => rooms.get(row as usize).map(|(room, _)| Subject::Room(*room)),
            About::Tick(sessions) => {
                sessions.get(row as usize).map(|(session, _)| Subject::Session(*session))
            }
        }
    }

    /// The row of a batch that is about it.
    pub(crate) fn row_of(&self, subject: Subject) -> Option<u32> {
        let row = match (self, subject) {
            (About::Reroute(rooms), Subject::Room(room)) => {
                rooms.binary_search_by_key(&room, |(room, _)| *room)
            }
            (About::Tick(sessions), Subject::Session(session)) => {
                sessions.binary_search_by_key(&session, |(session, _)| *session)
            }
            (
                About::Resolve(_)
                | About::Admit(_)
                | About::Place(_)
                | About::Reroute(_)
                | About::Tick(_),
                Subject::Session(_) | Subject::Room(_),
            ) => return None,
        };
        row.ok().map(|row| row as u32)
    }

    pub(crate) fn hook(&self) -> Hook {
        match self {
            About::Resolve(_) => Hook::Scenario,
            About::Admit(_) => Hook::Admission,
            About::Place(_) | About::Reroute(_) => Hook::Routing,
            About::Tick(_) => Hook::Degradation,
        }
    }
}

impl Gateway {
    /// Asks, or where too much is in flight takes the native default at once.
    pub(crate) fn ask(
        &mut self,
        set: &Arc<str>,
        arm: Arm,
        about: About,
        question: Question,
        now: Instant,
    ) {
        let policy = PolicyName { set: set.clone(), hook: about.hook() };
        let id = AskId(self.policy.next_ask);
        self.policy.next_ask += 1;
        let asked = Asked { id, policy: policy.clone(), arm, about, at: now };
        if self.policy.asks.len() >= ASKS_IN_FLIGHT_MAX {
            self.conclude(asked, Err(Fault::Late), now);
            return;
        }
        let deadline = now + self.budget(&asked.about);
        self.effects.set(Timer::AskLate(id), deadline);
        self.policy.asks.insert(id, asked);
        let now_us = self.now_us(now);
        let revision = self.reads(&policy, arm).map(|revision| Arc::clone(&revision.name));
        let ask = Ask { id, policy, arm, revision, now_us, deadline, question };
        self.effects.push(Output::Ask(ask));
    }

    fn budget(&self, about: &About) -> Duration {
        let limits = &self.settings.limits;
        if about.is_of_offer() { limits.offer_budget } else { limits.advice_budget }
    }

    pub(crate) fn is_asking(
        &self,
        wanted: &PolicyName,
        arm: Arm,
        like: fn(&About) -> bool,
    ) -> bool {
        let asks = |asked: &Asked| asked.policy == *wanted && asked.arm == arm;
        self.policy.asks.values().any(|asked| asks(asked) && like(&asked.about))
    }

    /// A policy answered, or failed us. An answer that comes too late changes nothing.
    pub fn handle_answer(&mut self, id: AskId, result: Result<Answered, Fault>, now: Instant) {
        if let Some(asked) = self.policy.asks.remove(&id) {
            self.effects.cancel(&Timer::AskLate(id));
            self.conclude(asked, result, now);
        }
    }

    pub(crate) fn conclude_late(&mut self, id: AskId, now: Instant) {
        if let Some(asked) = self.policy.asks.remove(&id) {
            self.conclude(asked, Err(Fault::Late), now);
        }
    }

    pub(crate) fn conclude(&mut self, asked: Asked, result: Result<Answered, Fault>, now: Instant) {
        let rows = asked.about.rows();
        let (session, room) = match asked.about {
            About::Resolve(session) | About::Admit(session) => {
                (Some(session), self.sessions.get(&session).map(|session| session.room))
            }
            About::Place(room) => (None, Some(room)),
            About::Reroute(_) | About::Tick(_) => (None, None),
        };
        let (revision, answer, beside) = match result {
            Ok(Answered { answer, revision, notes, took, apart, reasons, ungranted }) => {
                let reasons = Some(reasons);
                let beside = Beside { notes, apart, reasons, ungranted, took };
                (Some(revision), Ok(answer), beside)
            }
            Err(fault) => (None, Err(fault), Beside::default()),
        };
        let Asked { id: ask, policy, arm, about, at: asked } = asked;
        if arm == Arm::Standing {
            self.note_standing(&policy, answer.as_ref().err(), now);
        }
        let by = super::decider(&policy, revision.as_ref());
        let given = answer.as_ref().map(reasons_given).unwrap_or_default();
        let turns_away = answer.as_ref().is_ok_and(turns_away);
        // The event stands before what it led to.
        let place = self.effects.outputs.len();
        let one = Batch::one;
        let whose = (&policy, arm);
        let Batch { outcome, parts } = match &about {
            About::Resolve(session) => one(self.resolved(*session, answer, now)),
            About::Admit(session) => one(self.admission_said(*session, answer, by.clone(), now)),
            About::Place(room) => one(self.placed(*room, answer, by.clone(), now)),
            About::Reroute(rooms) => self.rerouted(whose, rooms, answer, (&by, &beside), now),
            About::Tick(sessions) => self.ticked(whose, sessions, answer, (&by, &beside), now),
        };
        if let Some(revision) = &revision {
            self.note_apart(&about, &policy, revision, beside.apart.as_deref(), now);
            if about.is_of_offer() {
                let worse =
                    u32::from(matches!(&outcome, Outcome::Guarded(guard) if guard.is_its_own()));
                self.note_conduct(&policy, arm, Count { of: 1, worse }, now);
            }
            if matches!(about, About::Admit(_)) && was_taken(&outcome) {
                // What a rule keeps from being done turns nobody away.
                let turned_away = turns_away && matches!(outcome, Outcome::Applied { .. });
                self.weigh_newcomer(&policy, Newcomer { arm, turned_away }, now);
            }
        }
        let reason = self.note_said(&about, (&by, &outcome, &parts), &given, &beside, now);
        let Beside { notes, took, .. } = beside;
        let decided = Event::Decided {
            ask,
            policy,
            arm,
            revision,
            outcome,
            reason,
            session,
            room,
            rows,
            asked,
            took,
            notes,
        };
        self.effects.outputs.insert(place, Output::Event(decided));
    }

    /// A policy that fails is told of once, and once when it answers again.
    fn note_standing(&mut self, policy: &PolicyName, fault: Option<&Fault>, now: Instant) {
        let failing = self.policy.failing.contains_key(policy);
        let changed = failing != fault.is_some();
        match fault {
            Some(_) => {
                self.policy.failing.entry(policy.clone()).or_insert(now);
            }
            None => {
                self.policy.failing.remove(policy);
            }
        }
        if changed {
            let (hook, policy) = (policy.hook, policy.clone());
            self.effects.event(Event::Standing { hook, policy, fault: fault.cloned() });
        }
    }

    pub(crate) fn keep_memo(&mut self, (policy, arm): (&PolicyName, Arm), memo: Option<State>) {
        if let Some(memo) = memo {
            let tried =
                self.revised.get(policy).is_some_and(|revised| revised.now.canary.is_some());
            // What was asked of it as a canary may be answered when it is in force.
            let arm = if tried { arm } else { Arm::Standing };
            self.memos.entry(policy.clone()).or_default().write(arm, memo);
        }
    }

    /// One row per node.
    pub(crate) fn node_rows(&self) -> Vec<Row> {
        self.nodes
            .iter()
            .map(|node| Row { id: u64::from(node.id.0), measures: self.node_measures(node.id) })
            .collect()
    }

    /// One row per region.
    pub(crate) fn region_rows(&self) -> Vec<Row> {
        (0..self.settings.regions.len() as u32)
            .map(|region| Row {
                id: u64::from(region),
                measures: self.region_measures(RegionId(region)),
            })
            .collect()
    }

    /// The node with this number, if there is one.
    pub(crate) fn node(&self, id: NodeId) -> Option<&crate::node::Node> {
        self.nodes.get(id.0 as usize)
    }
}

/// What became of an answer of the wrong kind: the host promises that this cannot be.
pub(crate) fn mismatched() -> Outcome {
    Outcome::Faulted(Fault::Malformed("an answer to another question".into()))
}

/// Whether it was an answer, and somebody was still there whom it was about.
fn was_taken(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Applied { .. } | Outcome::Abstained | Outcome::Kept | Outcome::Guarded(_) => true,
        Outcome::Stale | Outcome::Faulted(_) => false,
    }
}

/// Whether it keeps a newcomer out.
fn turns_away(answer: &Answer) -> bool {
    match answer {
        Answer::Admit { verdict, .. } => match verdict {
            AdmitVerdict::Redirect(_) | AdmitVerdict::Reject(_) => true,
            AdmitVerdict::Abstain | AdmitVerdict::Accept | AdmitVerdict::AcceptCapped(_) => false,
        },
        Answer::Params(_)
        | Answer::Placed { .. }
        | Answer::Moves { .. }
        | Answer::Actions { .. } => false,
    }
}

/// The reasons that an answer gives, by row; one that says nothing of its reasons has 0.
fn reasons_given(answer: &Answer) -> Vec<(u32, u32)> {
    match answer {
        Answer::Params(_) => Vec::new(),
        Answer::Admit { reason, .. } | Answer::Placed { reason, .. } => vec![(0, *reason)],
        Answer::Moves { moves, .. } => moves.iter().map(|step| (step.row, step.reason)).collect(),
        Answer::Actions { actions, .. } => {
            actions.iter().map(|action| (action.row, action.reason)).collect()
        }
    }
}
