//! The timer of control's watches.

use std::pin::Pin;
use std::time::Duration;

use evenkeel_nodes::WATCH_EVERY;
use tokio::time::{Instant, Sleep, sleep_until};

/// After a tick that is later than this, the next one comes a whole interval later.
const LATE: Duration = Duration::from_millis(5);

/// Ticks every [`WATCH_EVERY`], by two timers in turns. Tokio writes its eventfd for a timer that comes before all others, even
/// on its own thread, which then waits twice for that timer. Here the timer of the tick after it is always set before.
pub(crate) struct WatchTimer {
    next: Pin<Box<Sleep>>,
    following: Pin<Box<Sleep>>,
}

impl WatchTimer {
    /// The first tick is due at once. Must be called on a runtime.
    pub(crate) fn start() -> WatchTimer {
        let now = Instant::now();
        let [next, following] = [now, now + WATCH_EVERY].map(|at| Box::pin(sleep_until(at)));
        WatchTimer { next, following }
    }

    /// Waits for the next tick. A call that is cancelled loses none.
    pub(crate) async fn tick(&mut self) {
        self.next.as_mut().await;
        let (due, now) = (self.next.deadline(), Instant::now());
        std::mem::swap(&mut self.next, &mut self.following);
        if now > due + LATE {
            self.next.as_mut().reset(now + WATCH_EVERY);
        }
        let following = self.next.deadline() + WATCH_EVERY;
        self.following.as_mut().reset(following);
    }
}

#[cfg(test)]
mod tests;
