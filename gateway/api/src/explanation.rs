//! `GET /v1/sessions/ID/explain`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::NodeNames;
use evenkeel_core::{
    Explanation, Heading, MoveRecord, NodeCandidate, NodeStanding, Said, SubjectQuarantine,
};
use evenkeel_model::{DecisionOutcome, HopGrant};
use serde::Serialize;

use super::view;

/// A session with its hop, the decisions and their reasons, other candidates, moves, policy answers and witnesses.
#[derive(Serialize)]
pub(super) struct Explained {
    id: String,
    room: Arc<str>,
    scenario: Arc<str>,
    mode: &'static str,
    /// See the room's `effective_mode`.
    effective_mode: &'static str,
    /// Rooms with a higher priority are placed earlier.
    priority: i64,
    /// The hop that carries the session's packets; null without one.
    hop: Option<view::HopView>,
    health: Option<&'static str>,
    /// Evidence against the node of that hop.
    witnesses: Vec<EvidenceView>,
    /// The decider by hook, for a policy with its revision: `call/routing@5f0c5f0c5f0c`.
    decided_by: BTreeMap<&'static str, String>,
    /// Best first.
    route: Vec<ExplainedHop>,
    /// The room's move in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_move: Option<PendingMove>,
    rung: u8,
    cap_kbps: Option<u32>,
    /// The room's share of the bitrate that it needs above its floor. Below 1000 the node is overcommitted.
    share_permille: u16,
    /// All other nodes, each with the reason why the room is not there.
    candidates: Vec<OtherNode>,
    /// The latest first.
    moves: Vec<MoveView>,
    /// The last policy answers about the session and its room, in the order of the hooks.
    policy_answers: Vec<PolicyAnswer>,
    /// Revisions that fault on the session or its room; the gateway does not ask them about it.
    quarantined: Vec<QuarantineView>,
}

#[derive(Serialize)]
struct PolicyAnswer {
    hook: &'static str,
    /// `call/degradation@5f0c5f0c5f0c`
    by: String,
    /// The plugin's reason, if it gave one.
    reason: Option<Arc<str>>,
    outcome: &'static str,
    guard: Option<&'static str>,
    ago_ms: u64,
    notes: Vec<NoteView>,
}

#[derive(Serialize)]
struct NoteView {
    key: Box<str>,
    value: i64,
}

#[derive(Serialize)]
struct QuarantineView {
    /// `call/degradation@5f0c5f0c5f0c`
    by: String,
    /// `trap: …`
    fault: String,
    for_ms: u64,
}

#[derive(Serialize)]
struct EvidenceView {
    witness: &'static str,
    for_ms: u64,
}

#[derive(Serialize)]
struct ExplainedHop {
    #[serde(flatten)]
    hop: view::HopView,
    /// `admitted`: the hop carries the room; `reserved`: the hop has capacity for the room; `gated`: the hop lacks
    /// capacity.
    grant: &'static str,
}

#[derive(Serialize)]
struct PendingMove {
    to: Arc<str>,
    cause: &'static str,
    by: String,
    for_ms: u64,
    pending_opens: usize,
}

#[derive(Serialize)]
struct OtherNode {
    node: Arc<str>,
    region: Arc<str>,
    zone: Arc<str>,
    reason: &'static str,
    load_permille: u32,
}

#[derive(Serialize)]
struct MoveView {
    cause: &'static str,
    by: String,
    from: Arc<str>,
    /// Null if no hop was left.
    to: Option<Arc<str>>,
    ago_ms: u64,
    took_ms: u64,
    outcome: &'static str,
}

impl Explained {
    pub(super) fn of(
        explanation: &Explanation,
        nodes: &[NodeStanding],
        names: &NodeNames,
    ) -> Explained {
        let standing = &explanation.standing;
        let on = standing.hop.and_then(|hop| nodes.iter().find(|node| node.hop.node == hop.node));
        Explained {
            id: standing.session.to_string(),
            room: Arc::clone(&standing.room),
            scenario: Arc::clone(&standing.scenario),
            mode: standing.mode.name(),
            effective_mode: standing.kept.name(),
            priority: explanation.priority,
            hop: standing.hop.map(|hop| view::HopView::of(hop, names)),
            health: on.map(|node| node.health.name()),
            witnesses: explanation
                .witnesses
                .iter()
                .map(|(witness, since)| EvidenceView {
                    witness: witness.name(),
                    for_ms: ms(*since),
                })
                .collect(),
            decided_by: BTreeMap::from([
                ("admission", explanation.admitted_by.to_string()),
                ("routing", explanation.placed_by.to_string()),
            ]),
            route: explanation
                .route
                .iter()
                .map(|(hop, grant)| ExplainedHop {
                    hop: view::HopView::of(*hop, names),
                    grant: granted(*grant),
                })
                .collect(),
            pending_move: explanation
                .heading
                .as_ref()
                .map(|heading| PendingMove::of(heading, names)),
            rung: standing.plan.rung(),
            cap_kbps: Some(standing.plan.cap_kbps).filter(|&cap| cap > 0),
            share_permille: explanation.share_permille,
            candidates: explanation
                .candidates
                .iter()
                .map(|other| OtherNode::of(other, names))
                .collect(),
            moves: explanation.moves.iter().rev().map(|step| MoveView::of(step, names)).collect(),
            policy_answers: explanation.said.iter().map(PolicyAnswer::of).collect(),
            quarantined: explanation.quarantines.iter().map(QuarantineView::of).collect(),
        }
    }
}

impl PolicyAnswer {
    fn of(said: &Said) -> PolicyAnswer {
        let note = |(key, value): &(Box<str>, i64)| NoteView { key: key.clone(), value: *value };
        PolicyAnswer {
            hook: said.hook.name(),
            by: said.by.to_string(),
            reason: said.reason.clone(),
            outcome: said.outcome.name(),
            guard: match &said.outcome {
                DecisionOutcome::Guarded(guard) => Some(guard.name()),
                DecisionOutcome::Applied { .. }
                | DecisionOutcome::Abstained
                | DecisionOutcome::Kept
                | DecisionOutcome::Stale
                | DecisionOutcome::Faulted(_) => None,
            },
            ago_ms: ms(said.since),
            notes: said.notes.iter().map(note).collect(),
        }
    }
}

impl QuarantineView {
    fn of(quarantine: &SubjectQuarantine) -> QuarantineView {
        QuarantineView {
            by: format!("{}@{}", quarantine.policy, quarantine.revision),
            fault: quarantine.fault.to_string(),
            for_ms: ms(quarantine.since),
        }
    }
}

impl PendingMove {
    fn of(heading: &Heading, names: &NodeNames) -> PendingMove {
        PendingMove {
            to: names.of_hop(heading.to).node,
            cause: heading.cause.name(),
            by: heading.by.to_string(),
            for_ms: ms(heading.since),
            pending_opens: heading.waiting,
        }
    }
}

impl OtherNode {
    fn of(other: &NodeCandidate, names: &NodeNames) -> OtherNode {
        let view::HopView { node, region, zone, .. } = view::HopView::of(other.hop, names);
        OtherNode {
            node,
            region,
            zone,
            reason: other.why.name(),
            load_permille: other.load_permille,
        }
    }
}

impl MoveView {
    fn of(step: &MoveRecord, names: &NodeNames) -> MoveView {
        MoveView {
            cause: step.cause.name(),
            by: step.by.to_string(),
            from: names.of_hop(step.from).node,
            to: step.to.map(|to| names.of_hop(to).node),
            ago_ms: ms(Instant::now().saturating_duration_since(step.started)),
            took_ms: ms(step.ended.saturating_duration_since(step.started)),
            outcome: step.outcome.name(),
        }
    }
}

fn granted(grant: HopGrant) -> &'static str {
    match grant {
        HopGrant::Admitted => "admitted",
        HopGrant::Reserved => "reserved",
        HopGrant::Gated => "gated",
    }
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}
