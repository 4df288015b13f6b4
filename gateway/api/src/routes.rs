//! Paths and methods.

use std::sync::Arc;

use axum::routing::{get, post, put};
use axum::{Extension, Router, middleware};

use super::context::ApiContext;
use super::error::{ApiError, ApiErrorCode};
use super::relay::{self, Relayed};
use super::{gateway, offer, operations, policies, recording, sessions};

/// The requests that the owner of a group answers, also those to its standby.
fn of_calls(shared: &ApiContext) -> Router<Arc<ApiContext>> {
    let routes = Router::new()
        .route("/v1/sessions", get(sessions::sessions).post(offer::open))
        .route("/v1/sessions/{id}", get(sessions::session).delete(sessions::close))
        .route("/v1/sessions/{id}/explain", get(sessions::explain))
        .route("/v1/rooms", get(sessions::rooms))
        .route("/v1/rooms/{target}", post(operations::room_verb))
        .route("/v1/nodes/{target}", post(operations::node_verb))
        .route("/v1/regions/{target}", post(operations::region_verb))
        .route("/v1/regions:failback", post(operations::failback_everywhere))
        .route("/readyz", get(gateway::ready));
    match &shared.relay {
        Some(relay) => {
            routes.route_layer(middleware::from_fn_with_state(Arc::clone(relay), relay::pass))
        }
        None => routes,
    }
}

/// The part of the API for the group's other gateway.
pub(super) fn router_of_peer(shared: Arc<ApiContext>) -> Router {
    of_calls(&shared)
        .fallback(async || ApiError::new(ApiErrorCode::NotFound, "unknown path"))
        .layer(Extension(Relayed))
        .with_state(shared)
}

pub(super) fn router(shared: Arc<ApiContext>) -> Router {
    of_calls(&shared)
        .route("/v1/sessions/history", get(sessions::history))
        .route("/v1/modes", get(gateway::modes))
        .route("/v1/nodes", get(operations::nodes))
        .route("/v1/regions", get(operations::regions))
        .route("/v1/status", get(gateway::status))
        .route("/v1/configuration:reload", post(gateway::reload))
        .route("/v1/gateway:upgrade", post(gateway::upgrade))
        .route("/v1/gateway:hand-over", post(gateway::hand_over))
        .route("/v1/gateway:take-over", post(gateway::take_over))
        .route("/v1/gateways", get(gateway::gateways))
        .route("/v1/index/gateways", get(gateway::indexed_gateways))
        .route("/v1/index/sessions/{id}", get(gateway::indexed_session))
        .route("/v1/policies", get(policies::policies))
        .route("/v1/recording", get(recording::record))
        .route("/v1/policies/refusals", get(policies::refusals))
        .route(
            "/v1/policies/{set}/{target}",
            put(policies::push_policy).post(policies::policy_verb),
        )
        .route("/v1/drill:close-api", post(gateway::close_api))
        .route("/v1/events", get(gateway::follow))
        .route("/livez", get(async || "alive\n"))
        .route("/metrics", get(gateway::metrics))
        .fallback(async || ApiError::new(ApiErrorCode::NotFound, "unknown path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(ApiErrorCode::MethodNotAllowed, "method not allowed at this path")
        })
        .with_state(shared)
}
