//! Requests about changes, and the note of each request that is one.

use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use evenkeel_config::read_duration;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::operations::{ChangeList, ChangesQuery, RequestChange};
use evenkeel_process::unix_us;

use super::context::ApiState;
use super::error::ApiError;
use super::relay::OwnerAnswer;

/// Notes the requests that changed something.
pub(super) async fn pass(State(shared): ApiState, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let changes = *request.method() != Method::GET && !path.starts_with("/v1/sessions");
    let change = changes.then(|| RequestChange {
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

/// The user of a request, as it names one (RFC 9110, section 10.1.2): unverified.
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
