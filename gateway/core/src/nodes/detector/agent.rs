//! The word of the agent beside a node on its process.

use std::time::{Duration, Instant};

use super::Detector;
use crate::Witness;

/// An agent that said the process is gone is believed so long, unless it says so again: it does with each answer.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// Its last word.
#[derive(Default, Debug)]
pub(super) struct Agent {
    gone: Option<Instant>,
}

impl Detector {
    /// The agent says whether the process runs.
    pub(crate) fn handle_agent(&mut self, runs: bool, now: Instant) {
        if runs {
            self.agent.gone = None;
            self.withdraw(Witness::Agent);
        } else {
            self.agent.gone = Some(now);
            self.accuse(Witness::Agent, now);
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.accused[Witness::Agent as usize].is_some()
    }

    /// An agent that fell silent says nothing any more.
    pub(super) fn weigh_agent(&mut self, now: Instant) {
        let told = |at: Instant| now.saturating_duration_since(at) < BELIEVED_FOR;
        if !self.agent.gone.is_some_and(told) {
            self.withdraw(Witness::Agent);
        }
    }
}
