//! Questions to policies and their answers, as plain data. The host converts them to plugin calls and back.
//!
//! A state belongs to a session, or for routing to a room. The question carries the state and the answer carries the
//! new one, so that the decision and the new state are applied together or not at all.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bytes::StateBytes;
use crate::id::{AskId, NodeId, RegionId, RoomId, SessionId};
use crate::registry::Row;

crate::named! {
    /// A question that a policy answers.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
    pub enum Hook {
        /// Is this session admitted?
        Admission = "admission",
        /// Which node carries this room, and which nodes are its spares?
        Routing = "routing",
        /// How much quality does each session get?
        Degradation = "degradation",
        /// Which data plane parameters does a session get?
        Scenario = "scenario",
    }
}

/// `<set>/<hook>`: the name of a policy in commands, metrics and records.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct PolicyName {
    /// The name of the policy set.
    pub set: Arc<str>,
    /// The question that the policy answers.
    pub hook: Hook,
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.set, self.hook.name())
    }
}

crate::named! {
    /// One of the two revisions of a policy to which questions go.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
    pub enum Arm {
        /// The active revision.
        #[default]
        Standing = "active",
        /// The candidate, for its share of rooms or sessions.
        Canary = "canary",
    }
}

/// Labels of a session, known when it opens, in the order given.
pub type Labels = Arc<[(Box<str>, Box<str>)]>;

/// Returns the label `participant`, the sender of the session's streams. `None` if the label is empty.
pub fn participant(labels: &Labels) -> Option<&str> {
    let found = labels.iter().find(|(name, _)| &**name == "participant");
    found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
}

/// State that a plugin stored for a session or a room, or its memo (state of the plugin itself).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct PluginState {
    /// The plugin's name in its manifest. Only revisions of the same plugin receive this state.
    pub plugin: Arc<str>,
    /// The version of the layout of the bytes.
    pub schema: u32,
    /// Opaque to the gateway and to other plugins.
    #[serde(with = "crate::bytes")]
    pub bytes: StateBytes,
}

/// A room as routing policies see it.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomRow {
    /// The number and the measures.
    pub row: Row,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// Labels of the room's first session.
    pub labels: Labels,
    /// The nodes of the room's route, best first.
    pub standing: Vec<NodeId>,
    /// `None`: the plugin's `open` is called for the room first.
    pub state: Option<PluginState>,
}

/// A session as degradation policies see it.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionRow {
    /// The number and the measures.
    pub row: Row,
    /// The number of the room.
    pub room: RoomId,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// Labels of the offer, which policies may read.
    pub labels: Labels,
    /// `None`: the plugin's `open` is called for the session first.
    pub state: Option<PluginState>,
}

/// A question, with the facts that the answer depends on.
#[derive(Clone, PartialEq, Debug)]
pub enum PolicyQuestion {
    /// Which data plane parameters does a session with these labels get?
    Resolve {
        /// The name of the scenario.
        scenario: Arc<str>,
        /// Labels of the offer, which policies may read.
        labels: Labels,
    },
    /// Is this session admitted?
    Admit {
        /// The number of the session.
        session: SessionId,
        /// The number of the room.
        room: RoomId,
        /// The region of the session's room; `None` for the room's first session.
        standing: Option<RegionId>,
        /// The name of the scenario.
        scenario: Arc<str>,
        /// Labels of the offer, which policies may read.
        labels: Labels,
        /// The regions, one row each.
        regions: Vec<Row>,
    },
    /// Which node carries this room, and which nodes are its spares?
    Place {
        /// The number of the room.
        room: RoomId,
        /// The name of the scenario.
        scenario: Arc<str>,
        /// Labels of the room's first session.
        labels: Labels,
        /// The nodes, one row each.
        nodes: Vec<Row>,
    },
    /// Nodes changed, or placements are due: which of these rooms should move?
    Reroute {
        /// The nodes, one row each.
        nodes: Vec<Row>,
        /// The rooms, one row each.
        rooms: Vec<RoomRow>,
        /// State of the policy itself; `None` before its first answer.
        memo: Option<PluginState>,
    },
    /// How much quality does each of these sessions get?
    Tick {
        /// The sessions, one row each.
        sessions: Vec<SessionRow>,
        /// State of the policy itself; `None` before its first answer.
        memo: Option<PluginState>,
    },
}

impl PolicyQuestion {
    /// Returns the hook that answers the question.
    pub fn hook(&self) -> Hook {
        match self {
            PolicyQuestion::Resolve { .. } => Hook::Scenario,
            PolicyQuestion::Admit { .. } => Hook::Admission,
            PolicyQuestion::Place { .. } | PolicyQuestion::Reroute { .. } => Hook::Routing,
            PolicyQuestion::Tick { .. } => Hook::Degradation,
        }
    }

    /// The number of sessions or rooms in a batch; 0 for other questions.
    pub fn rows(&self) -> usize {
        match self {
            PolicyQuestion::Resolve { .. }
            | PolicyQuestion::Admit { .. }
            | PolicyQuestion::Place { .. } => 0,
            PolicyQuestion::Reroute { rooms, .. } => rooms.len(),
            PolicyQuestion::Tick { sessions, .. } => sessions.len(),
        }
    }

    /// Ids of the sessions or rooms in a batch, by row; `None` if the question is not a batch.
    pub fn batch(&self) -> Option<Vec<u64>> {
        match self {
            PolicyQuestion::Tick { sessions, .. } => {
                Some(sessions.iter().map(|session| session.row.id).collect())
            }
            PolicyQuestion::Reroute { rooms, .. } => {
                Some(rooms.iter().map(|room| room.row.id).collect())
            }
            PolicyQuestion::Resolve { .. }
            | PolicyQuestion::Admit { .. }
            | PolicyQuestion::Place { .. } => None,
        }
    }

    /// Removes the rows that the answer left out.
    pub fn leave_out(&mut self, isolated: &IsolatedRows) {
        fn keep<T>(rows: &mut Vec<T>, isolated: &IsolatedRows) {
            let mut row = 0..;
            rows.retain(|_| row.next().is_some_and(|row| !isolated.leaves_out(row)));
        }
        match self {
            PolicyQuestion::Tick { sessions, .. } => keep(sessions, isolated),
            PolicyQuestion::Reroute { rooms, .. } => keep(rooms, isolated),
            PolicyQuestion::Resolve { .. }
            | PolicyQuestion::Admit { .. }
            | PolicyQuestion::Place { .. } => {}
        }
    }
}

/// A question sent to a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    /// The answer carries the same id.
    pub id: AskId,
    /// The policy, by set and hook.
    pub policy: PolicyName,
    /// The arm that is asked. All rows belong to it.
    pub arm: Arm,
    /// The revision's name; `None` before the core knows one.
    pub revision: Option<Arc<str>>,
    /// Gateway time: microseconds since the gateway started. Plugins have no other clock.
    pub now_us: u64,
    /// An answer after this time is late, and the native default applies.
    pub deadline: Instant,
    /// The facts that the answer depends on.
    pub question: PolicyQuestion,
}

/// The decision of an admission policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdmitVerdict {
    /// No opinion: the native default decides.
    Abstain,
    /// Admit the session without a cap.
    Accept,
    /// Admit the session with a cap in kbit/s.
    AcceptCapped(u32),
    /// Send the client to this region.
    Redirect(RegionId),
    /// Reject the session; the client may retry after this many milliseconds.
    Reject(u32),
}

/// One instruction of a degradation policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DegradationAction {
    /// Row of the question's sessions.
    pub row: u32,
    /// The action's number in the registry; an unknown number is invalid.
    pub op: u32,
    /// The action's argument; its meaning depends on `op`.
    pub arg: u64,
    /// The plugin's reason, by its number in the manifest.
    pub reason: u32,
}

/// One move that a routing policy asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoutingMove {
    /// Row of the question's rooms.
    pub row: u32,
    /// The new route, best first.
    pub hops: Vec<NodeId>,
    /// Milliseconds until the policy is asked about the room again; 0: never.
    pub ttl_ms: u32,
    /// The number of the reason; 0: none.
    pub reason: u32,
}

/// In the place of a route: the routing policy refuses the room.
pub const NO_NODE: NodeId = NodeId(u32::MAX);

/// A plugin's answer in the core's types, before validation.
#[derive(Clone, PartialEq, Debug)]
pub enum HookAnswer {
    /// Answers [`PolicyQuestion::Resolve`]: parameters by registry key. Unknown keys are recorded and otherwise ignored.
    Params(Vec<(Box<str>, i64)>),
    /// Answers [`PolicyQuestion::Admit`].
    Admit {
        /// The decision on the session.
        verdict: AdmitVerdict,
        /// The number of the reason; 0: none.
        reason: u32,
    },
    /// Answers [`PolicyQuestion::Place`].
    Placed {
        /// Best first; empty: no opinion; [`NO_NODE`] alone: no node may carry the room.
        hops: Vec<NodeId>,
        /// Milliseconds until the policy is asked about the room again, or until a refused client may try again; 0: never, or
        /// the gateway's time.
        ttl_ms: u32,
        /// The number of the reason; 0: none.
        reason: u32,
        /// The room's first state.
        state: PluginState,
    },
    /// Answers [`PolicyQuestion::Reroute`].
    Moves {
        /// Rooms without a move stay where they are.
        moves: Vec<RoutingMove>,
        /// New states by row, including first states of new rooms.
        states: Vec<(u32, PluginState)>,
        /// The new memo, if it changed.
        memo: Option<PluginState>,
    },
    /// Answers [`PolicyQuestion::Tick`].
    Actions {
        /// Sessions without an action keep their plans.
        actions: Vec<DegradationAction>,
        /// New states by row, including first states of new sessions.
        states: Vec<(u32, PluginState)>,
        /// The new memo, if it changed.
        memo: Option<PluginState>,
    },
}

/// A plugin's explanation of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionNote {
    /// The index in the question.
    pub row: u32,
    /// The name of the value, as the plugin chose it.
    pub key: Box<str>,
    pub value: i64,
}

/// An answer with the revision that gave it and how it was obtained.
#[derive(Clone, PartialEq, Debug)]
pub struct RevisionAnswer {
    /// The decision.
    pub answer: HookAnswer,
    /// First 12 hexadecimal digits of the revision's digest: plugin bytes and settings.
    pub revision: Arc<str>,
    /// Notes of the plugin on subjects of the question.
    pub notes: Vec<DecisionNote>,
    /// The time that the call took.
    pub took: std::time::Duration,
    /// Set if one call did not cover all rows.
    pub isolated: Option<Box<IsolatedRows>>,
    /// The plugin's texts for its reasons.
    pub reasons: Reasons,
    /// Number of actions that were dropped because the plugin lacks the grant.
    pub ungranted: u32,
}

impl RevisionAnswer {
    /// The question and this answer without the quarantined rows. `None` if no row is quarantined, or if the remaining
    /// rows needed more than one call. The pair is used to compare the answer with that of another instance.
    #[must_use]
    pub fn without_the_left_out(
        &self,
        question: &PolicyQuestion,
    ) -> Option<(PolicyQuestion, RevisionAnswer)> {
        let isolated = self.isolated.as_deref().filter(|isolated| isolated.is_of_the_known())?;
        let (mut question, mut answered) = (question.clone(), self.clone());
        question.leave_out(isolated);
        answered.isolated = None;
        answered.notes.iter_mut().for_each(|note| note.row = isolated.row_without(note.row));
        let states = match &mut answered.answer {
            HookAnswer::Moves { moves, states, .. } => {
                moves.iter_mut().for_each(|step| step.row = isolated.row_without(step.row));
                states
            }
            HookAnswer::Actions { actions, states, .. } => {
                actions.iter_mut().for_each(|action| action.row = isolated.row_without(action.row));
                states
            }
            HookAnswer::Params(_) | HookAnswer::Admit { .. } | HookAnswer::Placed { .. } => {
                return None;
            }
        };
        states.iter_mut().for_each(|(row, _)| *row = isolated.row_without(*row));
        Some((question, answered))
    }
}

/// A plugin's texts for its reasons, by reason number.
pub type Reasons = Arc<[(u32, Arc<str>)]>;

/// The result of asking about a batch in several calls because the plugin fails on some rows.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct IsolatedRows {
    /// The fault in a call without suspected rows; `None` if these calls succeeded.
    pub fault: Option<PluginFault>,
    /// Rows that were left out because the plugin fails on them, in row order. No decision is taken for them.
    pub poisoned: Vec<Poisoned>,
    /// Rows that were not asked about because time ran out, in row order. No decision is taken for them either.
    pub unasked: Vec<u32>,
    /// The batch needed more than one call.
    pub in_parts: bool,
}

impl IsolatedRows {
    /// Returns true if the plugin was not asked about the row, or faulted on it.
    pub fn leaves_out(&self, row: u32) -> bool {
        self.poisoned.binary_search_by_key(&row, |poisoned| poisoned.row).is_ok()
            || self.unasked.binary_search(&row).is_ok()
    }

    /// Only rows already known to be poisoned were left out; the other rows were asked about in one call.
    fn is_of_the_known(&self) -> bool {
        !self.in_parts && self.fault.is_none() && self.unasked.is_empty()
    }

    /// The row's number after the left-out rows are removed.
    fn row_without(&self, row: u32) -> u32 {
        row - self.poisoned.partition_point(|poisoned| poisoned.row < row) as u32
    }
}

/// A row on which the plugin fails even if it is asked about that row alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poisoned {
    /// The index in the question.
    pub row: u32,
    /// The failure of the plugin.
    pub fault: PluginFault,
}

/// A failure of a plugin to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PluginFault {
    /// The plugin exceeded its budget and was stopped.
    Deadline,
    /// The plugin trapped: a panic, an access out of bounds or an exhausted stack. Carries the engine's message.
    Trap(Box<str>),
    /// The plugin asked for more memory than its limit.
    OutOfMemory,
    /// The answer violates the contract: lengths that do not match, or a row out of range.
    Malformed(Box<str>),
    /// The question waited too long in the queue, or the queue was full.
    Late,
    /// No plugin is running for this policy.
    Absent,
}

impl PluginFault {
    /// The fault's name in metrics and records: `deadline`.
    pub fn name(&self) -> &'static str {
        match self {
            PluginFault::Deadline => "deadline",
            PluginFault::Trap(_) => "trap",
            PluginFault::OutOfMemory => "out-of-memory",
            PluginFault::Malformed(_) => "malformed",
            PluginFault::Late => "late",
            PluginFault::Absent => "absent",
        }
    }

    /// The question may have caused the fault.
    pub fn is_of_question(&self) -> bool {
        match self {
            PluginFault::Deadline
            | PluginFault::Trap(_)
            | PluginFault::OutOfMemory
            | PluginFault::Malformed(_) => true,
            PluginFault::Late | PluginFault::Absent => false,
        }
    }
}

impl std::fmt::Display for PluginFault {
    /// The fault's name and the message: `trap: unreachable`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self {
            PluginFault::Trap(said) | PluginFault::Malformed(said) => write!(f, ": {said}"),
            PluginFault::Deadline
            | PluginFault::OutOfMemory
            | PluginFault::Late
            | PluginFault::Absent => Ok(()),
        }
    }
}

/// The result of a decision after validation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecisionOutcome {
    /// The decision was applied, in whole or in part.
    Applied {
        /// True if the decision differs from the native default.
        differs: bool,
    },
    /// The policy abstained. The native default decided.
    Abstained,
    /// The answer changed nothing.
    Kept,
    /// The decision broke this rule.
    Guarded(GuardRule),
    /// The subject changed after the question, so the answer no longer applies.
    Stale,
    /// The policy faulted. The native default decided.
    Faulted(PluginFault),
}

impl DecisionOutcome {
    /// The word in metrics and records: `applied`.
    pub fn name(&self) -> &'static str {
        match self {
            DecisionOutcome::Applied { .. } => "applied",
            DecisionOutcome::Abstained => "abstained",
            DecisionOutcome::Kept => "kept",
            DecisionOutcome::Guarded(_) => "guarded",
            DecisionOutcome::Stale => "stale",
            DecisionOutcome::Faulted(_) => "faulted",
        }
    }
}

crate::named! {
    /// A native rule that a decision broke.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum GuardRule {
        /// The decision names a node that the question did not show or showed as down or draining, or names a node twice.
        UnusableNode = "unusable-node",
        /// The first node has no capacity for the room.
        NoCapacity = "no-capacity",
        /// The decision names a region that does not exist, or redirects a session of an existing room.
        UnusableRegion = "unusable-region",
        /// The decision names a row that was not in the question, or moves a row twice.
        UnknownRow = "unknown-row",
        /// The decision names an action that does not exist or was not granted.
        UnknownAction = "unknown-action",
        /// Policies moved too many sessions within a second.
        Churn = "churn",
        /// The room moved too often within a minute.
        MovedTooOften = "moved-too-often",
        /// The argument of a degradation action is outside the bounds of the action, such as a cap below the floor.
        ArgumentOutOfBounds = "argument-out-of-bounds",
        /// The labels of the session say that its device takes less.
        AboveDevice = "above-device",
        /// The cap has no effect: no endpoint concerned supports one.
        CapUnsupported = "cap-unsupported",
        /// The breaker of a node's zone or region is open.
        BreakerOpen = "breaker-open",
        /// The subject changed since the question; or a node takes no rooms any more, or no endpoint obeys caps any more, although the
        /// question showed one that did.
        Outdated = "outdated",
        /// A fresh instance of the plugin answered the same question differently.
        HiddenState = "hidden-state",
    }
}

impl GuardRule {
    /// Returns true if the decision itself broke the rule. The other rules can be broken by concurrent events.
    pub fn is_fault_of_decision(self) -> bool {
        match self {
            GuardRule::UnusableNode
            | GuardRule::UnusableRegion
            | GuardRule::UnknownRow
            | GuardRule::UnknownAction
            | GuardRule::ArgumentOutOfBounds
            | GuardRule::AboveDevice
            | GuardRule::CapUnsupported
            | GuardRule::HiddenState => true,
            GuardRule::NoCapacity
            | GuardRule::Churn
            | GuardRule::MovedTooOften
            | GuardRule::BreakerOpen
            | GuardRule::Outdated => false,
        }
    }
}

#[cfg(test)]
mod tests;
