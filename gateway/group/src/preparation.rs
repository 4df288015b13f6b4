//! The preparation of a takeover. Once the standby misses its owner, control continues the sessions of the copy up to the
//! point from which packets are served, and forgets them if the owner is heard again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use evenkeel_control::{Handle, Replica, Restored};
use tokio::task::JoinHandle;

use crate::task::Task;

/// Interval of preparations: each costs 10 microseconds for a session.
const EVERY: Duration = Duration::from_secs(1);

/// More sessions than this take longer than a takeover waits for votes.
const SESSIONS_MAX: usize = 4_096;

pub(super) struct TakeoverPreparation {
    /// Only a real-time thread prepares: otherwise the work of control would delay beats.
    is_real_time: bool,
    stage: Stage,
    began_last: Option<Instant>,
}

#[derive(Default)]
enum Stage {
    #[default]
    None,
    Begun(Begun),
    /// Control forgets the prepared sessions.
    Ending(JoinHandle<()>),
}

struct Begun {
    /// A batch moves the copy.
    copy: Weak<Replica>,
    restored: Task<Restored>,
}

impl Begun {
    fn of(replica: &Arc<Replica>, handle: &Handle) -> Begun {
        let copy = Arc::downgrade(replica);
        let (handle, replica) = (handle.clone(), Arc::clone(replica));
        let restored = tokio::spawn(async move {
            let prepared = handle.prepare(replica).await.map_err(|_| "control ended")?;
            prepared.map_err(|error| error.to_string())
        });
        Begun { copy, restored }
    }

    fn is_of(&self, replica: &Arc<Replica>) -> bool {
        std::ptr::eq(self.copy.as_ptr(), Arc::as_ptr(replica))
    }

    fn give_up(self, handle: &Handle) -> JoinHandle<()> {
        let handle = handle.clone();
        tokio::spawn(async move {
            let restored = self.restored.await.unwrap_or_else(|panic| Err(panic.to_string()));
            forget(restored, &handle).await;
        })
    }
}

impl TakeoverPreparation {
    pub(super) fn new(is_real_time: bool) -> TakeoverPreparation {
        TakeoverPreparation { is_real_time, stage: Stage::None, began_last: None }
    }

    /// Begins if the owner is missed, and gives the sessions up if the owner is heard again.
    pub(super) fn weigh(
        &mut self,
        misses: bool,
        replica: &Arc<Replica>,
        handle: &Handle,
        now: Instant,
    ) {
        let misses = misses && self.is_real_time;
        self.stage = match std::mem::take(&mut self.stage) {
            Stage::Begun(begun) if misses && begun.is_of(replica) => Stage::Begun(begun),
            Stage::Begun(begun) => Stage::Ending(begun.give_up(handle)),
            Stage::Ending(ending) if !ending.is_finished() => Stage::Ending(ending),
            Stage::None | Stage::Ending(_) if misses && self.may_begin(replica, now) => {
                self.began_last = Some(now);
                Stage::Begun(Begun::of(replica, handle))
            }
            Stage::None | Stage::Ending(_) => Stage::None,
        };
    }

    fn may_begin(&self, replica: &Replica, now: Instant) -> bool {
        let is_due = self.began_last.is_none_or(|last| now - last >= EVERY);
        is_due && replica.sessions() <= SESSIONS_MAX && !replica.has_ports()
    }

    /// The number of sessions that control continues, if those of this copy are prepared. Otherwise control has none.
    pub(super) async fn finish(self, replica: &Arc<Replica>, handle: &Handle) -> Option<usize> {
        let begun = match self.stage {
            Stage::None => return None,
            Stage::Begun(begun) => begun,
            Stage::Ending(ending) => {
                // A panic is reported.
                let _ = ending.await;
                return None;
            }
        };
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
