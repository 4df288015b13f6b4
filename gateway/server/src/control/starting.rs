//! Calls the hooks that start nodes: a program under the eyes of a thread, or a POST, so that control waits for neither.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_core::NodeId;
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::settings::{Start, StartBy};
use crate::webhook::{Failed, Hook, Poster};

/// How often a program is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The hooks under way, by node: at most one of each.
pub(super) struct Starter {
    /// Nodes whose hook failed.
    failed: UnboundedSender<NodeId>,
    /// For webhooks, where there are any.
    poster: Option<Poster>,
    running: BTreeMap<NodeId, Running>,
}

/// A hook that was called.
enum Running {
    /// A program. Letting go of the sender lets go of it.
    Program { end: mpsc::Sender<()>, thread: JoinHandle<()> },
    /// A POST, whose answer is waited for.
    Post(AbortHandle),
}

impl Starter {
    /// Nodes whose hook fails are told there: one word for each call, so no bound is needed.
    pub(super) fn new(failed: UnboundedSender<NodeId>, poster: Option<Poster>) -> Starter {
        Starter { failed, poster, running: BTreeMap::new() }
    }

    /// There are webhooks from now on.
    pub(super) fn post_by(&mut self, poster: Poster) {
        self.poster = Some(poster);
    }

    /// Calls the node's hook. What an earlier call left running is ended first: it did not bring the node up, or hangs.
    pub(super) fn start(&mut self, node: NodeId, name: &Arc<str>, start: &Start) {
        self.give_up(node);
        let running = match &start.by {
            StartBy::Command { words, stop_with_gateway } => {
                self.run(node, name, words, *stop_with_gateway)
            }
            StartBy::Webhook(hook) => Some(self.post(node, name, hook, start.within)),
        };
        if let Some(running) = running {
            self.running.insert(node, running);
        }
    }

    fn run(&self, node: NodeId, name: &str, words: &[Arc<str>], stops: bool) -> Option<Running> {
        let watched = command(words).spawn().and_then(|child| self.watch(node, child, stops));
        match watched {
            Ok(running) => Some(running),
            Err(error) => {
                tracing::warn!(node = %name, program = %words[0], %error, "the node's start hook cannot be run");
                // Control is gone where nobody listens.
                let _ = self.failed.send(node);
                None
            }
        }
    }

    fn watch(&self, node: NodeId, child: Child, stops: bool) -> std::io::Result<Running> {
        let (end, ended) = mpsc::channel();
        let failed = self.failed.clone();
        let thread =
            std::thread::Builder::new().name(format!("start {node}")).spawn(move || {
                if look_after(child, &ended, stops) == Outcome::Failed {
                    let _ = failed.send(node);
                }
            })?;
        Ok(Running::Program { end, thread })
    }

    /// Asks the operator's server to start the node: `{"verb":"start","node":"east-b1"}`, again until it answers, as long as
    /// the node may take. That it starts, it says with 200 to 299.
    fn post(&self, node: NodeId, name: &Arc<str>, hook: &Arc<Hook>, within: Duration) -> Running {
        let (hook, name, poster) = (Arc::clone(hook), Arc::clone(name), self.poster.clone());
        let failed = self.failed.clone();
        let task = tokio::spawn(async move {
            let body = json!({"verb": "start", "node": &*name}).to_string().into();
            let answer = match poster {
                Some(poster) => poster.post(hook, body, within).await,
                None => Err(Failed::Busy),
            };
            let why = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return,
                Ok(answer) => format!("it answered {}", answer.status),
                Err(error) => error.to_string(),
            };
            tracing::warn!(node = %name, %why, "the node's start webhook failed");
            // Control is gone where nobody listens.
            let _ = failed.send(node);
        });
        Running::Post(task.abort_handle())
    }

    /// The node did not come up: what was to start it ends.
    pub(super) fn give_up(&mut self, node: NodeId) {
        match self.running.remove(&node) {
            Some(Running::Program { end, thread }) => {
                // It has ended already where nobody listens.
                let _ = end.send(());
                let _ = thread.join();
            }
            Some(Running::Post(task)) => task.abort(),
            None => {}
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            match running {
                Running::Program { end, thread } => {
                    drop(end);
                    let _ = thread.join();
                }
                Running::Post(task) => task.abort(),
            }
        }
    }
}

fn command(words: &[Arc<str>]) -> Command {
    let mut command = Command::new(&*words[0]);
    command.args(words[1..].iter().map(|word| &**word));
    // In a group of its own: what a terminal tells the gateway is not for the node.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// It ended well, was ended, or was left alone.
    Done,
    /// It ended with an error.
    Failed,
}

/// Until the program ends, or is to end, or the gateway does.
fn look_after(mut child: Child, ended: &mpsc::Receiver<()>, stop_with_gateway: bool) -> Outcome {
    loop {
        let told = ended.recv_timeout(LOOK_EVERY);
        let gateway_ends = told == Err(RecvTimeoutError::Disconnected);
        if told.is_ok() || gateway_ends && stop_with_gateway {
            // By its own id; it is waited for, so that the id is nobody else's meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
        if told != Err(RecvTimeoutError::Timeout) {
            return Outcome::Done;
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) if status.success() => return Outcome::Done,
            Ok(Some(_)) | Err(_) => return Outcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::tests::{says, server};

    const NODE: NodeId = NodeId(3);

    fn start(script: &str, stop_with_gateway: bool) -> Start {
        let words = ["/bin/sh", "-c", script].map(Into::into).into();
        let by = StartBy::Command { words, stop_with_gateway };
        Start { by, within: Duration::from_secs(9) }
    }

    fn starter() -> (Starter, tokio::sync::mpsc::UnboundedReceiver<NodeId>) {
        let (failed, told) = tokio::sync::mpsc::unbounded_channel();
        (Starter::new(failed, None), told)
    }

    /// Runs a hook that writes its id there and stays.
    fn stay(starter: &mut Starter, name: &str, stop_with_gateway: bool) -> i32 {
        let file = std::env::temp_dir().join(format!("evenkeel-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300", file.display());
        starter.start(NODE, &"n".into(), &start(&script, stop_with_gateway));
        let pid = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text.trim().parse().unwrap(),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        std::fs::remove_file(&file).unwrap();
        pid
    }

    fn is_running(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }

    #[test]
    fn a_hook_that_fails_is_told_and_one_that_ends_well_is_not() {
        let (mut starter, mut told) = starter();
        starter.start(NODE, &"n".into(), &start("exit 3", false));
        assert_eq!(told.blocking_recv(), Some(NODE));
        let words = vec!["/nowhere/at-all".into()];
        let by = StartBy::Command { words, stop_with_gateway: false };
        let nowhere = Start { by, ..start("", false) };
        starter.start(NODE, &"n".into(), &nowhere);
        assert_eq!(told.blocking_recv(), Some(NODE));
        starter.start(NODE, &"n".into(), &start("exit 0", false));
        let Some(Running::Program { thread, .. }) = starter.running.remove(&NODE) else {
            panic!("a program")
        };
        thread.join().unwrap();
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn what_was_started_ends_with_the_gateway_only_where_the_node_says_so() {
        for stops in [true, false] {
            let (mut starter, _told) = starter();
            let pid = stay(&mut starter, &format!("ends-{stops}"), stops);
            assert!(is_running(pid));
            drop(starter);
            assert_eq!(is_running(pid), !stops);
            if !stops {
                let kill = Command::new("kill").arg(pid.to_string()).status();
                assert!(kill.unwrap().success());
            }
        }
    }

    #[test]
    fn a_start_that_is_given_up_leaves_nothing_behind() {
        let (mut starter, _told) = starter();
        let pid = stay(&mut starter, "given-up", false);
        starter.give_up(NODE);
        assert!(!is_running(pid));
        let first = stay(&mut starter, "again", true);
        let second = stay(&mut starter, "again", true);
        assert!(!is_running(first) && is_running(second), "one at a time");
    }

    /// A server of the operator's that answers so, and what was asked of it.
    fn asked(answers: &[&str]) -> (Start, JoinHandle<Vec<String>>) {
        let answers = answers.iter().map(|status| says(status, "")).collect();
        let (url, asked) = server(answers);
        let by = StartBy::Webhook(Arc::new(Hook { url, token: None }));
        (Start { by, within: Duration::from_secs(9) }, asked)
    }

    #[tokio::test]
    async fn a_webhook_is_asked_for_the_node_by_name_and_what_it_answers_tells_whether_it_failed() {
        let (failed, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut starter = Starter::new(failed, Some(Poster::start().unwrap()));
        let (well, first) = asked(&["202 Accepted"]);
        starter.start(NODE, &"east-b1".into(), &well);
        let request =
            tokio::task::spawn_blocking(|| first.join().unwrap().remove(0)).await.unwrap();
        assert!(request.ends_with("{\"node\":\"east-b1\",\"verb\":\"start\"}"), "{request}");
        let (ill, _) = asked(&["503 Service Unavailable"]);
        starter.start(NODE, &"east-b1".into(), &ill);
        assert_eq!(told.recv().await, Some(NODE), "the second, not the first");
        assert!(told.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_webhook_that_is_given_up_is_not_told_to_have_failed() {
        let (failed, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut starter = Starter::new(failed, None);
        let (start, _) = asked(&[]);
        starter.start(NODE, &"n".into(), &start);
        starter.give_up(NODE);
        drop(starter);
        assert_eq!(told.recv().await, None);
    }
}
