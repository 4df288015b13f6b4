//! The state that all handlers share.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use evenkeel_alerts::AlertHandle;
use evenkeel_config::ConfigInForce;
use evenkeel_contract::alerts::Dependency;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::{ControlError, Handle, KeyTable, LastChange, NodeNames};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_handover::Upgrades;
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_index::IndexReader;
use evenkeel_model::{Impossible, SessionId};
use evenkeel_telemetry::{ExportFailures, MetricsFormat};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::change_log::ChangeLog;
use super::error::{ApiError, no_owner, not_relayed, refused};
use super::event_feed::EventFeed;
use super::failure_log::FailureLog;
use super::probe_results::UsedResults;
use super::relay::{ANSWER_WITHIN, PeerRelay};
use super::request::{BODY_MAX, BodyBudget, Share, strict};

/// Bytes of all JSON bodies held at the same time.
pub(super) const BODIES_MAX: usize = 256 * BODY_MAX;
/// Bytes of all pushed plugins held at the same time. Separate from [`BODIES_MAX`], so that pushes cannot keep offers
/// out.
pub(super) const UPLOADS_MAX: usize = 4 * BINARY_BYTES_MAX;

/// Time for the records of policies to be written; a slow disk delays no answer for longer.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);

/// An owner answers an offer, or the end of a session, after this time although the standby has not confirmed it: a client waits for it.
/// By then the voters bar a standby that is silent from taking over.
const SESSION_CONFIRMED_WITHIN: Duration = Duration::from_millis(1_500);

/// The same for a decision of an operator, which fails then: an acknowledged one is not forgotten by a takeover. A standby that
/// does not read is no follower any more by then, and cannot take over.
const DECISION_CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// The metrics in a format.
pub type MetricsText = Box<dyn Fn(MetricsFormat) -> String + Send + Sync>;

/// A certificate or token in use, and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CredentialEnd {
    /// `quic-certificate`, `webrtc-certificate` or `index-token`.
    pub credential: &'static str,
    pub ends: SystemTime,
}

pub(super) struct ApiContext {
    pub(super) handle: Handle,
    pub(super) names: Arc<NodeNames>,
    /// Renders `/metrics`.
    pub(super) metrics: MetricsText,
    pub(super) seen: Arc<KeyTable>,
    pub(super) feed: EventFeed,
    pub(super) bodies: Arc<BodyBudget>,
    pub(super) uploads: Arc<BodyBudget>,
    /// Results of clients' probes that offers have carried.
    pub(super) used_results: UsedResults,
    pub(super) drills: bool,
    /// `None`: the gateway runs within another program.
    pub(super) upgrades: Option<Upgrades>,
    /// `None`: the gateway belongs to no group.
    pub(super) relay: Option<Arc<PeerRelay>>,
    /// `None`: no index is configured.
    pub(super) index: Option<IndexReader>,
    /// Alerts and dependencies; `None`: the gateway runs within another program.
    pub(super) alerts: Option<AlertHandle>,
    pub(super) export_failures: ExportFailures,
    /// Certificates and tokens in use.
    pub(super) credentials: Vec<CredentialEnd>,
    /// `None`: the gateway runs within another program.
    pub(super) configuration: Option<watch::Receiver<ConfigInForce>>,
    pub(super) changes: Arc<ChangeLog>,
    pub(super) failures: Arc<FailureLog>,
}

impl ApiContext {
    /// `None`: the gateway belongs to no group.
    pub(super) fn group(&self) -> Option<&Group> {
        self.relay.as_ref().map(|relay| &relay.group)
    }

    /// The last check of each dependency; `None` without any.
    pub(super) fn dependencies(&self) -> Option<Vec<Dependency>> {
        let dependencies = self.alerts.as_ref().map(AlertHandle::dependencies);
        dependencies.filter(|dependencies| !dependencies.is_empty())
    }

    /// Fails at a gateway of a group that sends nothing at present.
    pub(super) fn require_owner(&self) -> Result<(), ApiError> {
        require_ownership(self.group().map(Group::owner))
    }

    pub(super) fn require_drills(&self) -> Result<(), ApiError> {
        if self.drills {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::Refused,
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

    /// Waits until the standby has the records of all sessions that were opened or closed so far, cannot take over, or is late.
    ///
    /// # Errors
    /// Executed, but this gateway does not own any more: another may have taken over without the records.
    pub(super) async fn confirm(&self) -> Result<(), ApiError> {
        let Some(group) = self.group() else { return Ok(()) };
        let confirmed = |number| group.confirmed_unless_alone(number, SESSION_CONFIRMED_WITHIN);
        confirm_sessions(&self.handle, confirmed, || self.require_owner().is_ok()).await
    }

    /// Waits for a decision of an operator until it outlives this process: on the disk, and at a standby that follows. `said`: the
    /// name in the request.
    ///
    /// # Errors
    /// Control refused it, the standby has not confirmed it in time, or it is neither on the disk nor at a standby.
    pub(super) async fn decide(
        &self,
        said: &str,
        asking: impl Future<Output = Result<(), ControlError>>,
    ) -> Result<(), ApiError> {
        let refused = |error| Err(refused(error, said, &self.names));
        let decided = self.answer(asking).await;
        if let Err(error) = &decided
            && !matches!(error, ControlError::NotWritten(_))
        {
            return refused(error.clone());
        }
        let is_confirmed = match self.group() {
            Some(group) => {
                let confirmed = |number| group.confirmed(number, DECISION_CONFIRMED_WITHIN);
                is_confirmed(&self.handle, confirmed).await?
            }
            None => false,
        };
        decided.or_else(|error| if is_confirmed { Ok(()) } else { refused(error) })
    }

    /// As [`ApiContext::decide`], of the decisions about policies that were taken so far.
    pub(super) async fn confirm_policies(&self) -> Result<(), ApiError> {
        let written = async {
            let written = tokio::time::timeout(WRITTEN_WITHIN, self.handle.policies_kept()).await;
            let written = written.unwrap_or_else(|late| Ok(Err(late.to_string().into())));
            written?.map_err(ControlError::NotWritten)
        };
        self.decide("", written).await
    }

    /// Waits for control up to [`ANSWER_WITHIN`]. `said`: the name in the request.
    pub(super) async fn ask<T>(
        &self,
        said: &str,
        asking: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ApiError> {
        self.answer(asking).await.map_err(|failed| match (&failed, SessionId::parse(said)) {
            (ControlError::Impossible(Impossible::NoSuchSession), Some(session)) => {
                self.no_session(session)
            }
            _ => refused(failed, said, &self.names),
        })
    }

    /// There is no such session at this gateway. The message says if the id is of another group.
    pub(super) fn no_session(&self, session: SessionId) -> ApiError {
        let none = ControlError::Impossible(Impossible::NoSuchSession);
        let mut error = refused(none, &session.to_string(), &self.names);
        let own = self.handle.traces.group();
        if own != session.group() {
            let ids = own.to_string();
            let begin = ids.trim_end_matches('0');
            error.message.push_str(&format!(
                "; it belongs to another group, or to one before the last restart: ids of this group begin with `{begin}`"
            ));
        }
        error
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

/// See [`ApiContext::require_owner`]. `None`: the gateway belongs to no group.
fn require_ownership(owner: Option<GroupOwnership>) -> Result<(), ApiError> {
    match owner {
        None | Some(GroupOwnership::Here) => Ok(()),
        Some(GroupOwnership::Peer(owner)) => Err(not_relayed(&owner)),
        Some(GroupOwnership::Doubting | GroupOwnership::Unknown) => Err(no_owner()),
    }
}

/// See [`ApiContext::confirm`].
async fn confirm_sessions<F: Future<Output = bool>>(
    handle: &Handle,
    confirmed: impl FnOnce(u64) -> F,
    owns: impl FnOnce() -> bool,
) -> Result<(), ApiError> {
    let number = match handle.records_sent().await {
        Ok(Some(LastChange { number, is_for_standby: true })) => number,
        Ok(_) | Err(ControlError::Replaced) => return Ok(()),
        // Control ends with the ownership: only a hand-over has taken all records along.
        Err(_) => u64::MAX,
    };
    if confirmed(number).await || owns() {
        return Ok(());
    }
    let message = "executed, but this gateway lost the ownership before the standby confirmed it: it may be forgotten";
    Err(ApiError::new(ErrorCode::Unconfirmed, message))
}

/// False without a follower, since there is no standby then that could take over.
async fn is_confirmed<F: Future<Output = bool>>(
    handle: &Handle,
    confirmed: impl FnOnce(u64) -> F,
) -> Result<bool, ApiError> {
    let unconfirmed = |message: String| ApiError::new(ErrorCode::Unconfirmed, message);
    let follows = |sent: Result<Option<LastChange>, ControlError>| {
        sent.map_err(|_| {
            unconfirmed("executed, but the gateway ends: a takeover may forget it".into())
        })
    };
    let Some(last) = follows(handle.records_sent().await)? else { return Ok(false) };
    if confirmed(last.number).await {
        return Ok(true);
    }
    if follows(handle.records_sent().await)?.is_none() {
        return Ok(false);
    }
    let within = DECISION_CONFIRMED_WITHIN;
    Err(unconfirmed(format!(
        "executed, but not confirmed by the standby within {within:?}: a takeover may forget it"
    )))
}

pub(super) type ApiState = State<Arc<ApiContext>>;

#[cfg(test)]
mod tests;
