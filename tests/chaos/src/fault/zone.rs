//! Faults of a zone with nodes and gateways.

use nix::sys::signal::Signal;

use super::owner::SETTLED_WITHIN;
use super::signal_all;
use crate::stage::Stage;

/// The way in which a zone is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ZoneLoss {
    /// SIGKILL. Ports of dead processes refuse packets.
    Killed,
    /// The hosts of gateways are cut off, and nodes and agents get SIGSTOP.
    Silent,
}

impl ZoneLoss {
    /// `names`: the nodes of the zone.
    pub(super) fn begin(self, stage: &Stage, names: &[String], zone: &str) -> Result<(), String> {
        let signal = match self {
            ZoneLoss::Killed => Signal::SIGKILL,
            ZoneLoss::Silent => Signal::SIGSTOP,
        };
        signal_all(stage, names, signal)?;
        stage.signal_agents(names, signal)?;
        for group in stage.groups() {
            match self {
                ZoneLoss::Killed => {
                    group.processes_in(zone).try_for_each(|gateway| gateway.signal(signal))?;
                }
                ZoneLoss::Silent => group.set_links_in(zone, false)?,
            }
        }
        Ok(())
    }

    /// Lets the zone return. Its gateways are standbys.
    pub(super) async fn heal(
        self,
        stage: &mut Stage,
        names: &[String],
        zone: &str,
    ) -> Result<(), String> {
        // Former owners have sent until the zone was lost.
        stage.count_media_of_standby()?;
        match self {
            ZoneLoss::Killed => stage.restart_the_dead()?,
            ZoneLoss::Silent => {
                signal_all(stage, names, Signal::SIGCONT)?;
                stage.signal_agents(names, Signal::SIGCONT)?;
                stage.groups().try_for_each(|group| group.set_links_in(zone, true))?;
                for group in stage.groups_mut().filter(|group| !group.is_at_home()) {
                    group.await_end_of_former().await?;
                }
            }
        }
        // A gateway that starts marks a node down that its agent has not found again.
        stage.settled(SETTLED_WITHIN).await?;
        let places = stage.places.clone();
        for group in stage.groups_mut() {
            group.await_standby(&places).await?;
        }
        Ok(())
    }
}

/// Waits until the standby of each owner in the zone serves.
pub(super) async fn expect_takeovers(stage: &mut Stage, zone: &str) -> Result<(), String> {
    for group in stage.groups_mut().filter(|group| group.owner_is_in(zone)) {
        group.expect_takeover().await?;
    }
    Ok(())
}
