//! Whether an answer is one that the gateway can follow.

use std::collections::BTreeSet;

use evenkeel_core::{
    Action, AdmitVerdict, Answer, Fault, HOPS_MAX, Metric, Move, NodeId, Op, Question, RegionId,
    Row, SessionRow,
};

/// `Metric::Health` of a node that is Down.
const DOWN: u32 = 3;

/// What is wrong with an answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Breach {
    /// There was none.
    #[error("it failed: {0}")]
    Fault(Fault),
    /// The same question on a fresh instance was answered otherwise: it remembers what it was not given.
    #[error(
        "the same question was answered otherwise by a fresh instance: it keeps something that is not in its state"
    )]
    HiddenState,
    /// It is an answer to another question.
    #[error("it answers another question")]
    Mismatched,
    /// It speaks of a row that was not asked about.
    #[error("it speaks of row {row} of {rows}")]
    UnknownRow {
        /// The row.
        row: u32,
        /// How many there are, counted from 0.
        rows: usize,
    },
    /// One room is moved twice in one answer.
    #[error("it moves row {0} twice")]
    MovedTwice(u32),
    /// A node that is not there.
    #[error("it names node {0}, which is not there")]
    UnknownNode(NodeId),
    /// One node twice in a route.
    #[error("it names node {0} twice in one route")]
    NodeTwice(NodeId),
    /// A route that is longer than any.
    #[error("its route has {0} nodes; there may be {HOPS_MAX}")]
    TooManyHops(usize),
    /// A room moved to no node.
    #[error("it moves row {0} to no node at all; a row that is not mentioned stays")]
    Nowhere(u32),
    /// A region that is not there.
    #[error("it sends a newcomer to {0}, which is not there")]
    UnknownRegion(RegionId),
    /// Somebody who joins a room was sent elsewhere.
    #[error("it sends somebody elsewhere whose room stands somewhere already")]
    RedirectOfRoom,
    /// An action that no gateway of this version knows.
    #[error("it takes action {0}, which is not there")]
    UnknownAction(u32),
    /// Actions that its manifest does not name.
    #[error("it takes {0} actions that its manifest does not name")]
    Ungranted(u64),
    /// A node that is Down.
    #[error("it names node {0}, which is Down")]
    NodeDown(NodeId),
    /// A node that is being drained.
    #[error("it names node {0}, which is being drained")]
    NodeDraining(NodeId),
    /// A cap that the scenario does not allow.
    #[error("it caps row {row} at {kbps} kbit/s, outside {floor} to {ceiling}")]
    CapOutOfBounds {
        /// The row.
        row: u32,
        /// The cap.
        kbps: u64,
        /// The lowest that is allowed.
        floor: u32,
        /// The highest that is allowed.
        ceiling: u32,
    },
}

impl Breach {
    /// The word in reports: `unknown-row`.
    pub fn name(&self) -> &'static str {
        match self {
            Breach::Fault(_) => "fault",
            Breach::HiddenState => "hidden-state",
            Breach::Mismatched => "mismatched",
            Breach::UnknownRow { .. } => "unknown-row",
            Breach::MovedTwice(_) => "moved-twice",
            Breach::UnknownNode(_) => "unknown-node",
            Breach::NodeTwice(_) => "node-twice",
            Breach::TooManyHops(_) => "too-many-hops",
            Breach::Nowhere(_) => "nowhere",
            Breach::UnknownRegion(_) => "unknown-region",
            Breach::RedirectOfRoom => "redirect-of-room",
            Breach::UnknownAction(_) => "unknown-action",
            Breach::Ungranted(_) => "ungranted",
            Breach::NodeDown(_) => "node-down",
            Breach::NodeDraining(_) => "node-draining",
            Breach::CapOutOfBounds { .. } => "cap-out-of-bounds",
        }
    }

    /// Whether the answer makes sense, but the gateway's guard does not let it through: a policy may leave that to it.
    pub fn is_guarded(&self) -> bool {
        matches!(
            self,
            Breach::NodeDown(_) | Breach::NodeDraining(_) | Breach::CapOutOfBounds { .. }
        )
    }
}

/// All that is wrong with an answer.
pub(crate) fn breaches(question: &Question, answer: &Answer) -> Vec<Breach> {
    match (question, answer) {
        (Question::Resolve { .. }, Answer::Params(_)) => Vec::new(),
        (Question::Admit { standing, regions, .. }, Answer::Admit { verdict, .. }) => {
            admit(standing.is_some(), regions, *verdict).into_iter().collect()
        }
        (Question::Place { nodes, .. }, Answer::Placed { hops, .. }) => route(nodes, hops),
        (Question::Reroute { nodes, rooms, .. }, Answer::Moves { moves, .. }) => {
            reroute(nodes, rooms.len(), moves)
        }
        (Question::Tick { sessions, .. }, Answer::Actions { actions, .. }) => {
            actions.iter().filter_map(|action| act(sessions, action)).collect()
        }
        (
            Question::Resolve { .. }
            | Question::Admit { .. }
            | Question::Place { .. }
            | Question::Reroute { .. }
            | Question::Tick { .. },
            _,
        ) => vec![Breach::Mismatched],
    }
}

fn admit(stands: bool, regions: &[Row], verdict: AdmitVerdict) -> Option<Breach> {
    match verdict {
        AdmitVerdict::Redirect(_) if stands => Some(Breach::RedirectOfRoom),
        AdmitVerdict::Redirect(region) => {
            let there = regions.iter().any(|row| row.id == u64::from(region.0));
            (!there).then_some(Breach::UnknownRegion(region))
        }
        AdmitVerdict::Abstain
        | AdmitVerdict::Accept
        | AdmitVerdict::AcceptCapped(_)
        | AdmitVerdict::Reject(_) => None,
    }
}

fn route(nodes: &[Row], hops: &[NodeId]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if hops.len() > HOPS_MAX {
        breaches.push(Breach::TooManyHops(hops.len()));
    }
    let mut seen = BTreeSet::new();
    for &hop in hops {
        let Some(node) = nodes.iter().find(|row| row.id == u64::from(hop.0)) else {
            breaches.push(Breach::UnknownNode(hop));
            continue;
        };
        if !seen.insert(hop) {
            breaches.push(Breach::NodeTwice(hop));
        }
        if node.measures.measured(Metric::Health) == Some(DOWN) {
            breaches.push(Breach::NodeDown(hop));
        }
        if node.measures.measured(Metric::Draining) == Some(1) {
            breaches.push(Breach::NodeDraining(hop));
        }
    }
    breaches
}

fn reroute(nodes: &[Row], rooms: usize, moves: &[Move]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut seen = BTreeSet::new();
    for step in moves {
        if step.row as usize >= rooms {
            breaches.push(Breach::UnknownRow { row: step.row, rows: rooms });
        } else if !seen.insert(step.row) {
            breaches.push(Breach::MovedTwice(step.row));
        }
        if step.hops.is_empty() {
            breaches.push(Breach::Nowhere(step.row));
        }
        breaches.extend(route(nodes, &step.hops));
    }
    breaches
}

fn act(sessions: &[SessionRow], action: &Action) -> Option<Breach> {
    let Some(session) = sessions.get(action.row as usize) else {
        return Some(Breach::UnknownRow { row: action.row, rows: sessions.len() });
    };
    let Some(op) = Op::from_number(action.op) else {
        return Some(Breach::UnknownAction(action.op));
    };
    let measures = &session.row.measures;
    let bounds = measures.measured(Metric::Floor).zip(measures.measured(Metric::Ceiling));
    match (op, bounds) {
        (Op::Cap, Some((floor, ceiling))) if floor <= ceiling && action.arg > 0 => {
            let (row, kbps) = (action.row, action.arg);
            let fine = (u64::from(floor)..=u64::from(ceiling)).contains(&kbps);
            (!fine).then_some(Breach::CapOutOfBounds { row, kbps, floor, ceiling })
        }
        (Op::Cap | Op::VoiceOnly, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Measures, RoomId};

    use super::*;

    fn row(id: u64, measured: &[(Metric, u64)]) -> Row {
        let mut measures = Measures::default();
        for &(metric, value) in measured {
            measures.set(metric, value);
        }
        Row { id, measures }
    }

    fn hops(numbers: &[u32]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn placed(numbers: &[u32]) -> Vec<Breach> {
        let nodes = [row(0, &[]), row(1, &[(Metric::Health, 3)]), row(2, &[(Metric::Draining, 1)])];
        route(&nodes, &hops(numbers))
    }

    #[test]
    fn a_route_names_nodes_that_are_there_once_each() {
        assert_eq!(placed(&[]), []);
        assert_eq!(placed(&[0]), []);
        assert_eq!(placed(&[3]), [Breach::UnknownNode(NodeId(3))]);
        assert_eq!(placed(&[0, 0]), [Breach::NodeTwice(NodeId(0))]);
        assert_eq!(placed(&[1]), [Breach::NodeDown(NodeId(1))]);
        assert_eq!(placed(&[2]), [Breach::NodeDraining(NodeId(2))]);
        assert!(placed(&[1])[0].is_guarded() && !placed(&[3])[0].is_guarded());
        let many: Vec<Row> = (0..6).map(|id| row(id, &[])).collect();
        assert_eq!(route(&many, &hops(&[0, 1, 2, 3])), []);
        assert_eq!(route(&many, &hops(&[0, 1, 2, 3, 4])), [Breach::TooManyHops(5)]);
    }

    #[test]
    fn a_room_is_moved_once_and_to_somewhere() {
        let step = |row, numbers: &[u32]| Move { row, hops: hops(numbers), ttl_ms: 0, reason: 0 };
        let nodes = [row(0, &[])];
        let judged = |moves: &[Move]| reroute(&nodes, 2, moves);
        assert_eq!(judged(&[step(0, &[0]), step(1, &[0])]), []);
        assert_eq!(judged(&[step(2, &[0])]), [Breach::UnknownRow { row: 2, rows: 2 }]);
        assert_eq!(judged(&[step(1, &[0]), step(1, &[0])]), [Breach::MovedTwice(1)]);
        assert_eq!(judged(&[step(1, &[])]), [Breach::Nowhere(1)]);
    }

    #[test]
    fn a_newcomer_is_sent_only_to_a_region_that_is_there_and_only_before_its_room_stands() {
        let regions = [row(7, &[])];
        let judged =
            |stands, region| admit(stands, &regions, AdmitVerdict::Redirect(RegionId(region)));
        assert_eq!(judged(false, 7), None);
        assert_eq!(judged(false, 8), Some(Breach::UnknownRegion(RegionId(8))));
        assert_eq!(judged(true, 7), Some(Breach::RedirectOfRoom));
        assert_eq!(admit(true, &regions, AdmitVerdict::AcceptCapped(0)), None);
    }

    #[test]
    fn an_action_is_one_that_is_there_and_a_cap_within_the_scenario() {
        let bounds = [(Metric::Floor, 100), (Metric::Ceiling, 200)];
        let session = |measured: &[(Metric, u64)]| SessionRow {
            row: row(1, measured),
            room: RoomId(1),
            scenario: "call".into(),
            labels: std::sync::Arc::new([]),
            state: None,
        };
        let sessions = [session(&bounds), session(&[])];
        let judged = |row, op, arg| act(&sessions, &Action { row, op, arg, reason: 0 });
        for kbps in [0, 100, 200] {
            assert_eq!(judged(0, 1, kbps), None, "{kbps}");
        }
        for kbps in [99, 201, u64::MAX] {
            let breach = judged(0, 1, kbps).unwrap();
            assert_eq!(breach, Breach::CapOutOfBounds { row: 0, kbps, floor: 100, ceiling: 200 });
        }
        assert_eq!(judged(1, 1, 9_999), None, "its bounds are not known");
        assert_eq!(judged(0, 2, 1), None);
        assert_eq!(judged(0, 3, 1), Some(Breach::UnknownAction(3)));
        assert_eq!(judged(2, 1, 0), Some(Breach::UnknownRow { row: 2, rows: 2 }));
    }

    #[test]
    fn an_answer_is_to_its_question() {
        let question =
            Question::Resolve { scenario: "call".into(), labels: std::sync::Arc::new([]) };
        assert_eq!(breaches(&question, &Answer::Params(vec![])), []);
        let other = Answer::Admit { verdict: AdmitVerdict::Accept, reason: 0 };
        assert_eq!(breaches(&question, &other), [Breach::Mismatched]);
    }
}
