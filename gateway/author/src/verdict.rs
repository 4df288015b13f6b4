//! Validity of an answer.

use std::collections::BTreeSet;

use evenkeel_host::limits::MEMORY_BYTES_MAX;
use evenkeel_host::{BoundPlugin, PluginRefusal};
use evenkeel_model::{
    AdmitVerdict, DegradationAction, HOPS_MAX, HookAnswer, Metric, NO_NODE, NodeId, Op,
    PluginFault, PolicyQuestion, RegionId, RevisionAnswer, RoutingMove, Row, SessionRow,
};

/// `Metric::Health` of a node that is Down.
const DOWN: u32 = 3;

/// A rule of the contract that an answer breaks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// The plugin failed instead of answering.
    #[error("{}", failure_words(.0))]
    Fault(PluginFault),
    /// A fresh instance answered differently, so the plugin keeps state of its own.
    #[error("a fresh instance answered the same question differently: the plugin has hidden state")]
    HiddenState,
    /// The answer is one of another hook.
    #[error("it answers another question")]
    Mismatched,
    /// A row that the question does not have.
    #[error("it refers to row {row} of {rows}")]
    UnknownRow {
        /// The row's number, from 0.
        row: u32,
        /// Number of rows, counted from 0.
        rows: usize,
    },
    /// A row occurs twice among the moves.
    #[error("it moves row {0} twice")]
    MovedTwice(u32),
    /// A node that the catalog does not have.
    #[error("it names node {0}, which does not exist")]
    UnknownNode(NodeId),
    /// A route contains a node twice.
    #[error("it names node {0} twice in one route")]
    NodeTwice(NodeId),
    /// A route is longer than a gateway keeps.
    #[error("its route has {0} nodes, at most {HOPS_MAX} are allowed")]
    TooManyHops(usize),
    /// A move without a node.
    #[error("it moves row {0} to no node; omit a row to keep it")]
    Nowhere(u32),
    /// A region that the catalog does not have.
    #[error("it redirects a session to {0}, which does not exist")]
    UnknownRegion(RegionId),
    /// A session of a placed room is sent to another region.
    #[error("it redirects a session whose room already has a node")]
    RedirectOfRoom,
    /// An action that the registry does not have.
    #[error("it takes action {0}, which does not exist")]
    UnknownAction(u32),
    /// Actions that the manifest does not request.
    #[error("it takes {0} actions that are not in its manifest")]
    Ungranted(u64),
    /// A route contains a node that is Down.
    #[error("it names node {0}, which is Down")]
    NodeDown(NodeId),
    /// A route contains a node that is being drained.
    #[error("it names node {0}, which is being drained")]
    NodeDraining(NodeId),
    /// A cap outside of the session's bounds.
    #[error("it caps row {row} at {kbps} kbit/s, outside {floor} to {ceiling}")]
    CapOutOfBounds {
        /// The row's number, from 0.
        row: u32,
        /// The cap in kbit/s.
        kbps: u64,
        /// The lower bound in kbit/s.
        floor: u32,
        /// The upper bound in kbit/s.
        ceiling: u32,
    },
}

impl Violation {
    /// The name in reports: `unknown-row`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Violation::Fault(_) => "fault",
            Violation::HiddenState => "hidden-state",
            Violation::Mismatched => "mismatched",
            Violation::UnknownRow { .. } => "unknown-row",
            Violation::MovedTwice(_) => "moved-twice",
            Violation::UnknownNode(_) => "unknown-node",
            Violation::NodeTwice(_) => "node-twice",
            Violation::TooManyHops(_) => "too-many-hops",
            Violation::Nowhere(_) => "nowhere",
            Violation::UnknownRegion(_) => "unknown-region",
            Violation::RedirectOfRoom => "redirect-of-room",
            Violation::UnknownAction(_) => "unknown-action",
            Violation::Ungranted(_) => "ungranted",
            Violation::NodeDown(_) => "node-down",
            Violation::NodeDraining(_) => "node-draining",
            Violation::CapOutOfBounds { .. } => "argument-out-of-bounds",
        }
    }

    /// True if the answer is well-formed but dropped by the gateway as guarded: a policy may rely
    /// on that.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(
            self,
            Violation::NodeDown(_) | Violation::NodeDraining(_) | Violation::CapOutOfBounds { .. }
        )
    }
}

fn failure_words(fault: &PluginFault) -> String {
    match fault {
        PluginFault::OutOfMemory => {
            format!("it wanted more than {} MiB of memory", MEMORY_BYTES_MAX >> 20)
        }
        PluginFault::Trap(said) | PluginFault::Malformed(said) => format!("it failed: {said}"),
        PluginFault::Deadline | PluginFault::Late | PluginFault::Absent => {
            format!("it failed: {fault}")
        }
    }
}

/// An answer or a failure, and the rules that it breaks.
pub(crate) type JudgedAnswer = (Result<RevisionAnswer, PluginFault>, Vec<Violation>);

/// Asks a plugin; a second time if it ran past its budget, which a delay of the machine can cause.
///
/// # Errors
/// [`PluginRefusal::Faulted`] if it ran past its budget twice. Further questions would take as long.
pub fn ask(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<Result<RevisionAnswer, PluginFault>, PluginRefusal> {
    let mut result = policy.ask(question, now_us);
    if result == Err(PluginFault::Deadline) {
        result = policy.ask(question, now_us);
    }
    match result {
        Err(fault @ PluginFault::Deadline) => {
            Err(PluginRefusal::Faulted { call: policy.calling(), fault })
        }
        result => Ok(result),
    }
}

/// True if a call ran past its budget.
pub(crate) fn is_overrun(refused: &PluginRefusal) -> bool {
    matches!(refused, PluginRefusal::Faulted { fault: PluginFault::Deadline, .. })
}

/// Asks a plugin, and a fresh instance the same. Returns the answer and the rules that it breaks.
///
/// # Errors
/// As [`ask`].
pub(crate) fn examine(
    policy: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
    fresh: impl FnOnce() -> Result<BoundPlugin, PluginRefusal>,
) -> Result<JudgedAnswer, PluginRefusal> {
    let before = policy.ungranted();
    let answered = match ask(policy, question, now_us)? {
        Ok(answered) => answered,
        Err(fault) => return Ok((Err(fault.clone()), vec![Violation::Fault(fault)])),
    };
    let mut broken = violations(question, &answered.answer);
    let ungranted = policy.ungranted() - before;
    broken.extend((ungranted > 0).then_some(Violation::Ungranted(ungranted)));
    let again = fresh().map(|mut fresh| ask(&mut fresh, question, now_us)).ok().transpose()?;
    let same = matches!(&again, Some(Ok(again))
        if again.answer == answered.answer && again.notes == answered.notes);
    broken.extend((!same).then_some(Violation::HiddenState));
    Ok((Ok(answered), broken))
}

fn violations(question: &PolicyQuestion, answer: &HookAnswer) -> Vec<Violation> {
    match (question, answer) {
        (PolicyQuestion::Resolve { .. }, HookAnswer::Params(_)) => Vec::new(),
        (PolicyQuestion::Admit { standing, regions, .. }, HookAnswer::Admit { verdict, .. }) => {
            admit(standing.is_some(), regions, *verdict).into_iter().collect()
        }
        // A refusal names no node.
        (PolicyQuestion::Place { .. }, HookAnswer::Placed { hops, .. }) if *hops == [NO_NODE] => {
            Vec::new()
        }
        (PolicyQuestion::Place { nodes, .. }, HookAnswer::Placed { hops, .. }) => {
            route(nodes, hops)
        }
        (PolicyQuestion::Reroute { nodes, rooms, .. }, HookAnswer::Moves { moves, .. }) => {
            reroute(nodes, rooms.len(), moves)
        }
        (PolicyQuestion::Tick { sessions, .. }, HookAnswer::Actions { actions, .. }) => {
            actions.iter().filter_map(|action| action_violation(sessions, action)).collect()
        }
        (
            PolicyQuestion::Resolve { .. }
            | PolicyQuestion::Admit { .. }
            | PolicyQuestion::Place { .. }
            | PolicyQuestion::Reroute { .. }
            | PolicyQuestion::Tick { .. },
            _,
        ) => vec![Violation::Mismatched],
    }
}

fn admit(stands: bool, regions: &[Row], verdict: AdmitVerdict) -> Option<Violation> {
    match verdict {
        AdmitVerdict::Redirect(_) if stands => Some(Violation::RedirectOfRoom),
        AdmitVerdict::Redirect(region) => {
            let there = regions.iter().any(|row| row.id == u64::from(region.0));
            (!there).then_some(Violation::UnknownRegion(region))
        }
        AdmitVerdict::Abstain
        | AdmitVerdict::Accept
        | AdmitVerdict::AcceptCapped(_)
        | AdmitVerdict::Reject(_) => None,
    }
}

fn route(nodes: &[Row], hops: &[NodeId]) -> Vec<Violation> {
    let mut violations = Vec::new();
    if hops.len() > HOPS_MAX {
        violations.push(Violation::TooManyHops(hops.len()));
    }
    let mut seen = BTreeSet::new();
    for &hop in hops {
        let Some(node) = nodes.iter().find(|row| row.id == u64::from(hop.0)) else {
            violations.push(Violation::UnknownNode(hop));
            continue;
        };
        if !seen.insert(hop) {
            violations.push(Violation::NodeTwice(hop));
        }
        if node.measures.measured(Metric::Health) == Some(DOWN) {
            violations.push(Violation::NodeDown(hop));
        }
        if node.measures.measured(Metric::Draining) == Some(1) {
            violations.push(Violation::NodeDraining(hop));
        }
    }
    violations
}

fn reroute(nodes: &[Row], rooms: usize, moves: &[RoutingMove]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for step in moves {
        if step.row as usize >= rooms {
            violations.push(Violation::UnknownRow { row: step.row, rows: rooms });
        } else if !seen.insert(step.row) {
            violations.push(Violation::MovedTwice(step.row));
        }
        if step.hops.is_empty() {
            violations.push(Violation::Nowhere(step.row));
        }
        violations.extend(route(nodes, &step.hops));
    }
    violations
}

fn action_violation(sessions: &[SessionRow], action: &DegradationAction) -> Option<Violation> {
    let Some(session) = sessions.get(action.row as usize) else {
        return Some(Violation::UnknownRow { row: action.row, rows: sessions.len() });
    };
    let Some(op) = Op::from_number(action.op) else {
        return Some(Violation::UnknownAction(action.op));
    };
    let measures = &session.row.measures;
    let bounds = measures.measured(Metric::Floor).zip(measures.measured(Metric::Ceiling));
    match (op, bounds) {
        (Op::Cap | Op::CapUp | Op::CapDown, Some((floor, ceiling)))
            if floor <= ceiling && action.arg > 0 =>
        {
            let (row, kbps) = (action.row, action.arg);
            let fine = (u64::from(floor)..=u64::from(ceiling)).contains(&kbps);
            (!fine).then_some(Violation::CapOutOfBounds { row, kbps, floor, ceiling })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
