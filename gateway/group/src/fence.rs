//! The program that makes sure that a silent peer is down: the last resort of a standby that no vote lets take over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::Handle;
use evenkeel_model::Health;

use crate::program;
use crate::records::{PendingChange, finish};

/// A power switch answers within seconds.
const WITHIN: Duration = Duration::from_secs(30);

/// Wait after a failed call.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Fence {
    words: Arc<[String]>,
    peer: Arc<str>,
    running: PendingChange<()>,
    begun: Option<Instant>,
}

impl Fence {
    pub(super) fn new(words: Vec<String>, peer: Arc<str>) -> Fence {
        Fence { words: words.into(), peer, running: None, begun: None }
    }

    /// Runs the program, unless it runs or failed a short time ago. A gateway that no node answers is itself cut off, and
    /// fences nobody.
    pub(super) fn begin(&mut self, handle: &Handle, now: Instant) {
        let is_early = |begun: Instant| now.saturating_duration_since(begun) < AGAIN_AFTER;
        if self.running.is_some() || self.begun.is_some_and(is_early) {
            return;
        }
        self.begun = Some(now);
        let (words, peer, handle) =
            (Arc::clone(&self.words), Arc::clone(&self.peer), handle.clone());
        self.running = Some(tokio::spawn(async move {
            let nodes = handle.nodes().await.map_err(|_| "control ended".to_owned())?;
            if !nodes.iter().any(|node| node.health == Health::Up) {
                return Err(
                    "no node answers this gateway, which may be the one that is cut off".to_owned()
                );
            }
            tracing::warn!(%peer, program = %words[0], "fencing the silent peer");
            let fenced = move || program::run(&words, &[&peer], WITHIN);
            tokio::task::spawn_blocking(fenced).await.unwrap_or_else(|error| Err(error.to_string()))
        }));
    }

    /// Returns once the program has ended.
    pub(super) async fn ended(&mut self) -> Result<(), String> {
        finish(&mut self.running).await
    }
}
