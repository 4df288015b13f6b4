//! Sessions and rooms: lists, explanations, and records of ended sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use evenkeel_config::read_duration;
use evenkeel_control::history::{Carried, EndedSession};
use evenkeel_control::{NodeNames, SessionView};
use evenkeel_core::{
    CandidateReason, Explanation, MoveRecord, NodeCandidate, NodeStanding, RoomStanding,
    SessionStanding, SubjectDecision, SubjectQuarantine,
};
use evenkeel_model::{
    Decider, DecisionOutcome, EvidenceSource, Hook, Hop, HopGrant, Measures, Metric, Plan, RoomId,
    SessionId,
};
use evenkeel_process::unix_us;
use serde::{Deserialize, Serialize};

use super::context::ApiState;
use super::error::{ApiError, ApiErrorCode};
use super::events;
use super::impairments::impaired;
use super::object::object;
use super::request::{Page, PageQuery, room_id, session_id};

pub(super) async fn sessions(
    State(shared): ApiState,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<impl Serialize>, ApiError> {
    let page = Page::read(query, SessionId(0), session_id)?;
    let listing = shared.handle.sessions_after(page.after, page.wanted());
    let mut all = shared.ask("", listing).await?;
    let next = page.cut(&mut all, |session| session.state.session.to_string());
    let sessions: Vec<_> = all.iter().map(|one| session_view(one, &shared.names)).collect();
    Ok(Json(object! { sessions: sessions, next?: next }))
}

pub(super) async fn session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<impl Serialize>, ApiError> {
    let session = session_id(&id)?;
    let found = shared.ask(&id, shared.handle.session(session)).await?;
    let found = found.ok_or_else(|| shared.no_session(session))?;
    Ok(Json(session_view(&found, &shared.names)))
}

/// Explains a live session, or shows the record of one that ended.
pub(super) async fn explain(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let session = session_id(&id)?;
    let Some(found) = shared.ask(&id, shared.handle.explain(session)).await? else {
        let history = shared.ask(&id, shared.handle.history()).await?;
        let ended = history.list(u64::MAX, 1, |record| *record.id == *id);
        let (_, ended) = ended.into_iter().next().ok_or_else(|| shared.no_session(session))?;
        return Ok(Json(object! { id: id, ended: ended }).into_response());
    };
    let nodes = shared.ask(&id, shared.handle.nodes()).await?;
    // `None`: it ended meanwhile.
    let view = shared.ask(&id, shared.handle.session(session)).await?;
    let trace_id = view.map(|view| HEXLOWER.encode(&view.trace.trace_id));
    Ok(Json(explained(&found, &nodes, trace_id, &shared.names)).into_response())
}

pub(super) async fn close(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    shared.ask(&id, shared.handle.close(session_id(&id)?)).await?;
    shared.confirm().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rooms(
    State(shared): ApiState,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<impl Serialize>, ApiError> {
    let page = Page::read(query, RoomId(0), room_id)?;
    let listing = shared.handle.rooms_after(page.after, page.wanted());
    let mut all = shared.ask("", listing).await?;
    let next = page.cut(&mut all, |room| room.room.to_string());
    let rooms: Vec<_> = all.iter().map(|room| room_view(room, &shared.names)).collect();
    Ok(Json(object! { rooms: rooms, next?: next }))
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

pub(super) async fn history(
    State(shared): ApiState,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<impl Serialize>, ApiError> {
    let Query(HistoryQuery { after, limit, room, since }) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
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
    let sessions: Vec<Arc<EndedSession>> = all.into_iter().map(|(_, record)| record).collect();
    Ok(Json(object! {
        // Newest first.
        sessions: sessions,
        next?: next,
        dropped: history.dropped(),
    }))
}

fn number(text: &str) -> Result<u64, ApiError> {
    let wrong =
        |_| ApiError::field("after", format!("found `{text}`, expected a `next` of before"));
    text.parse().map_err(wrong)
}

/// Measured values by metric name; values that were not measured are omitted.
fn measured(measures: &Measures) -> BTreeMap<&'static str, u32> {
    let known = Metric::ALL.iter().filter_map(|&metric| Some((metric, measures.measured(metric)?)));
    known.map(|(metric, value)| (metric.key(), value)).collect()
}

/// Arguments of the degradation actions in force, by name.
fn actions(plan: &Plan) -> BTreeMap<&'static str, u32> {
    plan.actions().in_force().map(|(op, arg)| (op.key(), arg)).collect()
}

fn session_view(view: &SessionView, names: &NodeNames) -> impl Serialize + use<> {
    let session = &view.state;
    object! {
        id: session.session.to_string(),
        room: Arc::clone(&session.room),
        scenario: Arc::clone(&session.scenario),
        mode: session.mode.name(),
        ingress: session.transport.name(),
        // The hop that carries the session's packets; null without one.
        hop: session.hop.map(|hop| events::hop(hop, names)),
        rung: session.plan.rung(),
        cap_kbps: Some(session.plan.cap_kbps()).filter(|&cap| cap > 0),
        // The degradation actions in force, each with its argument.
        actions: actions(&session.plan),
        measures: measured(&session.measures),
        impairment?: session.impairment.as_ref().map(impaired),
        // The username of the client's connectivity checks is `ufrag:client_ufrag`.
        ice?: view.ice.as_ref().map(|ice| object! {
            ufrag: ice.gateway.clone(),
            client_ufrag: ice.client.clone(),
        }),
        totals: Carried::from(&view.totals),
        age_ms: session.age.as_millis() as u64,
        trace_id: HEXLOWER.encode(&view.trace.trace_id),
    }
}

fn room_view(room: &RoomStanding, names: &NodeNames) -> impl Serialize + use<> {
    object! {
        room: Arc::clone(&room.name),
        id: room.room.to_string(),
        scenario: Arc::clone(&room.scenario),
        mode: room.mode.name(),
        // `hot` or `cold` while the second hop of a hitless room is missing or has no reserved capacity.
        effective_mode: room.kept.name(),
        sessions: room.sessions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        // Best first.
        route: events::route(&room.route, names),
        // The hop that carries the packets of the room's sessions; null without one.
        hop: room.hop.map(|hop| events::hop(hop, names)),
        placed_by: room.placed_by.to_string(),
    }
}

/// A session with its hop, the decisions and their reasons, other candidates, moves, policy answers and witnesses.
fn explained(
    explanation: &Explanation,
    nodes: &[NodeStanding],
    trace_id: Option<String>,
    names: &NodeNames,
) -> impl Serialize + use<> {
    let standing = &explanation.state;
    let on = standing.hop.and_then(|hop| nodes.iter().find(|node| node.hop.node == hop.node));
    let witness = |&(witness, since): &(EvidenceSource, Duration)| {
        object! { witness: witness.name(), for_ms: ms(since) }
    };
    let grant = |&(hop, grant): &(Hop, HopGrant)| {
        object! {
            #[serde(flatten)]
            hop: events::hop(hop, names),
            // `admitted`: the hop carries the room; `reserved`: the hop has capacity for the room; `gated`: the hop
            // lacks capacity.
            grant: granted(grant),
        }
    };
    let pending_move = explanation.heading.as_ref().map(|heading| {
        object! {
            to: names.of_hop(heading.to).node,
            cause: heading.cause.name(),
            by: heading.by.to_string(),
            for_ms: ms(heading.since),
            pending_opens: heading.waiting,
        }
    });
    // A decision that did not apply gives no reason for the node in use.
    let applies = |outcome: &DecisionOutcome| {
        matches!(outcome, DecisionOutcome::Applied { .. } | DecisionOutcome::Kept)
    };
    let routing = explanation.decisions.iter().find(|said| said.hook == Hook::Routing);
    let chosen_for =
        routing.filter(|said| applies(&said.outcome)).and_then(|said| said.reason.clone());
    let candidate = |other: &NodeCandidate| {
        object! {
            #[serde(flatten)]
            name: names.of_hop(other.hop),
            reason: other.why.name(),
            // Of the policy that chose another node.
            policy_reason?: chosen_for.clone().filter(|_| other.why == CandidateReason::NotChosen),
            load_permille: other.load_permille,
            // Without reserves.
            carried_permille: other.carried_permille,
        }
    };
    let step = |step: &MoveRecord| {
        object! {
            cause: step.cause.name(),
            by: step.by.to_string(),
            from: names.of_hop(step.from).node,
            // Null if no hop was left.
            to: step.to.map(|to| names.of_hop(to).node),
            ago_ms: ms(Instant::now().saturating_duration_since(step.started)),
            took_ms: ms(step.ended.saturating_duration_since(step.started)),
            outcome: step.outcome.name(),
        }
    };
    let quarantine = |quarantine: &SubjectQuarantine| {
        object! {
            // `call/degradation@5f0c5f0c5f0c`
            by: format!("{}@{}", quarantine.policy, quarantine.revision),
            // `trap: …`
            fault: quarantine.fault.to_string(),
            for_ms: ms(quarantine.since),
        }
    };
    object! {
        id: standing.session.to_string(),
        room: Arc::clone(&standing.room),
        scenario: Arc::clone(&standing.scenario),
        mode: standing.mode.name(),
        // See the room's `effective_mode`.
        effective_mode: standing.kept.name(),
        // The reason why that differs from `mode`.
        mode_reason?: mode_reason(explanation),
        // Rooms with a higher priority are placed earlier.
        priority: explanation.priority,
        // The hop that carries the session's packets; null without one.
        hop: standing.hop.map(|hop| events::hop(hop, names)),
        health: on.map(|node| node.health.name()),
        // Evidence against the node of that hop.
        witnesses: explanation.witnesses.iter().map(witness).collect::<Vec<_>>(),
        decided_by: events::decided_by(&explanation.admitted_by, &explanation.placed_by),
        // Best first.
        route: explanation.route.iter().map(grant).collect::<Vec<_>>(),
        // The room's move in progress.
        pending_move?: pending_move,
        rung: standing.plan.rung(),
        cap_kbps: Some(standing.plan.cap_kbps()).filter(|&cap| cap > 0),
        actions: actions(&standing.plan),
        measures: measured(&standing.measures),
        // The segment of the path that impairs the session's media.
        impairment?: standing.impairment.as_ref().map(impaired),
        // `cap-unsupported`, `no-video`…
        degradation_limits: explanation.degradation_limits.iter().map(|it| it.name()).collect::<Vec<_>>(),
        // The group of clients by which the session was admitted with voice only, until its breaker is closed.
        voice_only_for?: explanation.voice_only_for.clone(),
        // The room's share of the bitrate that it needs above its floor. Below 1000 the node is overcommitted.
        share_permille: explanation.share_permille,
        // All other nodes, each with the reason why the room is not there.
        candidates: explanation.candidates.iter().map(candidate).collect::<Vec<_>>(),
        // The latest first.
        moves: explanation.moves.iter().rev().map(step).collect::<Vec<_>>(),
        // The last policy answers about the session and its room, in the order of the hooks.
        policy_answers: explanation.decisions.iter().map(policy_answer).collect::<Vec<_>>(),
        // Revisions that fault on the session or its room; the gateway does not ask them about it.
        quarantined: explanation.quarantines.iter().map(quarantine).collect::<Vec<_>>(),
        trace_id?: trace_id,
    }
}

/// The reason why the room has less redundancy than its mode.
fn mode_reason(explanation: &Explanation) -> Option<String> {
    let SessionStanding { mode, kept, .. } = &explanation.state;
    let by = &explanation.placed_by;
    let reason = match explanation.route.get(1) {
        None if matches!(by, Decider::Policy { .. }) => format!("{by} names no usable standby"),
        Some(_) if matches!(by, Decider::Policy { .. }) => {
            format!("the standby that {by} names has too little capacity")
        }
        Some(_) | None => "no usable standby with capacity".to_owned(),
    };
    (mode != kept).then_some(reason)
}

fn policy_answer(said: &SubjectDecision) -> impl Serialize + use<> {
    let note = |(key, value): &(Box<str>, i64)| object! { key: key.clone(), value: *value };
    object! {
        hook: said.hook.name(),
        // `call/degradation@5f0c5f0c5f0c`
        by: said.by.to_string(),
        // The plugin's reason, if it gave one.
        reason: said.reason.clone(),
        outcome: said.outcome.name(),
        guard: match &said.outcome {
            DecisionOutcome::Guarded(guard) => Some(guard.name()),
            _ => None,
        },
        // With `faulted`: `late`, `deadline`…; `on_fault` decided.
        fault: match &said.outcome {
            DecisionOutcome::Faulted(fault) => Some(fault.name()),
            _ => None,
        },
        ago_ms: ms(said.since),
        notes: said.notes.iter().map(note).collect::<Vec<_>>(),
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
