//! A request repeated with its key gets the answer to the first one, and is executed once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::watch;

use super::error::{Code, Error};

/// Remembered keys; the oldest is forgotten first. One minute at some hundreds of offers a second.
const KEYS_MAX: usize = 16_384;
/// Bytes of a key.
const KEY_MAX: usize = 128;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
}

pub(super) enum Turn {
    /// The first request: execute it and call [`Table::finish`].
    First(watch::Receiver<Option<Answer>>),
    /// A repetition: wait for the first request's answer.
    Repeated(watch::Receiver<Option<Answer>>),
}

/// Shared by the API's tasks, never locked across an await.
pub(super) struct Table {
    entries: Mutex<Entries>,
    keys_max: usize,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Box<str>, Entry>,
    /// With the number of the entry: a key may be dropped and used again.
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
    /// Begins a request with this key and body.
    ///
    /// # Errors
    ///
    /// [`Code::Conflict`]: the key was used with another body. [`Code::BadRequest`]: it is empty or too long.
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
            return Ok(Turn::Repeated(entry.answer.subscribe()));
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
        Ok(Turn::First(waiting))
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
        // No update leaves the table inconsistent.
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

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_gets_the_first_answer() {
        let table = Table::default();
        assert!(first(&table, "k"));
        let Ok(Turn::Repeated(waiting)) = table.begin("k", b"body") else { panic!("repeated") };
        assert_eq!(*waiting.borrow(), None);
        table.finish("k", answer(201));
        assert_eq!(*waiting.borrow(), Some(answer(201)));
        let Ok(Turn::Repeated(later)) = table.begin("k", b"body") else { panic!("repeated") };
        assert_eq!(*later.borrow(), Some(answer(201)));
    }

    #[test]
    fn key_with_another_body_conflicts() {
        let table = Table::default();
        assert!(first(&table, "k"));
        let Err(error) = table.begin("k", b"other") else { panic!("refused") };
        assert_eq!((error.code, error.field.as_deref()), (Code::Conflict, Some("idempotency-key")));
        assert!(first(&table, "l"));
    }

    #[test]
    fn retryable_answer_is_not_remembered() {
        for (status, remembered) in
            [(201, true), (403, true), (409, true), (429, false), (503, false)]
        {
            let table = Table::default();
            assert!(first(&table, "k"));
            let Ok(Turn::Repeated(waiting)) = table.begin("k", b"body") else { panic!("repeated") };
            table.finish("k", answer(status));
            assert_eq!(*waiting.borrow(), Some(answer(status)));
            assert_eq!(!first(&table, "k"), remembered, "{status}");
        }
    }

    #[test]
    fn full_table_forgets_the_oldest_key() {
        let table = Table { keys_max: 2, ..Table::default() };
        assert!(first(&table, "a"));
        assert!(first(&table, "b"));
        table.finish("a", answer(503));
        assert!(first(&table, "a"));
        assert!(first(&table, "c"));
        assert!(!first(&table, "a"), "younger than b since it came again");
        assert!(first(&table, "b"), "the oldest was forgotten");
        assert_eq!(table.lock().by_key.len(), 2);
    }

    #[test]
    fn empty_or_long_key_is_refused() {
        let table = Table::default();
        assert!(table.begin("", b"").is_err());
        assert!(table.begin(&"k".repeat(KEY_MAX), b"").is_ok());
        assert!(table.begin(&"k".repeat(KEY_MAX + 1), b"").is_err());
    }

    fn first(table: &Table, key: &str) -> bool {
        matches!(table.begin(key, b"body"), Ok(Turn::First(_)))
    }

    fn answer(status: u16) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body: Bytes::from_static(b"{}"), retry_after: None }
    }
}
