//! Calls the hooks that start nodes: a program under the eyes of a thread, or a POST, so that control waits for neither.

mod output;
mod program;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_core::NodeId;
use serde_json::json;
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;

use crate::settings::{Start, StartBy};
use crate::webhook::{Effort, Failed, Hook, Poster};
use program::Program;

/// How long the gateway, when it ends, waits for programs that end with it to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// A hook failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HookFailed {
    pub(super) node: NodeId,
    /// Which call.
    attempt: u64,
}

/// The hooks under way, by node: at most one of each.
pub(super) struct Starter {
    /// Hooks that failed. What does not fit is found when its node is late.
    failed: Sender<HookFailed>,
    /// For webhooks, where there are any.
    poster: Option<Poster>,
    running: BTreeMap<NodeId, Call>,
    /// Programs of nodes that are listed no longer, as long as they run.
    released: Vec<Released>,
    /// Threads of programs that were told to end: the next call waits for them, in a thread of its own.
    ending: BTreeMap<NodeId, Vec<JoinHandle<()>>>,
}

/// A program that outlived its node's place in the list.
struct Released {
    /// That of its node.
    name: Arc<str>,
    program: Program,
    /// Whether it ends with the gateway.
    stops: bool,
}

/// A hook that was called.
struct Call {
    attempt: u64,
    /// That of its node.
    name: Arc<str>,
    running: Running,
}

enum Running {
    Program {
        program: Program,
        /// Whether it ends with the gateway.
        stops: bool,
    },
    /// A POST, whose answer is waited for.
    Post(AbortHandle),
}

impl Starter {
    /// Hooks that fail are told there.
    pub(super) fn new(failed: Sender<HookFailed>, poster: Option<Poster>) -> Starter {
        Starter {
            failed,
            poster,
            running: BTreeMap::new(),
            released: Vec::new(),
            ending: BTreeMap::new(),
        }
    }

    /// There are webhooks from now on.
    pub(super) fn post_by(&mut self, poster: Poster) {
        self.poster = Some(poster);
    }

    /// Calls the node's hook; no other call has this number. What an earlier call left running is ended first: it did not
    /// bring the node up, or hangs. So is what a node of this name left when it was [released](Starter::release): nothing
    /// leads there any more, and it may hold what this one needs.
    pub(super) fn start(&mut self, node: NodeId, name: &Arc<str>, start: &Start, attempt: u64) {
        self.give_up(node);
        let left = self.released.extract_if(.., |released| released.name == *name);
        let left: Vec<_> = left.map(|released| released.program.end()).collect();
        if !left.is_empty() {
            self.ending.entry(node).or_default().extend(left);
        }
        let running = match &start.by {
            StartBy::Command { words, stop_with_gateway } => {
                self.run(HookFailed { node, attempt }, name, words, *stop_with_gateway)
            }
            StartBy::Webhook(hook) => {
                Some(self.post(HookFailed { node, attempt }, name, hook, start.within))
            }
        };
        if let Some(running) = running {
            self.running.insert(node, Call { attempt, name: Arc::clone(name), running });
        }
    }

    /// Whether this was no earlier call, whose end says nothing of the one under way.
    pub(super) fn is_under_way(&self, failed: HookFailed) -> bool {
        self.running.get(&failed.node).is_some_and(|call| call.attempt == failed.attempt)
    }

    fn run(
        &mut self,
        word: HookFailed,
        name: &Arc<str>,
        words: &[Arc<str>],
        stops: bool,
    ) -> Option<Running> {
        let before = self.ending.remove(&word.node).unwrap_or_default();
        let failed = self.failed.clone();
        let tell = move || {
            // Control is gone where nobody listens.
            let _ = failed.try_send(word);
        };
        match Program::start(name, words, before, tell) {
            Ok(program) => Some(Running::Program { program, stops }),
            Err(error) => {
                // It is tried again once the node is late.
                tracing::warn!(node = %name, %error, "no thread for the node's start hook");
                None
            }
        }
    }

    /// Asks the operator's server to start the node: `{"verb":"start","node":"east-b1","attempt":"00f3…"}`. That it does,
    /// it says with 200 to 299, as late as the node may be. Where that does not come through it is asked again, with the
    /// same attempt.
    fn post(
        &self,
        word: HookFailed,
        name: &Arc<str>,
        hook: &Arc<Hook>,
        within: Duration,
    ) -> Running {
        let (hook, name, poster) = (Arc::clone(hook), Arc::clone(name), self.poster.clone());
        let failed = self.failed.clone();
        let task = tokio::spawn(async move {
            let attempt = format!("{:016x}", word.attempt);
            let body = json!({"verb": "start", "node": &*name, "attempt": attempt});
            let answer = match poster {
                Some(poster) => {
                    poster.post(hook, body.to_string().into(), Effort::of_start(within)).await
                }
                None => Err(Failed::Busy),
            };
            let why = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return,
                Ok(answer) => format!("it answered {}", answer.status),
                Err(error) => error.to_string(),
            };
            tracing::warn!(node = %name, %why, "the node's start webhook failed");
            // Control is gone where nobody listens.
            let _ = failed.try_send(word);
        });
        Running::Post(task.abort_handle())
    }

    /// The node did not come up: what was to start it is told to end. Nobody waits until it did.
    pub(super) fn give_up(&mut self, node: NodeId) {
        match self.running.remove(&node).map(|call| call.running) {
            Some(Running::Program { program, .. }) => {
                self.ending.entry(node).or_default().push(program.end());
            }
            Some(Running::Post(task)) => task.abort(),
            None => {}
        }
    }

    /// The node is listed no longer. What started it runs on, as the node may, until one of its name is started; its number
    /// may be another's soon.
    pub(super) fn release(&mut self, node: NodeId) {
        self.released.retain(|released| !released.program.is_over());
        if let Some(Call { name, running: Running::Program { program, stops }, .. }) =
            self.running.remove(&node)
        {
            self.released.push(Released { name, program, stops });
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let released = std::mem::take(&mut self.released).into_iter();
        let released = released.filter(|released| released.stops);
        let mut stopped: Vec<_> = released.map(|released| released.program).collect();
        for call in std::mem::take(&mut self.running).into_values() {
            match call.running {
                Running::Program { program, stops: true } => stopped.push(program),
                Running::Program { stops: false, .. } => {}
                Running::Post(task) => task.abort(),
            }
        }
        let ending = std::mem::take(&mut self.ending).into_values().flatten();
        let ending: Vec<_> = ending.chain(stopped.into_iter().map(Program::end)).collect();
        let by = Instant::now() + GONE_WITHIN;
        while !ending.iter().all(JoinHandle::is_finished) && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests;
