//! The program that makes sure that a silent peer is down: the last resort of a standby that no vote lets take over.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::Handle;
use evenkeel_model::Health;
use evenkeel_process::program;

use crate::address::RouterCheck;
use crate::task::{Task, outcome};

/// A power switch answers within seconds.
const WITHIN: Duration = Duration::from_secs(30);

/// Wait after a call that has failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Fence {
    words: Arc<[String]>,
    peer: Arc<str>,
    call: FenceCall,
}

enum FenceCall {
    None,
    Running(Task<()>),
    Ended(Instant),
}

impl Fence {
    pub(super) fn new(words: Vec<String>, peer: Arc<str>) -> Fence {
        Fence { words: words.into(), peer, call: FenceCall::None }
    }

    /// Runs the program, unless it runs or failed a short time ago. A gateway that no node answers may itself be cut off: it
    /// does not run the program. The default router has to answer if no node is probed.
    pub(super) fn begin(&mut self, handle: &Handle, router_check: &RouterCheck, now: Instant) {
        match self.call {
            FenceCall::Running(_) => return,
            FenceCall::Ended(at) if now.saturating_duration_since(at) < AGAIN_AFTER => return,
            FenceCall::None | FenceCall::Ended(_) => {}
        }
        let (words, peer) = (Arc::clone(&self.words), Arc::clone(&self.peer));
        let (handle, router_check) = (handle.clone(), router_check.clone());
        self.call = FenceCall::Running(tokio::spawn(async move {
            let nodes = handle.nodes().await.map_err(|_| "control ended".to_owned())?;
            let nodes = nodes.iter().map(|node| {
                (node.is_probed, node.health == Health::Up && node.round_trip.is_some())
            });
            match does_a_node_answer(nodes) {
                Some(true) => {}
                Some(false) => {
                    let reason =
                        "no node answers this gateway, which may be the one that is cut off";
                    return Err(reason.to_owned());
                }
                None => router_check.ask().await.map_err(|reason| {
                    format!("this gateway may be the one that is cut off: {reason}")
                })?,
            }
            tracing::warn!(%peer, program = %words[0], "fencing the silent peer");
            let fenced =
                move || program::run(&words, &[&peer], WITHIN).map_err(|error| error.to_string());
            tokio::task::spawn_blocking(fenced).await.unwrap_or_else(|error| Err(error.to_string()))
        }));
    }

    /// Returns once the program has ended. May be cancelled without a loss.
    pub(super) async fn ended(&mut self) -> Result<(), String> {
        let FenceCall::Running(running) = &mut self.call else { return pending().await };
        let ended = outcome(running).await;
        self.call = FenceCall::Ended(Instant::now());
        ended
    }
}

/// Takes of each node whether it is probed, and whether it answers. `None` if none is probed.
fn does_a_node_answer(nodes: impl Iterator<Item = (bool, bool)>) -> Option<bool> {
    nodes
        .filter(|(is_probed, _)| *is_probed)
        .map(|(_, answers)| answers)
        .reduce(|one, other| one || other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probed_node_that_never_answered_stands_for_a_cut() {
        let answers = |nodes: &[(bool, bool)]| does_a_node_answer(nodes.iter().copied());
        assert_eq!(answers(&[(true, false), (false, true)]), Some(false));
        assert_eq!(answers(&[(true, false), (true, true)]), Some(true));
        assert_eq!(answers(&[(false, true)]), None);
        assert_eq!(answers(&[]), None);
    }
}
