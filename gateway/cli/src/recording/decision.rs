//! Decisions by subject, taken from answers.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::{
    AdmitVerdict, Answer, Answered, Entry, EntryKind, Fault, NodeId, Op, Question, RoomId,
    SessionId,
};
use evenkeel_host::Component;
use evenkeel_recording::Catalog;
use serde_json::{Value, json};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    Session(SessionId),
    Room(RoomId),
    Scenario(Box<str>),
    /// A row of the answer for which the call has no subject.
    Row(u32),
    /// The whole call, if it faulted.
    Whole,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Session(session) => session.fmt(f),
            Subject::Room(room) => room.fmt(f),
            Subject::Scenario(scenario) => f.write_str(scenario),
            Subject::Row(row) => write!(f, "row {row}"),
            Subject::Whole => f.write_str("the whole call"),
        }
    }
}

/// Subjects without a decision keep their state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    Params(Vec<(Box<str>, i64)>),
    Verdict { verdict: AdmitVerdict, reason: u32 },
    Place { hops: Vec<NodeId>, ttl_ms: u32, reason: u32 },
    Move { hops: Vec<NodeId>, ttl_ms: u32, reason: u32 },
    Actions(Vec<(u32, u64, u32)>),
    Fault(Fault),
}

impl Decision {
    pub(super) fn without_reason(mut self) -> Decision {
        match &mut self {
            Decision::Verdict { reason, .. }
            | Decision::Place { reason, .. }
            | Decision::Move { reason, .. } => *reason = 0,
            Decision::Actions(actions) => {
                actions.iter_mut().for_each(|(_, _, reason)| *reason = 0);
            }
            Decision::Params(_) | Decision::Fault(_) => {}
        }
        self
    }

    /// The key under which differences are counted.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Decision::Params(_) => "params",
            Decision::Verdict { .. } => "verdict",
            Decision::Place { .. } => "place",
            Decision::Move { .. } => "move",
            Decision::Actions(_) => "actions",
            Decision::Fault(_) => "fault",
        }
    }
}

/// Decisions by subject, each with the row number of its notes.
pub(super) type Decisions = BTreeMap<Subject, (u32, Decision)>;

/// Subjects of either answer, in order.
pub(super) fn subjects<'a>(one: &'a Decisions, other: &'a Decisions) -> BTreeSet<&'a Subject> {
    one.keys().chain(other.keys()).collect()
}

pub(super) fn decisions(question: &Question, result: &Result<Answered, Fault>) -> Decisions {
    let answered = match result {
        Ok(answered) => answered,
        Err(fault) => return [(Subject::Whole, (0, Decision::Fault(fault.clone())))].into(),
    };
    let mut all = Decisions::new();
    match &answered.answer {
        Answer::Params(params) => {
            all.insert(subject(question, 0), (0, Decision::Params(params.clone())));
        }
        Answer::Admit { verdict, reason } => {
            let decision = Decision::Verdict { verdict: *verdict, reason: *reason };
            all.insert(subject(question, 0), (0, decision));
        }
        Answer::Placed { hops, ttl_ms, reason, state: _ } => {
            let (hops, ttl_ms, reason) = (hops.clone(), *ttl_ms, *reason);
            all.insert(subject(question, 0), (0, Decision::Place { hops, ttl_ms, reason }));
        }
        Answer::Moves { moves, .. } => {
            for one in moves {
                let (hops, ttl_ms, reason) = (one.hops.clone(), one.ttl_ms, one.reason);
                let decision = Decision::Move { hops, ttl_ms, reason };
                // Only the first decision about a room applies.
                all.entry(subject(question, one.row)).or_insert((one.row, decision));
            }
        }
        Answer::Actions { actions, .. } => {
            for one in actions {
                let step = (one.op, one.arg, one.reason);
                let none = || (one.row, Decision::Actions(Vec::new()));
                let (_, decision) = all.entry(subject(question, one.row)).or_insert_with(none);
                if let Decision::Actions(steps) = decision {
                    steps.push(step);
                }
            }
        }
    }
    all
}

fn subject(question: &Question, row: u32) -> Subject {
    let at = row as usize;
    match question {
        Question::Resolve { scenario, .. } => Subject::Scenario((**scenario).into()),
        Question::Admit { session, .. } => Subject::Session(*session),
        Question::Place { room, .. } => Subject::Room(*room),
        Question::Reroute { rooms, .. } => {
            rooms.get(at).map_or(Subject::Row(row), |room| Subject::Room(RoomId(room.row.id)))
        }
        Question::Tick { sessions, .. } => sessions
            .get(at)
            .map_or(Subject::Row(row), |session| Subject::Session(SessionId(session.row.id))),
    }
}

/// The parts in which two results differ, compared bit for bit.
pub(super) fn parts_that_differ(
    one: &Result<Answered, Fault>,
    other: &Result<Answered, Fault>,
) -> Vec<&'static str> {
    let (one, other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(one), Err(other)) if one.name() == other.name() => return Vec::new(),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => return vec!["fault"],
    };
    let (decision, states, memo) = match (&one.answer, &other.answer) {
        (
            Answer::Placed { hops, ttl_ms, reason, state },
            Answer::Placed { hops: hops2, ttl_ms: ttl_ms2, reason: reason2, state: state2 },
        ) => ((hops, ttl_ms, reason) == (hops2, ttl_ms2, reason2), state == state2, true),
        (
            Answer::Moves { moves, states, memo },
            Answer::Moves { moves: moves2, states: states2, memo: memo2 },
        ) => (moves == moves2, states == states2, memo == memo2),
        (
            Answer::Actions { actions, states, memo },
            Answer::Actions { actions: actions2, states: states2, memo: memo2 },
        ) => (actions == actions2, states == states2, memo == memo2),
        (one, other) => (one == other, true, true),
    };
    let parts = [
        ("decision", decision),
        ("states", states),
        ("memo", memo),
        ("notes", one.notes == other.notes),
    ];
    parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect()
}

/// One side of a comparison: plugin, call and answer.
pub(super) struct Side<'a> {
    pub(super) component: &'a Component,
    pub(super) catalog: &'a Catalog,
    pub(super) result: &'a Result<Answered, Fault>,
}

impl Side<'_> {
    /// A decision as JSON, with names for numbers and the notes of its row; null for none.
    pub(super) fn shown(&self, decision: Option<&(u32, Decision)>) -> Value {
        let Some((row, decision)) = decision else { return Value::Null };
        let mut shown = match decision {
            Decision::Params(params) => {
                let params = params.iter().map(|(key, value)| (key.to_string(), json!(value)));
                json!({"params": params.collect::<serde_json::Map<_, _>>()})
            }
            Decision::Verdict { verdict, reason } => {
                json!({"verdict": self.verdict(*verdict), "reason": self.reason(*reason)})
            }
            Decision::Place { hops, ttl_ms, reason } | Decision::Move { hops, ttl_ms, reason } => {
                let hops: Vec<Value> = hops.iter().map(|node| self.node(*node)).collect();
                json!({"hops": hops, "ttl_ms": ttl_ms, "reason": self.reason(*reason)})
            }
            Decision::Actions(actions) => {
                let actions = actions.iter().map(|(op, arg, reason)| {
                    let key = Op::from_number(*op).map_or(json!(op), |op| json!(op.key()));
                    json!({"action": key, "argument": arg, "reason": self.reason(*reason)})
                });
                json!({"actions": actions.collect::<Vec<_>>()})
            }
            Decision::Fault(fault) => json!({"fault": fault.to_string()}),
        };
        let notes = self.result.iter().flat_map(|answered| &answered.notes);
        let notes: Vec<Value> = notes
            .filter(|note| note.row == *row)
            .map(|note| json!({"key": note.key, "value": note.value}))
            .collect();
        if !notes.is_empty() {
            shown["notes"] = notes.into();
        }
        shown
    }

    fn verdict(&self, verdict: AdmitVerdict) -> Value {
        match verdict {
            AdmitVerdict::Abstain => json!("abstain"),
            AdmitVerdict::Accept => json!("accept"),
            AdmitVerdict::AcceptCapped(kbps) => json!({"accept_capped_kbps": kbps}),
            AdmitVerdict::Redirect(region) => json!({"redirect": region.to_string()}),
            AdmitVerdict::Reject(retry_ms) => json!({"reject_retry_ms": retry_ms}),
        }
    }

    /// The name of a reason, or its number.
    fn reason(&self, number: u32) -> Value {
        self.component.manifest().reason(number).map_or(json!(number), |name| json!(name))
    }

    /// The node's name, or its number.
    fn node(&self, node: NodeId) -> Value {
        let is_it = |entry: &&Entry| entry.kind == EntryKind::Node && entry.id == u64::from(node.0);
        let named = self.catalog.entries.iter().find(is_it);
        named.map_or(json!(node.to_string()), |entry| json!(entry.name))
    }
}
