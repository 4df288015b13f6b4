//! Faults of the store of the shared index.

use std::time::Duration;

use evenkeel_testkit::nats::NatsServer;
use nix::sys::signal::Signal;

use super::Loss;
use crate::offers::{self, Offers};
use crate::stage::Stage;
use crate::store::BUCKET;

/// The store does not answer for this time.
const LASTS: Duration = Duration::from_secs(5);
/// The age of the data that a store returns with.
const ROLLED_BACK_BY: Duration = Duration::from_secs(30);
/// The one-way delay to a store that is far away.
const FAR: Duration = Duration::from_millis(20);
/// Sessions come and go for this time while the store is away.
const CHANGES_FOR: Duration = Duration::from_secs(1);
const OLDER: &str = "older";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outage {
    /// SIGKILL, and a start later.
    Down,
    /// The owner of the shared address is killed while the store is down.
    DownAtTakeover,
    /// SIGSTOP and SIGCONT.
    Slow,
    /// SIGKILL and a start at once.
    Restarted,
    /// All entries are purged.
    Emptied,
    /// It starts with data of 30 s before.
    RolledBack,
    /// Gateways and store do not reach each other.
    Split,
    /// The store is 20 ms away each way, for as long as the row is watched.
    Far,
}

impl Outage {
    pub(super) async fn go_on(self, stage: &mut Stage) -> Result<(), String> {
        match self {
            Outage::Down => stage.store()?.with(NatsServer::kill).await?,
            Outage::Slow => stage.store()?.with(|server| server.pause(true)).await?,
            Outage::Split => stage.gateways.part_from_store()?,
            Outage::Far => return stage.store()?.set_delay(FAR),
            Outage::DownAtTakeover => {
                stage.store()?.with(NatsServer::kill).await?;
                stage.gateways.signal_owner(Signal::SIGKILL)?;
                return stage.gateways.expect_takeover().await;
            }
            Outage::Restarted => {
                stage
                    .store()?
                    .with(|server| {
                        server.kill();
                        server.start();
                    })
                    .await?;
                change_sessions(stage).await?;
                return stage.await_index().await;
            }
            Outage::Emptied => {
                stage.store()?.with(|server| server.purge(BUCKET)).await?;
                return stage.await_index().await;
            }
            Outage::RolledBack => {
                let save = |server: &mut NatsServer| {
                    server.kill();
                    server.save(OLDER);
                    server.start();
                };
                stage.store()?.with(save).await?;
                change_sessions(stage).await?;
                tokio::time::sleep(ROLLED_BACK_BY - CHANGES_FOR).await;
                let restore = |server: &mut NatsServer| {
                    server.kill();
                    server.restore(OLDER);
                    server.start();
                };
                stage.store()?.with(restore).await?;
                return stage.await_index().await;
            }
        }
        change_sessions(stage).await?;
        tokio::time::sleep(LASTS - CHANGES_FOR).await;
        Ok(())
    }

    pub(super) async fn heal(self, stage: &mut Stage) -> Result<(), String> {
        match self {
            Outage::Down => stage.store()?.with(NatsServer::start).await?,
            Outage::Slow => stage.store()?.with(|server| server.pause(false)).await?,
            Outage::Split => stage.gateways.join()?,
            Outage::Far => stage.store()?.set_delay(Duration::ZERO)?,
            Outage::DownAtTakeover => {
                Loss::Killed.heal(stage, 0).await?;
                stage.store()?.with(NatsServer::start).await?;
            }
            Outage::Restarted | Outage::Emptied | Outage::RolledBack => return Ok(()),
        }
        stage.await_index().await
    }
}

/// Opens sessions, and closes some of them.
async fn change_sessions(stage: &Stage) -> Result<(), String> {
    let offers = Offers::begin(&stage.admins(), stage.layout.carrying());
    tokio::time::sleep(CHANGES_FOR).await;
    let mut opened: Vec<String> = offers.end().into_iter().map(|offered| offered.id).collect();
    opened.truncate(opened.len() / 2);
    offers::close(&stage.admin(), opened).await;
    Ok(())
}
