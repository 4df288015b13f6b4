//! The gateway itself: status, reload, upgrade, its group, and the shared index.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use evenkeel_config::ConfigInForce;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::gateway::{
    ClientBreaker, Configuration, ConfigurationOrigin, Credential, ExportFailure, Gateway,
    GatewayList, HandOverRequest, IndexStatus, IndexedGatewayList, IndexedSessionList, ModeList,
    NewOwner, ProviderBreaker, ReloadRequest, Reloaded, Slo, SloWindow, Status, TakeOverRequest,
    TakenOver, UnwrittenDocument, UpgradeRequest, Upgraded,
};
use evenkeel_control::AdmissionState;
use evenkeel_group::{
    GatewayStanding, Group, GroupRole, GroupStatus, HandOverError, TakeOverError,
};
use evenkeel_handover::{NotUpgraded, READY_WITHIN};
use evenkeel_index::IndexReader;
use evenkeel_process::unix_us;
use evenkeel_telemetry::{MetricsFormat, date};

use super::answers::{self, milliseconds};
use super::context::{ApiContext, ApiState};
use super::error::{self, ApiError, refused};
use super::listener::TcpPlace;
use super::request::{read_deadline, session_id};

pub(super) async fn modes(State(shared): ApiState) -> Result<Json<ModeList>, ApiError> {
    Ok(Json(ModeList { modes: shared.ask("", shared.handle.modes()).await? }))
}

pub(super) async fn status(State(shared): ApiState) -> Result<Json<Status>, ApiError> {
    let report = shared.ask("", shared.handle.status()).await?;
    let unwritten = shared.handle.unwritten.list();
    let warnings = shared.group().map(|group| group.status().warnings).unwrap_or_default();
    let warnings = warnings.iter().map(ToString::to_string);
    let warnings = warnings.chain(unwritten.iter().map(ToString::to_string)).collect();
    let unwritten = unwritten.into_iter().map(|it| UnwrittenDocument {
        document: it.document.into(),
        file: it.file,
        since_us: unix_us(it.since),
        reason: it.reason,
    });
    let export_failures = shared.export_failures.list().into_iter().map(|it| ExportFailure {
        signal: it.signal.into(),
        since_us: unix_us(it.since),
        failures: it.failures,
        reason: Some(it.reason),
    });
    let credentials = shared.credentials.iter().map(|it| Credential {
        credential: it.credential.into(),
        ends_us: unix_us(it.ends),
        ends: date(it.ends),
    });
    let slos = report.slos.into_iter().map(|it| Slo {
        scenario: it.scenario,
        slo: it.slo.name().into(),
        objective: it.objective,
        budget: it.budget,
        windows: Vec::from(it.windows.map(|window| SloWindow {
            window: window.window.into(),
            counted_ms: milliseconds(window.counted),
            sessions: window.sessions,
            bad: window.bad,
            burn_rate: window.burn_rate,
        })),
    });
    let client_breakers = report.client_breakers.iter().map(|it| ClientBreaker {
        group: answers::client_group(&it.group),
        breaker: it.breaker.into(),
        breaker_mode: it.breaker_mode.name().into(),
        half_open_in_ms: it.half_open_in_ms,
        voice_only_sessions: it.voice_only_sessions,
    });
    let provider_breakers = report.provider_breakers.into_iter().map(|it| ProviderBreaker {
        provider: it.provider,
        breaker: it.breaker.into(),
        half_open_in_ms: it.half_open_in_ms,
        failures: it.failures,
    });
    let words = |counts: BTreeMap<&'static str, u64>| {
        counts.into_iter().map(|(word, count)| (word.into(), count)).collect()
    };
    Ok(Json(Status {
        state: report.state.name().into(),
        version: report.version.into(),
        region: report.region,
        uptime_ms: report.uptime_ms,
        sessions: report.sessions,
        rooms: report.rooms,
        uplink_suspect: report.uplink_suspect,
        policies_failing: report.policies_failing,
        slos: slos.collect(),
        client_breakers: client_breakers.collect(),
        provider_breakers: provider_breakers.collect(),
        packets_to_node: report.packets_to_node,
        packets_to_client: report.packets_to_client,
        bytes_to_node: report.bytes_to_node,
        bytes_to_client: report.bytes_to_client,
        key_frames_to_node: report.key_frames_to_node,
        key_frames_to_client: report.key_frames_to_client,
        drops: words(report.drops),
        udp: report.udp,
        quic: report.quic,
        carriers: report.carriers,
        quic_counts: words(report.quic_counts),
        forecasts: report.forecasts.iter().map(answers::forecast).collect(),
        configuration: shared.configuration.as_ref().map(|it| origin(&it.borrow())),
        last_reload: report.last_reload.as_ref().map(|(report, at)| answers::reload(report, *at)),
        index: shared.index.as_ref().map(|index| index_status(index.status())),
        dependencies: shared.dependencies(),
        export_failures: export_failures.collect(),
        credentials: credentials.collect(),
        unwritten: unwritten.collect(),
        warnings,
    }))
}

fn index_status(status: evenkeel_index::IndexStatus) -> IndexStatus {
    IndexStatus { state: status.state.name().into(), reason: status.reason }
}

fn origin(in_force: &ConfigInForce) -> ConfigurationOrigin {
    let ConfigInForce { file, sha256, read_us, requires_restart, .. } = in_force.clone();
    ConfigurationOrigin { file, sha256, read_us, requires_restart }
}

/// The configuration in force, with all keys that have a value.
pub(super) async fn configuration(
    State(shared): ApiState,
) -> Result<Json<Configuration>, ApiError> {
    let none = "this gateway runs within another program, and was not read from files";
    let in_force = shared.configuration.as_ref();
    let in_force = in_force.ok_or_else(|| ApiError::new(ErrorCode::NotFound, none))?.borrow();
    let tables = serde_json::to_value(&in_force.configuration).expect("TOML has no other types");
    let serde_json::Value::Object(configuration) = tables else {
        unreachable!("a table is an object")
    };
    let (origin, policies) = (origin(&in_force), in_force.policies.clone());
    Ok(Json(Configuration { origin, policies, configuration }))
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

/// The description of the API.
pub(super) async fn openapi() -> impl IntoResponse {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| evenkeel_contract::openapi::document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
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

pub(super) async fn follow(State(shared): ApiState) -> Result<impl IntoResponse, ApiError> {
    shared.feed.listen()
}

/// Reloads the configuration; takes as long as compiling its plugins.
pub(super) async fn reload(
    State(shared): ApiState,
    body: Body,
) -> Result<Json<Reloaded>, ApiError> {
    let ReloadRequest { force, deadline } = shared.parse_if_any(body).await?;
    let within = deadline.as_deref().map(read_deadline).transpose()?;
    let reloaded = shared.handle.reload(force, within).await;
    match reloaded {
        Ok(reloaded) => Ok(Json(answers::reloaded(&reloaded))),
        Err(failed) => Err(refused(failed, "", &shared.names)),
    }
}

/// Replaces the process; takes as long as the new one needs to compile its plugins.
pub(super) async fn upgrade(
    State(shared): ApiState,
    tcp: Option<Extension<Arc<TcpPlace>>>,
    body: Body,
) -> Result<Json<Upgraded>, ApiError> {
    let UpgradeRequest { binary, deadline } = shared.parse_if_any(body).await?;
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
                ..ApiError::new(ErrorCode::Refused, message)
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
        NotUpgraded::UnderWay => ApiError::new(ErrorCode::Conflict, failed.to_string()),
        NotUpgraded::Embedded => ApiError::new(ErrorCode::NotFound, failed.to_string()),
        NotUpgraded::Failed(reason) => ApiError::new(
            ErrorCode::Conflict,
            format!("upgrade failed, the running process continues: {reason}"),
        ),
    })
}

fn group(shared: &Arc<ApiContext>) -> Result<&Group, ApiError> {
    let none = "this gateway belongs to no group; [cluster] in its configuration forms one";
    shared.group().ok_or_else(|| ApiError::new(ErrorCode::NotFound, none))
}

pub(super) async fn gateways(State(shared): ApiState) -> Result<Json<GatewayList>, ApiError> {
    let status = group(&shared)?.status();
    let served = shared.ask("", shared.handle.status()).await?.sessions;
    let GroupStatus { gateways, warnings, .. } = with_served(status, served);
    Ok(Json(GatewayList { gateways: gateways.into_iter().map(member).collect(), warnings }))
}

fn member(standing: GatewayStanding) -> Gateway {
    Gateway {
        gateway: standing.gateway,
        here: standing.here,
        role: standing.role.name().into(),
        epoch: standing.epoch,
        sessions: standing.sessions,
        in_sync: standing.in_sync,
        armed: standing.armed,
        heard_ms: standing.heard_ms,
        addresses: standing.addresses,
        refused: standing.refused,
        blocked: standing.blocked,
    }
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
) -> Result<Json<NewOwner>, ApiError> {
    let HandOverRequest { to } = shared.parse_if_any(body).await?;
    let handed_over = group(&shared)?.hand_over(to).await;
    handed_over.map(Json).map_err(|failed| match failed {
        HandOverError::Unknown { .. } => ApiError::field("to", failed.to_string()),
        _ => ApiError::new(ErrorCode::Conflict, failed.to_string()),
    })
}

/// Makes this gateway the owner although its peer is silent.
pub(super) async fn take_over(
    State(shared): ApiState,
    body: Body,
) -> Result<Json<TakenOver>, ApiError> {
    let TakeOverRequest { confirm_down } = shared.parse(body).await?;
    let taken_over = group(&shared)?.take_over(confirm_down).await;
    taken_over.map(Json).map_err(|failed| match failed {
        TakeOverError::NotPeer { .. } => ApiError::field("confirm_down", failed.to_string()),
        _ => ApiError::new(ErrorCode::Conflict, failed.to_string()),
    })
}

fn index(shared: &Arc<ApiContext>) -> Result<&IndexReader, ApiError> {
    let none = "this gateway has no index; [index] in its configuration names its store";
    shared.index.as_ref().ok_or_else(|| ApiError::new(ErrorCode::NotFound, none))
}

fn unreachable(reason: &str) -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        format!("the store of the index is not reachable: {reason}"),
    )
}

pub(super) async fn indexed_session(
    State(shared): ApiState,
    Path(id): Path<String>,
) -> Result<Json<IndexedSessionList>, ApiError> {
    let session = session_id(&id)?;
    let sessions = index(&shared)?.find(session).await.map_err(|reason| unreachable(&reason))?;
    if sessions.is_empty() {
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("the index lists no session `{id}`"),
        ));
    }
    Ok(Json(IndexedSessionList { sessions }))
}

pub(super) async fn indexed_gateways(
    State(shared): ApiState,
) -> Result<Json<IndexedGatewayList>, ApiError> {
    let gateways = index(&shared)?.members().await.map_err(|reason| unreachable(&reason))?;
    Ok(Json(IndexedGatewayList { gateways }))
}
