//! The use of the processors while a row is measured: on a busy machine its figures are those of the machine.

use evenkeel_process::host::ProcessorTime;

/// Start of an observation of the processors' use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessorWatch {
    before: ProcessorTime,
}

impl ProcessorWatch {
    /// Begins to observe.
    pub(crate) fn begin() -> ProcessorWatch {
        ProcessorWatch { before: ProcessorTime::now().unwrap_or_default() }
    }

    /// Idle time since [`ProcessorWatch::begin`], per cent of the time of all cores; 100 if the kernel reports none.
    pub(crate) fn idle_percent(&self) -> f64 {
        idle_percent(ProcessorTime::now().unwrap_or_default().since(self.before))
    }
}

fn idle_percent(ProcessorTime { used, idle, .. }: ProcessorTime) -> f64 {
    if used + idle == 0 { 100.0 } else { idle as f64 * 100.0 / (used + idle) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_a_share_of_all_time() {
        assert_eq!(idle_percent(ProcessorTime { used: 300, stolen: 50, idle: 100 }), 25.0);
        assert_eq!(idle_percent(ProcessorTime::default()), 100.0);
    }
}
