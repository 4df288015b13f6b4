//! Reloads of the configuration, which another task reads.

use std::time::{Duration, SystemTime};

use evenkeel_model::PolicyName;
use evenkeel_revisions::Actor;
use tokio::sync::{mpsc, oneshot};

use crate::node_list::{ListChange, NotListed};

/// The task that reloads the configuration, and the last reload.
#[derive(Default)]
pub(crate) struct Reloads {
    reloader: Option<mpsc::Sender<ReloadRequest>>,
    /// The last reload that had an effect or was refused.
    last: Option<(ReloadReport, SystemTime)>,
}

impl Reloads {
    /// Registers the task that reloads the configuration.
    pub(crate) fn follow(&mut self, reloader: mpsc::Sender<ReloadRequest>) {
        self.reloader = Some(reloader);
    }

    /// Passes a reload to the task that reads the configuration.
    pub(crate) fn pass_on(&self, reload: ReloadRequest) {
        let Some(reloader) = &self.reloader else {
            let _ = reload.reply.send(Err(NotReloaded::NoReloader));
            return;
        };
        // If the queue is full the caller gets an error.
        let _ = reloader.try_send(reload);
    }

    /// Notes a reload. Returns false if it had no effect: files are touched often, and such a reload would hide a refusal in the
    /// status.
    pub(crate) fn note(&mut self, report: &ReloadReport) -> bool {
        let has_effect = !report.outcome.as_ref().is_ok_and(Reloaded::is_empty);
        if has_effect {
            self.last = Some((report.clone(), SystemTime::now()));
        }
        has_effect
    }

    /// The last reload that had an effect or was refused, with the time of its end.
    pub(crate) fn last(&self) -> Option<&(ReloadReport, SystemTime)> {
        self.last.as_ref()
    }
}

/// A request to reload the configuration.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Allows more removed nodes than the guard does.
    pub force: bool,
    /// Deadline for draining removed nodes; without one their rooms move as others can take them.
    pub within: Option<Duration>,
    /// Replies with the changes.
    pub reply: oneshot::Sender<Result<Reloaded, NotReloaded>>,
}

/// The changes of a reload.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reloaded {
    /// The changes of the list of nodes.
    pub nodes: ListChange,
    /// Changed keys that need a restart.
    pub waiting: Vec<String>,
    /// Policies that were not replaced.
    pub refused: Vec<PolicyRefused>,
    /// Faults of files that a restart would read, and scenarios that are gone and have open rooms.
    pub warnings: Vec<String>,
}

impl Reloaded {
    /// Nothing changed, and nothing waits or was refused.
    pub fn is_empty(&self) -> bool {
        *self == Reloaded::default()
    }
}

/// A reload, after it has ended.
#[derive(Clone, PartialEq, Debug)]
pub struct ReloadReport {
    /// Its cause.
    pub by: Actor,
    /// The time that it took.
    pub took: Duration,
    /// The changes, or the reason for which nothing changed, in one line.
    pub outcome: Result<Reloaded, Box<str>>,
}

/// A policy that a reload did not replace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRefused {
    /// The policy, by set and hook.
    pub policy: PolicyName,
    /// The reason of the refusal.
    pub reason: String,
}

/// Why the configuration was not reloaded.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum NotReloaded {
    /// Errors in the files, each with its place.
    #[error("{rendered}")]
    Invalid {
        /// All of them, for a terminal.
        rendered: String,
        /// The first one, in one line.
        first: Box<str>,
    },
    /// The dry run failed for a reason other than the files.
    #[error("dry run of the saved configuration failed, nothing changed: {0}")]
    Untried(String),
    /// The list of nodes was refused.
    #[error(transparent)]
    NodeList(#[from] NotListed),
    /// The system gives no thread.
    #[error("nodes reloaded, policy sets kept: no thread for a new policy: {0}")]
    NoThread(String),
    /// No task reads the configuration.
    #[error("this gateway has no configuration to reload")]
    NoReloader,
}

impl NotReloaded {
    /// The reason in one line.
    pub fn summary(&self) -> Box<str> {
        match self {
            NotReloaded::Invalid { first, .. } => first.clone(),
            other => other.to_string().into(),
        }
    }
}
