//! Paths, methods and handlers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router, middleware};
use evenkeel_config::read_duration;
use evenkeel_control::{
    AdmissionState, ControlError, KeyError, ModeView, PushRequest, RefusalRecord, RequestTurn,
    RolloutAction, RolloutOutcome, RolloutReport, StatusReport, StoredAnswer,
};
use evenkeel_core::Impossible;
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_index::{IndexReader, IndexStatus};
use evenkeel_model::{PolicyName, RoomId, SessionId};
use serde::{Deserialize, Serialize};

use super::body::BufferedBody;
use super::context::{ApiContext, ApiState, BODY_MAX, require_drills};
use super::error::{ApiError, ApiErrorCode, seconds, strict};
use super::page::{Page, PageQuery};
use super::relay::{self, Relayed};
use super::target::{no_policy, policy_name, room_id, session_id, unknown_verb, verb};
use super::{
    explanation, gateways, history, index, offer, operations, recording, refusal, upgrade, view,
};

/// The answer to `drill:close-api` is sent within this time.
const LAST_ANSWER: Duration = Duration::from_millis(50);
/// Maximum length of a `traceparent` in bytes (W3C Trace Context, section 3.2, with space for later versions).
const TRACEPARENT_MAX: usize = 256;

/// The requests that the owner of a group answers, also those to its standby.
fn of_calls(shared: &Arc<ApiContext>) -> Router<Arc<ApiContext>> {
    Router::new()
        .route("/v1/sessions", get(sessions).post(open))
        .route("/v1/sessions/{id}", get(session).delete(close))
        .route("/v1/sessions/{id}/explain", get(explain))
        .route("/v1/rooms", get(rooms))
        .route("/v1/rooms/{target}", post(operations::room_verb))
        .route("/v1/nodes/{target}", post(operations::node_verb))
        .route("/v1/regions/{target}", post(operations::region_verb))
        .route("/v1/regions:failback", post(operations::failback_everywhere))
        .route("/readyz", get(ready))
        .route_layer(middleware::from_fn_with_state(Arc::clone(shared), relay::pass))
}

/// The part of the API for the group's other gateway.
pub(super) fn router_of_peer(shared: Arc<ApiContext>) -> Router {
    of_calls(&shared)
        .fallback(async || ApiError::new(ApiErrorCode::NotFound, "unknown path"))
        .layer(Extension(Relayed))
        .with_state(shared)
}

pub(super) fn router(shared: Arc<ApiContext>) -> Router {
    of_calls(&shared)
        .route("/v1/sessions/history", get(history::list))
        .route("/v1/modes", get(modes))
        .route("/v1/nodes", get(operations::nodes))
        .route("/v1/regions", get(operations::regions))
        .route("/v1/status", get(status))
        .route("/v1/configuration:reload", post(operations::reload))
        .route("/v1/gateway:upgrade", post(upgrade::upgrade))
        .route("/v1/gateway:hand-over", post(gateways::hand_over))
        .route("/v1/gateway:take-over", post(gateways::take_over))
        .route("/v1/gateways", get(gateways::list))
        .route("/v1/index/gateways", get(index::gateways))
        .route("/v1/index/sessions/{id}", get(index::session))
        .route("/v1/policies", get(policies))
        .route("/v1/recording", get(recording::record))
        .route("/v1/policies/refusals", get(refusals))
        .route("/v1/policies/{set}/{target}", put(push_policy).post(policy_verb))
        .route("/v1/drill:close-api", post(close_api))
        .route("/v1/events", get(follow))
        .route("/livez", get(async || "alive\n"))
        .route("/metrics", get(metrics))
        .fallback(async || ApiError::new(ApiErrorCode::NotFound, "unknown path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(ApiErrorCode::MethodNotAllowed, "method not allowed at this path")
        })
        .with_state(shared)
}

async fn open(
    State(shared): ApiState,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = shared.bodies.read(body, BODY_MAX).await?;
    let answer = match headers.get("idempotency-key") {
        None => answered(offer(&shared, &headers, &body).await),
        Some(key) => {
            let wrong = "found characters outside visible ASCII";
            let key =
                key.to_str().map_err(|_| ApiError::field("idempotency-key", wrong))?.to_owned();
            offer_once(&shared, key, headers, body).await?
        }
    };
    if answer.status == StatusCode::CREATED.as_u16() {
        gateways::confirm(&shared).await;
    }
    Ok(response(answer))
}

/// The answer to the first offer with this key.
async fn offer_once(
    shared: &Arc<ApiContext>,
    key: String,
    headers: HeaderMap,
    body: BufferedBody,
) -> Result<StoredAnswer, ApiError> {
    let RequestTurn { is_first, mut answer } =
        shared.seen.begin(&key, &body).map_err(|error| refused_key(&error))?;
    if is_first {
        let working = Arc::clone(shared);
        // A separate task completes the answer even if the client disconnects.
        tokio::spawn(async move {
            let opened = offer(&working, &headers, &body).await;
            if let (Some(index), Ok(opened)) = (&working.index, &opened)
                && let Ok(session) = session_id(opened.id())
            {
                index.note_key(session, &key);
            }
            working.seen.finish(&key, answered(opened));
        });
    }
    let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
    answer.ok_or_else(|| {
        ApiError::new(ApiErrorCode::Unavailable, "the first request with this key got no answer")
    })
}

async fn offer(
    shared: &ApiContext,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<view::OpenedView, ApiError> {
    let wanted = offer::parse(body, traceparent(headers))?;
    let opened = shared.ask("", shared.handle.offer(wanted.clone())).await?;
    Ok(view::OpenedView::of(opened, &wanted, &shared.names))
}

fn refused_key(error: &KeyError) -> ApiError {
    let field = ApiError::field("idempotency-key", error.to_string());
    match error {
        KeyError::Length(_) => field,
        KeyError::OtherBody(_) => ApiError { code: ApiErrorCode::Conflict, ..field },
    }
}

/// Ignores `traceparent` if the header occurs more than once.
fn traceparent(headers: &HeaderMap) -> Option<Box<str>> {
    let mut all = headers.get_all("traceparent").iter();
    let one = all.next()?.to_str().ok()?;
    (all.next().is_none() && one.len() <= TRACEPARENT_MAX).then(|| one.into())
}

fn answered(result: Result<view::OpenedView, ApiError>) -> StoredAnswer {
    match result {
        Ok(opened) => StoredAnswer {
            status: StatusCode::CREATED.as_u16(),
            body: serde_json::to_vec(&opened).expect("an answer is words and numbers").into(),
            retry_after: None,
        },
        Err(error) => StoredAnswer {
            status: error.status().as_u16(),
            retry_after: error.retry_after,
            body: error.body().into(),
        },
    }
}

fn response(answer: StoredAnswer) -> Response {
    let json = HeaderValue::from_static("application/json");
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, json)], answer.body).into_response();
    if let Some(wait) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
    }
    response
}

#[derive(Serialize)]
struct SessionsView {
    sessions: Vec<view::LiveSessionView>,
    /// The value of `after` for the next page; omitted at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn sessions(
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

async fn session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<view::LiveSessionView>, ApiError> {
    let session = session_id(&id)?;
    let found = shared.ask(&id, shared.handle.session(session)).await?;
    let none = ControlError::Impossible(Impossible::NoSuchSession);
    let found = found.ok_or_else(|| refusal::word(none, &id, &shared.names))?;
    Ok(Json(view::LiveSessionView::of(&found, &shared.names)))
}

async fn explain(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<explanation::Explained>, ApiError> {
    let session = session_id(&id)?;
    let found = shared.ask(&id, shared.handle.explain(session)).await?;
    let none = ControlError::Impossible(Impossible::NoSuchSession);
    let found = found.ok_or_else(|| refusal::word(none, &id, &shared.names))?;
    let nodes = shared.ask(&id, shared.handle.nodes()).await?;
    Ok(Json(explanation::Explained::of(&found, &nodes, &shared.names)))
}

async fn close(State(shared): ApiState, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    shared.ask(&id, shared.handle.close(session_id(&id)?)).await?;
    gateways::confirm(&shared).await;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
struct RoomsView {
    rooms: Vec<view::RoomView>,
    /// The value of `after` for the next page; omitted at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn rooms(
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

#[derive(Serialize)]
struct ModesView {
    modes: Vec<ModeView>,
}

async fn modes(State(shared): ApiState) -> Result<Json<ModesView>, ApiError> {
    Ok(Json(ModesView { modes: shared.ask("", shared.handle.modes()).await? }))
}

#[derive(Serialize)]
struct GatewayStatus {
    #[serde(flatten)]
    status: StatusReport,
    /// The shared index, if one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<IndexStatus>,
}

async fn status(State(shared): ApiState) -> Result<Json<GatewayStatus>, ApiError> {
    let status = shared.ask("", shared.handle.status()).await?;
    Ok(Json(GatewayStatus { status, index: shared.index.as_ref().map(IndexReader::status) }))
}

/// Returns an error if new sessions are not admitted, or if control does not answer.
async fn ready(State(shared): ApiState) -> Result<&'static str, ApiError> {
    gateways::require_owner(&shared)?;
    match shared.ask("", shared.handle.status()).await?.state {
        AdmissionState::Starting => Err(refusal::starting()),
        AdmissionState::Serving => Ok("ready\n"),
        AdmissionState::Draining => Err(refusal::draining()),
    }
}

async fn metrics(State(shared): ApiState) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (shared.metrics)())
}

#[derive(Serialize)]
struct PoliciesView {
    policies: Vec<view::PolicyStatusView>,
}

async fn policies(State(shared): ApiState) -> Result<Json<PoliciesView>, ApiError> {
    let all = shared.ask("", shared.handle.policies()).await?;
    Ok(Json(PoliciesView { policies: all.into_iter().map(view::PolicyStatusView::from).collect() }))
}

#[derive(Serialize)]
struct RefusalsView {
    refusals: Vec<RefusalRecord>,
}

async fn refusals(State(shared): ApiState) -> Result<Json<RefusalsView>, ApiError> {
    Ok(Json(RefusalsView { refusals: shared.ask("", shared.handle.refusals()).await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushQuery {
    settings: Option<String>,
    /// Shares of the canary: `1,5,25`.
    canary: Option<String>,
    /// Minimum duration of each step: `10s`.
    pace: Option<String>,
    #[serde(default)]
    shadow: bool,
    #[serde(default)]
    now: bool,
    #[serde(default)]
    force: bool,
}

impl PushQuery {
    fn wish(&self) -> Result<PushRequest, ApiError> {
        let canary = self.canary.as_deref().map(shares).transpose()?;
        let pace = self.pace.as_deref().map(read_duration).transpose();
        let pace = pace.map_err(|right| ApiError::field("pace", right))?;
        if self.now && (canary.is_some() || pace.is_some() || self.shadow) {
            let message = "found `now` with `canary`, `pace` or `shadow`, expected either";
            return Err(ApiError::field("now", message));
        }
        Ok(PushRequest { canary, pace, shadow: self.shadow, now: self.now, force: self.force })
    }
}

/// Increasing shares in per cent.
fn shares(text: &str) -> Result<Vec<u8>, ApiError> {
    let wrong = || {
        let message =
            format!("found `{text}`, expected growing shares in per cent such as `1,5,25`");
        ApiError::field("canary", message)
    };
    let shares: Option<Vec<u8>> = text.split(',').map(|share| share.trim().parse().ok()).collect();
    let shares = shares.ok_or_else(wrong)?;
    let fine = shares.is_sorted_by(|one, next| one < next)
        && shares.iter().all(|share| (1..=100).contains(share));
    if fine { Ok(shares) } else { Err(wrong()) }
}

async fn push_policy(
    State(shared): ApiState,
    Path((set, hook)): Path<(String, String)>,
    query: Result<Query<PushQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let policy = policy_name(&set, &hook)?;
    let Query(query) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let wish = query.wish()?;
    let settings = query.settings.map(|text| strict(text.as_bytes())).transpose();
    let settings = settings.map_err(|error| ApiError::field("settings", error.message))?;
    let body = match shared.uploads.read(body, BINARY_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return Err(not_a_plugin(&shared, policy, error).await),
    };
    if body.is_empty() {
        return Err(ApiError::new(
            ApiErrorCode::BadRequest,
            "found no body, expected a plugin's bytes",
        ));
    }
    let said = policy.to_string();
    let pushing = Arc::clone(&shared);
    // A separate task: the bytes keep their share of the budget even if the client disconnects. No timeout here:
    // validation and compilation have separate limits.
    let rollout = tokio::spawn(async move {
        let (bytes, _share) = body.into_parts();
        pushing.handle.push_policy_as(policy, bytes, settings, wish).await
    });
    let rollout = rollout.await.unwrap_or(Err(ControlError::Unavailable));
    let rollout = rollout.map_err(|failed| refusal::word(failed, &said, &shared.names))?;
    Ok(rolled_out(rollout))
}

/// Records a plugin that was too large to read among the refusals of its policy.
async fn not_a_plugin(shared: &ApiContext, policy: PolicyName, error: ApiError) -> ApiError {
    if error.code != ApiErrorCode::TooLarge {
        return error;
    }
    match shared.ask("", shared.handle.policies()).await {
        Ok(known) if known.iter().any(|known| known.policy == policy) => {
            let (code, reason) = (error.code.name(), error.message.clone().into());
            let refusal = RefusalRecord::now(policy, "pushed".into(), code, reason);
            shared.handle.note_refusal(refusal).await;
            error
        }
        Ok(_) => no_policy(&policy.to_string()),
        Err(unanswered) => unanswered,
    }
}

async fn policy_verb(
    State(shared): ApiState,
    Path((set, target)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (hook, verb) = verb(&target)?;
    let policy = policy_name(&set, hook)?;
    let said = policy.to_string();
    match verb {
        "rollback" => {
            Ok(rolled_out(shared.ask(&said, shared.handle.rollback_policy(policy)).await?))
        }
        "promote" => walk(&shared, policy, RolloutAction::Promote).await,
        "promote-all" => walk(&shared, policy, RolloutAction::PromoteAll).await,
        "pause" => walk(&shared, policy, RolloutAction::Pause).await,
        "resume" => walk(&shared, policy, RolloutAction::Resume).await,
        "abort" => walk(&shared, policy, RolloutAction::Abort).await,
        "stop" => {
            require_drills(&shared)?;
            shared.ask(&said, shared.handle.stop_policy(policy)).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        other => {
            let right =
                "`rollback`, `promote`, `promote-all`, `pause`, `resume`, `abort` or `stop`";
            Err(unknown_verb(other, right))
        }
    }
}

async fn walk(
    shared: &ApiContext,
    policy: PolicyName,
    verb: RolloutAction,
) -> Result<Response, ApiError> {
    let said = policy.to_string();
    Ok(rolled_out(shared.ask(&said, shared.handle.act_on_rollout(policy, verb)).await?))
}

/// Ends the API once this answer is sent.
async fn close_api(State(shared): ApiState) -> Result<StatusCode, ApiError> {
    require_drills(&shared)?;
    tokio::spawn(async move {
        tokio::time::sleep(LAST_ANSWER).await;
        shared.closing.notify_one();
    });
    Ok(StatusCode::ACCEPTED)
}

fn rolled_out(rollout: RolloutReport) -> Response {
    let status = match rollout.outcome {
        RolloutOutcome::Activated
        | RolloutOutcome::Unchanged
        | RolloutOutcome::RolledBack
        | RolloutOutcome::Started
        | RolloutOutcome::Advanced
        | RolloutOutcome::Paused
        | RolloutOutcome::Resumed
        | RolloutOutcome::Revoked => StatusCode::OK,
        RolloutOutcome::Refused => StatusCode::BAD_REQUEST,
    };
    (status, Json(view::RolloutView::from(rollout))).into_response()
}

async fn follow(State(shared): ApiState) -> Result<impl IntoResponse, ApiError> {
    shared.feed.listen()
}
