//! The failures of nodes and gateways that are kept, with the sessions that they hit.

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_contract::Word;
use evenkeel_contract::operations::Failure;
use evenkeel_contract::sessions::EndedSession;
use evenkeel_control::history::{GATEWAY_DIED, SessionHistory};
use evenkeel_control::{
    Continuation, EventRecord, FOLLOWED_US, GatewayEvent, KeptFailure, LossComparison, LossFigures,
    NodeNames,
};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_kept::{Documents, Store};
use evenkeel_model::CloseReason;
use evenkeel_process::unix_us;

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
