//! Faults of the gateway that owns the shared address of a group.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::signal_all;
use crate::stage::Stage;

/// Time in which a node that starts again is found.
pub(super) const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// The fault of the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// SIGKILL.
    Killed,
    /// SIGTERM. It hands over and ends.
    HandedOver,
    /// In turns SIGSTOP, and a cut of its host's link.
    Silent,
    /// SIGSTOP for this long. The fault ends after SIGCONT.
    Stopped(Duration),
    /// SIGKILL of the owner and of a node.
    WithNode,
    /// The members of the group do not hear each other for this long.
    Parted(Duration),
}

impl Loss {
    pub(super) fn begin(
        self,
        stage: &mut Stage,
        names: &[String],
        turn: u32,
    ) -> Result<(), String> {
        match self {
            Loss::Killed => stage.gateways.signal_owner(Signal::SIGKILL),
            Loss::HandedOver => stage.gateways.signal_owner(Signal::SIGTERM),
            Loss::Silent if cuts(turn) => stage.gateways.cut_owner(),
            Loss::Silent | Loss::Stopped(_) => stage.gateways.signal_owner(Signal::SIGSTOP),
            Loss::WithNode => {
                signal_all(stage, names, Signal::SIGKILL)?;
                stage.gateways.signal_owner(Signal::SIGKILL)
            }
            Loss::Parted(_) => {
                stage.count_media_of_standby()?;
                stage.gateways.part()
            }
        }
    }

    pub(super) async fn go_on(self, stage: &mut Stage) -> Result<(), String> {
        match self {
            Loss::Killed | Loss::HandedOver | Loss::Silent | Loss::WithNode => {
                stage.gateways.expect_takeover().await
            }
            Loss::Stopped(long) => {
                let until = tokio::time::Instant::now() + long;
                stage.gateways.expect_takeover().await?;
                tokio::time::sleep_until(until).await;
                stage.count_media_of_standby()?;
                stage.gateways.signal_former(Signal::SIGCONT)
            }
            Loss::Parted(long) => {
                tokio::time::sleep(long).await;
                Ok(())
            }
        }
    }

    /// Lets the former owner return as standby.
    pub(super) async fn heal(self, stage: &mut Stage, turn: u32) -> Result<(), String> {
        match self {
            Loss::Killed | Loss::WithNode => {
                stage.count_media_of_standby()?;
                stage.restart_the_dead()?;
                // A gateway that starts marks a node down that its agent has not found again.
                stage.settled(SETTLED_WITHIN).await?;
            }
            Loss::Silent => {
                stage.count_media_of_standby()?;
                if cuts(turn) {
                    stage.gateways.restore_former_link()?;
                } else {
                    stage.gateways.signal_former(Signal::SIGCONT)?;
                }
                stage.gateways.await_end_of_former().await?;
            }
            Loss::HandedOver => {
                stage.gateways.await_end_of_former().await?;
                stage.count_media_of_standby()?;
            }
            Loss::Stopped(_) => stage.gateways.await_end_of_former().await?,
            Loss::Parted(_) => stage.gateways.join()?,
        }
        stage.gateways.await_standby(&stage.places).await
    }

    /// The variant of this turn.
    pub(super) fn of_turn(self, turn: u32) -> Option<&'static str> {
        (self == Loss::Silent).then(|| if cuts(turn) { "cut" } else { "stopped" })
    }
}

/// Each member is hit by both variants in turns.
fn cuts(turn: u32) -> bool {
    turn % 4 >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_stopped_and_cut() {
        let ways = [0, 1, 2, 3, 4].map(|turn| Loss::Silent.of_turn(turn));
        let [stopped, cut] = [Some("stopped"), Some("cut")];
        assert_eq!(ways, [stopped, stopped, cut, cut, stopped]);
        assert_eq!(Loss::Killed.of_turn(0), None);
    }
}
