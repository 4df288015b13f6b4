//! The recorder's own side: what it writes down, what it keeps, and who hears of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use evenkeel_core::Event;
use evenkeel_recording::{Chunk, Decided, Full, Record};
use tokio::sync::broadcast::{self, error::TryRecvError};

use super::{Ear, Order, Shared, Word};
use crate::control::{EventRecord, GatewayEvent};

/// What is kept of the past, packed. A tick about 4,096 sessions with 64 bytes of state each takes some 90 KB, and there
/// are five a second: [`KEPT_FOR`] of that fits in.
pub(super) const KEPT_BYTES_MAX: usize = 16 << 20;

/// Older is not kept: incidents are asked about within this.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30);

/// A chunk is closed when it has so many bytes. States that stay as they are are written once in a chunk, so a second of
/// ticks about 4,096 sessions should fit into one; and what is lost with one should be little.
const CHUNK_BYTES: usize = 1 << 20;

/// Or when it is so old: who listens waits no longer.
const CHUNK_FOR: Duration = Duration::from_secs(1);

/// The recorder's own side.
pub(super) struct Desk {
    shared: Arc<Shared>,
    events: broadcast::Receiver<Arc<EventRecord>>,
    chunk: Chunk,
    /// When the first record of the chunk was written down.
    since: Instant,
    pub(super) kept: VecDeque<(Instant, Arc<[u8]>)>,
    pub(super) kept_bytes: usize,
    /// Calls in the chunk.
    calls: u64,
    listeners: Vec<(u64, Ear)>,
    next_listener: u64,
    /// Calls that were missed until the last chunk.
    missed: u64,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, events: broadcast::Receiver<Arc<EventRecord>>) -> Desk {
        Desk {
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

    pub(super) fn run(mut self, words: &Receiver<Word>) {
        loop {
            let open_for =
                if self.chunk.is_empty() { Duration::ZERO } else { self.since.elapsed() };
            let word = words.recv_timeout(CHUNK_FOR.saturating_sub(open_for));
            match word {
                Ok(word) => self.handle(word),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Behind the calls that they are about. Also where nothing is asked: what nobody reads is kept for who is
            // behind.
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

    pub(super) fn handle(&mut self, word: Word) {
        match word {
            Word::Call { call, bytes } => {
                self.write(&Record::Call(call));
                self.shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            }
            Word::Order(order) => {
                self.hear_decisions();
                self.close();
                self.obey(order);
            }
        }
    }

    fn write(&mut self, record: &Record) {
        if self.chunk.is_empty() {
            self.since = Instant::now();
        }
        if let Err(Full) = self.chunk.push(record) {
            self.close();
            if let Err(Full) = self.chunk.push(record) {
                self.shared.missed.fetch_add(1, Relaxed);
                return;
            }
        }
        self.calls += u64::from(matches!(record, Record::Call(_)));
    }

    /// What became of questions, as far as control told it by now.
    pub(super) fn hear_decisions(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(told) => {
                    if let GatewayEvent::Core(Event::Decided { ask, outcome, .. }) = &told.event {
                        self.write(&Record::Decided(Decided::of(*ask, outcome)));
                    }
                }
                // They are extras; a herd has more than are kept for anybody.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// The chunk goes to who listens and to what is kept.
    pub(super) fn close(&mut self) {
        let missed = self.shared.missed.load(Relaxed);
        if missed > self.missed {
            // Where there is no room, with the next chunk.
            if self.chunk.push(&Record::Missed(missed - self.missed)).is_ok() {
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

    fn obey(&mut self, order: Order) {
        match order {
            Order::Past(reply) => {
                let all = self.kept.iter().map(|(_, chunk)| Arc::clone(chunk)).collect();
                let _ = reply.send(all);
            }
            Order::Listen { ear, number } => {
                let ours = self.next_listener;
                self.next_listener += 1;
                if number.send(ours).is_ok() {
                    self.listeners.push((ours, ear));
                }
            }
            Order::Leave(number) => self.listeners.retain(|(ours, _)| *ours != number),
        }
    }
}
