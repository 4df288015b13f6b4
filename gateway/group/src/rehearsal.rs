//! The rehearsal of a standby: what a takeover would need and is not there.

use std::time::{Duration, Instant};

use evenkeel_control::Handle;
use evenkeel_model::Health;

use crate::records::{PendingChange, finish};
use crate::redundancy::RedundancyLoss;

const EVERY: Duration = Duration::from_secs(2);

pub(super) struct Rehearsal {
    running: PendingChange<Vec<RedundancyLoss>>,
    due: Instant,
    losses: Vec<RedundancyLoss>,
}

impl Rehearsal {
    pub(super) fn new(now: Instant) -> Rehearsal {
        Rehearsal { running: None, due: now + EVERY, losses: Vec::new() }
    }

    /// Begins one if it is due.
    pub(super) fn begin(&mut self, handle: &Handle, now: Instant) {
        if self.running.is_some() || now < self.due {
            return;
        }
        self.due = now + EVERY;
        let handle = handle.clone();
        self.running = Some(tokio::spawn(async move {
            let nodes = handle.nodes().await.map_err(|_| "control ended".to_owned())?;
            let none_lives =
                !nodes.is_empty() && nodes.iter().all(|node| node.health == Health::Down);
            Ok(none_lives.then_some(RedundancyLoss::NoNode).into_iter().collect())
        }));
    }

    /// Returns once it has ended.
    pub(super) async fn ended(&mut self) {
        self.losses = finish(&mut self.running).await.unwrap_or_default();
    }

    /// The losses that the last one found.
    pub(super) fn losses(&self) -> &[RedundancyLoss] {
        &self.losses
    }
}
