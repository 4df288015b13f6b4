//! Start hooks of nodes: a program watched by a thread, or a webhook, so that control never blocks.

mod output;
mod program;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_config::{StartBy, StartHook, WebhookTarget};
use evenkeel_drivers::{Effort, HttpError, Poster};
use evenkeel_model::NodeId;
use program::StartProgram;
use serde_json::json;
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;

/// Wait at shutdown for programs that end with the gateway.
const GONE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HookFailed {
    pub(super) node: NodeId,
    attempt: u64,
}

pub(super) struct StartHooks {
    /// Channel of failed hooks. If it is full, the node's start timeout has the same effect.
    failed: Sender<HookFailed>,
    /// Present once webhooks are configured.
    poster: Option<Poster>,
    running: BTreeMap<NodeId, StartAttempt>,
    /// Programs of removed nodes that still run.
    released: Vec<Released>,
    /// Threads of programs that were told to end. The thread of the node's next call joins them.
    ending: BTreeMap<NodeId, Vec<JoinHandle<()>>>,
}

struct Released {
    name: Arc<str>,
    program: StartProgram,
    /// The program ends with the gateway.
    stops: bool,
}

struct StartAttempt {
    attempt: u64,
    name: Arc<str>,
    running: RunningStart,
}

enum RunningStart {
    Program {
        program: StartProgram,
        /// The program ends with the gateway.
        stops: bool,
    },
    Post(AbortHandle),
}

impl StartHooks {
    pub(super) fn new(failed: Sender<HookFailed>, poster: Option<Poster>) -> StartHooks {
        StartHooks {
            failed,
            poster,
            running: BTreeMap::new(),
            released: Vec::new(),
            ending: BTreeMap::new(),
        }
    }

    pub(super) fn post_by(&mut self, poster: Poster) {
        self.poster = Some(poster);
    }

    /// Calls the node's hook; `attempt` is unique. A program of an earlier call is ended first: it hangs, or did not
    /// bring the node up. So is a [released](Starter::release) program of the same node name: it may hold resources
    /// that this one needs.
    pub(super) fn start(&mut self, node: NodeId, name: &Arc<str>, start: &StartHook, attempt: u64) {
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
            self.running.insert(node, StartAttempt { attempt, name: Arc::clone(name), running });
        }
    }

    pub(super) fn is_under_way(&self, failed: HookFailed) -> bool {
        self.running.get(&failed.node).is_some_and(|call| call.attempt == failed.attempt)
    }

    fn run(
        &mut self,
        word: HookFailed,
        name: &Arc<str>,
        words: &[Arc<str>],
        stops: bool,
    ) -> Option<RunningStart> {
        let before = self.ending.remove(&word.node).unwrap_or_default();
        let failed = self.failed.clone();
        let tell = move || {
            // Fails only if control has ended.
            let _ = failed.try_send(word);
        };
        match StartProgram::start(name, words, before, tell) {
            Ok(program) => Some(RunningStart::Program { program, stops }),
            Err(error) => {
                // The core calls the hook again when the node's start times out.
                tracing::warn!(node = %name, %error, "no thread for the start hook");
                None
            }
        }
    }

    /// Requests the start: `{"verb":"start","node":"east-b1","attempt":"00f3…"}`. The server answers with 200 to 299,
    /// at the latest when the start timeout of the node ends. Failed requests are repeated with the same attempt.
    fn post(
        &self,
        word: HookFailed,
        name: &Arc<str>,
        hook: &Arc<WebhookTarget>,
        within: Duration,
    ) -> RunningStart {
        let (hook, name, poster) = (Arc::clone(hook), Arc::clone(name), self.poster.clone());
        let failed = self.failed.clone();
        let task = tokio::spawn(async move {
            let attempt = format!("{:016x}", word.attempt);
            let body = json!({"verb": "start", "node": &*name, "attempt": attempt});
            let answer = match poster {
                Some(poster) => {
                    poster.post(hook, body.to_string().into(), Effort::of_start(within)).await
                }
                None => Err(HttpError::Busy),
            };
            let why = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return,
                Ok(answer) => format!("HTTP status {}", answer.status),
                Err(error) => error.to_string(),
            };
            tracing::warn!(node = %name, %why, "start webhook failed");
            // Fails only if control has ended.
            let _ = failed.try_send(word);
        });
        RunningStart::Post(task.abort_handle())
    }

    /// The start timed out: ends the program without waiting for it.
    pub(super) fn give_up(&mut self, node: NodeId) {
        match self.running.remove(&node).map(|call| call.running) {
            Some(RunningStart::Program { program, .. }) => {
                self.ending.entry(node).or_default().push(program.end());
            }
            Some(RunningStart::Post(task)) => task.abort(),
            None => {}
        }
    }

    /// The node was removed. Its program runs on, as the node may, until a node with this name is started.
    pub(super) fn release(&mut self, node: NodeId) {
        self.released.retain(|released| !released.program.is_over());
        if let Some(StartAttempt {
            name, running: RunningStart::Program { program, stops }, ..
        }) = self.running.remove(&node)
        {
            self.released.push(Released { name, program, stops });
        }
    }

    /// Lets all programs run on: another process has the sessions at their nodes.
    pub(super) fn leave_running(&mut self) {
        self.released.clear();
        for call in std::mem::take(&mut self.running).into_values() {
            match call.running {
                RunningStart::Program { .. } => {}
                RunningStart::Post(task) => task.abort(),
            }
        }
    }
}

impl Drop for StartHooks {
    fn drop(&mut self) {
        let released = std::mem::take(&mut self.released).into_iter();
        let released = released.filter(|released| released.stops);
        let mut stopped: Vec<_> = released.map(|released| released.program).collect();
        for call in std::mem::take(&mut self.running).into_values() {
            match call.running {
                RunningStart::Program { program, stops: true } => stopped.push(program),
                RunningStart::Program { stops: false, .. } => {}
                RunningStart::Post(task) => task.abort(),
            }
        }
        let ending = std::mem::take(&mut self.ending).into_values().flatten();
        let ending: Vec<_> = ending.chain(stopped.into_iter().map(StartProgram::end)).collect();
        let by = Instant::now() + GONE_WITHIN;
        while !ending.iter().all(JoinHandle::is_finished) && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests;
