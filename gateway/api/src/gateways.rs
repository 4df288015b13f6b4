//! The gateways of a group.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use evenkeel_group::{
    GatewayStanding, Group, GroupOwnership, GroupRole, GroupStatus, HandOverError, HandOverResult,
    TakeOverError, TakenOver,
};
use serde::Deserialize;

use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode, strict};
use super::operations::read;
use super::relay::no_owner;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HandOver {
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeOver {
    /// The peer's name.
    confirm_down: String,
}

fn group(shared: &Arc<ApiContext>) -> Result<&Group, ApiError> {
    let none = "this gateway belongs to no group; [cluster] in its configuration forms one";
    shared.group().ok_or_else(|| ApiError::new(ApiErrorCode::NotFound, none))
}

pub(super) async fn list(State(shared): ApiState) -> Result<Json<GroupStatus>, ApiError> {
    let mut standing = group(&shared)?.standing();
    let served = shared.ask("", shared.handle.status()).await?.sessions;
    let has_them =
        |it: &&mut GatewayStanding| it.here || it.role == GroupRole::Standby && it.in_sync;
    standing.gateways.iter_mut().filter(has_them).for_each(|it| it.sessions += served);
    Ok(Json(standing))
}

/// Makes the group's other gateway the owner of its addresses and sessions.
pub(super) async fn hand_over(
    State(shared): ApiState,
    body: Body,
) -> Result<Json<HandOverResult>, ApiError> {
    let body = read(&shared, body).await?;
    let HandOver { to } = strict(&body)?;
    let handed_over = group(&shared)?.hand_over(to).await;
    handed_over.map(Json).map_err(|failed| match failed {
        HandOverError::Unknown { .. } => ApiError::field("to", failed.to_string()),
        _ => ApiError::new(ApiErrorCode::Conflict, failed.to_string()),
    })
}

/// Makes this gateway the owner although its peer is silent.
pub(super) async fn take_over(
    State(shared): ApiState,
    body: Body,
) -> Result<Json<TakenOver>, ApiError> {
    let body = read(&shared, body).await?;
    let TakeOver { confirm_down } = strict(&body)?;
    let taken_over = group(&shared)?.take_over(confirm_down).await;
    taken_over.map(Json).map_err(|failed| match failed {
        TakeOverError::NotPeer { .. } => ApiError::field("confirm_down", failed.to_string()),
        _ => ApiError::new(ApiErrorCode::Conflict, failed.to_string()),
    })
}

/// Fails at a gateway of a group that sends nothing at present.
pub(super) fn require_owner(shared: &ApiContext) -> Result<(), ApiError> {
    match shared.group().map(Group::owner) {
        None | Some(GroupOwnership::Here) => Ok(()),
        Some(_) => Err(no_owner()),
    }
}

/// Waits until the standby has the records of all sessions that were opened so far, or is late.
pub(super) async fn confirm(shared: &ApiContext) {
    if let Some(group) = shared.group()
        && let Some(number) = shared.handle.records_sent().await
    {
        group.confirmed(number).await;
    }
}
