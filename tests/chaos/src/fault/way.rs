//! The ways in which a process dies and returns.

use nix::sys::signal::Signal;

use super::signal_all;
use crate::stage::Stage;

/// The way in which a process dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// SIGKILL: the process's port refuses packets.
    Loud,
    /// SIGKILL without ICMP port unreachable.
    Hushed,
    /// In turns SIGSTOP, and SIGKILL without ICMP port unreachable.
    Silent,
}

impl Way {
    /// Ends the processes.
    pub(super) fn kill(self, stage: &Stage, names: &[String], turn: u32) -> Result<(), String> {
        if self.stops(turn) {
            return signal_all(stage, names, Signal::SIGSTOP);
        }
        if self != Way::Loud {
            stage.firewall.drop_icmp()?;
        }
        signal_all(stage, names, Signal::SIGKILL)
    }

    /// Resumes or restarts the processes.
    pub(super) fn revive(
        self,
        stage: &mut Stage,
        names: &[String],
        turn: u32,
    ) -> Result<(), String> {
        if self.stops(turn) {
            return signal_all(stage, names, Signal::SIGCONT);
        }
        stage.firewall.clear()?;
        stage.restart_the_dead()
    }

    /// The variant of this turn.
    pub(super) fn of_turn(self, turn: u32) -> Option<&'static str> {
        (self == Way::Silent).then(|| if self.stops(turn) { "stopped" } else { "hushed" })
    }

    fn stops(self, turn: u32) -> bool {
        self == Way::Silent && turn.is_multiple_of(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_deaths_alternate() {
        assert_eq!([0, 1, 2].map(|turn| Way::Silent.stops(turn)), [true, false, true]);
        assert_eq!([0, 1].map(|turn| Way::Silent.of_turn(turn)), [Some("stopped"), Some("hushed")]);
        for way in [Way::Loud, Way::Hushed] {
            assert!(!way.stops(0) && way.of_turn(0).is_none());
        }
    }
}
