//! The preparation of a takeover. Once the standby misses its owner, control continues the sessions of the copy up to the
//! point from which packets are served, and forgets them if the owner is heard again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::{Handle, Replica, Restored};
use tokio::task::JoinHandle;

/// Interval of preparations: each costs 10 microseconds for a session.
const EVERY: Duration = Duration::from_secs(1);

/// More sessions than this take longer than a takeover waits for votes.
const SESSIONS_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct TakeoverPreparation {
    begun: Option<Begun>,
    /// The sessions of the last one are being forgotten.
    ending: Option<JoinHandle<()>>,
    began_last: Option<Instant>,
}

struct Begun {
    /// The number of the last batch in the copy.
    number: u64,
    restored: JoinHandle<Result<Restored, String>>,
}

impl TakeoverPreparation {
    /// Begins one if the owner is missed, and ends it if the owner is heard again.
    pub(super) fn weigh(
        &mut self,
        misses: bool,
        replica: &Arc<Replica>,
        handle: &Handle,
        now: Instant,
    ) {
        match &self.begun {
            Some(begun) if misses && begun.number == replica.number() => {}
            Some(_) => self.give_up(handle),
            None if misses => self.begin(replica, handle, now),
            None => {}
        }
    }

    fn begin(&mut self, replica: &Arc<Replica>, handle: &Handle, now: Instant) {
        let waits = self.began_last.is_some_and(|last| now - last < EVERY)
            || self.ending.as_ref().is_some_and(|ending| !ending.is_finished());
        if waits || replica.sessions() > SESSIONS_MAX || replica.has_ports() {
            return;
        }
        self.began_last = Some(now);
        let (number, handle, replica) = (replica.number(), handle.clone(), Arc::clone(replica));
        let restored = tokio::spawn(async move {
            // Beats and votes go on.
            let copied = tokio::task::spawn_blocking(|| Arc::unwrap_or_clone(replica).snapshot());
            let snapshot = copied.await.map(|snapshot| snapshot.map(Box::new));
            let snapshot = snapshot.ok().flatten().ok_or("no record of a node came")?;
            let prepared = handle.prepare(snapshot).await;
            prepared.map_err(|_| "control ended")?.map_err(|error| error.to_string())
        });
        self.begun = Some(Begun { number, restored });
    }

    fn give_up(&mut self, handle: &Handle) {
        let Some(Begun { restored, .. }) = self.begun.take() else { return };
        let handle = handle.clone();
        self.ending = Some(tokio::spawn(async move {
            forget(restored, &handle).await;
        }));
    }

    /// The number of sessions that control continues, if those of the batch with this number are prepared. Otherwise control
    /// has none.
    pub(super) async fn finish(
        self,
        number: u64,
        handle: &Handle,
    ) -> Result<Option<usize>, String> {
        if let Some(ending) = self.ending {
            // A panic ends the process.
            let _ = ending.await;
        }
        match self.begun {
            Some(begun) if begun.number == number => {
                let restored = begun.restored.await.map_err(|error| error.to_string())?;
                restored.map(|restored| Some(restored.sessions))
            }
            Some(begun) => {
                forget(begun.restored, handle).await;
                Ok(None)
            }
            None => Ok(None),
        }
    }
}

async fn forget(restored: JoinHandle<Result<Restored, String>>, handle: &Handle) {
    if let Ok(Err(reason)) = restored.await {
        tracing::error!(%reason, "sessions of the owner not prepared");
    }
    // Fails only if control has ended, and the gateway with it.
    let _ = handle.forget_restored().await;
}

#[cfg(test)]
mod tests;
