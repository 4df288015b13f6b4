//! Sessions and gateways of all groups, from the shared index.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use evenkeel_index::{FoundSession, IndexReader, ListedGateway};
use serde::Serialize;

use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode};
use super::target::session_id;

#[derive(Serialize)]
pub(super) struct IndexedSessionsView {
    sessions: Vec<FoundSession>,
}

#[derive(Serialize)]
pub(super) struct Gateways {
    gateways: Vec<ListedGateway>,
}

fn index(shared: &Arc<ApiContext>) -> Result<&IndexReader, ApiError> {
    let none = "this gateway has no index; [index] in its configuration names its store";
    shared.index.as_ref().ok_or_else(|| ApiError::new(ApiErrorCode::NotFound, none))
}

fn unreachable(reason: &str) -> ApiError {
    ApiError::new(
        ApiErrorCode::Unavailable,
        format!("the store of the index is not reachable: {reason}"),
    )
}

pub(super) async fn session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<IndexedSessionsView>, ApiError> {
    let session = session_id(&id)?;
    let sessions = index(&shared)?.find(session).await.map_err(|reason| unreachable(&reason))?;
    if sessions.is_empty() {
        return Err(ApiError::new(
            ApiErrorCode::NotFound,
            format!("the index lists no session `{id}`"),
        ));
    }
    Ok(Json(IndexedSessionsView { sessions }))
}

pub(super) async fn gateways(State(shared): ApiState) -> Result<Json<Gateways>, ApiError> {
    let gateways = index(&shared)?.members().await.map_err(|reason| unreachable(&reason))?;
    Ok(Json(Gateways { gateways }))
}
