//! I8: each decision comes from one revision.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::{Arm, Ask, AskId, CoreEvent, Decider, PolicyName, PolicyQuestion};
use evenkeel_revisions::is_in_cohort;

use crate::policies::Revision;

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Decisions {
    answers: BTreeMap<AskId, Revision>,
    revisions: BTreeSet<(PolicyName, Revision)>,
    /// The canary of each policy, and its percentage.
    canaries: BTreeMap<PolicyName, (Revision, u8)>,
}

impl Decisions {
    pub(crate) fn answered(&mut self, ask: AskId, policy: &PolicyName, revision: &Revision) {
        self.answers.insert(ask, revision.clone());
        self.revisions.insert((policy.clone(), revision.clone()));
    }

    pub(crate) fn set_canary(&mut self, policy: &PolicyName, canary: Option<(Revision, u8)>) {
        match canary {
            Some(canary) => _ = self.canaries.insert(policy.clone(), canary),
            None => _ = self.canaries.remove(policy),
        }
    }

    /// I8: all rooms or sessions of a question belong to the arm that is asked.
    pub(crate) fn check_arm(&self, ask: &Ask) -> Found {
        let units: Vec<u64> = match &ask.question {
            PolicyQuestion::Resolve { .. } => Vec::new(),
            PolicyQuestion::Admit { session, .. } => vec![session.0],
            PolicyQuestion::Place { room, .. } => vec![room.0],
            PolicyQuestion::Reroute { rooms, .. } => rooms.iter().map(|room| room.row.id).collect(),
            PolicyQuestion::Tick { sessions, .. } => {
                sessions.iter().map(|row| row.row.id).collect()
            }
        };
        let canary = self.canaries.get(&ask.policy);
        let arm = |unit| match canary {
            Some((revision, percent)) if is_in_cohort(revision, *percent, unit) => Arm::Canary,
            Some(_) | None => Arm::Standing,
        };
        let stray = units.into_iter().find(|unit| arm(*unit) != ask.arm)?;
        let (policy, id, asked) = (&ask.policy, ask.id, ask.arm.name());
        Some((
            "I8",
            format!("{policy} was asked {id} for arm {asked}, but {stray} belongs to the other"),
        ))
    }

    /// I8: a decision names the revision that answered, once.
    pub(super) fn check_revision(&mut self, event: &CoreEvent) -> Found {
        let CoreEvent::Decided { ask, revision: Some(revision), policy, .. } = event else {
            return None;
        };
        match self.answers.remove(ask) {
            Some(answered) if answered == *revision => None,
            Some(answered) => Some((
                "I8",
                format!("{ask} was answered by {policy}@{answered}, but decided as {revision}"),
            )),
            None => {
                Some(("I8", format!("{policy} did not answer {ask}, or the answer was used twice")))
            }
        }
    }

    /// I8: the revision that decided a move answered a question before.
    pub(super) fn check_decider(&self, event: &CoreEvent) -> Found {
        let CoreEvent::Moved { by: Decider::Policy { policy, revision }, room, .. } = event else {
            return None;
        };
        let known = self.revisions.contains(&(policy.clone(), revision.clone()));
        (!known).then(|| {
            ("I8", format!("room {room} was moved by {policy}@{revision}, which never answered"))
        })
    }
}
