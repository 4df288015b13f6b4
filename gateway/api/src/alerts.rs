//! Alerts that this gateway, or the owner of its group, sends itself.

use std::future::ready;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use evenkeel_alerts::{AcknowledgeError, AlertHandle};
use evenkeel_contract::alerts::AlertList;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::ControlError;

use super::changes::user;
use super::context::{ApiContext, ApiState};
use super::error::ApiError;
use super::relay::ANSWER_WITHIN;
use super::request::{unknown_verb, verb};

/// Alerts that fire, and the receivers.
pub(super) async fn alerts(State(shared): ApiState) -> Result<Json<AlertList>, ApiError> {
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
    let acknowledging = handle(&shared)?.acknowledge(name, user(&headers).map(Arc::from));
    let acknowledged = tokio::time::timeout(ANSWER_WITHIN, acknowledging).await;
    let acknowledged = acknowledged
        .unwrap_or_else(|late| Err(AcknowledgeError::NotWritten(late.to_string().into())));
    let refused = |code, failed: AcknowledgeError| Err(ApiError::new(code, failed.to_string()));
    let kept = match acknowledged {
        Ok(()) => Ok(()),
        Err(AcknowledgeError::NotWritten(reason)) => Err(ControlError::NotWritten(reason)),
        Err(silent @ AcknowledgeError::Silent(_)) => {
            return refused(ErrorCode::Conflict, silent);
        }
        Err(unknown) => return refused(ErrorCode::NotFound, unknown),
    };
    shared.decide(name, ready(kept)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn handle(shared: &ApiContext) -> Result<&AlertHandle, ApiError> {
    shared.alerts.as_ref().ok_or_else(no_receivers)
}

fn no_receivers() -> ApiError {
    ApiError::new(ErrorCode::NotFound, AcknowledgeError::NoReceiver.to_string())
}
