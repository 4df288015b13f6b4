//! How a process comes to its end, and back.

use nix::sys::signal::Signal;

use super::signal_all;
use crate::stage::Stage;

/// How a process comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// SIGKILL: its port refuses what comes.
    Loud,
    /// SIGKILL with nobody told that the port is closed.
    Hushed,
    /// By turns SIGSTOP, and SIGKILL with nobody told that the port is closed.
    Silent,
}

impl Way {
    /// They are gone.
    pub(super) fn kill(self, stage: &Stage, names: &[String], turn: u32) -> Result<(), String> {
        if self.stops(turn) {
            return signal_all(stage, names, Signal::SIGSTOP);
        }
        if self != Way::Loud {
            stage.firewall.hush()?;
        }
        signal_all(stage, names, Signal::SIGKILL)
    }

    /// They are there again.
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

    /// Of a way that comes in two by turns, which one this turn's is.
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
    fn silent_ends_are_stopped_and_hushed_by_turns_and_the_others_are_alike() {
        assert_eq!([0, 1, 2].map(|turn| Way::Silent.stops(turn)), [true, false, true]);
        assert_eq!([0, 1].map(|turn| Way::Silent.of_turn(turn)), [Some("stopped"), Some("hushed")]);
        for way in [Way::Loud, Way::Hushed] {
            assert!(!way.stops(0) && way.of_turn(0).is_none());
        }
    }
}
