//! Idempotency keys: repetitions of a request with the same key get the answer to the first one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_process::{lock, sha256};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Maximum remembered keys: one minute of some hundreds of offers per second. The oldest is forgotten first.
pub const KEYS_MAX: usize = 16_384;
/// Maximum length of a key in bytes.
const KEY_MAX: usize = 128;

/// Begins the key of an offer with a client's token; the id of the token follows.
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
}

/// Omits the body, which may hold credentials.
impl fmt::Debug for StoredAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoredAnswer { status, body, retry_after } = self;
        f.debug_struct("StoredAnswer")
            .field("status", status)
            .field("bytes", &body.len())
            .field("retry_after", retry_after)
            .finish()
    }
}

/// Turn of a request with an idempotency key.
pub struct RequestTurn {
    /// The caller must execute the first request and then call `KeyTable::finish`. Repetitions wait for the answer.
    pub is_first: bool,
    /// Receives the stored answer; None until the first request is finished.
    pub answer: watch::Receiver<Option<StoredAnswer>>,
}

/// Shared by the API's tasks, never locked across an await.
pub struct KeyTable {
    entries: Mutex<KeyEntries>,
    keys_max: usize,
}

#[derive(Default)]
struct KeyEntries {
    by_key: HashMap<Box<str>, KeyEntry>,
    /// Keys with the numbers of their entries, because a key may be dropped and used again.
    by_age: VecDeque<(Box<str>, u64)>,
    ever: u64,
    /// Answered keys that the follower of the records does not have; `None` without one.
    changed: Option<VecDeque<Box<str>>>,
}

struct KeyEntry {
    number: u64,
    body_sha256: [u8; 32],
    answer: watch::Sender<Option<StoredAnswer>>,
}

/// An answered key, as another process continues it. Remembered answers carry no retry time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    key: Box<str>,
    body_sha256: [u8; 32],
    status: u16,
    answer: Box<str>,
}

/// Omits the answers, which hold credentials.
impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
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
        KeyTable { entries: Mutex::default(), keys_max: KEYS_MAX }
    }
}

impl KeyTable {
    /// Begins a request with this key and body.
    pub fn begin(&self, key: &str, body: &[u8]) -> Result<RequestTurn, KeyError> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(KeyError::Length(key.len()));
        }
        let body_sha256 = sha256(body);
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.get(key) {
            if entry.body_sha256 != body_sha256 {
                return Err(KeyError::OtherBody(key.into()));
            }
            return Ok(RequestTurn { is_first: false, answer: entry.answer.subscribe() });
        }
        let (answer, waiting) = watch::channel(None);
        entries.add(key.into(), body_sha256, answer, self.keys_max);
        Ok(RequestTurn { is_first: true, answer: waiting })
    }

    /// Answers the requests with this key. An answer that a retry may change is not remembered: `is_passing`, 429 and 5xx.
    pub fn finish(&self, key: &str, answer: StoredAnswer, is_passing: bool) {
        let mut entries = self.lock();
        if is_passing || answer.status == 429 || (500..600).contains(&answer.status) {
            if let Some(entry) = entries.by_key.remove(key) {
                entry.answer.send_replace(Some(answer));
            }
        } else if let Some(entry) = entries.by_key.get(key) {
            entry.answer.send_replace(Some(answer));
            entries.note_changed(key, self.keys_max);
        }
    }

    /// Returns once the requests that are being executed are answered.
    pub async fn answered(&self) {
        let unanswered = |entry: &&KeyEntry| entry.answer.borrow().is_none();
        let answers = |entry: &KeyEntry| entry.answer.subscribe();
        let waiting: Vec<_> = self.lock().by_key.values().filter(unanswered).map(answers).collect();
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

    /// Refuses the tokens of an earlier process, whose answers are lost.
    pub fn restore_used(&self, tokens: Vec<Box<str>>) {
        // No body has this digest.
        let used = |token| KeyRecord {
            key: format!("{TOKEN_KEY}{token}").into(),
            body_sha256: [0; 32],
            status: 409,
            answer: Box::default(),
        };
        self.restore(tokens.into_iter().map(used).collect());
    }

    /// Remembers answers of another process.
    pub fn restore(&self, records: Vec<KeyRecord>) {
        let mut entries = self.lock();
        for KeyRecord { key, body_sha256, status, answer } in records {
            // RFC 9110, section 15.
            if !(100..1_000).contains(&status) {
                continue;
            }
            let body = String::from(answer).into();
            let answer = Some(StoredAnswer { status, body, retry_after: None });
            entries.add(key.clone(), body_sha256, watch::Sender::new(answer), self.keys_max);
            entries.note_changed(&key, self.keys_max);
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeyEntries> {
        // A poisoned lock is usable: no update leaves the table inconsistent.
        lock(&self.entries)
    }
}

impl KeyRecord {
    /// The id of the token that is the key.
    pub(crate) fn used_token(&self) -> Option<&str> {
        self.key.strip_prefix(TOKEN_KEY)
    }
}

impl KeyEntry {
    /// `None` without an answer.
    fn record(&self, key: Box<str>) -> Option<KeyRecord> {
        let answer = self.answer.borrow();
        let StoredAnswer { status, body, .. } = answer.as_ref()?;
        let (status, body_sha256) = (*status, self.body_sha256);
        Some(KeyRecord { key, body_sha256, status, answer: str::from_utf8(body).ok()?.into() })
    }
}

impl KeyEntries {
    fn add(
        &mut self,
        key: Box<str>,
        body_sha256: [u8; 32],
        answer: watch::Sender<Option<StoredAnswer>>,
        keys_max: usize,
    ) {
        self.ever += 1;
        let number = self.ever;
        self.by_key.insert(key.clone(), KeyEntry { number, body_sha256, answer });
        self.by_age.push_back((key, number));
        while self.by_age.len() > keys_max {
            if let Some((key, number)) = self.by_age.pop_front()
                && self.by_key.get(&key).is_some_and(|entry| entry.number == number)
            {
                self.by_key.remove(&key);
            }
        }
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
