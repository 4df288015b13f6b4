//! Failures of nodes and gateways, with the sessions that they hit.

use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use evenkeel_config::read_duration;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::operations::{Failure, FailureList, FailuresQuery};
use evenkeel_contract::sessions::PageQuery;
use evenkeel_process::unix_us;

use super::context::ApiState;
use super::error::ApiError;
use super::request::Page;

pub(super) async fn failures(
    State(shared): ApiState,
    query: Result<Query<FailuresQuery>, QueryRejection>,
) -> Result<Json<FailureList>, ApiError> {
    let Query(FailuresQuery { since, node, limit }) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    let page = PageQuery { after: None, limit };
    let page = Page::read(Ok(Query(page)), (), |_| Ok(()))?;
    let since = since.as_deref().map(read_duration).transpose();
    let since = since.map_err(|right| ApiError::field("since", right))?;
    let now_us = unix_us(SystemTime::now());
    let since_us = since.map_or(0, |since| now_us.saturating_sub(since.as_micros() as u64));
    let history = shared.ask("", shared.handle.history()).await?;
    let mut failures = shared.failures.all(&history);
    let is_of = |failure: &Failure, name: &str| failure.nodes.iter().any(|node| **node == *name);
    failures.retain(|failure| {
        failure.at_us >= since_us && node.as_deref().is_none_or(|name| is_of(failure, name))
    });
    let found = failures.len();
    // There is no next page: `since` and `node` select fewer.
    let _next = page.cut(&mut failures, |_| String::new());
    let truncated = failures.len() < found;
    Ok(Json(FailureList { failures, truncated }))
}
