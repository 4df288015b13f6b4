//! Requests about the group's calls: a standby relays them to the owner, over HTTP/2 on a connection of the members.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::{Authority, Scheme};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, Uri, header, response};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use evenkeel_contract::errors::{ErrorAnswer, ErrorCode};
use evenkeel_group::{Group, GroupOwnership, PeerApi, PeerStream};
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Count};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self as client, SendRequest};
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::error::{ApiError, RETRY_AFTER, no_owner, unknown_path};
use super::listener::TcpPlace;
use super::request::{BODY_MAX, BodyBudget, PUSH_BYTES_MAX, PUSHED_WITHIN};

/// Timeout of control's answer. Drivers have 2 s of it to open a session.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Time in which the group has an owner again, for requests that may be repeated. A takeover takes less.
const OWNER_WITHIN: Duration = Duration::from_millis(500);

/// Interval of attempts while the owner stays the same, such as during its upgrade.
const REPEAT_EVERY: Duration = Duration::from_millis(20);

/// Requests fail at once for this time after a failed attempt to connect, which takes up to 2 s while others wait.
const CONNECT_EVERY: Duration = Duration::from_millis(100);

/// Time of a request and its answer between the members.
const WAY_WITHIN: Duration = Duration::from_secs(1);

/// Timeout of the owner's answer to a push, which it compiles and proves.
const PUSH_RELAYED_WITHIN: Duration = PUSHED_WITHIN.saturating_add(Duration::from_secs(10));

/// Longest answer. A page of 2,000 records of the history has about 4 MiB with long names.
const ANSWER_MAX: usize = 8 << 20;

/// Requests that the owner answers at a time; others wait.
const STREAMS_MAX: u32 = 256;

/// Connections from the peer, which opens one for operators and one for WebRTC clients, and may have lost both.
const CONNECTIONS_MAX: usize = 4;

/// A connection ends if the other end answers no ping for this time.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_WITHIN: Duration = Duration::from_secs(2);

/// Headers of a request that its handlers read.
const RELAYED_HEADERS: [&str; 5] =
    ["content-type", "from", "idempotency-key", "traceparent", "tracestate"];

/// Says that only the standby's host saw the request before it was relayed. The standby writes it: one of a client is not relayed.
const PRIVATE: &str = "evenkeel-private";

/// The group, and the connection to the peer's API.
pub(super) struct PeerRelay {
    pub(super) group: Group,
    peer: PeerApi,
    instruments: Arc<Instruments>,
    connection: Mutex<PeerConnection>,
}

/// How requests of one kind are relayed.
#[derive(Clone)]
pub(super) struct RelayLimits {
    /// Relayed bodies count here.
    bodies: Arc<BodyBudget>,
    body_max: usize,
    /// Timeout of the owner's answer.
    within: Duration,
    /// This gateway answers while no owner is known.
    has_copy: bool,
}

impl RelayLimits {
    pub(super) fn of_calls(bodies: Arc<BodyBudget>) -> RelayLimits {
        let within = ANSWER_WITHIN.saturating_add(WAY_WITHIN);
        RelayLimits { bodies, body_max: BODY_MAX, within, has_copy: false }
    }

    pub(super) fn of_changes(bodies: Arc<BodyBudget>) -> RelayLimits {
        RelayLimits { has_copy: true, ..RelayLimits::of_calls(bodies) }
    }

    pub(super) fn of_policies(uploads: Arc<BodyBudget>) -> RelayLimits {
        let (body_max, within) = (PUSH_BYTES_MAX, PUSH_RELAYED_WITHIN);
        RelayLimits { bodies: uploads, body_max, within, has_copy: false }
    }
}

#[derive(Default)]
struct PeerConnection {
    /// `None` before the first request, and after a failure.
    open: Option<SendRequest<Full<Bytes>>>,
    /// The time of the last attempt, if it failed.
    failed: Option<Instant>,
}

/// The request came from the group's other gateway.
#[derive(Clone)]
pub(super) struct Relayed;

/// The group's other gateway has executed the request, and lists it among its changes.
#[derive(Clone)]
pub(super) struct OwnerAnswer;

enum RelayError {
    /// The owner did not execute the request.
    NotExecuted(ApiError),
    Unanswered(ApiError),
}

/// Executes a request here if this gateway owns the group's addresses, and otherwise at the owner.
pub(super) async fn pass(
    State((relay, limits)): State<(Arc<PeerRelay>, RelayLimits)>,
    request: Request,
    next: Next,
) -> Response {
    let is_relayed = request.extensions().get::<Relayed>().is_some();
    match relay.group.owner() {
        GroupOwnership::Here => next.run(request).await,
        _ if is_relayed => no_owner().into_response(),
        GroupOwnership::Doubting if request.method().is_safe() => next.run(request).await,
        GroupOwnership::Unknown if limits.has_copy => next.run(request).await,
        _ => relay.relay(request, next, &limits).await.unwrap_or_else(IntoResponse::into_response),
    }
}

impl PeerRelay {
    pub(super) fn new(group: Group, peer: PeerApi, instruments: Arc<Instruments>) -> PeerRelay {
        PeerRelay { group, peer, instruments, connection: Mutex::default() }
    }

    /// During a takeover a request that may be repeated waits for the new owner, which may be this gateway.
    async fn relay(
        &self,
        request: Request,
        next: Next,
        limits: &RelayLimits,
    ) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let (body, _share) = limits.bodies.read(body, limits.body_max).await?;
        let body = Bytes::from(body);
        let until = Instant::now() + OWNER_WITHIN;
        loop {
            let owner = self.group.owner();
            let failed = match &owner {
                GroupOwnership::Here => {
                    let request = Request::from_parts(parts, Body::from(body));
                    return Ok(next.run(request).await);
                }
                GroupOwnership::Peer(name) => match self
                    .ask(name, &parts, &body, limits.within)
                    .await
                {
                    Ok(answer) => return Ok(answer),
                    Err(RelayError::Unanswered(error)) if !is_repeatable(&parts) => {
                        return Err(error);
                    }
                    Err(RelayError::Unanswered(error) | RelayError::NotExecuted(error)) => error,
                },
                GroupOwnership::Doubting | GroupOwnership::Unknown => no_owner(),
            };
            // A takeover may end while the old owner is asked.
            if Instant::now() >= until && self.group.owner() != GroupOwnership::Here {
                return Err(failed);
            }
            self.group.owner_changed(&owner, REPEAT_EVERY).await;
        }
    }

    async fn ask(
        &self,
        owner: &str,
        parts: &Parts,
        body: &Bytes,
        within: Duration,
    ) -> Result<Response, RelayError> {
        let answer = tokio::select! {
            answer = tokio::time::timeout(within, self.send(owner, parts, body)) => {
                answer.unwrap_or_else(|late| Err(unanswered(owner, &late)))
            }
            () = self.group.owned_here() => Err(unanswered(owner, &"this gateway took over")),
        };
        let outcome = if answer.is_ok() { "answered" } else { "failed" };
        self.instruments.count(Count::ApiRelayed, 1, &[(Attribute::Outcome, outcome)]);
        // While it is locked, another request connects again.
        if answer.is_err()
            && let Ok(mut connection) = self.connection.try_lock()
        {
            connection.open = None;
        }
        answer
    }

    async fn send(&self, owner: &str, parts: &Parts, body: &Bytes) -> Result<Response, RelayError> {
        let connection = self.connection().await;
        let mut connection = connection.map_err(|error| not_executed(owner, &error))?;
        let sent = connection.try_send_request(relayed(parts, body)).await;
        let response = sent.map_err(|mut failed| match failed.take_message() {
            Some(_) => not_executed(owner, failed.error()),
            None => unanswered(owner, failed.error()),
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| unanswered(owner, &error))?.to_bytes();
        answer_of(owner, parts, head, body)
    }

    /// The connection to the peer, opened if there is none.
    async fn connection(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.open.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        if connection.failed.is_some_and(|at| at.elapsed() < CONNECT_EVERY) {
            return Err(io::Error::other("an attempt to connect has just failed"));
        }
        let opened = self.connect().await;
        connection.failed = opened.is_err().then(Instant::now);
        connection.open = opened.as_ref().ok().cloned();
        opened
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = self.peer.connect().await?;
        let opening = client::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream));
        let (opened, conversing) = opening.await.map_err(io::Error::other)?;
        // The task ends with the connection.
        tokio::spawn(conversing);
        Ok(opened)
    }
}

/// A repetition does no harm: by its method (RFC 9110, section 9.2.2), or because of its idempotency key.
fn is_repeatable(parts: &Parts) -> bool {
    let has_key = parts.headers.contains_key("idempotency-key");
    parts.method.is_idempotent() || has_key && parts.uri.path() == "/v1/sessions"
}

/// Returns whether only hosts of this group's gateways saw the request: it came on the Unix socket or from this host, here or at the
/// standby that relayed it.
pub(super) fn is_private(extensions: &Extensions, headers: &HeaderMap) -> bool {
    match extensions.get::<Relayed>() {
        Some(Relayed) => headers.contains_key(PRIVATE),
        None => extensions.get::<Arc<TcpPlace>>().is_none_or(|place| place.is_of_this_host),
    }
}

fn relayed(parts: &Parts, body: &Bytes) -> hyper::Request<Full<Bytes>> {
    let mut uri = parts.uri.clone().into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(Authority::from_static("evenkeel"));
    let mut request = hyper::Request::new(Full::new(body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).expect("a route has a path");
    for name in RELAYED_HEADERS {
        for value in parts.headers.get_all(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    if is_private(&parts.extensions, &parts.headers) {
        request.headers_mut().insert(PRIVATE, HeaderValue::from_static("1"));
    }
    request
}

/// The answer to the client. This version has the path, so an owner without it runs another version.
fn answer_of(
    owner: &str,
    request: &Parts,
    head: response::Parts,
    body: Bytes,
) -> Result<Response, RelayError> {
    match head.status {
        StatusCode::SERVICE_UNAVAILABLE => require_executed(owner, &head.headers, &body)?,
        StatusCode::NOT_FOUND if is_unknown_path(&body) => {
            let (method, path) = (&request.method, request.uri.path());
            let message = format!(
                "{owner}, the owner, runs another version, which does not answer {method} {path} to its standby; ask it directly, or upgrade it"
            );
            return Ok(ApiError::new(ErrorCode::Unavailable, message).into_response());
        }
        _ => {}
    }
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
    response.extensions_mut().insert(OwnerAnswer);
    Ok(response)
}

fn is_unknown_path(body: &[u8]) -> bool {
    let answer: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    answer.error.message == unknown_path().message
}

/// Fails if the gateway is not the owner any more, or if another process has replaced it.
fn require_executed(owner: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), RelayError> {
    if headers.get(header::RETRY_AFTER).is_some_and(|after| after == "0") {
        return Err(not_executed(owner, &"another process replaces it"));
    }
    let answer: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    match answer.error.code == ErrorCode::Standby.name() {
        true => Err(RelayError::NotExecuted(no_owner())),
        false => Ok(()),
    }
}

fn not_executed(owner: &str, reason: &dyn Display) -> RelayError {
    let message = format!("{owner}, the owner, cannot be reached: {reason}; nothing was executed");
    RelayError::NotExecuted(ApiError::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER))
}

fn unanswered(owner: &str, reason: &dyn Display) -> RelayError {
    let message =
        format!("{owner}, the owner, did not answer: {reason}; the request may have been executed");
    RelayError::Unanswered(ApiError::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER))
}

/// Answers the requests that the peer relays, until the runtime ends.
pub(super) async fn serve(mut streams: mpsc::Receiver<PeerStream>, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(stream) = streams.recv().await {
        // Beyond the limit the connection is closed; the peer connects again.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        tokio::spawn(converse(stream, router.clone(), place));
    }
}

async fn converse(mut stream: PeerStream, router: Router, _place: OwnedSemaphorePermit) {
    // Fails only without a descriptor.
    if adopt(&mut stream).is_err() {
        return;
    }
    let serving = server::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A connection that breaks off is closed without an answer.
    let _ = serving.await;
}

/// Registers the socket at the event loop of this thread, which outlives the one that accepted it.
fn adopt(stream: &mut PeerStream) -> io::Result<()> {
    let (socket, _) = stream.get_mut();
    let duplicate = socket.as_fd().try_clone_to_owned()?;
    *socket = TcpStream::from_std(duplicate.into())?;
    Ok(())
}

#[cfg(test)]
mod tests;
