//! A revision that is tried: beside the one in force it answers for its share or, before that, is asked along.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Answer, Fault, Question};
use evenkeel_host as host;

use super::record::Record;
use super::thread::Revision;
use crate::control::Tried;

/// The one that is tried.
pub(super) struct Candidate {
    pub(super) revision: Revision,
    pub(super) record: Record,
    /// When somebody asked for it.
    pub(super) arrived: Instant,
    /// Whether it was asked for its share by now: then it is not asked along any more.
    pub(super) answers: bool,
}

/// What was answered in its place, to compare.
pub(super) struct Shadowed {
    pub(super) question: Arc<Question>,
    pub(super) now_us: u64,
    pub(super) answer: Answer,
}

/// How what it says compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Compared {
    /// Whether it decides the same.
    pub(super) is_same: bool,
    /// In what a fresh instance of it differs, where one was asked as well and does.
    pub(super) hides: Option<Box<str>>,
}

impl Candidate {
    pub(super) fn name(&self) -> Arc<str> {
        self.revision.policy.revision().into()
    }

    /// As it is shown before it was asked anything.
    pub(super) fn shown(&self) -> Tried {
        let manifest = self.revision.policy.component().manifest();
        Tried {
            revision: self.name(),
            plugin: format!("{} {}", manifest.name, manifest.version).into(),
            origin: self.revision.origin.clone(),
            calls: 0,
            faults: 0,
            same: 0,
            different: 0,
            faulted: 0,
            last_fault: None,
        }
    }

    /// It is asked what the one in force answered; nothing of what it says is done, and its states are not kept. Now and
    /// then a fresh instance is asked as well. `None` where there was no time for all that is to be compared.
    ///
    /// # Errors
    /// How it failed.
    pub(super) fn compare(
        &mut self,
        shadowed: &Shadowed,
        within: Duration,
    ) -> Result<Option<Compared>, Fault> {
        let (policy, now_us) = (&mut self.revision.policy, shadowed.now_us);
        // As it would be asked in force: many in parts, where its memory is too small for all.
        let Some(answered) = policy.ask_of_all(&shadowed.question, now_us, within)? else {
            return Ok(None);
        };
        let is_same = is_same(&answered.answer, &shadowed.answer);
        let due = policy.is_due_twice();
        let hides = due.then(|| policy.ask_twice(&shadowed.question, now_us, &answered)).flatten();
        Ok(Some(Compared { is_same, hides }))
    }

    pub(super) fn policy(&mut self) -> &mut host::Policy {
        &mut self.revision.policy
    }
}

/// Whether both decide the same, whatever they write down.
fn is_same(one: &Answer, other: &Answer) -> bool {
    match (one, other) {
        (Answer::Params(one), Answer::Params(other)) => one == other,
        (Answer::Admit { verdict: one, .. }, Answer::Admit { verdict: other, .. }) => one == other,
        (Answer::Placed { hops: one, .. }, Answer::Placed { hops: other, .. }) => one == other,
        (Answer::Moves { moves: one, .. }, Answer::Moves { moves: other, .. }) => {
            let steps = |moves: &[evenkeel_core::Move]| -> Vec<_> {
                moves.iter().map(|step| (step.row, step.hops.clone())).collect()
            };
            steps(one) == steps(other)
        }
        (Answer::Actions { actions: one, .. }, Answer::Actions { actions: other, .. }) => {
            let done = |actions: &[evenkeel_core::Action]| -> Vec<_> {
                actions.iter().map(|action| (action.row, action.op, action.arg)).collect()
            };
            done(one) == done(other)
        }
        (
            Answer::Params(_)
            | Answer::Admit { .. }
            | Answer::Placed { .. }
            | Answer::Moves { .. }
            | Answer::Actions { .. },
            _,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Action, NodeId, State};

    use super::*;

    #[test]
    fn the_same_decision_is_the_same_whatever_is_written_down_about_it() {
        let state = |byte| State { plugin: "p".into(), schema: 1, bytes: Box::new([byte]) };
        let placed = |hops: &[u32], byte| Answer::Placed {
            hops: hops.iter().map(|node| NodeId(*node)).collect(),
            ttl_ms: u32::from(byte),
            reason: 0,
            state: state(byte),
        };
        assert!(is_same(&placed(&[1, 2], 1), &placed(&[1, 2], 2)));
        assert!(!is_same(&placed(&[1, 2], 1), &placed(&[2, 1], 1)));
        let acts = |arg, reason| Answer::Actions {
            actions: vec![Action { row: 0, op: 1, arg, reason }],
            states: Vec::new(),
            memo: Some(state(reason as u8)),
        };
        assert!(is_same(&acts(100, 1), &acts(100, 2)));
        assert!(!is_same(&acts(100, 1), &acts(200, 1)));
        assert!(!is_same(&acts(100, 1), &placed(&[], 1)));
    }
}
