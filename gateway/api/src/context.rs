//! What all handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use evenkeel_control::{ControlError, Handle, KeyTable, NodeNames};
use evenkeel_group::Group;
use evenkeel_handover::Upgrades;
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_index::IndexReader;
use tokio::sync::Notify;

use super::body::BodyBudget;
use super::error::{ApiError, ApiErrorCode};
use super::events::EventFeed;
use super::refusal;
use super::relay::PeerRelay;

/// Maximum JSON body in bytes, twice the largest valid offer.
pub(super) const BODY_MAX: usize = 128 * 1_024;
/// Bytes of all JSON bodies held at the same time.
const BODIES_MAX: usize = 256 * BODY_MAX;
/// Bytes of all pushed plugins held at the same time. Separate from [`BODIES_MAX`], so that pushes cannot keep offers
/// out.
const UPLOADS_MAX: usize = 4 * BINARY_BYTES_MAX;
/// Timeout of control's answer. Drivers have 2 s of it to open a session.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct ApiContext {
    pub(super) handle: Handle,
    pub(super) names: Arc<NodeNames>,
    /// Renders `/metrics` for Prometheus.
    pub(super) metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub(super) seen: Arc<KeyTable>,
    pub(super) feed: EventFeed,
    pub(super) bodies: Arc<BodyBudget>,
    pub(super) uploads: Arc<BodyBudget>,
    pub(super) drills: bool,
    /// `None`: the gateway runs within another program.
    pub(super) upgrades: Option<Upgrades>,
    /// `None`: the gateway belongs to no group.
    pub(super) relay: Option<PeerRelay>,
    /// `None`: no index is configured.
    pub(super) index: Option<IndexReader>,
    /// Notified by `drill:close-api`.
    pub(super) closing: Notify,
}

impl ApiContext {
    pub(super) fn new(
        handle: Handle,
        metrics: Box<dyn Fn() -> String + Send + Sync>,
        drills: bool,
        upgrades: Option<Upgrades>,
        relay: Option<PeerRelay>,
        index: Option<IndexReader>,
    ) -> ApiContext {
        ApiContext {
            names: handle.names(),
            seen: Arc::clone(&handle.idempotency_keys),
            handle,
            metrics,
            feed: EventFeed::default(),
            bodies: BodyBudget::new(BODIES_MAX),
            uploads: BodyBudget::new(UPLOADS_MAX),
            drills,
            upgrades,
            relay,
            index,
            closing: Notify::new(),
        }
    }

    /// `None`: the gateway belongs to no group.
    pub(super) fn group(&self) -> Option<&Group> {
        self.relay.as_ref().map(|relay| &relay.group)
    }

    /// Waits for control up to [`ANSWER_WITHIN`]. `said`: the name in the request.
    pub(super) async fn ask<T>(
        &self,
        said: &str,
        asking: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ApiError> {
        self.answer(asking).await.map_err(|failed| refusal::word(failed, said, &self.names))
    }

    /// Like [`ApiContext::ask`], but returns control's error unchanged.
    pub(super) async fn answer<T>(
        &self,
        asking: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await;
        answer.unwrap_or(Err(ControlError::Unavailable))
    }
}

pub(super) type ApiState = State<Arc<ApiContext>>;

pub(super) fn require_drills(shared: &ApiContext) -> Result<(), ApiError> {
    if shared.drills {
        return Ok(());
    }
    Err(ApiError::new(
        ApiErrorCode::Refused,
        "drills are not allowed here: set `drills = true` in [admin]",
    ))
}
