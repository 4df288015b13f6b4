//! Sessions and rooms: lists, explanations, and records of ended sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use evenkeel_config::read_duration;
use evenkeel_contract::Word;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::sessions::{
    Accusation, AskedRevision, Candidate, EndedExplanation, Explanation, GrantedHop, HistoryPage,
    HistoryQuery, IceFragments, LiveExplanation, Move, PageQuery, PendingMove, PolicyAnswer,
    PolicyNote, Quarantine, Room, RoomDecisions, RoomExplanation, RoomPage, Session, SessionPage,
};
use evenkeel_control::history::traffic;
use evenkeel_control::{ControlError, NodeNames, SessionView};
use evenkeel_core::{
    CandidateReason, MoveRecord, NodeCandidate, NodeStanding, RoomStanding, SubjectDecision,
    SubjectQuarantine,
};
use evenkeel_model::{
    Decider, DecisionOutcome, EvidenceSource, Hook, Hop, HopGrant, Impossible, Measures, Metric,
    Plan, RoomId, SessionId, participant,
};
use evenkeel_process::unix_us;

use super::answers;
use super::context::ApiState;
use super::error::{ApiError, refused};
use super::request::{Page, room_id, session_id};

pub(super) async fn sessions(
    State(shared): ApiState,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<SessionPage>, ApiError> {
    let page = Page::read(query, SessionId(0), session_id)?;
    let listing = shared.handle.sessions_after(page.after, page.wanted());
    let mut all = shared.ask("", listing).await?;
    let next = page.cut(&mut all, |session| session.state.session.to_string());
    let sessions = all.iter().map(|one| session_view(one, &shared.names)).collect();
    Ok(Json(SessionPage { sessions, next }))
}

pub(super) async fn session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<Session>, ApiError> {
    let session = session_id(&id)?;
    let found = shared.ask(&id, shared.handle.session(session)).await?;
    let found = found.ok_or_else(|| shared.no_session(session))?;
    Ok(Json(session_view(&found, &shared.names)))
}

/// Explains a live session, or shows the record of one that ended.
pub(super) async fn explain(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<Explanation>, ApiError> {
    let session = session_id(&id)?;
    let Some(found) = shared.ask(&id, shared.handle.explain(session)).await? else {
        let history = shared.ask(&id, shared.handle.history()).await?;
        let ended = history.list(u64::MAX, 1, |record| *record.id == *id);
        let (_, ended) = ended.into_iter().next().ok_or_else(|| shared.no_session(session))?;
        let ended = Arc::unwrap_or_clone(ended);
        let rating = history.ratings().into_iter().find(|rating| *rating.id == *id);
        let rating = rating.map(Arc::unwrap_or_clone);
        let explained = EndedExplanation { id, ended, rating };
        return Ok(Json(Explanation::Ended(Box::new(explained))));
    };
    let nodes = shared.ask(&id, shared.handle.nodes()).await?;
    // `None`: it ended meanwhile.
    let view = shared.ask(&id, shared.handle.session(session)).await?;
    let trace_id = view.map(|view| HEXLOWER.encode(&view.trace.trace_id));
    let explained = explained(&found, &nodes, trace_id, &shared.names);
    Ok(Json(Explanation::Live(Box::new(explained))))
}

/// Explains a room.
pub(super) async fn explain_room(
    State(shared): ApiState,
    Path(name): Path<String>,
) -> Result<Json<RoomExplanation>, ApiError> {
    let found = shared.ask(&name, shared.handle.explain_room(name.as_str().into())).await?;
    let unknown =
        || refused(ControlError::Impossible(Impossible::NoSuchRoom), &name, &shared.names);
    let found = found.ok_or_else(unknown)?;
    let nodes = shared.ask(&name, shared.handle.nodes()).await?;
    let evenkeel_core::RoomExplanation { state, decisions: room } = &found;
    let is_whole = state.mode == state.kept;
    Ok(Json(RoomExplanation {
        room: state.name.clone(),
        id: state.room.to_string(),
        scenario: state.scenario.clone(),
        mode: state.mode.name().into(),
        effective_mode: state.kept.name().into(),
        sessions: state.sessions.iter().map(ToString::to_string).collect(),
        placed_by: state.placed_by.to_string(),
        decisions: decisions(room, state.hop, is_whole, &nodes, &shared.names),
    }))
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
) -> Result<Json<RoomPage>, ApiError> {
    let page = Page::read(query, RoomId(0), room_id)?;
    let listing = shared.handle.rooms_after(page.after, page.wanted());
    let mut all = shared.ask("", listing).await?;
    let next = page.cut(&mut all, |room| room.room.to_string());
    let rooms = all.iter().map(|room| room_view(room, &shared.names)).collect();
    Ok(Json(RoomPage { rooms, next }))
}

pub(super) async fn history(
    State(shared): ApiState,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryPage>, ApiError> {
    let Query(HistoryQuery { after, limit, room, since }) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
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
    let sessions: Vec<_> =
        all.into_iter().map(|(_, record)| Arc::unwrap_or_clone(record)).collect();
    let ids: BTreeSet<&str> = sessions.iter().map(|session| &*session.id).collect();
    let ratings = history.ratings().into_iter().filter(|rating| ids.contains(&*rating.id));
    let ratings = ratings.map(Arc::unwrap_or_clone).collect();
    Ok(Json(HistoryPage { sessions, next, ratings, dropped: history.dropped() }))
}

fn number(text: &str) -> Result<u64, ApiError> {
    let wrong =
        |_| ApiError::field("after", format!("found `{text}`, expected a `next` of before"));
    text.parse().map_err(wrong)
}

/// Measured values by metric name; values that were not measured are omitted.
fn measured(measures: &Measures) -> BTreeMap<Word, u32> {
    let known = Metric::ALL.iter().filter_map(|&metric| Some((metric, measures.measured(metric)?)));
    known.map(|(metric, value)| (metric.key().into(), value)).collect()
}

/// Arguments of the degradation actions in force, by name.
fn actions(plan: &Plan) -> BTreeMap<Word, u32> {
    plan.actions().in_force().map(|(op, arg)| (op.key().into(), arg)).collect()
}

fn session_view(view: &SessionView, names: &NodeNames) -> Session {
    let session = &view.state;
    Session {
        id: session.session.to_string(),
        room: session.room.clone(),
        scenario: session.scenario.clone(),
        mode: session.mode.name().into(),
        participant: participant(&session.labels).map(Into::into),
        ingress: session.transport.name().into(),
        hop: session.hop.map(|hop| answers::hop(hop, names)),
        rung: session.plan.rung(),
        cap_kbps: Some(session.plan.cap_kbps()).filter(|&cap| cap > 0),
        actions: actions(&session.plan),
        measures: measured(&session.measures),
        impairment: session.impairment.as_ref().map(answers::impairment),
        advice: session.advice.map(answers::advice),
        policing: session.policing.map(answers::policing),
        ice: view.ice.as_ref().map(|ice| IceFragments {
            ufrag: ice.gateway.to_string(),
            client_ufrag: ice.client.to_string(),
        }),
        totals: traffic(&view.totals),
        age_ms: session.age.as_millis() as u64,
        trace_id: HEXLOWER.encode(&view.trace.trace_id),
    }
}

fn room_view(room: &RoomStanding, names: &NodeNames) -> Room {
    Room {
        room: room.name.clone(),
        id: room.room.to_string(),
        scenario: room.scenario.clone(),
        mode: room.mode.name().into(),
        effective_mode: room.kept.name().into(),
        sessions: room.sessions.iter().map(ToString::to_string).collect(),
        route: answers::route(&room.route, names),
        hop: room.hop.map(|hop| answers::hop(hop, names)),
        placed_by: room.placed_by.to_string(),
    }
}

fn explained(
    explanation: &evenkeel_core::Explanation,
    nodes: &[NodeStanding],
    trace_id: Option<String>,
    names: &NodeNames,
) -> LiveExplanation {
    let (standing, room) = (&explanation.state, &explanation.room);
    let limits = explanation.degradation_limits.iter();
    let is_whole = standing.mode == standing.kept;
    LiveExplanation {
        id: standing.session.to_string(),
        room: standing.room.clone(),
        scenario: standing.scenario.clone(),
        mode: standing.mode.name().into(),
        effective_mode: standing.kept.name().into(),
        decisions: decisions(room, standing.hop, is_whole, nodes, names),
        decided_by: answers::decided_by(&explanation.admitted_by, &room.placed_by),
        rung: standing.plan.rung(),
        cap_kbps: Some(standing.plan.cap_kbps()).filter(|&cap| cap > 0),
        actions: actions(&standing.plan),
        measures: measured(&standing.measures),
        impairment: standing.impairment.as_ref().map(answers::impairment),
        advice: standing.advice.map(answers::advice),
        policing: standing.policing.map(answers::policing),
        degradation_limits: limits.map(|limit| limit.name().into()).collect(),
        voice_only_for: explanation.voice_only_for.as_ref().map(answers::client_group),
        share_permille: explanation.share_permille,
        trace_id,
    }
}

/// `is_whole`: the room has the redundancy of its mode.
fn decisions(
    room: &evenkeel_core::RoomDecisions,
    hop: Option<Hop>,
    is_whole: bool,
    nodes: &[NodeStanding],
    names: &NodeNames,
) -> RoomDecisions {
    let on = hop.and_then(|hop| nodes.iter().find(|node| node.hop.node == hop.node));
    let witness = |&(witness, since): &(EvidenceSource, Duration)| Accusation {
        witness: witness.name().into(),
        for_ms: ms(since),
    };
    let grant = |&(hop, grant): &(Hop, HopGrant)| GrantedHop {
        hop: answers::hop(hop, names),
        grant: granted(grant).into(),
    };
    let pending_move = room.heading.as_ref().map(|heading| PendingMove {
        to: names.of_hop(heading.to).node,
        cause: heading.cause.name().into(),
        by: heading.by.to_string(),
        for_ms: ms(heading.since),
        pending_opens: heading.waiting,
    });
    let asked = |asked: &evenkeel_core::AskedRevision| AskedRevision {
        policy: asked.policy.to_string(),
        arm: asked.arm.name().into(),
        revision: asked.revision.clone(),
        sessions: asked.sessions,
    };
    // A decision that did not apply gives no reason for the node in use.
    let applies = |outcome: &DecisionOutcome| {
        matches!(outcome, DecisionOutcome::Applied { .. } | DecisionOutcome::Kept)
    };
    let routing = room.answers.iter().find(|said| said.hook == Hook::Routing);
    let chosen_for =
        routing.filter(|said| applies(&said.outcome)).and_then(|said| said.reason.clone());
    let candidate = |other: &NodeCandidate| Candidate {
        place: answers::place(names.of_hop(other.hop)),
        reason: other.why.name().into(),
        policy_reason: chosen_for.clone().filter(|_| other.why == CandidateReason::NotChosen),
        load_permille: other.load_permille,
        carried_permille: other.carried_permille,
    };
    let step = |step: &MoveRecord| Move {
        cause: step.cause.name().into(),
        by: step.by.to_string(),
        from: names.of_hop(step.from).node,
        to: step.to.map(|to| names.of_hop(to).node),
        ago_ms: ms(Instant::now().saturating_duration_since(step.started)),
        took_ms: ms(step.ended.saturating_duration_since(step.started)),
        outcome: step.outcome.name().into(),
    };
    let quarantine = |quarantine: &SubjectQuarantine| Quarantine {
        by: format!("{}@{}", quarantine.policy, quarantine.revision),
        fault: quarantine.fault.to_string(),
        for_ms: ms(quarantine.since),
    };
    RoomDecisions {
        mode_reason: (!is_whole).then(|| mode_reason(room)),
        priority: room.priority,
        hop: hop.map(|hop| answers::hop(hop, names)),
        health: on.map(|node| node.health.name().into()),
        witnesses: room.witnesses.iter().map(witness).collect(),
        route: room.route.iter().map(grant).collect(),
        pending_move,
        asked: room.asked.iter().map(asked).collect(),
        candidates: room.candidates.iter().map(candidate).collect(),
        moves: room.moves.iter().rev().map(step).collect(),
        policy_answers: room.answers.iter().map(policy_answer).collect(),
        quarantined: room.quarantines.iter().map(quarantine).collect(),
    }
}

/// The reason why the room has less redundancy than its mode.
fn mode_reason(room: &evenkeel_core::RoomDecisions) -> String {
    let by = &room.placed_by;
    match room.route.get(1) {
        None if matches!(by, Decider::Policy { .. }) => format!("{by} names no usable standby"),
        Some(_) if matches!(by, Decider::Policy { .. }) => {
            format!("the standby that {by} names has too little capacity")
        }
        Some(_) | None => "no usable standby with capacity".to_owned(),
    }
}

fn policy_answer(said: &SubjectDecision) -> PolicyAnswer {
    let note = |(key, value): &(Box<str>, i64)| PolicyNote { key: key.clone(), value: *value };
    PolicyAnswer {
        hook: said.hook.name().into(),
        by: said.by.to_string(),
        reason: said.reason.clone(),
        outcome: said.outcome.name().into(),
        guard: match &said.outcome {
            DecisionOutcome::Guarded(guard) => Some(guard.name().into()),
            _ => None,
        },
        fault: match &said.outcome {
            DecisionOutcome::Faulted(fault) => Some(fault.name().into()),
            _ => None,
        },
        ago_ms: ms(said.since),
        notes: said.notes.iter().map(note).collect(),
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
