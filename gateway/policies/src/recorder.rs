//! Records the calls of policies on a thread of its own. It keeps the last seconds, for exports after an incident. An
//! export has one policy or all, and no addresses unless the request includes them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use evenkeel_host as host;
use evenkeel_model::{AskId, PluginFault, PolicyName, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::{
    Chunk, ChunkFull, RecordedCall, RecordedCatalog, RecordedDecision, RecordedGrant,
    RecordedRevision, RecordingEntry, RecordingHeader, Redactor, head, records, tail,
};
use tokio::sync::{mpsc, oneshot};

/// Calls and decisions that may wait for the recorder: a second of offers on a busy gateway. Further calls are counted as
/// missed, further decisions are left out.
const MESSAGES_WAITING_MAX: usize = 8_192;

/// Maximum size of the waiting questions, bytes: eight with 4,096 sessions each. Further calls are counted as missed.
const BYTES_WAITING_MAX: usize = 8 << 20;

/// Chunks that a listener may be behind. Further chunks are not sent, and their calls are counted as missed.
const CHUNKS_BEHIND_MAX: usize = 64;

/// Maximum size of the kept chunks, compressed. A tick for 4,096 sessions with 64 bytes of state each takes about 90
/// KB, so five of them a second fit for [`KEPT_FOR`].
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Age up to which chunks are kept, enough to export after an incident.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Size at which a chunk is closed, bytes. A chunk contains a state that does not change only once, so it should hold a
/// second of ticks for 4,096 sessions; yet the loss of one chunk should not cost much.
const CHUNK_BYTES: usize = 1 << 20;

/// Age at which a chunk is closed, which bounds the delay of listeners.
const CHUNK_FOR: Duration = Duration::from_secs(1);

/// Revisions of one policy that a [`CallRecorder`] remembers: the active one, a candidate, and earlier ones.
const REVISIONS_MAX: usize = 4;

/// Questions of the exported policy that have no outcome yet. A policy is asked a few thousand times a second at most,
/// and outcomes follow within milliseconds.
const ASKED_MAX: usize = 65_536;

/// The result for the whole batch. If single rows were asked separately, the batch counts as failed in the recording.
fn of_whole(result: &Result<RevisionAnswer, PluginFault>) -> Result<RevisionAnswer, PluginFault> {
    let Some(isolated) = result.as_ref().ok().and_then(|answered| answered.isolated.as_deref())
    else {
        return result.clone();
    };
    let poisoned = isolated.poisoned.first().map(|row| row.fault.clone());
    // The rows without an answer only lacked time.
    Err(isolated.fault.clone().or(poisoned).unwrap_or(PluginFault::Deadline))
}

/// Estimated size of a session, room or node in a question, bytes: a row has 200, and states are usually small.
const ROW_BYTES: usize = 256;

/// A message to the recorder's thread.
enum RecorderMessage {
    Call {
        call: Box<RecordedCall>,
        bytes: usize,
    },
    Decided(RecordedDecision),
    /// Asks for the chunks that are kept, oldest first.
    Kept(oneshot::Sender<Vec<Arc<[u8]>>>),
    /// Sends the chunks of later calls, until [`RecorderMessage::Leave`].
    Listen {
        queue: ListenerQueue,
        number: oneshot::Sender<u64>,
    },
    Leave(u64),
}

/// The recorder's end of a listener.
struct ListenerQueue {
    chunks: mpsc::Sender<Arc<[u8]>>,
    /// Calls that the listener missed because it was too far behind, and that it has not been told of yet.
    missed: Arc<AtomicU64>,
}

/// A handle of the recorder's thread, which ends with its last handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PolicyRecorder {
    words: Sender<RecorderMessage>,
    shared: Arc<RecorderState>,
}

#[derive(Debug)]
struct RecorderState {
    /// The header of recordings; each export sets whether it contains addresses.
    header: RecordingHeader,
    missed: AtomicU64,
    waiting_bytes: AtomicUsize,
}

impl PolicyRecorder {
    /// Starts the recorder's thread. Gateway time 0 is `started`.
    pub fn start(region: &str, started: SystemTime) -> std::io::Result<PolicyRecorder> {
        let (recorder, words) = PolicyRecorder::idle(region, started);
        let shared = Arc::clone(&recorder.shared);
        let thread = std::thread::Builder::new().name("policy recorder".into());
        thread.spawn(move || RecorderThread::new(shared).run(&words))?;
        Ok(recorder)
    }

    /// Creates a recorder without a thread: messages stay in the channel.
    fn idle(region: &str, started: SystemTime) -> (PolicyRecorder, Receiver<RecorderMessage>) {
        let (words, told) = crossbeam_channel::bounded(MESSAGES_WAITING_MAX);
        let header = RecordingHeader {
            gateway: env!("CARGO_PKG_VERSION").into(),
            contract: host::CONTRACT.into(),
            started_us: evenkeel_process::unix_us(started),
            region: region.into(),
            addresses: false,
        };
        let (missed, waiting_bytes) = (AtomicU64::new(0), AtomicUsize::new(0));
        (
            PolicyRecorder {
                words,
                shared: Arc::new(RecorderState { header, missed, waiting_bytes }),
            },
            told,
        )
    }

    /// The header of a recording that starts now.
    pub fn header(&self, addresses: bool) -> RecordingHeader {
        RecordingHeader { addresses, ..self.shared.header.clone() }
    }

    /// Records the outcome of a question, whose call was recorded before. Outcomes are optional: if the recorder is behind,
    /// this one is left out.
    pub(super) fn note_decided(&self, decision: RecordedDecision) {
        let _ = self.words.try_send(RecorderMessage::Decided(decision));
    }

    /// Returns a recorder of calls for the thread of one policy.
    pub(super) fn call_recorder(&self) -> CallRecorder {
        CallRecorder { recorder: self.clone(), known: VecDeque::new() }
    }

    /// The kept chunks, oldest first; `None` if the recorder has ended.
    pub async fn kept_chunks(&self) -> Option<Vec<Arc<[u8]>>> {
        let (reply, past) = oneshot::channel();
        self.tell(RecorderMessage::Kept(reply)).await?;
        past.await.ok()
    }

    /// Subscribes to the chunks of later calls; `None` if the recorder has ended.
    pub async fn listen(&self) -> Option<ChunkListener> {
        let (chunks, heard) = mpsc::channel(CHUNKS_BEHIND_MAX);
        let (reply, number) = oneshot::channel();
        let missed = Arc::new(AtomicU64::new(0));
        let queue = ListenerQueue { chunks, missed: Arc::clone(&missed) };
        self.tell(RecorderMessage::Listen { queue, number: reply }).await?;
        let number = number.await.ok()?;
        Some(ChunkListener { heard, missed, recorder: self.clone(), number })
    }

    /// Sends an order. Waits while the channel is full; orders are rare.
    async fn tell(&self, mut order: RecorderMessage) -> Option<()> {
        loop {
            match self.words.try_send(order) {
                Ok(()) => return Some(()),
                Err(crossbeam_channel::TrySendError::Disconnected(_)) => return None,
                Err(crossbeam_channel::TrySendError::Full(back)) => order = back,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Receives the chunks of one subscription.
pub struct ChunkListener {
    heard: mpsc::Receiver<Arc<[u8]>>,
    missed: Arc<AtomicU64>,
    recorder: PolicyRecorder,
    number: u64,
}

impl ChunkListener {
    /// The next chunk; `None` after the last chunk before the listener left.
    pub async fn next(&mut self) -> Option<Arc<[u8]>> {
        self.heard.recv().await
    }

    /// Calls in missed chunks since the last call of this function.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Relaxed)
    }

    /// Ends the subscription.
    pub async fn leave(&self) {
        let _gone = self.recorder.tell(RecorderMessage::Leave(self.number)).await;
    }
}

/// Sends the calls of one policy to the recorder.
pub(super) struct CallRecorder {
    recorder: PolicyRecorder,
    /// Each revision with the number of catalogs that it was given, and the last one.
    known: VecDeque<(Arc<RecordedRevision>, u64, Arc<RecordedCatalog>)>,
}

impl CallRecorder {
    /// Records a call. If the recorder is behind, the call is only counted as missed.
    pub(super) fn write(
        &mut self,
        policy: &host::BoundPlugin,
        name: &PolicyName,
        ask: (AskId, u64),
        question: &Arc<PolicyQuestion>,
        result: &Result<RevisionAnswer, PluginFault>,
    ) {
        if let Err(PluginFault::Late | PluginFault::Absent) = result {
            // The plugin was not called.
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
        let call =
            RecordedCall { revision, catalog, ask, now_us, question, result, redacted: false };
        let call = Box::new(call);
        if self.recorder.words.try_send(RecorderMessage::Call { call, bytes }).is_err() {
            let shared = &self.recorder.shared;
            shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            shared.missed.fetch_add(1, Relaxed);
        }
    }

    /// The revision and its catalog, built once and then shared.
    fn known(
        &mut self,
        policy: &host::BoundPlugin,
        name: &PolicyName,
    ) -> (Arc<RecordedRevision>, Arc<RecordedCatalog>) {
        let (seed, lessons) = (policy.seed(), policy.catalog_updates);
        let is_it = |revision: &RecordedRevision| {
            *revision.revision == *policy.revision() && revision.seed == seed
        };
        let catalog = || {
            Arc::new(RecordedCatalog { entries: policy.known_catalog().to_vec(), redacted: false })
        };
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

fn revision(policy: &host::BoundPlugin, name: &PolicyName) -> RecordedRevision {
    let component = policy.component();
    let manifest = component.manifest();
    let host::PluginGrant { subject_metrics, node_metrics, ops } = policy.grant().clone();
    let documents = policy.documents().iter();
    RecordedRevision {
        policy: name.clone(),
        revision: policy.revision().into(),
        plugin: Arc::clone(&manifest.name),
        version: manifest.version.clone(),
        digest: *component.digest(),
        settings: policy.settings().into(),
        seed: policy.seed(),
        grant: RecordedGrant { subject_metrics, node_metrics, ops },
        documents: documents.map(|(name, it)| (Arc::clone(name), *it.digest())).collect(),
        redacted: false,
    }
}

/// The approximate size of a question, bytes.
fn weight(question: &PolicyQuestion) -> usize {
    let rows = match question {
        PolicyQuestion::Resolve { .. } => 0,
        PolicyQuestion::Admit { regions, .. } => regions.len(),
        PolicyQuestion::Place { nodes, .. } => nodes.len(),
        PolicyQuestion::Reroute { nodes, rooms, .. } => nodes.len() + rooms.len(),
        PolicyQuestion::Tick { sessions, .. } => sessions.len(),
    };
    (rows + 1) * ROW_BYTES
}

/// The state of the recorder's thread.
struct RecorderThread {
    shared: Arc<RecorderState>,
    chunk: Chunk,
    /// The time of the first record in the chunk.
    since: Instant,
    chunks: VecDeque<(Instant, Arc<[u8]>)>,
    kept_bytes: usize,
    /// Calls in the current chunk.
    calls: u64,
    listeners: Vec<(u64, ListenerQueue)>,
    next_listener: u64,
    /// Missed calls that earlier chunks contain.
    missed: u64,
}

impl RecorderThread {
    fn new(shared: Arc<RecorderState>) -> RecorderThread {
        RecorderThread {
            shared,
            chunk: Chunk::default(),
            since: Instant::now(),
            chunks: VecDeque::new(),
            kept_bytes: 0,
            calls: 0,
            listeners: Vec::new(),
            next_listener: 0,
            missed: 0,
        }
    }

    fn run(mut self, words: &Receiver<RecorderMessage>) {
        loop {
            let open_for =
                if self.chunk.is_empty() { Duration::ZERO } else { self.since.elapsed() };
            let word = words.recv_timeout(CHUNK_FOR.saturating_sub(open_for));
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

    fn handle(&mut self, word: RecorderMessage) {
        match word {
            RecorderMessage::Call { call, bytes } => {
                self.write(&RecordingEntry::Call(call));
                self.shared.waiting_bytes.fetch_sub(bytes, Relaxed);
            }
            RecorderMessage::Decided(decision) => self.write(&RecordingEntry::Decided(decision)),
            RecorderMessage::Kept(reply) => {
                self.close();
                let all = self.chunks.iter().map(|(_, chunk)| Arc::clone(chunk)).collect();
                let _ = reply.send(all);
            }
            RecorderMessage::Listen { queue, number } => {
                self.close();
                let ours = self.next_listener;
                self.next_listener += 1;
                if number.send(ours).is_ok() {
                    self.listeners.push((ours, queue));
                }
            }
            RecorderMessage::Leave(number) => {
                self.close();
                self.listeners.retain(|(ours, _)| *ours != number);
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

    /// Closes the chunk, sends it to the listeners and keeps it.
    fn close(&mut self) {
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
        self.listeners.retain(|(_, ListenerQueue { chunks, missed })| {
            if chunks.try_send(Arc::clone(&bytes)).is_err() {
                missed.fetch_add(calls, Relaxed);
            }
            !chunks.is_closed()
        });
        let now = Instant::now();
        self.kept_bytes += bytes.len();
        self.chunks.push_back((now, bytes));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > KEPT_FOR;
        while self.kept_bytes > KEPT_BYTES_MAX
            || self.chunks.front().is_some_and(|(at, _)| is_old(at))
        {
            let Some((_, oldest)) = self.chunks.pop_front() else { break };
            self.kept_bytes -= oldest.len();
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportOptions {
    /// Addresses are kept. Default: they are redacted.
    pub addresses: bool,
    /// Export only this policy.
    pub policy: Option<PolicyName>,
}

/// Turns the recorder's chunks into the chunks of one recording.
pub struct Export {
    header: RecordingHeader,
    redactor: Option<Redactor>,
    policy: Option<PolicyName>,
    /// Questions of the exported policy without an outcome yet.
    unanswered: BTreeSet<AskId>,
}

impl Export {
    /// The header gives the origin of the recording.
    pub fn new(header: RecordingHeader, wish: ExportOptions) -> Export {
        let ExportOptions { addresses, policy } = wish;
        let mut redactor = (!addresses).then(Redactor::default);
        let region = redactor.as_mut().and_then(|redactor| redactor.redact(&header.region));
        let region = region.unwrap_or_else(|| header.region.clone());
        let header = RecordingHeader { region, addresses, ..header };
        Export { header, redactor, policy, unanswered: BTreeSet::new() }
    }

    /// The first bytes of the file.
    pub fn head(&self) -> Vec<u8> {
        head(&self.header)
    }

    /// The last bytes of the file, which mark it complete.
    pub fn tail(&self) -> Vec<u8> {
        tail()
    }

    /// The exported part of a chunk, preceded by the number of missed calls; empty if nothing is left. Takes
    /// milliseconds.
    pub fn pass(&mut self, missed: u64, chunk: &[u8]) -> Vec<u8> {
        // The chunk was written by this process.
        let all = records(chunk).expect("a chunk that was just written is one");
        let missed = (missed > 0).then_some(RecordingEntry::Missed(missed));
        let (mut out, mut bytes) = (Chunk::default(), Vec::new());
        for record in missed.into_iter().chain(all) {
            let Some(record) = self.chosen(record) else { continue };
            if let Err(ChunkFull) = out.push(&record) {
                bytes.extend(out.close());
                // Tokens are slightly longer than some addresses, so a record that filled its chunk may not fit now.
                if let Err(ChunkFull) = out.push(&record) {
                    let _ = out.push(&RecordingEntry::Missed(1));
                }
            }
        }
        if !out.is_empty() {
            bytes.extend(out.close());
        }
        bytes
    }

    fn chosen(&mut self, record: RecordingEntry) -> Option<RecordingEntry> {
        match record {
            RecordingEntry::Call(call) => {
                if let Some(policy) = &self.policy {
                    if call.revision.policy != *policy {
                        return None;
                    }
                    if self.unanswered.len() == ASKED_MAX {
                        self.unanswered.pop_first();
                    }
                    self.unanswered.insert(call.ask);
                }
                let call = match &mut self.redactor {
                    Some(redactor) => Box::new(redactor.call(*call)),
                    None => call,
                };
                Some(RecordingEntry::Call(call))
            }
            RecordingEntry::Decided(decided) => {
                let is_wanted = self.policy.is_none() || self.unanswered.remove(&decided.ask);
                is_wanted.then_some(RecordingEntry::Decided(decided))
            }
            RecordingEntry::Missed(calls) => Some(RecordingEntry::Missed(calls)),
        }
    }
}

#[cfg(test)]
mod tests;
