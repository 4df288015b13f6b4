//! Sessions and rooms: lists, explanations, and records of ended sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use evenkeel_config::read_duration;
use evenkeel_control::history::EndedSession;
use evenkeel_control::{ControlError, NodeNames};
use evenkeel_core::{
    Explanation, Heading, Impossible, MoveRecord, NodeCandidate, NodeStanding, Said,
    SubjectQuarantine,
};
use evenkeel_model::{DecisionOutcome, HopGrant, RoomId, SessionId};
use evenkeel_process::unix_us;
use serde::{Deserialize, Serialize};

use super::context::ApiState;
use super::error::{ApiError, ApiErrorCode, refused};
use super::request::{Page, PageQuery, room_id, session_id};
use super::view;

#[derive(Serialize)]
pub(super) struct SessionsView {
    sessions: Vec<view::LiveSessionView>,
    /// The value of `after` for the next page; omitted at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn sessions(
    State(shared): ApiState,
    asked: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<SessionsView>, ApiError> {
    let page = Page::read(asked, SessionId(0), session_id)?;
    let listing = shared.handle.sessions_after(page.after, page.wanted());
    let mut all = shared.ask("", listing).await?;
    let next = page.cut(&mut all, |session| session.standing.session.to_string());
    let sessions =
        all.iter().map(|session| view::LiveSessionView::of(session, &shared.names)).collect();
    Ok(Json(SessionsView { sessions, next }))
}

pub(super) async fn session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<view::LiveSessionView>, ApiError> {
    let session = session_id(&id)?;
    let found = shared.ask(&id, shared.handle.session(session)).await?;
    let none = ControlError::Impossible(Impossible::NoSuchSession);
    let found = found.ok_or_else(|| refused(none, &id, &shared.names))?;
    Ok(Json(view::LiveSessionView::of(&found, &shared.names)))
}

pub(super) async fn explain(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<Explained>, ApiError> {
    let session = session_id(&id)?;
    let found = shared.ask(&id, shared.handle.explain(session)).await?;
    let none = ControlError::Impossible(Impossible::NoSuchSession);
    let found = found.ok_or_else(|| refused(none, &id, &shared.names))?;
    let nodes = shared.ask(&id, shared.handle.nodes()).await?;
    Ok(Json(Explained::of(&found, &nodes, &shared.names)))
}

pub(super) async fn close(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    shared.ask(&id, shared.handle.close(session_id(&id)?)).await?;
    shared.confirm().await;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(super) struct RoomsView {
    rooms: Vec<view::RoomView>,
    /// The value of `after` for the next page; omitted at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn rooms(
    State(shared): ApiState,
    asked: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<RoomsView>, ApiError> {
    let page = Page::read(asked, RoomId(0), room_id)?;
    let listing = shared.handle.rooms_after(page.after, page.wanted());
    let mut all = shared.ask("", listing).await?;
    let next = page.cut(&mut all, |room| room.room.to_string());
    let rooms = all.iter().map(|room| view::RoomView::of(room, &shared.names)).collect();
    Ok(Json(RoomsView { rooms, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    after: Option<String>,
    limit: Option<usize>,
    room: Option<String>,
    /// Only sessions that ended within this time: `1h`.
    since: Option<String>,
}

#[derive(Serialize)]
pub(super) struct EndedSessionsView {
    /// Newest first.
    sessions: Vec<Arc<EndedSession>>,
    /// The value of `after` for the next page; omitted at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    dropped: u64,
}

pub(super) async fn history(
    State(shared): ApiState,
    asked: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<EndedSessionsView>, ApiError> {
    let Query(HistoryQuery { after, limit, room, since }) =
        asked.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let page = Page::read(Ok(Query(PageQuery { after, limit })), u64::MAX, number)?;
    let since = since.as_deref().map(read_duration).transpose();
    let since = since.map_err(|right| ApiError::field("since", right))?;
    let since_us = since
        .map_or(0, |since| unix_us(SystemTime::now()).saturating_sub(since.as_micros() as u64));
    let history = shared.ask("", shared.handle.history()).await?;
    let mut all = history.list(page.after, page.wanted(), |record| {
        record.ended_us >= since_us && room.as_deref().is_none_or(|room| room == &*record.room)
    });
    let next = page.cut(&mut all, |(number, _)| number.to_string());
    let sessions = all.into_iter().map(|(_, record)| record).collect();
    Ok(Json(EndedSessionsView { sessions, next, dropped: history.dropped() }))
}

fn number(text: &str) -> Result<u64, ApiError> {
    let wrong =
        |_| ApiError::field("after", format!("found `{text}`, expected a `next` of before"));
    text.parse().map_err(wrong)
}

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
