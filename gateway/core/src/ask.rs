//! Questions to policies and their answers, as plain data:
//!
//! the host turns them into calls of a plugin and back. A state belongs to the session (for routing, to the room). It
//! travels in the question and comes back in the answer, so that decision and state are taken together or not at all.

use std::sync::Arc;
use std::time::Instant;

use crate::{Arm, AskId, EntryKind, NodeId, RegionId, RoomId, Row, SessionId};

/// A kind of question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// May this session come in?
    Admission,
    /// Which node carries this room, and which stand by?
    Routing,
    /// How much quality does each session get?
    Degradation,
    /// What does a scenario ask of the data plane?
    Scenario,
}

impl Hook {
    pub const ALL: [Hook; 4] = [Hook::Admission, Hook::Routing, Hook::Degradation, Hook::Scenario];

    /// The word in configuration and in names of policies: `routing`.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Admission => "admission",
            Hook::Routing => "routing",
            Hook::Degradation => "degradation",
            Hook::Scenario => "scenario",
        }
    }
}

/// `<set>/<hook>`: the name of a policy in commands, metrics and records.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyName {
    /// The policy set: `call`.
    pub set: Arc<str>,
    /// The hook it answers.
    pub hook: Hook,
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.set, self.hook.name())
    }
}

/// Facts known when a session opens, in the order given.
pub type Labels = Arc<[(Box<str>, Box<str>)]>;

/// State that a plugin wrote about a session, a room or (as its memo) itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The plugin's name in its manifest. Only revisions of the same plugin ever see it.
    pub plugin: Arc<str>,
    /// The plugin's state schema number.
    pub schema: u32,
    /// Opaque to everyone else.
    pub bytes: Box<[u8]>,
}

/// A room in a [`Question::Reroute`].
#[derive(Clone, PartialEq, Debug)]
pub struct RoomRow {
    /// The room and what is known of it.
    pub row: Row,
    pub scenario: Arc<str>,
    /// Labels of its first session.
    pub labels: Labels,
    /// The nodes of its route, best first.
    pub standing: Vec<NodeId>,
    /// None: the plugin is told of it by `open` first.
    pub state: Option<State>,
}

/// A session in a [`Question::Tick`].
#[derive(Clone, PartialEq, Debug)]
pub struct SessionRow {
    /// The session and what is known of it.
    pub row: Row,
    pub room: RoomId,
    pub scenario: Arc<str>,
    pub labels: Labels,
    /// None: the plugin is told of it by `open` first.
    pub state: Option<State>,
}

/// A question to a policy.
#[derive(Clone, PartialEq, Debug)]
pub enum Question {
    /// What does the scenario ask of the data plane, for a session with these labels?
    Resolve {
        /// The scenario's name.
        scenario: Arc<str>,
        /// The session's labels.
        labels: Labels,
    },
    /// May this session come in?
    Admit {
        session: SessionId,
        room: RoomId,
        /// The region where its room is; none for the room's first session.
        standing: Option<RegionId>,
        scenario: Arc<str>,
        labels: Labels,
        /// One row per region.
        regions: Vec<Row>,
    },
    /// Which node carries this room, and which stand by?
    Place {
        /// The room to place.
        room: RoomId,
        scenario: Arc<str>,
        /// Labels of its first session.
        labels: Labels,
        /// One row per node.
        nodes: Vec<Row>,
    },
    /// Nodes changed, or placements are due: which of these rooms should move?
    Reroute {
        /// One row per node.
        nodes: Vec<Row>,
        /// The rooms in question.
        rooms: Vec<RoomRow>,
        memo: Option<State>,
    },
    /// How much quality does each of these sessions get?
    Tick {
        /// The sessions in question.
        sessions: Vec<SessionRow>,
        memo: Option<State>,
    },
}

impl Question {
    /// The hook that answers it.
    pub fn hook(&self) -> Hook {
        match self {
            Question::Resolve { .. } => Hook::Scenario,
            Question::Admit { .. } => Hook::Admission,
            Question::Place { .. } | Question::Reroute { .. } => Hook::Routing,
            Question::Tick { .. } => Hook::Degradation,
        }
    }

    /// Sessions or rooms of a batch; 0 for other questions.
    pub fn rows(&self) -> usize {
        match self {
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => 0,
            Question::Reroute { rooms, .. } => rooms.len(),
            Question::Tick { sessions, .. } => sessions.len(),
        }
    }

    /// The sessions or rooms of a batch, by row; `None` where it is no batch.
    pub fn batch(&self) -> Option<Vec<u64>> {
        match self {
            Question::Tick { sessions, .. } => {
                Some(sessions.iter().map(|session| session.row.id).collect())
            }
            Question::Reroute { rooms, .. } => Some(rooms.iter().map(|room| room.row.id).collect()),
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => None,
        }
    }

    /// The same question without the rows that were left out of its answer.
    pub fn leave_out(&mut self, apart: &Apart) {
        fn keep<T>(rows: &mut Vec<T>, apart: &Apart) {
            let mut row = 0..;
            rows.retain(|_| row.next().is_some_and(|row| !apart.leaves_out(row)));
        }
        match self {
            Question::Tick { sessions, .. } => keep(sessions, apart),
            Question::Reroute { rooms, .. } => keep(rooms, apart),
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => {}
        }
    }
}

/// A question on its way to a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    /// Comes back with the answer.
    pub id: AskId,
    pub policy: PolicyName,
    /// The revision that is asked; all rows belong to it.
    pub arm: Arm,
    /// The revision's name; none before the core knows any.
    pub revision: Option<Arc<str>>,
    /// Gateway time, microseconds since it started; all the clock a plugin gets.
    pub now_us: u64,
    /// After this the answer is late and the native default stands.
    pub deadline: Instant,
    pub question: Question,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdmitVerdict {
    /// No opinion: the native default decides.
    Abstain,
    Accept,
    /// Come in, but no more than this many kbit/s.
    AcceptCapped(u32),
    /// Try this region instead.
    Redirect(RegionId),
    /// Stay out; try again after this many milliseconds.
    Reject(u32),
}

/// One instruction of a degradation policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    /// Row of the question's sessions.
    pub row: u32,
    /// The number of the action; an unknown one is invalid.
    pub op: u32,
    /// Depends on the action.
    pub arg: u64,
    /// The plugin's reason, a number of its manifest.
    pub reason: u32,
}

/// One move that a routing policy asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Row of the question's rooms.
    pub row: u32,
    /// The new route, best first.
    pub hops: Vec<NodeId>,
    /// Milliseconds after which the room is asked about again; 0: never.
    pub ttl_ms: u32,
    /// The plugin's reason.
    pub reason: u32,
}

/// A plugin's answer, in the core's types and not yet checked against facts.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// To [`Question::Resolve`]: parameters by registry key; unknown keys are kept for the record and ignored.
    Params(Vec<(Box<str>, i64)>),
    /// To [`Question::Admit`].
    Admit {
        verdict: AdmitVerdict,
        /// The plugin's reason.
        reason: u32,
    },
    /// To [`Question::Place`].
    Placed {
        /// Best first; empty: no opinion.
        hops: Vec<NodeId>,
        /// Milliseconds after which the room is asked about again; 0: never.
        ttl_ms: u32,
        /// The plugin's reason.
        reason: u32,
        /// The room's first state.
        state: State,
    },
    /// To [`Question::Reroute`].
    Moves {
        /// Rooms without a move stay.
        moves: Vec<Move>,
        /// New states by row, those of newcomers among them.
        states: Vec<(u32, State)>,
        /// The new memo, if it changed.
        memo: Option<State>,
    },
    /// To [`Question::Tick`].
    Actions {
        /// Sessions without an action keep their plans.
        actions: Vec<Action>,
        /// New states by row, those of newcomers among them.
        states: Vec<(u32, State)>,
        /// The new memo, if it changed.
        memo: Option<State>,
    },
}

/// A plugin's explanation of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Row of the question.
    pub row: u32,
    pub key: Box<str>,
    pub value: i64,
}

/// An answer with where it came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Answered {
    pub answer: Answer,
    /// First 12 hexadecimal digits of the revision's digest: plugin bytes and settings.
    pub revision: Arc<str>,
    pub notes: Vec<Note>,
    /// Time in the plugin.
    pub took: std::time::Duration,
    /// Given if not all rows were asked about together.
    pub apart: Option<Box<Apart>>,
    /// The plugin's words for its reasons.
    pub reasons: Reasons,
    /// Actions that were left out, since the plugin was not granted them.
    pub ungranted: u32,
}

impl Answered {
    /// The question and this answer without the rows that are quarantined; `None` if there are none, or if the others
    /// were not asked about together. Another instance that is asked the same question gives an answer to compare.
    #[must_use]
    pub fn without_the_left_out(&self, question: &Question) -> Option<(Question, Answered)> {
        let apart = self.apart.as_deref().filter(|apart| apart.is_of_the_known())?;
        let (mut question, mut answered) = (question.clone(), self.clone());
        question.leave_out(apart);
        answered.apart = None;
        answered.notes.iter_mut().for_each(|note| note.row = apart.row_without(note.row));
        let states = match &mut answered.answer {
            Answer::Moves { moves, states, .. } => {
                moves.iter_mut().for_each(|step| step.row = apart.row_without(step.row));
                states
            }
            Answer::Actions { actions, states, .. } => {
                actions.iter_mut().for_each(|action| action.row = apart.row_without(action.row));
                states
            }
            Answer::Params(_) | Answer::Admit { .. } | Answer::Placed { .. } => return None,
        };
        states.iter_mut().for_each(|(row, _)| *row = apart.row_without(*row));
        Some((question, answered))
    }
}

/// A plugin's words for its reasons, by their numbers.
pub type Reasons = Arc<[(u32, Arc<str>)]>;

/// The calls that a batch took which holds rows over which the plugin fails.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Apart {
    /// The fault over rows that were not suspected; `None` if it failed over none of these.
    pub fault: Option<Fault>,
    /// Rows that were left out, found now or before, in their order. Nothing is decided about them.
    pub poisoned: Vec<Poisoned>,
    /// Rows that there was no time left for, in their order. Nothing is decided about them either.
    pub unasked: Vec<u32>,
    /// More than one call was needed.
    pub in_parts: bool,
}

impl Apart {
    pub fn leaves_out(&self, row: u32) -> bool {
        self.poisoned.binary_search_by_key(&row, |poisoned| poisoned.row).is_ok()
            || self.unasked.binary_search(&row).is_ok()
    }

    /// Only rows that were known before were left out: the others were asked about in one call.
    fn is_of_the_known(&self) -> bool {
        !self.in_parts && self.fault.is_none() && self.unasked.is_empty()
    }

    /// The row's number once the rows that are left out are removed.
    fn row_without(&self, row: u32) -> u32 {
        row - self.poisoned.partition_point(|poisoned| poisoned.row < row) as u32
    }
}

/// A row over which the plugin fails, also when it is asked about it alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poisoned {
    /// Row of the question.
    pub row: u32,
    pub fault: Fault,
}

/// A plugin failing us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It ran past its budget and was stopped.
    Deadline,
    /// It trapped: a panic, an access out of bounds, an exhausted stack, with the engine's message.
    Trap(Box<str>),
    /// It asked for more memory than it is allowed.
    OutOfMemory,
    /// Its answer is not of the contract's shape: lengths that do not match, a row out of range.
    Malformed(Box<str>),
    /// The question waited too long in the queue, or the queue was full.
    Late,
    /// No plugin is running for this policy.
    Absent,
}

impl Fault {
    /// The word in metrics and records: `deadline`.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Deadline => "deadline",
            Fault::Trap(_) => "trap",
            Fault::OutOfMemory => "out-of-memory",
            Fault::Malformed(_) => "malformed",
            Fault::Late => "late",
            Fault::Absent => "absent",
        }
    }

    /// The question may be the cause of the fault.
    pub fn is_of_question(&self) -> bool {
        match self {
            Fault::Deadline | Fault::Trap(_) | Fault::OutOfMemory | Fault::Malformed(_) => true,
            Fault::Late | Fault::Absent => false,
        }
    }
}

impl std::fmt::Display for Fault {
    /// The word, and what was said: `trap: unreachable`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self {
            Fault::Trap(said) | Fault::Malformed(said) => write!(f, ": {said}"),
            Fault::Deadline | Fault::OutOfMemory | Fault::Late | Fault::Absent => Ok(()),
        }
    }
}

/// An entry of the catalog: something with a name that questions speak of by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub kind: EntryKind,
    /// Its number, unique within its kind.
    pub id: u64,
    /// The zone of a node, the region of a zone; 0 for a region.
    pub parent: u64,
    /// Its name in the configuration.
    pub name: Box<str>,
    pub labels: Vec<(Box<str>, Box<str>)>,
}

#[cfg(test)]
mod tests;
