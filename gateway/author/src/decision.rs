//! Decisions by subject, taken from answers.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_host::Component;
use evenkeel_model::{
    AdmitVerdict, CatalogEntry, EntryKind, HookAnswer, NO_NODE, NodeId, Op, PluginFault,
    PolicyQuestion, RevisionAnswer, RoomId, SessionId,
};
use serde_json::{Value, json};

/// The subject of a decision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ComparedSubject {
    /// A session: `s7`.
    Session(SessionId),
    /// A room: `r4`.
    Room(RoomId),
    /// A scenario, by name.
    Scenario(Box<str>),
    /// A row of the answer for which the call has no subject.
    Row(u32),
    /// The whole call, if it faulted.
    Whole,
}

impl std::fmt::Display for ComparedSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ComparedSubject::Session(session) => session.fmt(f),
            ComparedSubject::Room(room) => room.fmt(f),
            ComparedSubject::Scenario(scenario) => f.write_str(scenario),
            ComparedSubject::Row(row) => write!(f, "row {row}"),
            ComparedSubject::Whole => f.write_str("the whole call"),
        }
    }
}

/// A decision about a subject. Subjects without a decision keep their state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ComparedDecision {
    /// Parameters of a scenario.
    Params(Vec<(Box<str>, i64)>),
    /// An admission.
    Verdict {
        /// The decision.
        verdict: AdmitVerdict,
        /// The number of the reason; 0: none.
        reason: u32,
    },
    /// A placement, or a move.
    Route {
        /// `place` or `move`.
        kind: &'static str,
        /// Best first.
        hops: Vec<NodeId>,
        /// Milliseconds until the policy is asked about the room again; 0: never.
        ttl_ms: u32,
        /// The number of the reason; 0: none.
        reason: u32,
    },
    /// Actions on a session: number, argument and reason of each.
    Actions(Vec<(u32, u64, u32)>),
    /// The plugin failed.
    Fault(PluginFault),
}

impl ComparedDecision {
    /// The decision as a plugin with other reasons would take it.
    #[must_use]
    pub fn without_reason(mut self) -> ComparedDecision {
        match &mut self {
            ComparedDecision::Verdict { reason, .. } | ComparedDecision::Route { reason, .. } => {
                *reason = 0;
            }
            ComparedDecision::Actions(actions) => {
                actions.iter_mut().for_each(|(_, _, reason)| *reason = 0);
            }
            ComparedDecision::Params(_) | ComparedDecision::Fault(_) => {}
        }
        self
    }

    /// The key under which differences are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            ComparedDecision::Params(_) => "params",
            ComparedDecision::Verdict { .. } => "verdict",
            ComparedDecision::Route { kind, .. } => kind,
            ComparedDecision::Actions(_) => "actions",
            ComparedDecision::Fault(_) => "fault",
        }
    }
}

/// Decisions by subject, each with the row number of its notes.
pub type Decisions = BTreeMap<ComparedSubject, (u32, ComparedDecision)>;

/// Subjects of either answer, in order.
pub fn subjects<'a>(one: &'a Decisions, other: &'a Decisions) -> BTreeSet<&'a ComparedSubject> {
    one.keys().chain(other.keys()).collect()
}

/// The decisions of an answer, or its failure.
pub fn decisions(
    question: &PolicyQuestion,
    result: &Result<RevisionAnswer, PluginFault>,
) -> Decisions {
    let answered = match result {
        Ok(answered) => answered,
        Err(fault) => {
            return [(ComparedSubject::Whole, (0, ComparedDecision::Fault(fault.clone())))].into();
        }
    };
    let mut all = Decisions::new();
    match &answered.answer {
        HookAnswer::Params(params) => {
            all.insert(subject(question, 0), (0, ComparedDecision::Params(params.clone())));
        }
        HookAnswer::Admit { verdict, reason } => {
            let decision = ComparedDecision::Verdict { verdict: *verdict, reason: *reason };
            all.insert(subject(question, 0), (0, decision));
        }
        HookAnswer::Placed { hops, ttl_ms, reason, state: _ } => {
            let (kind, hops, ttl_ms, reason) = ("place", hops.clone(), *ttl_ms, *reason);
            let decision = ComparedDecision::Route { kind, hops, ttl_ms, reason };
            all.insert(subject(question, 0), (0, decision));
        }
        HookAnswer::Moves { moves, .. } => {
            for one in moves {
                let (kind, hops, ttl_ms, reason) =
                    ("move", one.hops.clone(), one.ttl_ms, one.reason);
                let decision = ComparedDecision::Route { kind, hops, ttl_ms, reason };
                // Only the first decision about a room applies.
                all.entry(subject(question, one.row)).or_insert((one.row, decision));
            }
        }
        HookAnswer::Actions { actions, .. } => {
            for one in actions {
                let step = (one.op, one.arg, one.reason);
                let none = || (one.row, ComparedDecision::Actions(Vec::new()));
                let (_, decision) = all.entry(subject(question, one.row)).or_insert_with(none);
                if let ComparedDecision::Actions(steps) = decision {
                    steps.push(step);
                }
            }
        }
    }
    all
}

fn subject(question: &PolicyQuestion, row: u32) -> ComparedSubject {
    let at = row as usize;
    match question {
        PolicyQuestion::Resolve { scenario, .. } => ComparedSubject::Scenario((**scenario).into()),
        PolicyQuestion::Admit { session, .. } => ComparedSubject::Session(*session),
        PolicyQuestion::Place { room, .. } => ComparedSubject::Room(*room),
        PolicyQuestion::Reroute { rooms, .. } => rooms
            .get(at)
            .map_or(ComparedSubject::Row(row), |room| ComparedSubject::Room(RoomId(room.row.id))),
        PolicyQuestion::Tick { sessions, .. } => {
            sessions.get(at).map_or(ComparedSubject::Row(row), |session| {
                ComparedSubject::Session(SessionId(session.row.id))
            })
        }
    }
}

/// The parts in which two results differ, compared bit for bit.
pub fn parts_that_differ(
    one: &Result<RevisionAnswer, PluginFault>,
    other: &Result<RevisionAnswer, PluginFault>,
) -> Vec<&'static str> {
    let (one, other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(one), Err(other)) if one.name() == other.name() => return Vec::new(),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => return vec!["fault"],
    };
    let (decision, states, memo) = match (&one.answer, &other.answer) {
        (
            HookAnswer::Placed { hops, ttl_ms, reason, state },
            HookAnswer::Placed { hops: hops2, ttl_ms: ttl_ms2, reason: reason2, state: state2 },
        ) => ((hops, ttl_ms, reason) == (hops2, ttl_ms2, reason2), state == state2, true),
        (
            HookAnswer::Moves { moves, states, memo },
            HookAnswer::Moves { moves: moves2, states: states2, memo: memo2 },
        ) => (moves == moves2, states == states2, memo == memo2),
        (
            HookAnswer::Actions { actions, states, memo },
            HookAnswer::Actions { actions: actions2, states: states2, memo: memo2 },
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
pub struct ComparisonSide<'a> {
    /// The plugin, which names its reasons; without it they are numbers.
    pub component: Option<&'a Component>,
    /// Names of nodes.
    pub catalog: &'a [CatalogEntry],
    pub result: &'a Result<RevisionAnswer, PluginFault>,
}

impl ComparisonSide<'_> {
    /// A decision as JSON, with names for numbers and the notes of its row; null for none.
    pub fn shown(&self, decision: Option<&(u32, ComparedDecision)>) -> Value {
        let Some((row, decision)) = decision else { return Value::Null };
        let mut shown = match decision {
            ComparedDecision::Params(params) => {
                let params = params.iter().map(|(key, value)| (key.to_string(), json!(value)));
                json!({"params": params.collect::<serde_json::Map<_, _>>()})
            }
            ComparedDecision::Verdict { verdict, reason } => {
                json!({"verdict": self.verdict(*verdict), "reason": self.reason(*reason)})
            }
            ComparedDecision::Route { kind: _, hops, ttl_ms, reason } if *hops == [NO_NODE] => {
                json!({"refused": "no-node", "retry_ms": ttl_ms, "reason": self.reason(*reason)})
            }
            ComparedDecision::Route { kind: _, hops, ttl_ms, reason } => {
                let hops: Vec<Value> = hops.iter().map(|node| self.node(*node)).collect();
                json!({"hops": hops, "ttl_ms": ttl_ms, "reason": self.reason(*reason)})
            }
            ComparedDecision::Actions(actions) => {
                let actions = actions.iter().map(|(op, arg, reason)| {
                    let key = Op::from_number(*op).map_or(json!(op), |op| json!(op.key()));
                    json!({"action": key, "argument": arg, "reason": self.reason(*reason)})
                });
                json!({"actions": actions.collect::<Vec<_>>()})
            }
            ComparedDecision::Fault(fault) => json!({"fault": fault.to_string()}),
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

    fn reason(&self, number: u32) -> Value {
        let named = self.component.and_then(|component| component.manifest().reason(number));
        named.map_or(json!(number), |name| json!(name))
    }

    fn node(&self, node: NodeId) -> Value {
        let is_it =
            |entry: &&CatalogEntry| entry.kind == EntryKind::Node && entry.id == u64::from(node.0);
        let named = self.catalog.iter().find(is_it);
        named.map_or(json!(node.to_string()), |entry| json!(entry.name))
    }
}
