//! I8: one decision comes from one revision.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::{Arm, Ask, AskId, Decider, Event, PolicyName, Question, Revisions};

use crate::policies::Revision;

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Decisions {
    answers: BTreeMap<AskId, Revision>,
    revisions: BTreeSet<(PolicyName, Revision)>,
    /// What there is of each policy, where it changed.
    turned: BTreeMap<PolicyName, Revisions>,
}

impl Decisions {
    /// A revision answered.
    pub(crate) fn answered(&mut self, ask: AskId, policy: &PolicyName, revision: &Revision) {
        self.answers.insert(ask, revision.clone());
        self.revisions.insert((policy.clone(), revision.clone()));
    }

    /// A policy has these revisions from now on.
    pub(crate) fn turned(&mut self, policy: &PolicyName, revisions: &Revisions) {
        self.turned.insert(policy.clone(), revisions.clone());
    }

    /// I8: a question is about one arm: all rooms, or all sessions, of it belong to the revision that is asked.
    pub(crate) fn of_one_arm(&self, ask: &Ask) -> Found {
        let units: Vec<u64> = match &ask.question {
            Question::Resolve { .. } => Vec::new(),
            Question::Admit { session, .. } => vec![session.0],
            Question::Place { room, .. } => vec![room.0],
            Question::Reroute { rooms, .. } => rooms.iter().map(|room| room.row.id).collect(),
            Question::Tick { sessions, .. } => sessions.iter().map(|row| row.row.id).collect(),
        };
        let arm = |unit| self.turned.get(&ask.policy).map_or(Arm::Standing, |all| all.arm(unit));
        let stray = units.into_iter().find(|unit| arm(*unit) != ask.arm)?;
        let (policy, id, asked) = (&ask.policy, ask.id, ask.arm.name());
        Some(("I8", format!("{policy} was asked {id} as {asked}, and {stray} is not of that")))
    }

    /// I8: a decision is put down to the revision that answered, and only once.
    pub(super) fn of_one_revision(&mut self, event: &Event) -> Found {
        let Event::Decided { ask, revision: Some(revision), policy, .. } = event else {
            return None;
        };
        match self.answers.remove(ask) {
            Some(answered) if answered == *revision => None,
            Some(answered) => Some((
                "I8",
                format!("{policy} answered {ask} as {answered}, decided was as {revision}"),
            )),
            None => Some(("I8", format!("{policy} did not answer {ask}, or was heard twice"))),
        }
    }

    /// I8: who decided a move answered a question before.
    pub(super) fn by_who_answered(&self, event: &Event) -> Found {
        let Event::Moved { by: Decider::Policy { policy, revision }, room, .. } = event else {
            return None;
        };
        let known = self.revisions.contains(&(policy.clone(), revision.clone()));
        (!known).then(|| {
            ("I8", format!("room {room} was moved by {policy}@{revision}, who never answered"))
        })
    }
}
