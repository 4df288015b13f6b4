//! Policies at work: one thread each, which owns the plugin's store; a slow policy delays only its own advice.
//!
//! A revision is vetted, compiled, warmed and proved on a thread of its own before it may answer; one that then
//! fails is rolled back to the last good one by the thread that runs it.

mod rollout;
mod standing;
mod thread;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{Answered, Ask, AskId, Entry, Fault, PolicyName};
use evenkeel_host as host;
use tokio::sync::mpsc;

pub(crate) use rollout::{Source, prepare};
pub(crate) use standing::Standing;

use crate::control::{PolicyView, Rollout};

/// Questions that may wait for one policy; past it the native default answers. A plugin that needs its whole budget
/// of 10 ms would be 640 ms behind.
const QUESTIONS_MAX: usize = 64;

/// What policies' threads tell control.
#[derive(Debug)]
pub(crate) enum Word {
    /// An answer, or a fault.
    Answered(AskId, Result<Answered, Fault>),
    /// A revision took its place, or gave it up.
    Rolled(Rollout),
}

/// What a policy's thread is told.
pub(crate) enum Job {
    Ask(Ask),
    /// The revision answers from now on; the one before is kept.
    Activate(Box<Ready>),
    /// The revision before answers again.
    Rollback(tokio::sync::oneshot::Sender<Result<Rollout, &'static str>>),
    Stop,
}

/// A revision that may answer.
pub(crate) struct Ready {
    pub(crate) policy: host::Policy,
    pub(crate) origin: Box<str>,
    pub(crate) since: Instant,
    pub(crate) reply: Option<tokio::sync::oneshot::Sender<Rollout>>,
}

/// All policies of this gateway.
pub(crate) struct Policies {
    engine: host::Engine,
    catalog: Vec<Entry>,
    running: BTreeMap<PolicyName, Running>,
    words: mpsc::Sender<Word>,
}

struct Running {
    jobs: crossbeam_channel::Sender<Job>,
    standing: Arc<Standing>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Policies {
    pub(crate) fn new(catalog: Vec<Entry>, words: mpsc::Sender<Word>) -> Policies {
        Policies { engine: host::Engine::new(), catalog, running: BTreeMap::new(), words }
    }

    /// What a rollout needs: the engine, the catalog, and the questions asked last to prove a revision with.
    pub(crate) fn workshop(&self, policy: &PolicyName) -> Option<rollout::Workshop> {
        let running = self.running.get(policy)?;
        Some(rollout::Workshop {
            engine: self.engine.clone(),
            catalog: self.catalog.clone(),
            policy: policy.clone(),
            standing: Arc::clone(&running.standing),
            jobs: running.jobs.clone(),
        })
    }

    /// Starts a policy's thread. It has no revision yet: until one is activated it answers that it is absent.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start(&mut self, policy: PolicyName) -> std::io::Result<()> {
        let (jobs, inbox) = crossbeam_channel::bounded(QUESTIONS_MAX);
        let standing = Arc::new(Standing::new(policy.clone()));
        let thread =
            thread::spawn(policy.clone(), inbox, Arc::clone(&standing), self.words.clone())?;
        self.running.insert(policy, Running { jobs, standing, thread: Some(thread) });
        Ok(())
    }

    /// Passes a question on; where the queue is full the fault comes back at once.
    pub(crate) fn ask(&self, ask: Ask) -> Result<(), (AskId, Fault)> {
        let id = ask.id;
        let Some(running) = self.running.get(&ask.policy) else {
            return Err((id, Fault::Absent));
        };
        running.jobs.try_send(Job::Ask(ask)).map_err(|_| (id, Fault::Late))
    }

    /// Asks the thread to put the revision before in force again.
    pub(crate) fn roll_back(
        &self,
        policy: &PolicyName,
        reply: tokio::sync::oneshot::Sender<Result<Rollout, &'static str>>,
    ) -> bool {
        let running = self.running.get(policy);
        running.is_some_and(|running| running.jobs.try_send(Job::Rollback(reply)).is_ok())
    }

    pub(crate) fn views(&self) -> Vec<PolicyView> {
        self.running.values().map(|running| running.standing.view()).collect()
    }

    /// Ends one policy's thread, as a drill does; its questions find nobody from then on. Nobody waits for what it is at.
    pub(crate) fn stop(&mut self, policy: &PolicyName) {
        if let Some(running) = self.running.remove(policy) {
            // Where there is no room for the word, it ends with the last question: there will be no more.
            let _ = running.jobs.try_send(Job::Stop);
        }
    }

    pub(crate) fn names(&self) -> Vec<PolicyName> {
        self.running.keys().cloned().collect()
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        for (_, mut running) in std::mem::take(&mut self.running) {
            let _ = running.jobs.send(Job::Stop);
            running.thread.take().map(std::thread::JoinHandle::join);
        }
    }
}
