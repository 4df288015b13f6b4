//! The recorder's thread: writes calls into chunks, keeps the last ones, and sends them to listeners.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use evenkeel_recording::{Chunk, ChunkFull, RecordingEntry};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::broadcast::{self};

use super::{Ear, RecorderMessage, RecorderOrder, RecorderState, ReportedDecision};

/// Maximum size of the kept chunks, compressed. A tick for 4,096 sessions with 64 bytes of state each takes about 90
/// KB, so five of them a second fit for [`KEPT_FOR`].
pub(super) const KEPT_BYTES_MAX: usize = 16 << 20;

/// Age up to which chunks are kept, enough to export after an incident.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30);

/// Size at which a chunk is closed, bytes. A chunk contains a state that does not change only once, so it should hold a
/// second of ticks for 4,096 sessions; yet the loss of one chunk should not cost much.
const CHUNK_BYTES: usize = 1 << 20;

/// Age at which a chunk is closed, which bounds the delay of listeners.
const CHUNK_FOR: Duration = Duration::from_secs(1);

/// The state of the recorder's thread.
pub(super) struct RecorderDesk<E> {
    shared: Arc<RecorderState>,
    events: broadcast::Receiver<Arc<E>>,
    chunk: Chunk,
    /// The time of the first record in the chunk.
    since: Instant,
    pub(super) kept: VecDeque<(Instant, Arc<[u8]>)>,
    pub(super) kept_bytes: usize,
    /// Calls in the current chunk.
    calls: u64,
    listeners: Vec<(u64, Ear)>,
    next_listener: u64,
    /// Missed calls that earlier chunks contain.
    missed: u64,
}

impl<E: ReportedDecision> RecorderDesk<E> {
    pub(super) fn new(
        shared: Arc<RecorderState>,
        events: broadcast::Receiver<Arc<E>>,
    ) -> RecorderDesk<E> {
        RecorderDesk {
            shared,
            events,
            chunk: Chunk::default(),
            since: Instant::now(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            calls: 0,
            listeners: Vec::new(),
            next_listener: 0,
            missed: 0,
        }
    }

    pub(super) fn run(mut self, words: &Receiver<RecorderMessage>) {
        loop {
            let open_for =
                if self.chunk.is_empty() { Duration::ZERO } else { self.since.elapsed() };
            let word = words.recv_timeout(CHUNK_FOR.saturating_sub(open_for));
            match word {
                Ok(word) => self.handle(word),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Outcomes are recorded after the calls that they belong to. They are also read while no calls come, since
            // unread events would fill the channel.
            if words.is_empty() {
                self.hear_decisions();
            }
            self.close_when_due();
        }
    }

    pub(super) fn close_when_due(&mut self) {
        if self.chunk.bytes() >= CHUNK_BYTES || self.since.elapsed() >= CHUNK_FOR {
            self.close();
        }
    }

    pub(super) fn handle(&mut self, word: RecorderMessage) {
        match word {
            RecorderMessage::Call { call, bytes } => {
                self.write(&RecordingEntry::Call(call));
                self.shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            }
            RecorderMessage::Order(order) => {
                self.hear_decisions();
                self.close();
                self.obey(order);
            }
        }
    }

    fn write(&mut self, record: &RecordingEntry) {
        if self.chunk.is_empty() {
            self.since = Instant::now();
        }
        if let Err(ChunkFull) = self.chunk.push(record) {
            self.close();
            if let Err(ChunkFull) = self.chunk.push(record) {
                self.shared.missed.fetch_add(1, Relaxed);
                return;
            }
        }
        self.calls += u64::from(matches!(record, RecordingEntry::Call(_)));
    }

    /// Records the outcomes that control has reported so far.
    pub(super) fn hear_decisions(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(told) => {
                    if let Some(decision) = told.decision() {
                        self.write(&RecordingEntry::Decided(decision));
                    }
                }
                // Outcomes are optional, and a burst of them may exceed the channel.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Closes the chunk, sends it to the listeners and keeps it.
    pub(super) fn close(&mut self) {
        let missed = self.shared.missed.load(Relaxed);
        if missed > self.missed {
            // If the record does not fit, the next chunk has it.
            if self.chunk.push(&RecordingEntry::Missed(missed - self.missed)).is_ok() {
                self.missed = missed;
            }
        }
        if self.chunk.is_empty() {
            return;
        }
        let bytes: Arc<[u8]> = self.chunk.close().into();
        let calls = std::mem::take(&mut self.calls);
        self.listeners.retain(|(_, Ear { chunks, missed })| {
            if chunks.try_send(Arc::clone(&bytes)).is_err() {
                missed.fetch_add(calls, Relaxed);
            }
            !chunks.is_closed()
        });
        let now = Instant::now();
        self.kept_bytes += bytes.len();
        self.kept.push_back((now, bytes));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > KEPT_FOR;
        while self.kept_bytes > KEPT_BYTES_MAX
            || self.kept.front().is_some_and(|(at, _)| is_old(at))
        {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.len();
        }
    }

    fn obey(&mut self, order: RecorderOrder) {
        match order {
            RecorderOrder::Past(reply) => {
                let all = self.kept.iter().map(|(_, chunk)| Arc::clone(chunk)).collect();
                let _ = reply.send(all);
            }
            RecorderOrder::Listen { ear, number } => {
                let ours = self.next_listener;
                self.next_listener += 1;
                if number.send(ours).is_ok() {
                    self.listeners.push((ours, ear));
                }
            }
            RecorderOrder::Leave(number) => self.listeners.retain(|(ours, _)| *ours != number),
        }
    }
}
