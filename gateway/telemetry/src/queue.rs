//! A bounded export queue: sends in batches, retries with backoff, and counts what it drops.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{sleep, timeout};

use super::export_failures::ExportFailures;
use super::instruments::Instruments;
use super::registry::{Attribute, Count, Level};

/// Maximum queued spans or log lines, at most about 8 MiB. 1,000 sessions that a failover affects at once send about 6,000 spans.
const WAITING_MAX: usize = 8_192;

/// Maximum items in a batch.
const BATCH_MAX: usize = 512;

/// Maximum time for which a batch gathers after its first item, since each export costs processor time whatever its size. It is the
/// default `scheduledDelayMillis` of log records in the OpenTelemetry SDK specification.
const GATHER: Duration = Duration::from_secs(1);

/// Checks for a full batch within [`GATHER`]. Items of a burst that came meanwhile must fit into the queue.
const GATHER_CHECKS: u32 = 5;

/// Timeout of one export.
pub(super) const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Attempts before a batch is dropped: the batch itself may cause the failures.
const TRIES_MAX: u32 = 4;

pub(super) trait SendBatch<T> {
    /// Fails with the reason, in words, if the receiver does not take the batch.
    async fn send_batch(&self, batch: &[T]) -> Result<(), String>;
}

/// The outcome of an export that ends within [`SEND_WITHIN`], or has failed.
pub(super) async fn in_time(
    export: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let late = |_| Err(format!("no answer within {} s", SEND_WITHIN.as_secs()));
    timeout(SEND_WITHIN, export).await.unwrap_or_else(late)
}

/// The counters of one signal.
#[derive(Clone, Debug)]
pub(super) struct ExportTally {
    /// `spans`, `logs` or `metrics`.
    signal: &'static str,
    instruments: Arc<Instruments>,
    /// The log has the first failure; the counter has all.
    failures: ExportFailures,
}

impl ExportTally {
    pub(super) fn new(
        signal: &'static str,
        instruments: &Arc<Instruments>,
        failures: &ExportFailures,
    ) -> ExportTally {
        let (instruments, failures) = (Arc::clone(instruments), failures.clone());
        ExportTally { signal, instruments, failures }
    }

    pub(super) fn sent(&self, n: usize) {
        if self.failures.end(self.signal) {
            tracing::info!(signal = self.signal, "telemetry: the receiver takes exports again");
        }
        let signal = [(Attribute::Signal, self.signal)];
        self.instruments.count(Count::TelemetrySent, n as u64, &signal);
    }

    pub(super) fn failed(&self, reason: &str) {
        if self.failures.add(self.signal, reason) {
            tracing::warn!(
                signal = self.signal,
                reason,
                "telemetry: the receiver takes no exports"
            );
        }
        let signal = [(Attribute::Signal, self.signal)];
        self.instruments.count(Count::TelemetryFailures, 1, &signal);
    }

    pub(super) fn dropped(&self, n: usize, reason: &'static str) {
        if n > 0 {
            let labels = [(Attribute::Signal, self.signal), (Attribute::Reason, reason)];
            self.instruments.count(Count::TelemetryDropped, n as u64, &labels);
        }
    }

    fn queued(&self, n: usize) {
        let signal = [(Attribute::Signal, self.signal)];
        self.instruments.level(Level::TelemetryQueued, n as f64, &signal);
    }
}

/// The input of a queue; never waits.
#[derive(Debug)]
pub(super) struct ExportQueue<T> {
    items: Sender<T>,
    tally: ExportTally,
}

impl<T> ExportQueue<T> {
    /// Queues an item, or counts it as dropped.
    pub(super) fn push(&self, item: T) {
        if self.items.try_send(item).is_err() {
            self.tally.dropped(1, "queue-full");
        }
    }
}

/// Requests exports of the whole queue. A request is dropped once the queue is empty.
pub(super) type Flush = Sender<SyncSender<()>>;

/// Requests of exports that may wait.
pub(super) const FLUSHES_MAX: usize = 4;

/// The output of a queue.
pub(super) struct ExportSender<T> {
    items: Receiver<T>,
    flushes: Receiver<SyncSender<()>>,
    tally: ExportTally,
    batch: Vec<T>,
    /// Failed attempts of this batch.
    tries: u32,
    backoff: Backoff,
    asked: Vec<SyncSender<()>>,
}

/// A queue with its input, flush handle and output.
pub(super) fn queue<T>(tally: &ExportTally) -> (ExportQueue<T>, Flush, ExportSender<T>) {
    let (items, taken) = mpsc::channel(WAITING_MAX);
    let (flush, flushes) = mpsc::channel(FLUSHES_MAX);
    let sending = ExportSender {
        items: taken,
        flushes,
        tally: tally.clone(),
        batch: Vec::new(),
        tries: 0,
        backoff: Backoff::default(),
        asked: Vec::new(),
    };
    (ExportQueue { items, tally: tally.clone() }, flush, sending)
}

impl<T> ExportSender<T> {
    /// Sends until all inputs and flush handles are dropped.
    pub(super) async fn run(mut self, to: impl SendBatch<T>) {
        while self.wait().await {
            while self.batch.len() < BATCH_MAX
                && let Ok(item) = self.items.try_recv()
            {
                self.batch.push(item);
            }
            self.tally.queued(self.items.len() + self.batch.len());
            if !self.batch.is_empty() {
                self.send(&to).await;
            }
            if self.batch.is_empty() && self.items.is_empty() {
                self.tally.queued(0);
                self.asked.clear();
            }
        }
    }

    /// Waits for a batch or a flush. Returns false if all inputs are gone.
    async fn wait(&mut self) -> bool {
        if !self.asked.is_empty() {
            return true;
        }
        if let Some(pause) = self.backoff.pause() {
            return self.pause(pause).await;
        }
        tokio::select! {
            taken = self.items.recv_many(&mut self.batch, BATCH_MAX) => {
                if taken == 0 {
                    return false;
                }
            }
            asked = self.flushes.recv() => return self.ask(asked),
        }
        self.gather().await
    }

    /// Waits until a batch is full, its time is over or a flush is requested. Returns false if all inputs are gone.
    async fn gather(&mut self) -> bool {
        for _ in 0..GATHER_CHECKS {
            if self.batch.len() + self.items.len() >= BATCH_MAX || !self.asked.is_empty() {
                break;
            }
            if !self.pause(GATHER / GATHER_CHECKS).await {
                return false;
            }
        }
        true
    }

    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => true,
            asked = self.flushes.recv() => self.ask(asked),
        }
    }

    fn ask(&mut self, asked: Option<SyncSender<()>>) -> bool {
        let open = asked.is_some();
        self.asked.extend(asked);
        open
    }

    async fn send(&mut self, to: &impl SendBatch<T>) {
        let Err(reason) = in_time(to.send_batch(&self.batch)).await else {
            self.tally.sent(self.batch.len());
            self.batch.clear();
            self.tries = 0;
            self.backoff = Backoff::default();
            return;
        };
        self.tally.failed(&reason);
        self.backoff.fail();
        self.tries += 1;
        if !self.asked.is_empty() {
            // A flush is waiting, so items that this attempt cannot send are dropped.
            while let Ok(item) = self.items.try_recv() {
                self.batch.push(item);
            }
        }
        if self.tries >= TRIES_MAX || !self.asked.is_empty() {
            self.tally.dropped(self.batch.len(), "not-taken");
            self.batch.clear();
            self.tries = 0;
        }
    }
}

/// Pauses after failures: 1 s doubling to 60 s with 25 % jitter, so that many gateways do not retry at the same time.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The pause before the next attempt; `None` after a success.
    pub(super) fn pause(&self) -> Option<Duration> {
        let doublings = self.failures.checked_sub(1)?.min(6);
        let base = Duration::from_secs(1 << doublings).min(Duration::from_secs(60));
        Some(base.mul_f64(0.75 + 0.5 * fastrand::f64()))
    }
}

#[cfg(test)]
mod tests;
