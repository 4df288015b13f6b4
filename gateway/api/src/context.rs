//! The state that all handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use evenkeel_control::{ControlError, Handle, KeyTable, NodeNames};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_handover::Upgrades;
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_index::IndexReader;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::error::{ApiError, ApiErrorCode, no_owner, refused};
use super::events::EventFeed;
use super::relay::{ANSWER_WITHIN, PeerRelay};
use super::request::{BODY_MAX, BodyBudget, Share, strict};

/// Bytes of all JSON bodies held at the same time.
pub(super) const BODIES_MAX: usize = 256 * BODY_MAX;
/// Bytes of all pushed plugins held at the same time. Separate from [`BODIES_MAX`], so that pushes cannot keep offers
/// out.
pub(super) const UPLOADS_MAX: usize = 4 * BINARY_BYTES_MAX;

/// Time for the records of policies to be written.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// An offer is answered after this time although the standby has not confirmed its record: a client waits for it.
const OFFER_CONFIRMED_WITHIN: Duration = Duration::from_millis(20);

/// The same for a decision of an operator, which fails then: an acknowledged one is not forgotten by a takeover. A standby that
/// does not read is no follower any more by then, and cannot take over.
const DECISION_CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

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
    pub(super) relay: Option<Arc<PeerRelay>>,
    /// `None`: no index is configured.
    pub(super) index: Option<IndexReader>,
    pub(super) closing: Notify,
}

impl ApiContext {
    /// `None`: the gateway belongs to no group.
    pub(super) fn group(&self) -> Option<&Group> {
        self.relay.as_ref().map(|relay| &relay.group)
    }

    /// Fails at a gateway of a group that sends nothing at present.
    pub(super) fn require_owner(&self) -> Result<(), ApiError> {
        match self.group().map(Group::owner) {
            None | Some(GroupOwnership::Here) => Ok(()),
            Some(_) => Err(no_owner()),
        }
    }

    pub(super) fn require_drills(&self) -> Result<(), ApiError> {
        if self.drills {
            return Ok(());
        }
        Err(ApiError::new(
            ApiErrorCode::Refused,
            "drills are not allowed here: set `drills = true` in [admin]",
        ))
    }

    pub(super) async fn read(&self, body: Body) -> Result<(Vec<u8>, Share), ApiError> {
        self.bodies.read(body, BODY_MAX).await
    }

    pub(super) async fn parse<T: DeserializeOwned>(&self, body: Body) -> Result<T, ApiError> {
        strict(&self.read(body).await?.0)
    }

    /// Parses a JSON object, which may be left out.
    pub(super) async fn parse_if_any<T>(&self, body: Body) -> Result<T, ApiError>
    where
        T: DeserializeOwned + Default,
    {
        let (body, _share) = self.read(body).await?;
        if body.is_empty() { Ok(T::default()) } else { strict(&body) }
    }

    /// Waits until the standby has the records of all sessions that were opened so far, or is late.
    pub(super) async fn confirm(&self) {
        let Some(group) = self.group() else { return };
        if let Ok(Some(number)) = self.handle.records_sent().await {
            group.confirmed(number, OFFER_CONFIRMED_WITHIN).await;
        }
    }

    /// Waits until the standby has all decisions of operators that were answered so far.
    ///
    /// # Errors
    /// The standby follows, and has not confirmed them in time.
    pub(super) async fn confirm_decision(&self) -> Result<(), ApiError> {
        let Some(group) = self.group() else { return Ok(()) };
        let confirmed = |number| group.confirmed(number, DECISION_CONFIRMED_WITHIN);
        require_confirmed(&self.handle, confirmed).await
    }

    /// Waits until decisions about policies outlive this process: on the disk, and at the standby.
    ///
    /// # Errors
    /// See [`ApiContext::confirm_decision`].
    pub(super) async fn confirm_policies(&self) -> Result<(), ApiError> {
        // A slow disk delays no answer for longer.
        let _ = tokio::time::timeout(KEPT_WITHIN, self.handle.policies_kept()).await;
        self.confirm_decision().await
    }

    /// Waits for control up to [`ANSWER_WITHIN`]. `said`: the name in the request.
    pub(super) async fn ask<T>(
        &self,
        said: &str,
        asking: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ApiError> {
        self.answer(asking).await.map_err(|failed| refused(failed, said, &self.names))
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

async fn require_confirmed<F: Future<Output = bool>>(
    handle: &Handle,
    confirmed: impl FnOnce(u64) -> F,
) -> Result<(), ApiError> {
    let unavailable = |message: String| ApiError::new(ApiErrorCode::Unavailable, message);
    let follows = |sent: Result<Option<u64>, ControlError>| {
        sent.map_err(|_| {
            unavailable("executed, but the gateway ends: a takeover may forget it".into())
        })
    };
    let Some(number) = follows(handle.records_sent().await)? else { return Ok(()) };
    if confirmed(number).await || follows(handle.records_sent().await)?.is_none() {
        return Ok(());
    }
    let within = DECISION_CONFIRMED_WITHIN;
    Err(unavailable(format!(
        "executed, but not confirmed by the standby within {within:?}: a takeover may forget it"
    )))
}

pub(super) type ApiState = State<Arc<ApiContext>>;

#[cfg(test)]
mod tests;
