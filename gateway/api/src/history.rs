//! `GET /v1/sessions/history`: records of ended sessions.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use evenkeel_config::read_duration;
use evenkeel_control::history::EndedSession;
use evenkeel_process::unix_us;
use serde::{Deserialize, Serialize};

use super::context::ApiState;
use super::error::{ApiError, ApiErrorCode};
use super::page::{self, Page};

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

pub(super) async fn list(
    State(shared): ApiState,
    asked: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<EndedSessionsView>, ApiError> {
    let Query(HistoryQuery { after, limit, room, since }) =
        asked.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let page = Page::read(Ok(Query(page::PageQuery { after, limit })), u64::MAX, number)?;
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
