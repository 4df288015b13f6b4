//! Failures of nodes and gateways, with the sessions that they hit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use evenkeel_config::read_duration;
use evenkeel_contract::Word;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::operations::{Failure, FailureList, FailuresQuery};
use evenkeel_contract::sessions::{EndedSession, PageQuery};
use evenkeel_control::history::{GATEWAY_DIED, SessionHistory};
use evenkeel_control::{
    Continuation, EventRecord, FOLLOWED_US, GatewayEvent, KeptFailure, LossComparison, LossFigures,
    NodeNames,
};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_kept::{Documents, Store};
use evenkeel_model::CloseReason;
use evenkeel_process::unix_us;

use super::context::ApiState;
use super::error::ApiError;
use super::request::Page;

/// The newest failures that events tell, of this gateway while it serves, and of the owners of its group that it followed. They outlive
/// the process.
pub(super) struct FailureLog {
    kept: Documents<KeptFailure>,
    names: Arc<NodeNames>,
    /// `None`: the gateway belongs to no group.
    group: Option<Group>,
}

impl FailureLog {
    pub(super) fn new(store: &Store, names: Arc<NodeNames>, group: Option<Group>) -> FailureLog {
        FailureLog { kept: store.documents(), names, group }
    }

    /// Keeps an event that is a failure.
    pub(super) fn note_event(&self, record: &EventRecord) {
        self.note_event_as(self.group.as_ref().map(Group::owner), record);
    }

    /// `owner`: of the group at present; `None` without one.
    pub(super) fn note_event_as(&self, owner: Option<GroupOwnership>, record: &EventRecord) {
        let failure = match &record.event {
            GatewayEvent::LossCompared(compared) => {
                // The owner notes the deaths that its standby sees, too. After a hand-over since the death it is the new owner.
                if owner.is_some_and(|owner| owner != GroupOwnership::Here) {
                    return;
                }
                self.of_nodes(compared)
            }
            GatewayEvent::Continued { cause: Continuation::Takeover, sessions, .. } => Failure {
                at_us: unix_us(record.at),
                cause: "takeover".into(),
                gateway: self.group.as_ref().and_then(here),
                sessions: u32::try_from(*sessions).unwrap_or(u32::MAX),
                outcome: outcome(*sessions > 0, "continued"),
                ..Failure::default()
            },
            _ => return,
        };
        KeptFailure::new(failure).put(&self.kept);
    }

    fn of_nodes(&self, compared: &LossComparison) -> Failure {
        let LossComparison { nodes, died_us, witnesses, actual, .. } = compared;
        let LossFigures { rooms, sessions, unplaced_sessions, reduced_sessions } = *actual;
        Failure {
            at_us: *died_us,
            cause: "node-down".into(),
            witnesses: witnesses.iter().map(|witness| witness.name().into()).collect(),
            nodes: nodes.iter().map(|hop| self.names.of_hop(*hop).node).collect(),
            gateway: None,
            rooms: Some(rooms),
            sessions,
            outcome: match (unplaced_sessions, reduced_sessions) {
                (0, 0) => outcome(sessions > 0, "moved"),
                (0, _) => "reduced".into(),
                _ => "unplaced".into(),
            },
            unplaced_sessions,
            reduced_sessions,
        }
    }

    /// All failures that are kept and those by which sessions of this history ended, newest first.
    pub(super) fn all(&self, history: &SessionHistory) -> Vec<Failure> {
        let mut all = KeptFailure::all(&self.kept);
        all.extend(ends(history));
        all.sort_by_key(|failure| std::cmp::Reverse(failure.at_us));
        all
    }
}

/// The name of this gateway.
fn here(group: &Group) -> Option<Arc<str>> {
    let gateways = group.status().gateways.into_iter();
    gateways.filter(|it| it.here).map(|it| it.gateway).next()
}

fn outcome(has_sessions: bool, word: &'static str) -> Word {
    if has_sessions { word.into() } else { "none".into() }
}

/// The failures by which sessions ended. Ends for one reason are one failure within the time in which deaths of nodes are.
fn ends(history: &SessionHistory) -> Vec<Failure> {
    let mut ended: Vec<Arc<EndedSession>> = history
        .list(u64::MAX, usize::MAX, |record| is_failure_of_gateway(&record.reason))
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    ended.sort_by(|a, b| {
        (&a.gateway, &a.reason, a.ended_us).cmp(&(&b.gateway, &b.reason, b.ended_us))
    });
    let mut failures = Vec::new();
    let mut rest = &ended[..];
    while let Some(first) = rest.first() {
        let is_together = |it: &Arc<EndedSession>| {
            (&it.gateway, &it.reason) == (&first.gateway, &first.reason)
                && it.ended_us - first.ended_us < FOLLOWED_US
        };
        let (together, later) = rest.split_at(rest.partition_point(is_together));
        let rooms: BTreeSet<&str> = together.iter().map(|record| &*record.room).collect();
        failures.push(Failure {
            at_us: first.ended_us,
            cause: first.reason.to_string().into(),
            gateway: Some(Arc::from(&*first.gateway)),
            rooms: Some(rooms.len() as u32),
            sessions: together.len() as u32,
            outcome: "ended".into(),
            ..Failure::default()
        });
        rest = later;
    }
    failures
}

/// `reason`: of a record.
fn is_failure_of_gateway(reason: &str) -> bool {
    let is_reason = |known: &CloseReason| known.name() == reason && known.is_failure_of_gateway();
    reason == GATEWAY_DIED || CloseReason::ALL.iter().any(is_reason)
}

pub(super) async fn failures(
    State(shared): ApiState,
    query: Result<Query<FailuresQuery>, QueryRejection>,
) -> Result<Json<FailureList>, ApiError> {
    let Query(FailuresQuery { since, node, limit }) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    let page = PageQuery { after: None, limit };
    let page = Page::read(Ok(Query(page)), (), |_| Ok(()))?;
    let since = since.as_deref().map(read_duration).transpose();
    let since = since.map_err(|right| ApiError::field("since", right))?;
    let now_us = unix_us(SystemTime::now());
    let since_us = since.map_or(0, |since| now_us.saturating_sub(since.as_micros() as u64));
    let history = shared.ask("", shared.handle.history()).await?;
    let mut failures = shared.failures.all(&history);
    let is_of = |failure: &Failure, name: &str| failure.nodes.iter().any(|node| **node == *name);
    failures.retain(|failure| {
        failure.at_us >= since_us && node.as_deref().is_none_or(|name| is_of(failure, name))
    });
    let found = failures.len();
    // There is no next page: `since` and `node` select fewer.
    let _next = page.cut(&mut failures, |_| String::new());
    let truncated = failures.len() < found;
    Ok(Json(FailureList { failures, truncated }))
}
