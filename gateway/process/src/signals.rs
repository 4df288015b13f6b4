//! The signals that end a gateway.

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// Signals that come between two calls are kept.
pub struct PendingSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    repeated: Option<Signal>,
}

impl PendingSignals {
    /// Blocks the signals for the process and collects them.
    pub fn listen() -> std::io::Result<PendingSignals> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(PendingSignals {
            terminate: signal(terminate)?,
            interrupt: signal(interrupt)?,
            repeated: None,
        })
    }

    /// Returns the next signal.
    pub async fn recv(&mut self) -> Signal {
        if let Some(repeated) = self.repeated.take() {
            return repeated;
        }
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
        }
    }

    /// Returns a signal that has come.
    pub async fn pending(&mut self) -> Option<Signal> {
        // The event loop looks for signals when a task yields.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            signal = self.recv() => Some(signal),
            () = std::future::ready(()) => None,
        }
    }

    /// Has the next call return this signal once more.
    pub fn repeat(&mut self, signal: Signal) {
        self.repeated = Some(signal);
    }
}
