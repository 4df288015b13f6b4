//! Calls the hooks that start nodes. Each is a program under the eyes of a thread, so that control waits for none.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_core::NodeId;

use crate::settings::Start;

/// How often a program is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The hooks under way, by node: at most one of each.
pub(super) struct Starter {
    /// Nodes whose hook failed.
    failed: tokio::sync::mpsc::UnboundedSender<NodeId>,
    running: BTreeMap<NodeId, Running>,
}

/// A program that was started. Letting go of the sender lets go of the program.
struct Running {
    end: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Starter {
    /// Nodes whose hook fails are told there: one word for each call, so no bound is needed.
    pub(super) fn new(failed: tokio::sync::mpsc::UnboundedSender<NodeId>) -> Starter {
        Starter { failed, running: BTreeMap::new() }
    }

    /// Calls the node's hook. What an earlier call left running is ended first: it did not bring the node up, or hangs.
    pub(super) fn start(&mut self, node: NodeId, name: &Arc<str>, start: &Start) {
        self.give_up(node);
        let words = &start.command;
        let child = command(words).spawn().and_then(|child| self.watch(node, start, child));
        match child {
            Ok(running) => _ = self.running.insert(node, running),
            Err(error) => {
                tracing::warn!(node = %name, program = %words[0], %error, "the node's start hook cannot be run");
                // Control is gone where nobody listens.
                let _ = self.failed.send(node);
            }
        }
    }

    fn watch(&self, node: NodeId, start: &Start, child: Child) -> std::io::Result<Running> {
        let (end, ended) = mpsc::channel();
        let (failed, stop) = (self.failed.clone(), start.stop_with_gateway);
        let thread =
            std::thread::Builder::new().name(format!("start {node}")).spawn(move || {
                if look_after(child, &ended, stop) == Outcome::Failed {
                    let _ = failed.send(node);
                }
            })?;
        Ok(Running { end, thread })
    }

    /// The node did not come up: what was to start it ends.
    pub(super) fn give_up(&mut self, node: NodeId) {
        if let Some(Running { end, thread }) = self.running.remove(&node) {
            // It has ended already where nobody listens.
            let _ = end.send(());
            let _ = thread.join();
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        for (_, Running { end, thread }) in std::mem::take(&mut self.running) {
            drop(end);
            let _ = thread.join();
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

    const NODE: NodeId = NodeId(3);

    fn start(script: &str, stop_with_gateway: bool) -> Start {
        let words = ["/bin/sh", "-c", script].map(Into::into).into();
        Start { command: words, within: Duration::from_secs(9), stop_with_gateway }
    }

    fn starter() -> (Starter, tokio::sync::mpsc::UnboundedReceiver<NodeId>) {
        let (failed, told) = tokio::sync::mpsc::unbounded_channel();
        (Starter::new(failed), told)
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
        let nowhere = Start { command: vec!["/nowhere/at-all".into()], ..start("", false) };
        starter.start(NODE, &"n".into(), &nowhere);
        assert_eq!(told.blocking_recv(), Some(NODE));
        starter.start(NODE, &"n".into(), &start("exit 0", false));
        starter.running.remove(&NODE).unwrap().thread.join().unwrap();
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
}
