//! I8: each decision comes from one revision.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::{Arm, Ask, AskId, Decider, Event, PolicyName, Question, Revisions};

use crate::policies::Revision;

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Decisions {
    answers: BTreeMap<AskId, Revision>,
    revisions: BTreeSet<(PolicyName, Revision)>,
    /// The revisions of each policy that changed.
    revised: BTreeMap<PolicyName, Revisions>,
}

impl Decisions {
    pub(crate) fn answered(&mut self, ask: AskId, policy: &PolicyName, revision: &Revision) {
        self.answers.insert(ask, revision.clone());
        self.revisions.insert((policy.clone(), revision.clone()));
    }

    /// The revisions of a policy change.
    pub(crate) fn set_revisions(&mut self, policy: &PolicyName, revisions: &Revisions) {
        self.revised.insert(policy.clone(), revisions.clone());
    }

    /// I8: all rooms or sessions of a question belong to the arm that is asked.
    pub(crate) fn check_arm(&self, ask: &Ask) -> Found {
        let units: Vec<u64> = match &ask.question {
            Question::Resolve { .. } => Vec::new(),
            Question::Admit { session, .. } => vec![session.0],
            Question::Place { room, .. } => vec![room.0],
            Question::Reroute { rooms, .. } => rooms.iter().map(|room| room.row.id).collect(),
            Question::Tick { sessions, .. } => sessions.iter().map(|row| row.row.id).collect(),
        };
        let arm = |unit| self.revised.get(&ask.policy).map_or(Arm::Standing, |all| all.arm(unit));
        let stray = units.into_iter().find(|unit| arm(*unit) != ask.arm)?;
        let (policy, id, asked) = (&ask.policy, ask.id, ask.arm.name());
        Some((
            "I8",
            format!("{policy} was asked {id} for arm {asked}, but {stray} belongs to the other"),
        ))
    }

    /// I8: a decision names the revision that answered, once.
    pub(super) fn check_revision(&mut self, event: &Event) -> Found {
        let Event::Decided { ask, revision: Some(revision), policy, .. } = event else {
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
    pub(super) fn check_decider(&self, event: &Event) -> Found {
        let Event::Moved { by: Decider::Policy { policy, revision }, room, .. } = event else {
            return None;
        };
        let known = self.revisions.contains(&(policy.clone(), revision.clone()));
        (!known).then(|| {
            ("I8", format!("room {room} was moved by {policy}@{revision}, which never answered"))
        })
    }
}
