//! Alerts that this gateway, or the owner of its group, sends itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use evenkeel_alerts::{AcknowledgeError, AlertHandle, AlertsView};

use super::changes::user;
use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode};
use super::request::{unknown_verb, verb};

/// Alerts that fire, and the receivers.
pub(super) async fn alerts(State(shared): ApiState) -> Result<Json<AlertsView>, ApiError> {
    Ok(Json(handle(&shared)?.list().await.ok_or_else(no_receivers)?))
}

pub(super) async fn alert_verb(
    State(shared): ApiState,
    Path(target): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (name, verb) = verb(&target)?;
    if verb != "acknowledge" {
        return Err(unknown_verb(verb, "`acknowledge`"));
    }
    let acknowledged = handle(&shared)?.acknowledge(name, user(&headers).map(Arc::from)).await;
    acknowledged.map(|()| StatusCode::NO_CONTENT).map_err(|failed| {
        let code = match failed {
            AcknowledgeError::Unknown(_) | AcknowledgeError::NoReceiver => ApiErrorCode::NotFound,
            AcknowledgeError::Silent(_) => ApiErrorCode::Conflict,
        };
        ApiError::new(code, failed.to_string())
    })
}

fn handle(shared: &ApiContext) -> Result<&AlertHandle, ApiError> {
    shared.alerts.as_ref().ok_or_else(no_receivers)
}

fn no_receivers() -> ApiError {
    ApiError::new(ApiErrorCode::NotFound, AcknowledgeError::NoReceiver.to_string())
}
