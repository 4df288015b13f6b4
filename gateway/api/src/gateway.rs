//! The gateway itself: status, reload, upgrade, its group, and the shared index.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use evenkeel_config::ConfigInForce;
use evenkeel_control::{AdmissionState, Reloaded};
use evenkeel_group::{
    GatewayStanding, Group, GroupRole, GroupStatus, HandOverError, HandOverResult, TakeOverError,
    TakenOver,
};
use evenkeel_handover::{NotUpgraded, READY_WITHIN, UpgradeResult};
use evenkeel_index::IndexReader;
use evenkeel_process::unix_us;
use evenkeel_telemetry::MetricsFormat;
use serde::{Deserialize, Serialize};

use super::context::{ApiContext, ApiState};
use super::error::{self, ApiError, ApiErrorCode, refused};
use super::events;
use super::listener::TcpPlace;
use super::object::object;
use super::request::{read_deadline, session_id};

/// The answer to `drill:close-api` is sent within this time.
const LAST_ANSWER: Duration = Duration::from_millis(50);

pub(super) async fn modes(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    Ok(Json(object! { modes: shared.ask("", shared.handle.modes()).await? }))
}

pub(super) async fn status(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    let status = shared.ask("", shared.handle.status()).await?;
    let index = shared.index.as_ref().map(IndexReader::status);
    let unwritten = shared.handle.unwritten.list();
    let warnings = shared.group().map(|group| group.status().warnings).unwrap_or_default();
    let warnings = warnings.iter().map(ToString::to_string);
    let warnings: Vec<_> = warnings.chain(unwritten.iter().map(ToString::to_string)).collect();
    let unwritten = unwritten.into_iter().map(|it| {
        let (since_us, document) = (unix_us(it.since), it.document);
        object! { document: document, file: it.file, since_us: since_us, reason: it.reason }
    });
    let reload = status.last_reload.as_ref().map(|(report, at)| {
        object! { at_us: unix_us(*at), #[serde(flatten)] reload: events::reload(report) }
    });
    let configuration = shared.configuration.as_ref().map(|in_force| {
        let ConfigInForce { file, sha256, read_us, requires_restart, .. } = in_force.borrow().clone();
        object! { file?: file, sha256?: sha256, read_us: read_us, requires_restart: requires_restart }
    });
    let export_failures = shared.export_failures.list().into_iter().map(|it| {
        object! { signal: it.signal, since_us: unix_us(it.since), failures: it.failures }
    });
    let forecasts: Vec<_> = status.forecasts.iter().map(events::forecast).collect();
    Ok(Json(object! {
        #[serde(flatten)]
        status: status,
        forecasts: forecasts,
        configuration?: configuration,
        last_reload?: reload,
        index?: index,
        dependencies?: shared.dependencies(),
        export_failures: export_failures.collect::<Vec<_>>(),
        // The disk lacks the newest content of these documents.
        unwritten: unwritten.collect::<Vec<_>>(),
        warnings: warnings,
    }))
}

/// The configuration in force, with all keys that have a value.
pub(super) async fn configuration(
    State(shared): ApiState,
) -> Result<Json<ConfigInForce>, ApiError> {
    let in_force = shared.configuration.as_ref().map(|in_force| in_force.borrow().clone());
    let none = "this gateway runs within another program, and was not read from files";
    in_force.map(Json).ok_or_else(|| ApiError::new(ApiErrorCode::NotFound, none))
}

/// Returns an error if new sessions are not admitted, or if control does not answer.
pub(super) async fn ready(State(shared): ApiState) -> Result<&'static str, ApiError> {
    shared.require_owner()?;
    match shared.ask("", shared.handle.status()).await?.state {
        AdmissionState::Starting => Err(error::starting()),
        AdmissionState::Serving => Ok("ready\n"),
        AdmissionState::Draining => Err(error::draining()),
    }
}

pub(super) async fn metrics(
    State(shared): ApiState,
    headers: HeaderMap,
) -> ([(HeaderName, &'static str); 2], String) {
    // A client may send the header more than once (RFC 9110, 5.3).
    let accept = headers.get_all(header::ACCEPT).into_iter().filter_map(|it| it.to_str().ok());
    let format = MetricsFormat::preferred(&accept.collect::<Vec<_>>().join(","));
    let described = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    (described, (shared.metrics)(format))
}

/// Ends the API once this answer is sent.
pub(super) async fn close_api(State(shared): ApiState) -> Result<StatusCode, ApiError> {
    shared.require_drills()?;
    tokio::spawn(async move {
        tokio::time::sleep(LAST_ANSWER).await;
        shared.closing.notify_one();
    });
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn follow(State(shared): ApiState) -> Result<impl IntoResponse, ApiError> {
    shared.feed.listen()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReloadBody {
    force: bool,
    deadline: Option<String>,
}

/// Reloads the configuration; takes as long as compiling its plugins.
pub(super) async fn reload(
    State(shared): ApiState,
    body: Body,
) -> Result<Json<Reloaded>, ApiError> {
    let ReloadBody { force, deadline } = shared.parse_if_any(body).await?;
    let within = deadline.as_deref().map(read_deadline).transpose()?;
    let reloaded = shared.handle.reload(force, within).await;
    reloaded.map(Json).map_err(|failed| refused(failed, "", &shared.names))
}

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
    let UpgradeBody { binary, deadline } = shared.parse_if_any(body).await?;
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandOver {
    /// Default: the standby.
    to: Option<String>,
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

pub(super) async fn gateways(State(shared): ApiState) -> Result<Json<GroupStatus>, ApiError> {
    let status = group(&shared)?.status();
    let served = shared.ask("", shared.handle.status()).await?.sessions;
    Ok(Json(with_served(status, served)))
}

/// Adds the sessions that this gateway serves.
pub(super) fn with_served(mut status: GroupStatus, served: usize) -> GroupStatus {
    let has_them =
        |it: &&mut GatewayStanding| it.here || it.role == GroupRole::Standby && it.in_sync;
    status.gateways.iter_mut().filter(has_them).for_each(|it| it.sessions += served);
    status
}

/// Makes the group's other gateway the owner of its addresses and sessions.
pub(super) async fn hand_over(
    State(shared): ApiState,
    body: Body,
) -> Result<Json<HandOverResult>, ApiError> {
    let HandOver { to } = shared.parse_if_any(body).await?;
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
    let TakeOver { confirm_down } = shared.parse(body).await?;
    let taken_over = group(&shared)?.take_over(confirm_down).await;
    taken_over.map(Json).map_err(|failed| match failed {
        TakeOverError::NotPeer { .. } => ApiError::field("confirm_down", failed.to_string()),
        _ => ApiError::new(ApiErrorCode::Conflict, failed.to_string()),
    })
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

pub(super) async fn indexed_session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<impl Serialize>, ApiError> {
    let session = session_id(&id)?;
    let sessions = index(&shared)?.find(session).await.map_err(|reason| unreachable(&reason))?;
    if sessions.is_empty() {
        return Err(ApiError::new(
            ApiErrorCode::NotFound,
            format!("the index lists no session `{id}`"),
        ));
    }
    Ok(Json(object! { sessions: sessions }))
}

pub(super) async fn indexed_gateways(
    State(shared): ApiState,
) -> Result<Json<impl Serialize>, ApiError> {
    let gateways = index(&shared)?.members().await.map_err(|reason| unreachable(&reason))?;
    Ok(Json(object! { gateways: gateways }))
}
