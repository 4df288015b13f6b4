//! Paths, methods, and what each asks of control.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use evenkeel_core::{Hook, Impossible, PolicyName, SessionId};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::error::{Code, Error, seconds, strict};
use super::events;
use super::handle::{Drain, Handle, Request};
use super::idempotency::{Answer, Table, Turn};
use super::offer::Wanted;
use super::trace::Traceparent;
use super::view;

/// Bytes of a JSON body. An offer with everything at its limit is half of it.
const BODY_MAX: usize = 128 * 1_024;
/// Bytes of a plugin.
const PLUGIN_MAX: usize = 8 * 1_024 * 1_024;
/// Sessions in one answer, unless asked for less; control stops for each answer.
const SESSIONS_MAX: usize = 1_000;

/// What all requests share.
pub(super) struct Shared {
    pub(super) handle: Handle,
    /// `/metrics`, as text for Prometheus.
    pub(super) metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub(super) seen: Table,
    pub(super) listeners: Arc<Semaphore>,
}

type Api = State<Arc<Shared>>;
type Body = Result<Bytes, BytesRejection>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let plugin = put(push_policy).layer(DefaultBodyLimit::max(PLUGIN_MAX)).post(policy_verb);
    Router::new()
        .route("/v1/sessions", get(sessions).post(open))
        .route("/v1/sessions/{id}", get(session).delete(close))
        .route("/v1/rooms", get(rooms))
        .route("/v1/rooms/{target}", post(room_verb))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{target}", post(node_verb))
        .route("/v1/status", get(status))
        .route("/v1/policies", get(policies))
        .route("/v1/policies/{set}/{target}", plugin)
        .route("/v1/events", get(follow))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || Error::new(Code::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Error::new(Code::MethodNotAllowed, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared)
}

async fn open(State(shared): Api, headers: HeaderMap, body: Body) -> Result<Response, Error> {
    let body = bytes(body, BODY_MAX)?;
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(answered(offer(&shared.handle, &headers, &body).await).into_response());
    };
    let key = key.to_str().map_err(|_| {
        Error::field("idempotency-key", "found other than visible ASCII, expected an opaque name")
    })?;
    let mut answer = match shared.seen.begin(key, &body)? {
        Turn::Repeated(answer) => answer,
        Turn::First(answer) => {
            let (key, working) = (key.to_owned(), Arc::clone(&shared));
            // On its own: it ends with an answer on record even if the caller hangs up.
            tokio::spawn(async move {
                let answer = answered(offer(&working.handle, &headers, &body).await);
                working.seen.finish(&key, answer);
            });
            answer
        }
    };
    let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
    let gone = || Error::new(Code::Unavailable, "the first request with this key got no answer");
    Ok(answer.ok_or_else(gone)?.into_response())
}

async fn offer(handle: &Handle, headers: &HeaderMap, body: &[u8]) -> Result<view::Opened, Error> {
    let wanted = Wanted::parse(body)?;
    let traceparent = Traceparent::of(headers);
    let said = format!("`{}`", wanted.scenario);
    let result = handle.ask(|reply| Request::Offer { wanted, traceparent, reply }).await?;
    result.map_err(|refusal| refusal.word(&said))
}

fn answered(result: Result<view::Opened, Error>) -> Answer {
    match result {
        Ok(opened) => Answer {
            status: StatusCode::CREATED,
            body: serde_json::to_vec(&opened).expect("an answer is words and numbers").into(),
            retry_after: None,
        },
        Err(error) => Answer {
            status: error.status(),
            retry_after: error.retry_after,
            body: error.body().into(),
        },
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], self.body).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
        }
        response
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

async fn sessions(
    State(shared): Api,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<view::Sessions>, Error> {
    let Query(page) = page.map_err(|error| Error::new(Code::BadRequest, error.body_text()))?;
    let after = page.after.as_deref().map(session_id).transpose()?;
    let limit = page.limit.unwrap_or(SESSIONS_MAX);
    if limit == 0 || limit > SESSIONS_MAX {
        let message = format!("found {limit}, expected 1 to {SESSIONS_MAX}");
        return Err(Error::field("limit", message));
    }
    shared.handle.ask(|reply| Request::Sessions { after, limit, reply }).await.map(Json)
}

async fn session(State(shared): Api, Path(id): Path<String>) -> Result<Json<view::Session>, Error> {
    let session = session_id(&id)?;
    let found = shared.handle.ask(|reply| Request::Session { session, reply }).await?;
    found.map(Json).ok_or_else(|| impossible(Impossible::NoSuchSession, &id))
}

async fn close(State(shared): Api, Path(id): Path<String>) -> Result<StatusCode, Error> {
    let session = session_id(&id)?;
    let closed = shared.handle.ask(|reply| Request::Close { session, reply }).await?;
    closed.map(|()| StatusCode::NO_CONTENT).map_err(|reason| impossible(reason, &id))
}

fn session_id(text: &str) -> Result<SessionId, Error> {
    let number = text.strip_prefix('s').and_then(|number| number.parse().ok());
    number.map(SessionId).ok_or_else(|| {
        let message = format!("there is no session `{text}`; an id looks like `s17`");
        Error::new(Code::NotFound, message)
    })
}

#[derive(Serialize)]
struct Rooms {
    rooms: Vec<view::Room>,
}

async fn rooms(State(shared): Api) -> Result<Json<Rooms>, Error> {
    let rooms = shared.handle.ask(|reply| Request::Rooms { reply }).await?;
    Ok(Json(Rooms { rooms }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    node: Box<str>,
}

async fn room_verb(
    State(shared): Api,
    Path(target): Path<String>,
    body: Body,
) -> Result<StatusCode, Error> {
    let (room, verb) = verb(&target)?;
    match verb {
        "move" => {
            let Move { node } = strict(&bytes(body, BODY_MAX)?)?;
            let said = format!("{room} to {node}");
            let room = Arc::from(room);
            let moved = shared.handle.ask(|reply| Request::MoveRoom { room, node, reply }).await?;
            moved.map(|()| StatusCode::ACCEPTED).map_err(|reason| impossible(reason, &said))
        }
        other => Err(unknown_verb(other, "`move`")),
    }
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<view::Node>,
}

async fn nodes(State(shared): Api) -> Result<Json<Nodes>, Error> {
    let nodes = shared.handle.ask(|reply| Request::Nodes { reply }).await?;
    Ok(Json(Nodes { nodes }))
}

async fn node_verb(State(shared): Api, Path(target): Path<String>) -> Result<StatusCode, Error> {
    let (name, verb) = verb(&target)?;
    let drain = match verb {
        "drain" => Drain::Begin,
        "undrain" => Drain::End,
        other => return Err(unknown_verb(other, "`drain` or `undrain`")),
    };
    let node = Box::from(name);
    let done = shared.handle.ask(|reply| Request::DrainNode { node, drain, reply }).await?;
    done.map(|()| StatusCode::NO_CONTENT).map_err(|reason| impossible(reason, name))
}

async fn status(State(shared): Api) -> Result<Json<view::Status>, Error> {
    shared.handle.ask(|reply| Request::Status { reply }).await.map(Json)
}

/// Whether new sessions are taken. Where control does not answer, they are not.
async fn ready(State(shared): Api) -> Result<&'static str, Error> {
    match shared.handle.ask(|reply| Request::Status { reply }).await?.state {
        view::State::Serving => Ok("ready\n"),
        view::State::Draining => Err(Error::new(Code::Draining, "the gateway is shutting down")),
    }
}

async fn metrics(State(shared): Api) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (shared.metrics)())
}

#[derive(Serialize)]
struct Policies {
    policies: Vec<view::Policy>,
}

async fn policies(State(shared): Api) -> Result<Json<Policies>, Error> {
    let policies = shared.handle.ask(|reply| Request::Policies { reply }).await?;
    Ok(Json(Policies { policies }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    settings: Option<String>,
}

async fn push_policy(
    State(shared): Api,
    Path((set, hook)): Path<(String, String)>,
    query: Result<Query<Push>, axum::extract::rejection::QueryRejection>,
    body: Body,
) -> Result<Response, Error> {
    let policy = policy_name(&set, &hook)?;
    let Query(query) = query.map_err(|error| Error::new(Code::BadRequest, error.body_text()))?;
    let settings = query.settings.map(|text| strict(text.as_bytes())).transpose();
    let settings = settings.map_err(|error| Error::field("settings", error.message))?;
    let bytes = bytes(body, PLUGIN_MAX)?;
    if bytes.is_empty() {
        return Err(Error::new(Code::BadRequest, "found no body, expected a plugin's bytes"));
    }
    let said = policy.to_string();
    let request = |reply| Request::PushPolicy { policy, bytes, settings, reply };
    rolled_out(shared.handle.ask(request).await?, &said)
}

async fn policy_verb(
    State(shared): Api,
    Path((set, target)): Path<(String, String)>,
) -> Result<Response, Error> {
    let (hook, verb) = verb(&target)?;
    match verb {
        "rollback" => {
            let policy = policy_name(&set, hook)?;
            let said = policy.to_string();
            let request = |reply| Request::RollbackPolicy { policy, reply };
            rolled_out(shared.handle.ask(request).await?, &said)
        }
        other => Err(unknown_verb(other, "`rollback`")),
    }
}

fn rolled_out(rollout: Option<view::Rollout>, policy: &str) -> Result<Response, Error> {
    let rollout = rollout.ok_or_else(|| no_policy(policy))?;
    let status = match rollout.outcome {
        view::RolloutOutcome::Activated | view::RolloutOutcome::RolledBack => StatusCode::OK,
        view::RolloutOutcome::Refused => StatusCode::BAD_REQUEST,
    };
    Ok((status, Json(rollout)).into_response())
}

fn policy_name(set: &str, hook: &str) -> Result<PolicyName, Error> {
    let found = Hook::ALL.into_iter().find(|known| known.name() == hook);
    let hook = found.ok_or_else(|| no_policy(&format!("{set}/{hook}")))?;
    Ok(PolicyName { set: set.into(), hook })
}

fn no_policy(name: &str) -> Error {
    Error::new(
        Code::NotFound,
        format!("there is no policy `{name}`; one looks like `call/routing`"),
    )
}

async fn follow(State(shared): Api) -> Result<impl IntoResponse, Error> {
    events::listen(&shared.handle, &shared.listeners)
}

/// Takes `east-a1:drain` apart; names may have colons of their own.
fn verb(target: &str) -> Result<(&str, &str), Error> {
    target.rsplit_once(':').ok_or_else(|| {
        let message =
            format!("found `{target}`, expected a name and a verb such as `{target}:drain`");
        Error::new(Code::NotFound, message)
    })
}

fn unknown_verb(found: &str, right: &str) -> Error {
    Error::new(Code::NotFound, format!("found the verb `{found}`, expected {right}"))
}

fn impossible(reason: Impossible, said: &str) -> Error {
    let (code, message) = match reason {
        Impossible::NoSuchSession => (Code::NotFound, "there is no such session"),
        Impossible::NoSuchRoom => (Code::NotFound, "there is no such room"),
        Impossible::NoSuchNode => (Code::NotFound, "there is no such node"),
        Impossible::AlreadyThere => (Code::Conflict, "the room is there already"),
        Impossible::NodeUnfit => (Code::Conflict, "the node is down, draining or full"),
    };
    Error::new(code, format!("{message}: {said}"))
}

fn bytes(body: Body, most: usize) -> Result<Bytes, Error> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Error::new(Code::TooLarge, format!("the body is larger than {most} bytes"))
        }
        _ => Error::new(Code::BadRequest, rejection.body_text()),
    })
}
