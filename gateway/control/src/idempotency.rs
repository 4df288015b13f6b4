//! Idempotency keys: repetitions of a request with the same key get the answer to the first one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use data_encoding::HEXLOWER;
use evenkeel_kept::{
    Document, Documents, EarlierDocument, Encoded, FollowerCopy, KeptPart, Kind, Store,
};
use evenkeel_model::SessionId;
use evenkeel_process::{lock, sha256};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Maximum remembered keys: one minute of some hundreds of offers per second. The oldest is forgotten first.
pub const KEYS_MAX: usize = 16_384;
/// Maximum size of the stored answers together, bytes: 2 KiB for each key, where the answer to an offer of a hundred streams has
/// 130 KiB. The oldest are dropped first. Their keys stay, so that no repetition opens a second session.
const ANSWERS_MAX: usize = 32 << 20;
/// The status in the record of a dropped answer: an earlier version that continues the record answers so.
const DROPPED_STATUS: u16 = 409;
/// Maximum length of a key in bytes, and of one of a token.
const KEY_MAX: usize = 128;
const TOKEN_KEY_MAX: usize = 160;

/// Begins the key of an offer with a client's token; the id of the token follows. A token that may open several sessions has a key for each
/// offer: behind its id and a space they differ.
pub const TOKEN_KEY: &str = "token:";

/// A key that cannot be used for this request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The key is empty or too long.
    #[error("{0} bytes, 1 to {KEY_MAX} are allowed")]
    Length(usize),
    /// Another request had the key.
    #[error("`{0}` was used with another body, expected a new key")]
    OtherBody(Box<str>),
    /// The request was answered, and the answer was dropped.
    #[error("{}", dropped(key, *session))]
    AnswerDropped {
        /// The key.
        key: Box<str>,
        /// The session that the request opened; it may have ended.
        session: Option<SessionId>,
    },
}

fn dropped(key: &str, session: Option<SessionId>) -> String {
    match session {
        Some(session) => format!(
            "`{key}` opened session `{session}`, and the answer is not stored any more; expected a new key"
        ),
        None => {
            format!(
                "`{key}` was answered, and the answer is not stored any more; expected a new key"
            )
        }
    }
}

/// The answer to the first request with a key.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Body of the answer.
    pub body: Bytes,
    /// Delay before a retry; None if the answer gives no delay.
    pub retry_after: Option<Duration>,
    /// The session that the request opened, with which the answer ends.
    pub session: Option<SessionId>,
}

/// Omits the body, which may hold credentials.
impl fmt::Debug for StoredAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoredAnswer { status, body, retry_after, session } = self;
        f.debug_struct("StoredAnswer")
            .field("status", status)
            .field("bytes", &body.len())
            .field("retry_after", retry_after)
            .field("session", session)
            .finish()
    }
}

/// An offer with a token that may open several sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenOffer {
    /// Its key.
    pub key: Box<str>,
    /// The session that it opened; `None` until it is answered.
    pub session: Option<SessionId>,
    /// It began after the offer of the key that was asked about.
    pub is_newer: bool,
    /// The session may have ended; control knows.
    pub may_have_ended: bool,
}

/// Turn of a request with an idempotency key.
pub struct RequestTurn {
    /// The caller must execute the first request and then call `KeyTable::finish`. Repetitions wait for the answer.
    pub is_first: bool,
    /// Receives the stored answer; None until the first request is finished.
    pub answer: watch::Receiver<Option<StoredAnswer>>,
}

/// Shared by the API's tasks, never locked across an await. Control does not wait for a task that has the lock, since tasks of clients
/// run after others.
pub struct KeyTable {
    entries: Mutex<KeyEntries>,
    /// The bytes that are left of the limit `session_data_mib`; without a value it does not hold here.
    session_data: OnceLock<Arc<Semaphore>>,
    /// Ended sessions. The next task that has the lock drops their answers.
    ended: (Sender<SessionId>, Receiver<SessionId>),
    keys_max: usize,
    kept: Documents<OpenedKey>,
}

#[derive(Default)]
struct KeyEntries {
    by_key: BTreeMap<Box<str>, KeyEntry>,
    /// Keys with the numbers of their entries, because a key may be dropped and used again.
    by_age: VecDeque<(Box<str>, u64)>,
    ever: u64,
    sizes: AnswerSizes,
    session_data: Option<Arc<Semaphore>>,
    /// Answered keys that the follower of the records does not have; `None` without one.
    changed: Option<VecDeque<Box<str>>>,
}

struct KeyEntry {
    number: u64,
    body_sha256: [u8; 32],
    answer: EntryAnswer,
}

enum EntryAnswer {
    /// Without a value until the first request is finished.
    Kept(watch::Sender<Option<StoredAnswer>>),
    /// The session that it opened.
    Dropped(Option<SessionId>),
}

/// The sizes of stored answers, by the numbers of their keys.
#[derive(Clone, Default, Debug)]
struct AnswerSizes {
    by_number: BTreeMap<u64, AnswerSize>,
    by_session: BTreeMap<SessionId, u64>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct AnswerSize {
    bytes: usize,
    session: Option<SessionId>,
}

impl AnswerSizes {
    fn add(&mut self, number: u64, size: AnswerSize) {
        self.remove(number);
        self.bytes += size.bytes;
        self.by_number.insert(number, size);
        self.by_session.extend(size.session.map(|session| (session, number)));
    }

    /// Returns the bytes of the answer; 0 if none is stored.
    fn remove(&mut self, number: u64) -> usize {
        let Some(AnswerSize { bytes, session }) = self.by_number.remove(&number) else { return 0 };
        self.bytes -= bytes;
        session.map(|session| self.by_session.remove(&session));
        bytes
    }

    fn oldest(&self) -> Option<u64> {
        self.by_number.first_key_value().map(|(number, _)| *number)
    }
}

/// A key that opened a session, as the next process reads it. The answer ends with the session: it has keys of media.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct OpenedKey {
    /// The digest of the body, in hexadecimal digits.
    body_sha256: Box<str>,
    session: Option<Box<str>>,
}

impl OpenedKey {
    fn new(body_sha256: [u8; 32], session: Option<SessionId>) -> OpenedKey {
        let session = session.map(|session| session.to_string().into());
        OpenedKey { body_sha256: HEXLOWER.encode(&body_sha256).into(), session }
    }
}

impl Document for OpenedKey {
    const KIND: Kind =
        Kind { name: "idempotency-keys", version: 1, rows_max: KEYS_MAX, copy: FollowerCopy::None };

    /// Ids of tokens.
    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![Path::new("used-tokens").join(name)]
    }

    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<EarlierDocument>> {
        // A last line without its end was cut, and is left out.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let tokens = lines.filter_map(|line| str::from_utf8(line).ok());
        let row = |token| {
            // No body has this digest.
            let value = serde_json::to_value(OpenedKey::new([0; 32], None))?;
            Ok(EarlierDocument { key: format!("{TOKEN_KEY}{token}").into(), value })
        };
        tokens.map(row).collect()
    }
}

/// An answered key, as another process continues it. Remembered answers carry no retry time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    key: Box<str>,
    body_sha256: [u8; 32],
    status: u16,
    /// Empty once it was dropped.
    answer: Box<str>,
    #[serde(default)]
    session: Option<SessionId>,
}

/// The answered keys of a gateway that another one follows.
#[derive(Clone, Default, Debug)]
pub(crate) struct KeyReplica {
    /// Oldest first.
    records: VecDeque<KeyRecord>,
    /// The number of the oldest record.
    first: u64,
    sizes: AnswerSizes,
}

impl KeyReplica {
    /// Adds records that are newer than all others.
    pub(crate) fn extend(&mut self, records: Vec<KeyRecord>) {
        for record in records {
            let number = self.first + self.records.len() as u64;
            let (bytes, session) = (record.answer.len(), record.session);
            self.records.push_back(record);
            self.sizes.add(number, AnswerSize { bytes, session });
            if self.records.len() > KEYS_MAX {
                self.records.pop_front();
                self.sizes.remove(self.first);
                self.first += 1;
            }
            while self.sizes.bytes > ANSWERS_MAX
                && let Some(oldest) = self.sizes.oldest()
            {
                self.drop_answer(oldest);
            }
        }
    }

    /// Drops the answer that opened this session.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        if let Some(number) = self.sizes.by_session.get(&session) {
            self.drop_answer(*number);
        }
    }

    fn drop_answer(&mut self, number: u64) {
        self.sizes.remove(number);
        let at = usize::try_from(number - self.first).expect("records are in memory");
        if let Some(record) = self.records.get_mut(at) {
            (record.status, record.answer) = (DROPPED_STATUS, Box::default());
        }
    }

    /// The records, oldest first.
    pub(crate) fn records(&self) -> Vec<KeyRecord> {
        self.records.iter().cloned().collect()
    }
}

/// Omits the answers, which hold credentials.
impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTable").finish_non_exhaustive()
    }
}

/// Omits the answer, which holds credentials.
impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Default for KeyTable {
    fn default() -> Self {
        KeyTable::keeping(&Store::default())
    }
}

impl KeyTable {
    /// A table without keys, which keeps those that open sessions in this store.
    pub fn keeping(store: &Store) -> KeyTable {
        KeyTable {
            entries: Mutex::default(),
            session_data: OnceLock::new(),
            ended: bounded(KEYS_MAX),
            keys_max: KEYS_MAX,
            kept: store.documents(),
        }
    }

    /// Keeps a key that opened a session. For a token it returns a channel that tells that it is on the disk, or closes if it is not.
    pub fn keep(&self, key: &str, session: SessionId) -> Option<oneshot::Receiver<()>> {
        if is_of_several_sessions(key) {
            return None;
        }
        let digest = self.lock().by_key.get(key).map(|entry| entry.body_sha256)?;
        let row = Encoded::new(key, &OpenedKey::new(digest, Some(session)));
        if !key.starts_with(TOKEN_KEY) {
            self.kept.put_encoded(row);
            return None;
        }
        let (done, written) = oneshot::channel();
        self.kept.put_and(row, move |result| {
            if result.is_ok() {
                // The request may have stopped waiting.
                let _ = done.send(());
            }
        });
        Some(written)
    }

    /// Begins a request with this key and body.
    pub fn begin(&self, key: &str, body: &[u8]) -> Result<RequestTurn, KeyError> {
        let most = if key.starts_with(TOKEN_KEY) { TOKEN_KEY_MAX } else { KEY_MAX };
        if key.is_empty() || key.len() > most {
            return Err(KeyError::Length(key.len()));
        }
        let body_sha256 = sha256(body);
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.get(key) {
            if entry.body_sha256 != body_sha256 {
                return Err(KeyError::OtherBody(key.into()));
            }
            return match &entry.answer {
                EntryAnswer::Kept(answer) => {
                    Ok(RequestTurn { is_first: false, answer: answer.subscribe() })
                }
                EntryAnswer::Dropped(session) => {
                    Err(KeyError::AnswerDropped { key: key.into(), session: *session })
                }
            };
        }
        let (answer, waiting) = watch::channel(None);
        entries.add(key.into(), body_sha256, EntryAnswer::Kept(answer), self.keys_max);
        Ok(RequestTurn { is_first: true, answer: waiting })
    }

    /// The other offers of this key's token; those that were refused are left out. Empty for a token that opens one session.
    pub fn others_of_token(&self, key: &str) -> Vec<TokenOffer> {
        if !is_of_several_sessions(key) {
            return Vec::new();
        }
        let prefix = &key[..=key.find(' ').unwrap_or_default()];
        let entries = self.lock();
        let own = entries.by_key.get(key).map_or(u64::MAX, |entry| entry.number);
        let from = (Bound::Excluded(prefix), Bound::Unbounded);
        let of_token = entries.by_key.range::<str, _>(from);
        let of_token = of_token.take_while(|(other, _)| other.starts_with(prefix));
        let others = of_token.filter(|(other, _)| ***other != *key).filter_map(|(other, entry)| {
            let (session, may_have_ended) = match &entry.answer {
                EntryAnswer::Dropped(session) => (Some((*session)?), true),
                EntryAnswer::Kept(answer) => match &*answer.borrow() {
                    Some(answer) => (Some(answer.session?), false),
                    None => (None, false),
                },
            };
            let is_newer = entry.number > own;
            Some(TokenOffer { key: other.clone(), session, is_newer, may_have_ended })
        });
        others.collect()
    }

    /// Forgets the key of an offer whose session has ended. Its place is free for another key.
    pub fn forget(&self, key: &str, ended: SessionId) {
        let mut entries = self.lock();
        let opened = entries.by_key.get(key).and_then(|entry| match &entry.answer {
            EntryAnswer::Dropped(session) => *session,
            EntryAnswer::Kept(answer) => answer.borrow().as_ref()?.session,
        });
        if opened == Some(ended) {
            entries.remove(key);
        }
    }

    /// Answers the requests with this key. An answer that a retry may change is not remembered: `is_passing`, 429 and 5xx.
    pub fn finish(&self, key: &str, answer: StoredAnswer, is_passing: bool) {
        let mut entries = self.lock();
        let Some(KeyEntry { number, answer: EntryAnswer::Kept(waiting), .. }) =
            entries.by_key.get(key)
        else {
            return;
        };
        let (number, status) = (*number, answer.status);
        let size = AnswerSize { bytes: answer.body.len(), session: answer.session };
        waiting.send_replace(Some(answer));
        if is_passing || status == 429 || (500..600).contains(&status) {
            entries.remove(key);
        } else {
            entries.count(number, size);
            entries.note_changed(key, self.keys_max);
        }
    }

    /// Sets the limit `session_data_mib`, which sessions and the answers that are stored from now on share.
    pub(crate) fn share(&self, session_data_bytes: usize) {
        let data = self.session_data.get_or_init(|| Arc::new(Semaphore::new(session_data_bytes)));
        self.lock().session_data = Some(Arc::clone(data));
    }

    /// Reserves bytes of the limit `session_data_mib` for a session; the oldest answers give way.
    pub(crate) fn reserve(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let left = Arc::clone(self.session_data.get()?).try_acquire_many_owned(bytes);
        left.ok().or_else(|| self.lock().reserve(bytes))
    }

    /// Drops the answer to the request that opened this session.
    pub(crate) fn end_session(&self, session: SessionId) {
        if self.ended.0.try_send(session).is_err() {
            self.lock().end_session(session);
        } else if let Ok(mut entries) = self.entries.try_lock() {
            self.drop_ended(&mut entries);
        }
    }

    fn drop_ended(&self, entries: &mut KeyEntries) {
        self.ended.1.try_iter().for_each(|session| entries.end_session(session));
    }

    /// Returns once the requests that are being executed are answered.
    pub async fn answered(&self) {
        let unanswered = |entry: &KeyEntry| match &entry.answer {
            EntryAnswer::Kept(answer) if answer.borrow().is_none() => Some(answer.subscribe()),
            EntryAnswer::Kept(_) | EntryAnswer::Dropped(_) => None,
        };
        let waiting: Vec<_> = self.lock().by_key.values().filter_map(unanswered).collect();
        for mut answer in waiting {
            // Fails only for a key that was forgotten.
            let _ = answer.wait_for(Option::is_some).await;
        }
    }

    /// Hands out all answered keys, oldest first, and then those that are answered, by `KeyTable::take_changed`.
    pub fn follow(&self) {
        let mut entries = self.lock();
        let KeyEntries { by_key, by_age, changed, .. } = &mut *entries;
        let stands = |(key, number): &&(Box<str>, u64)| {
            by_key.get(key).is_some_and(|entry| entry.number == *number)
        };
        *changed = Some(by_age.iter().filter(stands).map(|(key, _)| key.clone()).collect());
    }

    /// Notes changes no more.
    pub fn unfollow(&self) {
        self.lock().changed = None;
    }

    /// The number of answered keys that the follower lacks.
    pub fn changed(&self) -> usize {
        self.lock().changed.as_ref().map_or(0, VecDeque::len)
    }

    /// Up to this many answered keys that the follower does not have.
    pub fn take_changed(&self, at_most: usize) -> Vec<KeyRecord> {
        let mut entries = self.lock();
        let KeyEntries { by_key, changed: Some(changed), .. } = &mut *entries else {
            return Vec::new();
        };
        let taken = changed.drain(..at_most.min(changed.len()));
        taken.filter_map(|key| by_key.get(&key)?.record(key)).collect()
    }

    /// Remembers the keys that an earlier process kept, as the oldest ones. Their answers are lost.
    pub fn read_kept(&self) {
        let kept = self.kept.rows();
        let mut entries = self.lock();
        for row in kept.into_iter().rev() {
            let Ok(OpenedKey { body_sha256, session }) = row.decode() else { continue };
            let digest = HEXLOWER.decode(body_sha256.as_bytes()).ok();
            let digest = digest.and_then(|digest| digest.try_into().ok()).unwrap_or_default();
            let session = session.and_then(|session| SessionId::parse(&session));
            entries.add_oldest((*row.key).into(), digest, session, self.keys_max);
        }
    }

    /// Remembers answers of another process.
    pub fn restore(&self, records: Vec<KeyRecord>) {
        let mut entries = self.lock();
        for KeyRecord { key, body_sha256, status, answer, session } in records {
            // RFC 9110, section 15.
            if !(100..1_000).contains(&status) {
                continue;
            }
            if answer.is_empty() {
                let answer = EntryAnswer::Dropped(session);
                entries.add(key.clone(), body_sha256, answer, self.keys_max);
            } else {
                let (bytes, body) = (answer.len(), String::from(answer).into());
                let answer = Some(StoredAnswer { status, body, retry_after: None, session });
                let answer = EntryAnswer::Kept(watch::Sender::new(answer));
                let number = entries.add(key.clone(), body_sha256, answer, self.keys_max);
                entries.count(number, AnswerSize { bytes, session });
            }
            entries.note_changed(&key, self.keys_max);
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeyEntries> {
        // A poisoned lock is usable: no update leaves the table inconsistent.
        let mut entries = lock(&self.entries);
        self.drop_ended(&mut entries);
        entries
    }
}

/// True for the key of a token that may open several sessions: it may be used again after a restart.
fn is_of_several_sessions(key: &str) -> bool {
    key.starts_with(TOKEN_KEY) && key.contains(' ')
}

impl KeyRecord {
    /// The part of the owner's documents that its store does not send: the keys that opened sessions.
    pub(crate) fn kept(records: &[KeyRecord]) -> Option<KeptPart> {
        let opened = records.iter().filter(|it| it.session.is_some() || it.answer.is_empty());
        let opened = opened.filter(|it| !is_of_several_sessions(&it.key));
        let rows: Vec<Encoded<OpenedKey>> = opened
            .map(|it| Encoded::new(&it.key, &OpenedKey::new(it.body_sha256, it.session)))
            .collect();
        (!rows.is_empty()).then(|| KeptPart::of_rows(rows))
    }
}

impl KeyEntry {
    /// `None` without an answer.
    fn record(&self, key: Box<str>) -> Option<KeyRecord> {
        let body_sha256 = self.body_sha256;
        let answer = match &self.answer {
            EntryAnswer::Kept(answer) => answer.borrow(),
            EntryAnswer::Dropped(session) => {
                let (status, answer, session) = (DROPPED_STATUS, Box::default(), *session);
                return Some(KeyRecord { key, body_sha256, status, answer, session });
            }
        };
        let StoredAnswer { status, body, session, .. } = answer.as_ref()?;
        let (status, session) = (*status, *session);
        let answer = str::from_utf8(body).ok()?.into();
        Some(KeyRecord { key, body_sha256, status, answer, session })
    }
}

impl KeyEntries {
    /// Returns the number of the entry.
    fn add(
        &mut self,
        key: Box<str>,
        body_sha256: [u8; 32],
        answer: EntryAnswer,
        keys_max: usize,
    ) -> u64 {
        self.ever += 1;
        let number = self.ever;
        let earlier = self.by_key.insert(key.clone(), KeyEntry { number, body_sha256, answer });
        earlier.into_iter().for_each(|earlier| self.uncount(earlier.number));
        self.by_age.push_back((key, number));
        while self.by_age.len() > keys_max {
            if let Some((key, number)) = self.by_age.pop_front()
                && self.by_key.get(&key).is_some_and(|entry| entry.number == number)
            {
                self.by_key.remove(&key);
                self.uncount(number);
            }
        }
        number
    }

    /// Removes a key, which frees its place.
    fn remove(&mut self, key: &str) {
        let Some(KeyEntry { number, .. }) = self.by_key.remove(key) else { return };
        self.uncount(number);
        // The keys are in the order of their numbers; those of an earlier process share one.
        let from = self.by_age.partition_point(|(_, other)| *other < number);
        let place = self.by_age.range(from..).position(|(other, _)| **other == *key);
        place.and_then(|place| self.by_age.remove(from + place));
    }

    /// Adds a key that opened a session before all others, if it is missing and there is a place.
    fn add_oldest(
        &mut self,
        key: Box<str>,
        body_sha256: [u8; 32],
        session: Option<SessionId>,
        keys_max: usize,
    ) {
        if self.by_key.contains_key(&key) || self.by_age.len() >= keys_max {
            return;
        }
        // Lower than that of each answer; it has none to count.
        let number = 0;
        let answer = EntryAnswer::Dropped(session);
        self.by_key.insert(key.clone(), KeyEntry { number, body_sha256, answer });
        self.by_age.push_front((key, number));
    }

    /// Counts a stored answer. Older answers beyond the limits are dropped, or this one if sessions need all of `session_data_mib`.
    fn count(&mut self, number: u64, size: AnswerSize) {
        while self.sizes.bytes + size.bytes > ANSWERS_MAX && self.drop_oldest() {}
        let bytes = u32::try_from(size.bytes).unwrap_or(u32::MAX);
        let is_counted = match self.session_data {
            Some(_) => self.reserve(bytes).map(OwnedSemaphorePermit::forget).is_some(),
            None => true,
        };
        self.sizes.add(number, if is_counted { size } else { AnswerSize { bytes: 0, ..size } });
        if !is_counted {
            self.drop_answer(number);
        }
    }

    /// See [`KeyTable::reserve`]. Drops none if all answers together are too few.
    fn reserve(&mut self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let data = Arc::clone(self.session_data.as_ref()?);
        let suffices = data.available_permits() + self.sizes.bytes >= bytes as usize;
        while suffices && data.available_permits() < bytes as usize && self.drop_oldest() {}
        data.try_acquire_many_owned(bytes).ok()
    }

    fn end_session(&mut self, session: SessionId) {
        let number = self.sizes.by_session.get(&session).copied();
        number.into_iter().for_each(|number| self.drop_answer(number));
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.sizes.oldest();
        oldest.into_iter().for_each(|number| self.drop_answer(number));
        oldest.is_some()
    }

    fn drop_answer(&mut self, number: u64) {
        let session = self.sizes.by_number.get(&number).and_then(|size| size.session);
        self.uncount(number);
        // The keys are in the order of their numbers.
        let at = self.by_age.binary_search_by_key(&number, |(_, number)| *number);
        let key = at.ok().and_then(|at| self.by_age.get(at)).map(|(key, _)| key);
        if let Some(entry) = key.and_then(|key| self.by_key.get_mut(key)) {
            entry.answer = EntryAnswer::Dropped(session);
        }
    }

    fn uncount(&mut self, number: u64) {
        let bytes = self.sizes.remove(number);
        self.session_data.iter().for_each(|data| data.add_permits(bytes));
    }

    fn note_changed(&mut self, key: &str, keys_max: usize) {
        let Some(changed) = &mut self.changed else { return };
        changed.push_back(key.into());
        if changed.len() > keys_max {
            changed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
