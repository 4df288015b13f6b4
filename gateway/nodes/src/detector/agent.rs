//! Reports of the agent beside a node about the node's process.

use std::time::{Duration, Instant};

use evenkeel_model::EvidenceSource;

use super::Detector;

/// Validity of a report that the process is gone. The agent repeats it with each answer.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// The agent's last report.
#[derive(Default, Debug)]
pub(super) struct AgentReport {
    gone: Option<Instant>,
}

impl Detector {
    /// The agent reports whether the process runs.
    pub fn handle_agent(&mut self, runs: bool, now: Instant) {
        if runs {
            self.agent.gone = None;
            self.withdraw(EvidenceSource::Agent);
        } else {
            self.agent.gone = Some(now);
            self.accuse(EvidenceSource::Agent, now);
        }
    }

    pub fn is_gone(&self) -> bool {
        self.accused[EvidenceSource::Agent as usize].is_some()
    }

    /// Drops a report that expired because the agent fell silent.
    pub(super) fn weigh_agent(&mut self, now: Instant) {
        let told = |at: Instant| now.saturating_duration_since(at) < BELIEVED_FOR;
        if !self.agent.gone.is_some_and(told) {
            self.withdraw(EvidenceSource::Agent);
        }
    }
}
