//! Requests about changes, and the note of each request that is one.

use std::time::SystemTime;

use axum::Json;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use evenkeel_config::read_duration;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::operations::{ChangeList, ChangesQuery, RequestChange};
use evenkeel_process::unix_us;
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;

use super::context::ApiState;
use super::error::ApiError;
use super::listener::Gated;
use super::relay::OwnerAnswer;

/// The process at the other end of the Unix socket.
#[derive(Clone, Copy)]
pub(super) struct SocketPeer {
    /// `None`: the kernel does not tell.
    uid: Option<Uid>,
}

impl Connected<IncomingStream<'_, Gated<UnixListener>>> for SocketPeer {
    fn connect_info(stream: IncomingStream<'_, Gated<UnixListener>>) -> SocketPeer {
        SocketPeer { uid: stream.io().peer_uid().map(Uid::from_raw) }
    }
}

impl SocketPeer {
    /// The name of the process's user. Waits for the system's directory of users.
    fn user(self) -> Option<String> {
        let uid = self.uid?;
        let known = User::from_uid(uid).ok().flatten();
        Some(known.map_or_else(|| format!("uid {uid}"), |user| user.name))
    }
}

/// Names the user of the process at the Unix socket in a request that names none, if it may be noted.
pub(super) async fn name_user(
    ConnectInfo(peer): ConnectInfo<SocketPeer>,
    mut request: Request,
    next: Next,
) -> Response {
    if is_change(&request) && !request.headers().contains_key(header::FROM) {
        let named = tokio::task::spawn_blocking(move || peer.user()).await;
        let user = named.ok().flatten().and_then(|name| HeaderValue::try_from(name).ok());
        if let Some(user) = user {
            request.headers_mut().insert(header::FROM, user);
        }
    }
    next.run(request).await
}

/// The request may change something that is noted.
fn is_change(request: &Request) -> bool {
    let of_clients = ["/v1/sessions", "/v1/probes"];
    let path = request.uri().path();
    *request.method() != Method::GET && !of_clients.iter().any(|those| path.starts_with(those))
}

/// Notes the requests that changed something.
pub(super) async fn pass(State(shared): ApiState, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let change = is_change(&request).then(|| RequestChange {
        event: "request".to_owned(),
        by: "operator".to_owned(),
        user: user(request.headers()),
        request: shown(&format!("{} {path}", request.method())),
        at_us: 0,
    });
    let response = next.run(request).await;
    let is_noted = response.extensions().get::<OwnerAnswer>().is_some();
    if let Some(mut change) = change.filter(|_| response.status().is_success() && !is_noted) {
        change.at_us = unix_us(SystemTime::now());
        shared.changes.note_request(&change);
    }
    response
}

/// The user of a request, as it names one (RFC 9110, section 10.1.2), unverified, or as [`name_user`] did.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    headers.get(header::FROM).and_then(|from| from.to_str().ok()).map(shown)
}

fn shown(text: &str) -> String {
    text.chars().take(256).collect()
}

pub(super) async fn changes(
    State(shared): ApiState,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Json<ChangeList>, ApiError> {
    let Query(ChangesQuery { since }) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    let since = since.as_deref().map(read_duration).transpose();
    let since = since.map_err(|right| ApiError::field("since", right))?;
    let now_us = unix_us(SystemTime::now());
    let since_us = since.map_or(0, |since| now_us.saturating_sub(since.as_micros() as u64));
    // Newest first.
    Ok(Json(ChangeList { changes: shared.changes.since(since_us) }))
}
