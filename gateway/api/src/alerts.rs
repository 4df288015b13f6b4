//! Alerts that this gateway, or the owner of its group, sends itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use evenkeel_alerts::{AcknowledgeError, AlertReader, AlertsView};

use super::changes::user;
use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode};
use super::request::{unknown_verb, verb};

/// Alerts that fire, and the receivers.
pub(super) async fn alerts(State(shared): ApiState) -> Result<Json<AlertsView>, ApiError> {
    Ok(Json(listed(&shared).await?))
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
    listed(&shared).await?;
    let acknowledged = reader(&shared)?.acknowledge(name, user(&headers).map(Arc::from)).await;
    acknowledged.map(|()| StatusCode::NO_CONTENT).map_err(|failed| {
        let code = match failed {
            AcknowledgeError::Unknown(_) => ApiErrorCode::NotFound,
            AcknowledgeError::Silent(_) => ApiErrorCode::Conflict,
        };
        ApiError::new(code, failed.to_string())
    })
}

fn reader(shared: &ApiContext) -> Result<&AlertReader, ApiError> {
    shared.alerts.as_ref().ok_or_else(none)
}

async fn listed(shared: &ApiContext) -> Result<AlertsView, ApiError> {
    reader(shared)?.list().await.ok_or_else(none)
}

fn none() -> ApiError {
    let none = "this gateway sends no alerts; [[alert]] in its configuration names a receiver";
    ApiError::new(ApiErrorCode::NotFound, none)
}
