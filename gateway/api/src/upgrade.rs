//! The replacement of the gateway's process.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use evenkeel_handover::{NotUpgraded, READY_WITHIN, UpgradeResult};
use serde::Deserialize;

use super::context::ApiState;
use super::error::{ApiError, ApiErrorCode, strict};
use super::operations::{read, read_deadline};
use super::tcp::TcpPlace;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UpgradeBody {
    binary: Option<PathBuf>,
    deadline: Option<String>,
}

/// Replaces the process; takes as long as the new one needs to compile its plugins.
pub(super) async fn upgrade(
    State(shared): ApiState,
    tcp: Option<Extension<Arc<TcpPlace>>>,
    body: Body,
) -> Result<Json<UpgradeResult>, ApiError> {
    let body = read(&shared, body).await?;
    let UpgradeBody { binary, deadline } =
        if body.is_empty() { UpgradeBody::default() } else { strict(&body)? };
    let within = deadline.as_deref().map(read_deadline).transpose()?;
    if within.is_some_and(|within| within > READY_WITHIN) {
        let message = format!("found a longer time, expected at most {READY_WITHIN:?}");
        return Err(ApiError::field("deadline", message));
    }
    if let Some(binary) = &binary {
        if tcp.is_some() {
            let message = "programs are named on the Unix socket only; without `binary` the gateway's own is started again";
            return Err(ApiError {
                field: Some("binary".into()),
                ..ApiError::new(ApiErrorCode::Refused, message)
            });
        }
        if !binary.is_absolute() {
            let found = format!("found `{}`, expected an absolute path", binary.display());
            return Err(ApiError::field("binary", found));
        }
    }
    let upgraded = match &shared.upgrades {
        Some(upgrades) => upgrades.upgrade(binary, within).await,
        None => Err(NotUpgraded::Embedded),
    };
    upgraded.map(Json).map_err(|failed| match failed {
        NotUpgraded::UnderWay => ApiError::new(ApiErrorCode::Conflict, failed.to_string()),
        NotUpgraded::Embedded => ApiError::new(ApiErrorCode::NotFound, failed.to_string()),
        NotUpgraded::Failed(reason) => ApiError::new(
            ApiErrorCode::Conflict,
            format!("upgrade failed, the running process continues: {reason}"),
        ),
    })
}
