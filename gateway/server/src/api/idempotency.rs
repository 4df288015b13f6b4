//! Idempotency keys: repetitions of a request with the same key get the answer to the first one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::watch;

use super::error::{Code, Error};
use crate::sha256;

/// Maximum remembered keys: one minute of some hundreds of offers per second. The oldest is forgotten first.
const KEYS_MAX: usize = 16_384;
/// Maximum length of a key in bytes.
const KEY_MAX: usize = 128;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
}

pub(super) struct Turn {
    /// The caller must execute the first request and then call [`Table::finish`]. Repetitions wait for the answer.
    pub(super) is_first: bool,
    pub(super) answer: watch::Receiver<Option<Answer>>,
}

/// Shared by the API's tasks, never locked across an await.
pub(super) struct Table {
    entries: Mutex<Entries>,
    keys_max: usize,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Box<str>, Entry>,
    /// Keys with the numbers of their entries, because a key may be dropped and used again.
    by_age: VecDeque<(Box<str>, u64)>,
    ever: u64,
}

struct Entry {
    number: u64,
    body_sha256: [u8; 32],
    answer: watch::Sender<Option<Answer>>,
}

impl Default for Table {
    fn default() -> Self {
        Table { entries: Mutex::default(), keys_max: KEYS_MAX }
    }
}

impl Table {
    pub(super) fn begin(&self, key: &str, body: &[u8]) -> Result<Turn, Error> {
        if key.is_empty() || key.len() > KEY_MAX {
            let found = key.len();
            let message = format!("{found} bytes, 1 to {KEY_MAX} are allowed");
            return Err(Error::field("idempotency-key", message));
        }
        let body_sha256 = sha256(body);
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.get(key) {
            if entry.body_sha256 != body_sha256 {
                let message = format!("`{key}` was used with another body, expected a new key");
                let field = Some("idempotency-key".to_owned());
                return Err(Error { field, ..Error::new(Code::Conflict, message) });
            }
            return Ok(Turn { is_first: false, answer: entry.answer.subscribe() });
        }
        entries.ever += 1;
        let number = entries.ever;
        let (answer, waiting) = watch::channel(None);
        let entry = Entry { number, body_sha256, answer };
        entries.by_key.insert(key.into(), entry);
        entries.by_age.push_back((key.into(), number));
        while entries.by_age.len() > self.keys_max {
            entries.forget_oldest();
        }
        Ok(Turn { is_first: true, answer: waiting })
    }

    /// Answers the requests with this key. An answer that a retry may change is not remembered.
    pub(super) fn finish(&self, key: &str, answer: Answer) {
        let mut entries = self.lock();
        let passing =
            answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error();
        if passing {
            if let Some(entry) = entries.by_key.remove(key) {
                entry.answer.send_replace(Some(answer));
            }
        } else if let Some(entry) = entries.by_key.get(key) {
            entry.answer.send_replace(Some(answer));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A poisoned lock is usable: no update leaves the table inconsistent.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn forget_oldest(&mut self) {
        if let Some((key, number)) = self.by_age.pop_front()
            && self.by_key.get(&key).is_some_and(|entry| entry.number == number)
        {
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
