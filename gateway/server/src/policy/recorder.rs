//! The recorder: what policies are asked and what they say, written down on a thread of its own. The last of it is kept
//! for who asks what policies saw just before something happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use evenkeel_core::{Answered, AskId, Event, Fault, PolicyName, Question};
use evenkeel_host as host;
use evenkeel_recording::{Call, Catalog, Chunk, Decided, Full, Grant, Header, Record, Revision};
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::sync::{mpsc, oneshot};

use crate::control::{Happened, Told};

/// Calls that may wait to be written down: a second of offers on a busy gateway. Past it they are counted, not kept.
const CALLS_WAITING_MAX: usize = 4_096;

/// What those questions may hold, bytes: eight of 4,096 sessions each. Past it the same.
const BYTES_WAITING_MAX: usize = 8 << 20;

/// What is kept of the past, packed. In it are about ten seconds of 10,000 sessions, and more than
/// [`KEPT_FOR`] of fewer than a thousand.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Older is not kept: incidents are asked about within this.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A chunk is closed when it has so many bytes: what is packed together packs well, and what is lost with one is little.
const CHUNK_BYTES: usize = 256 << 10;

/// Or when it is so old: who listens waits no longer.
const CHUNK_FOR: Duration = Duration::from_secs(1);

/// Chunks that a listener may be behind; past it they are counted, not sent.
pub(crate) const CHUNKS_BEHIND_MAX: usize = 64;

/// Revisions of one policy that a [`Scribe`] has words for: the active one, one on its way, and those before.
const REVISIONS_MAX: usize = 4;

/// What a plugin said of all rows together: where it was asked around some of them, it failed over the batch as it is written down.
fn of_whole(result: &Result<Answered, Fault>) -> Result<Answered, Fault> {
    let Some(apart) = result.as_ref().ok().and_then(|answered| answered.apart.as_deref()) else {
        return result.clone();
    };
    let poisoned = apart.poisoned.first().map(|row| row.fault.clone());
    // Rows alone that nobody had time for.
    Err(apart.fault.clone().or(poisoned).unwrap_or(Fault::Deadline))
}

/// What a session, room or node in a question is counted as, bytes. A row is 200, and states are small as a rule.
const ROW_BYTES: usize = 256;

/// What the recorder is told.
enum Word {
    Call { call: Call, bytes: usize },
    Order(Order),
}

enum Order {
    /// All that is kept of the past.
    Past(oneshot::Sender<Vec<Arc<[u8]>>>),
    /// What comes from now on, until [`Order::Leave`].
    Listen {
        ear: Ear,
        number: oneshot::Sender<u64>,
    },
    Leave(u64),
}

/// Where a listener's chunks go.
struct Ear {
    chunks: mpsc::Sender<Arc<[u8]>>,
    /// Calls that it missed, since it was too far behind, and was not told of yet.
    missed: Arc<AtomicU64>,
}

/// Speaks with the recorder's thread, which ends with the last of these. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    words: Sender<Word>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where recordings are from; whether addresses are in them is each one's own.
    header: Header,
    missed: AtomicU64,
    waiting_bytes: AtomicUsize,
}

impl Recorder {
    /// Starts the recorder's thread. `events` tell what becomes of questions; gateway time began at `started`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start(
        region: &str,
        started: SystemTime,
        events: broadcast::Receiver<Arc<Told>>,
    ) -> std::io::Result<Recorder> {
        let (recorder, words) = Recorder::idle(region, started);
        let shared = Arc::clone(&recorder.shared);
        let thread = std::thread::Builder::new().name("policy recorder".into());
        thread.spawn(move || Desk::new(shared, events).run(&words))?;
        Ok(recorder)
    }

    /// Without a thread: what it is told waits.
    fn idle(region: &str, started: SystemTime) -> (Recorder, Receiver<Word>) {
        let (words, told) = crossbeam_channel::bounded(CALLS_WAITING_MAX);
        let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            gateway: env!("CARGO_PKG_VERSION").into(),
            contract: host::CONTRACT.into(),
            started_us: since.as_micros() as u64,
            region: region.into(),
            addresses: false,
        };
        let (missed, waiting_bytes) = (AtomicU64::new(0), AtomicUsize::new(0));
        (Recorder { words, shared: Arc::new(Shared { header, missed, waiting_bytes }) }, told)
    }

    /// How a recording begins that is asked for now.
    pub(crate) fn header(&self, addresses: bool) -> Header {
        Header { addresses, ..self.shared.header.clone() }
    }

    /// For the thread of one policy.
    pub(super) fn scribe(&self) -> Scribe {
        Scribe { recorder: self.clone(), known: VecDeque::new() }
    }

    /// All that is kept of the past, oldest chunk first; `None` where the recorder is gone.
    pub(crate) async fn past(&self) -> Option<Vec<Arc<[u8]>>> {
        let (reply, past) = oneshot::channel();
        self.tell(Order::Past(reply)).await?;
        past.await.ok()
    }

    /// What is written down from now on, until the listener leaves; `None` where the recorder is gone.
    pub(crate) async fn listen(&self) -> Option<Listener> {
        let (chunks, heard) = mpsc::channel(CHUNKS_BEHIND_MAX);
        let (reply, number) = oneshot::channel();
        let missed = Arc::new(AtomicU64::new(0));
        let ear = Ear { chunks, missed: Arc::clone(&missed) };
        self.tell(Order::Listen { ear, number: reply }).await?;
        let number = number.await.ok()?;
        Some(Listener { heard, missed, recorder: self.clone(), number })
    }

    /// Waits for room; orders are few.
    async fn tell(&self, order: Order) -> Option<()> {
        let mut word = Word::Order(order);
        loop {
            match self.words.try_send(word) {
                Ok(()) => return Some(()),
                Err(crossbeam_channel::TrySendError::Disconnected(_)) => return None,
                Err(crossbeam_channel::TrySendError::Full(back)) => word = back,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Hears the chunks that are closed.
pub(crate) struct Listener {
    heard: mpsc::Receiver<Arc<[u8]>>,
    missed: Arc<AtomicU64>,
    recorder: Recorder,
    number: u64,
}

impl Listener {
    /// The next chunk; none once it left and has all.
    pub(crate) async fn next(&mut self) -> Option<Arc<[u8]>> {
        self.heard.recv().await
    }

    /// Calls in chunks that it missed since it was asked last.
    pub(crate) fn take_missed(&self) -> u64 {
        self.missed.swap(0, Relaxed)
    }

    /// What is written down from now on is not for it any more.
    pub(crate) async fn leave(&self) {
        let _gone = self.recorder.tell(Order::Leave(self.number)).await;
    }
}

/// Tells the recorder what one policy is asked and says.
pub(super) struct Scribe {
    recorder: Recorder,
    /// With each revision how often it was told of a catalog, and the last one.
    known: VecDeque<(Arc<Revision>, u64, Arc<Catalog>)>,
}

impl Scribe {
    /// A plugin was asked and said this. Where the recorder is behind it is counted, not kept.
    pub(super) fn write(
        &mut self,
        policy: &host::Policy,
        name: &PolicyName,
        ask: (AskId, u64),
        question: &Arc<Question>,
        result: &Result<Answered, Fault>,
    ) {
        if let Err(Fault::Late | Fault::Absent) = result {
            // Nobody was asked.
            return;
        }
        let bytes = weight(question);
        let shared = &self.recorder.shared;
        let before = shared.waiting_bytes.fetch_add(bytes, Relaxed);
        let has_room = before + bytes <= BYTES_WAITING_MAX || before == 0;
        if !has_room || self.recorder.words.is_full() {
            shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            shared.missed.fetch_add(1, Relaxed);
            return;
        }
        let (revision, catalog) = self.known(policy, name);
        let (ask, now_us) = ask;
        let (question, result) = (Arc::clone(question), of_whole(result));
        let call = Call { revision, catalog, ask, now_us, question, result, redacted: false };
        if self.recorder.words.try_send(Word::Call { call, bytes }).is_err() {
            let shared = &self.recorder.shared;
            shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            shared.missed.fetch_add(1, Relaxed);
        }
    }

    /// The revision and the catalog that it knows, in words that are found once.
    fn known(&mut self, policy: &host::Policy, name: &PolicyName) -> (Arc<Revision>, Arc<Catalog>) {
        let (seed, lessons) = (policy.seed(), policy.lessons());
        let is_it =
            |revision: &Revision| *revision.revision == *policy.revision() && revision.seed == seed;
        let catalog =
            || Arc::new(Catalog { entries: policy.known_catalog().to_vec(), redacted: false });
        if let Some(place) = self.known.iter().position(|(revision, ..)| is_it(revision)) {
            let (revision, told, last) = &mut self.known[place];
            if *told != lessons {
                (*told, *last) = (lessons, catalog());
            }
            return (Arc::clone(revision), Arc::clone(last));
        }
        if self.known.len() == REVISIONS_MAX {
            self.known.pop_front();
        }
        let (revision, catalog) = (Arc::new(revision(policy, name)), catalog());
        self.known.push_back((Arc::clone(&revision), lessons, Arc::clone(&catalog)));
        (revision, catalog)
    }
}

fn revision(policy: &host::Policy, name: &PolicyName) -> Revision {
    let component = policy.component();
    let manifest = component.manifest();
    Revision {
        policy: name.clone(),
        revision: policy.revision().into(),
        plugin: Arc::clone(&manifest.name),
        version: manifest.version.clone(),
        digest: *component.digest(),
        settings: policy.settings().into(),
        seed: policy.seed(),
        grant: Grant {
            subject_metrics: manifest.subject_metrics.clone(),
            node_metrics: manifest.node_metrics.clone(),
            ops: manifest.ops.clone(),
        },
        redacted: false,
    }
}

/// About how many bytes a question holds.
fn weight(question: &Question) -> usize {
    let rows = match question {
        Question::Resolve { .. } => 0,
        Question::Admit { regions, .. } => regions.len(),
        Question::Place { nodes, .. } => nodes.len(),
        Question::Reroute { nodes, rooms, .. } => nodes.len() + rooms.len(),
        Question::Tick { sessions, .. } => sessions.len(),
    };
    (rows + 1) * ROW_BYTES
}

/// The recorder's own side.
struct Desk {
    shared: Arc<Shared>,
    events: broadcast::Receiver<Arc<Told>>,
    chunk: Chunk,
    /// When the first record of the chunk was written down.
    since: Instant,
    kept: VecDeque<(Instant, Arc<[u8]>)>,
    kept_bytes: usize,
    /// Calls in the chunk.
    calls: u64,
    listeners: Vec<(u64, Ear)>,
    next_listener: u64,
    /// Calls that were missed until the last chunk.
    missed: u64,
}

impl Desk {
    fn new(shared: Arc<Shared>, events: broadcast::Receiver<Arc<Told>>) -> Desk {
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

    fn run(mut self, words: &Receiver<Word>) {
        loop {
            let open_for =
                if self.chunk.is_empty() { Duration::ZERO } else { self.since.elapsed() };
            let word = words.recv_timeout(CHUNK_FOR.saturating_sub(open_for));
            // Also where nothing is asked: what nobody reads is kept for who is behind.
            self.hear_decisions();
            match word {
                Ok(word) => self.handle(word),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.close_when_due();
        }
    }

    fn close_when_due(&mut self) {
        if self.chunk.bytes() >= CHUNK_BYTES || self.since.elapsed() >= CHUNK_FOR {
            self.close();
        }
    }

    fn handle(&mut self, word: Word) {
        match word {
            Word::Call { call, bytes } => {
                self.write(&Record::Call(Box::new(call)));
                self.shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            }
            Word::Order(order) => {
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
    fn hear_decisions(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(told) => {
                    if let Happened::Core(Event::Decided { ask, outcome, .. }) = &told.event {
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
    fn close(&mut self) {
        let missed = self.shared.missed.load(Relaxed);
        if missed > self.missed {
            // A few bytes, for which there is room.
            let _ = self.chunk.push(&Record::Missed(missed - self.missed));
            self.missed = missed;
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

#[cfg(test)]
mod tests;
