//! What others may read of a policy while its thread runs it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_core::{PolicyName, Question};

use crate::control::PolicyView;

/// Questions kept to prove the next revision with: one of each kind that a busy minute brings, and some more.
const KEPT: usize = 16;

/// Written by the policy's thread, read by control and rollouts.
#[derive(Debug)]
pub(crate) struct Standing {
    policy: PolicyName,
    calls: AtomicU64,
    faults: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Default, Debug)]
struct Shown {
    plugin: Box<str>,
    origin: Box<str>,
    revision: Option<Arc<str>>,
    previous: Option<Arc<str>>,
    questions: VecDeque<(Arc<Question>, u64)>,
}

impl Standing {
    pub(crate) fn new(policy: PolicyName) -> Standing {
        Standing {
            policy,
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            shown: Mutex::default(),
        }
    }

    /// Nobody panics while holding it, and what it guards is only shown.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn called(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(crate) fn faulted(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    /// Keeps a question that was answered, the oldest giving way.
    pub(crate) fn keep(&self, question: Question, now_us: u64) {
        let mut shown = self.shown();
        if shown.questions.len() == KEPT {
            shown.questions.pop_front();
        }
        shown.questions.push_back((Arc::new(question), now_us));
    }

    /// What it was asked last, oldest first.
    pub(crate) fn questions(&self) -> Vec<(Arc<Question>, u64)> {
        self.shown().questions.iter().cloned().collect()
    }

    pub(crate) fn stands(
        &self,
        plugin: &str,
        origin: &str,
        revision: &str,
        previous: Option<&str>,
    ) {
        let mut shown = self.shown();
        shown.plugin = plugin.into();
        shown.origin = origin.into();
        shown.revision = Some(revision.into());
        shown.previous = previous.map(Into::into);
    }

    pub(crate) fn revision(&self) -> Option<Arc<str>> {
        self.shown().revision.clone()
    }

    pub(crate) fn view(&self) -> PolicyView {
        let shown = self.shown();
        PolicyView {
            policy: self.policy.clone(),
            plugin: shown.plugin.clone(),
            revision: shown.revision.clone(),
            previous: shown.previous.clone(),
            origin: shown.origin.clone(),
            calls: self.calls.load(Relaxed),
            faults: self.faults.load(Relaxed),
        }
    }
}
