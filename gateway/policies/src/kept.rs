//! The last questions of a policy. Its next revision has to answer them before it is used.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Arc, Mutex};

use evenkeel_model::PolicyQuestion;

use super::lock;

/// Questions kept of each kind, so that frequent kinds do not displace rare ones.
const KEPT_OF_EACH: usize = 8;

/// Rooms or sessions kept of one question. A question may have thousands, and some hundreds are enough to expose a
/// faulty revision.
const ROWS_OF_EACH: usize = 512;

/// Recorded questions with the time at which each was asked.
#[derive(Default, Debug)]
pub(super) struct RecentQuestions(Mutex<VecDeque<(Arc<PolicyQuestion>, u64)>>);

impl RecentQuestions {
    /// Keeps an answered question and drops the oldest one of its kind.
    pub(super) fn keep(&self, question: impl Into<Arc<PolicyQuestion>>, now_us: u64) {
        let question = some_of(question.into());
        let mut kept = lock(&self.0);
        let kind = discriminant(&*question);
        let alike = |(kept, _): &(Arc<PolicyQuestion>, u64)| discriminant(&**kept) == kind;
        if kept.iter().filter(|kept| alike(kept)).count() == KEPT_OF_EACH {
            let oldest = kept.iter().position(alike);
            oldest.and_then(|oldest| kept.remove(oldest));
        }
        kept.push_back((question, now_us));
    }

    /// The oldest question is first.
    pub(super) fn list(&self) -> Vec<(Arc<PolicyQuestion>, u64)> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// The question with at most [`ROWS_OF_EACH`] of its rows.
fn some_of(question: Arc<PolicyQuestion>) -> Arc<PolicyQuestion> {
    match &*question {
        PolicyQuestion::Reroute { nodes, rooms, memo } if rooms.len() > ROWS_OF_EACH => {
            let (nodes, memo) = (nodes.clone(), memo.clone());
            Arc::new(PolicyQuestion::Reroute { nodes, rooms: rooms[..ROWS_OF_EACH].to_vec(), memo })
        }
        PolicyQuestion::Tick { sessions, memo } if sessions.len() > ROWS_OF_EACH => {
            let (sessions, memo) = (sessions[..ROWS_OF_EACH].to_vec(), memo.clone());
            Arc::new(PolicyQuestion::Tick { sessions, memo })
        }
        PolicyQuestion::Resolve { .. }
        | PolicyQuestion::Admit { .. }
        | PolicyQuestion::Place { .. }
        | PolicyQuestion::Reroute { .. }
        | PolicyQuestion::Tick { .. } => question,
    }
}

#[cfg(test)]
mod tests;
