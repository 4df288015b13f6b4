//! The recorder: what policies are asked and what they say, written down on a thread of its own. The last of it is kept
//! for who asks what policies saw just before something happened.

mod desk;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use evenkeel_core::{Answered, AskId, Fault, PolicyName, Question};
use evenkeel_host as host;
use evenkeel_recording::{Call, Catalog, Grant, Header, Revision};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::control::EventRecord;
use desk::Desk;

/// Calls that may wait to be written down: a second of offers on a busy gateway. Past it they are counted, not kept.
const CALLS_WAITING_MAX: usize = 4_096;

/// What those questions may hold, bytes: eight of 4,096 sessions each. Past it the same.
const BYTES_WAITING_MAX: usize = 8 << 20;

/// Chunks that a listener may be behind; past it they are counted, not sent.
const CHUNKS_BEHIND_MAX: usize = 64;

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
    Call { call: Box<Call>, bytes: usize },
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
        events: broadcast::Receiver<Arc<EventRecord>>,
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
        let call = Box::new(call);
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
    let host::Grant { subject_metrics, node_metrics, ops } = policy.grant().clone();
    Revision {
        policy: name.clone(),
        revision: policy.revision().into(),
        plugin: Arc::clone(&manifest.name),
        version: manifest.version.clone(),
        digest: *component.digest(),
        settings: policy.settings().into(),
        seed: policy.seed(),
        grant: Grant { subject_metrics, node_metrics, ops },
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

#[cfg(test)]
mod tests;
