//! A store in memory, with the faults of a real one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc};

use crate::store::{Store, StoreChange, StoreEntry, StoreError, StoreMark};

#[derive(Clone, Default, Debug)]
pub(crate) struct MemoryStore(Arc<Mutex<Contents>>);

#[derive(Clone, Default, Debug)]
pub(crate) struct Contents {
    life: u64,
    revision: u64,
    /// Deleted keys have no value.
    entries: BTreeMap<String, (u64, Option<Vec<u8>>)>,
    pub(crate) is_down: bool,
    /// Acknowledges writes without doing them.
    pub(crate) loses_writes: bool,
    /// The next conditional writes that are refused because another one is on its way.
    pub(crate) refusals: usize,
    pub(crate) lists: usize,
    pub(crate) writes: usize,
    written: Arc<Notify>,
}

impl Contents {
    fn put(&mut self, key: &str, value: Option<Vec<u8>>) -> u64 {
        self.revision += 1;
        self.writes += 1;
        if !self.loses_writes {
            self.entries.insert(key.to_owned(), (self.revision, value));
        }
        self.written.notify_waiters();
        self.revision
    }

    /// Creates the store anew.
    pub(crate) fn renew(&mut self) {
        *self = Contents { life: self.life + 1, ..Contents::default() };
    }

    pub(crate) fn empty(&mut self) {
        self.entries.clear();
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

impl MemoryStore {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        self.change(|contents| contents.put(key, Some(value.to_vec())));
    }

    pub(crate) fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.change(|contents| contents.entries.get(key)?.1.clone())
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.change(|contents| {
            let standing = contents.entries.iter().filter(|(_, (_, value))| value.is_some());
            standing.map(|(key, _)| key.clone()).collect()
        })
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut Contents) -> T) -> Result<T, StoreError> {
        self.change(|contents| match contents.is_down {
            true => Err(StoreError("it is down".to_owned())),
            false => Ok(answer(contents)),
        })
    }
}

fn matches(pattern: &str, key: &str) -> bool {
    let (pattern, key): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), key.split('.').collect());
    pattern.len() == key.len() && pattern.iter().zip(key).all(|(p, k)| *p == "*" || *p == k)
}

impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError> {
        self.answer(|contents| {
            let (revision, value) = contents.entries.get(key)?;
            let value = value.clone().unwrap_or_default();
            Some(StoreEntry { key: key.to_owned(), value, revision: *revision })
        })
    }

    async fn list(&self, pattern: &str, most: usize) -> Result<Vec<StoreEntry>, StoreError> {
        self.answer(|contents| {
            contents.lists += 1;
            let found = contents.entries.iter().filter(|(key, _)| matches(pattern, key));
            let found = found.filter_map(|(key, (revision, value))| {
                Some(StoreEntry::listed(key.clone(), value.as_ref()?, *revision))
            });
            found.take(most).collect()
        })
    }

    async fn write(&self, changes: &[StoreChange]) -> Result<u64, StoreError> {
        self.answer(|contents| {
            let put = |change: &StoreChange| contents.put(&change.key, change.value.clone());
            changes.iter().map(put).last().unwrap_or(0)
        })
    }

    async fn replace(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        revision: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.answer(|contents| {
            if contents.refusals > 0 {
                contents.refusals -= 1;
                return None;
            }
            let found = contents.entries.get(key).map_or(0, |(revision, _)| *revision);
            (found == revision).then(|| contents.put(key, value))
        })
    }

    async fn watch(&self, key: &str, changes: mpsc::Sender<StoreEntry>) -> Result<(), StoreError> {
        let (written, mut newest) = (self.change(|contents| Arc::clone(&contents.written)), 0);
        loop {
            let next = written.notified();
            if let Some(entry) = self.get(key).await?.filter(|entry| entry.revision > newest) {
                newest = entry.revision;
                if changes.send(entry).await.is_err() {
                    return Ok(());
                }
            }
            next.await;
        }
    }

    async fn mark(&self, pattern: &str) -> Result<StoreMark, StoreError> {
        self.answer(|contents| {
            let found = contents.entries.iter().filter(|(key, _)| matches(pattern, key));
            let newest = found.map(|(_, (revision, _))| *revision).max().unwrap_or(0);
            StoreMark { life: contents.life.to_string(), newest }
        })
    }
}
