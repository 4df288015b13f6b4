//! The process of a node, as the agent beside it reports it.

use std::time::{Duration, Instant};

/// Validity of a report: six intervals of the question.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The process of a media server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessState {
    /// Resident memory, thousandths of the memory that the process may use.
    pub memory_permille: u16,
    /// Its start, to a second.
    pub started: Instant,
}

/// The last report, with its time.
#[derive(Clone, Copy, Default, Debug)]
pub struct LastProcess(Option<(ProcessState, Instant)>);

impl LastProcess {
    pub(super) fn note(&mut self, process: ProcessState, now: Instant) {
        self.0 = Some((process, now));
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.0 = self.0.filter(|(_, at)| now.saturating_duration_since(*at) < KNOWN_FOR);
    }

    /// The state that was reported lately.
    pub fn state(&self) -> Option<ProcessState> {
        self.0.map(|(process, _)| process)
    }
}
