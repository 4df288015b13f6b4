//! Counts milliseconds while a plugin runs, and sleeps otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Resolution of budgets.
const TICK: Duration = Duration::from_millis(1);

#[derive(Default)]
struct TickerState {
    calls: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
}

/// The thread that advances an engine's epoch.
pub(crate) struct Ticker {
    shared: Arc<TickerState>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread, which sleeps until the first call.
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerState::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("policy-ticker".into())
            .spawn(move || tick(&theirs, &engine))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Ticks until the returned guard is dropped. Wakes the thread at most once per tick.
    pub(crate) fn run(&self) -> RunningCall<'_> {
        self.shared.calls.fetch_add(1, SeqCst);
        self.wake();
        RunningCall(&self.shared)
    }

    fn wake(&self) {
        if self.shared.asleep.load(SeqCst)
            && self.shared.asleep.swap(false, SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread cannot panic.
            let _ = thread.join();
        }
    }
}

pub(crate) struct RunningCall<'a>(&'a TickerState);

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, SeqCst);
    }
}

/// Number of ticks that cover `budget`, wherever within a tick the call begins.
pub(crate) fn ticks(budget: Duration) -> u64 {
    let whole = budget.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(whole).unwrap_or(u64::MAX >> 1).saturating_add(1).min(u64::MAX >> 1)
}

fn tick(shared: &TickerState, engine: &wasmtime::Engine) {
    while !shared.over.load(SeqCst) {
        if shared.calls.load(SeqCst) > 0 {
            thread::sleep(TICK);
            engine.increment_epoch();
            continue;
        }
        // A call that begins between the store and the second check finds `asleep` set and wakes this thread.
        shared.asleep.store(true, SeqCst);
        if shared.calls.load(SeqCst) == 0 && !shared.over.load(SeqCst) {
            thread::park();
        }
        shared.asleep.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests;
