//! I8: one decision comes from one revision.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::{AskId, Decider, Event, PolicyName};

use crate::guests::Revision;

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Decisions {
    answers: BTreeMap<AskId, Revision>,
    revisions: BTreeSet<(PolicyName, Revision)>,
}

impl Decisions {
    /// A revision answered.
    pub(crate) fn answered(&mut self, ask: AskId, policy: &PolicyName, revision: &Revision) {
        self.answers.insert(ask, revision.clone());
        self.revisions.insert((policy.clone(), revision.clone()));
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
