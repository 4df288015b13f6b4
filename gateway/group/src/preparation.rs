//! The preparation of a takeover. Once the standby misses its owner, control continues the sessions of the copy up to the
//! point from which packets are served, and forgets them if the owner is heard again.

use std::sync::{Arc, Weak};
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
    /// A batch moves the copy.
    copy: Weak<Replica>,
    restored: JoinHandle<Result<Restored, String>>,
}

impl Begun {
    fn is_of(&self, replica: &Arc<Replica>) -> bool {
        std::ptr::eq(self.copy.as_ptr(), Arc::as_ptr(replica))
    }
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
            Some(begun) if misses && begun.is_of(replica) => {}
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
        let (copy, handle, replica) =
            (Arc::downgrade(replica), handle.clone(), Arc::clone(replica));
        let restored = tokio::spawn(async move {
            let prepared = handle.prepare(replica).await.map_err(|_| "control ended")?;
            prepared.map_err(|error| error.to_string())
        });
        self.begun = Some(Begun { copy, restored });
    }

    fn give_up(&mut self, handle: &Handle) {
        let Some(Begun { restored, .. }) = self.begun.take() else { return };
        let handle = handle.clone();
        self.ending = Some(tokio::spawn(async move {
            forget(restored.await.unwrap_or_else(|panic| Err(panic.to_string())), &handle).await;
        }));
    }

    /// The number of sessions that control continues, if those of this copy are prepared. Otherwise control has none.
    pub(super) async fn finish(self, replica: &Arc<Replica>, handle: &Handle) -> Option<usize> {
        if let Some(ending) = self.ending {
            // A panic is reported.
            let _ = ending.await;
        }
        let begun = self.begun?;
        let is_current = begun.is_of(replica);
        let restored = begun.restored.await.unwrap_or_else(|panic| Err(panic.to_string()));
        match restored {
            Ok(restored) if is_current => Some(restored.sessions),
            restored => {
                forget(restored, handle).await;
                None
            }
        }
    }
}

async fn forget(restored: Result<Restored, String>, handle: &Handle) {
    if let Err(reason) = restored {
        tracing::warn!(%reason, "sessions of the owner not prepared");
    }
    // Fails only if control has ended, and the gateway with it.
    let _ = handle.forget_restored().await;
}

#[cfg(test)]
mod tests;
