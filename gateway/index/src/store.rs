//! The interface of a key-value store with revisions. Keys consist of parts between dots; in a pattern `*` stands for one part.

use std::time::Duration;

use tokio::sync::mpsc;

/// Bytes of a value; a session with the longest names and key has less than half of it.
#[cfg(any(feature = "nats", test))]
pub(super) const VALUE_MAX: usize = 8 * 1_024;

/// The store did not do it, or did not say so in time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreError(pub(super) String);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoreEntry {
    pub(super) key: String,
    /// Empty for a deleted key, and in a listing if it is longer than [`VALUE_MAX`].
    pub(super) value: Vec<u8>,
    pub(super) revision: u64,
}

#[cfg(any(feature = "nats", test))]
impl StoreEntry {
    /// A longer value than any entry of a gateway has is not kept, and read as one of another program.
    pub(super) fn listed(key: String, value: &[u8], revision: u64) -> StoreEntry {
        let value = if value.len() > VALUE_MAX { Vec::new() } else { value.to_vec() };
        StoreEntry { key, value, revision }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoreChange {
    pub(super) key: String,
    /// `None` deletes the key.
    pub(super) value: Option<Vec<u8>>,
    /// The entry vanishes after this time unless it is written again.
    pub(super) expires: Option<Duration>,
}

/// Equal marks: nothing changed under the pattern meanwhile, unless the store forgot a change between others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoreMark {
    /// Changes when the store is created anew, and when another of its servers leads it.
    pub(super) life: String,
    /// Revision of the newest entry under the pattern, deleted ones included; 0 without one.
    pub(super) newest: u64,
}

pub(super) trait Store: Clone + Send + Sync + 'static {
    fn get(&self, key: &str)
    -> impl Future<Output = Result<Option<StoreEntry>, StoreError>> + Send;

    /// The entries that are not deleted, in any order; of more than `most` some.
    fn list(
        &self,
        pattern: &str,
        most: usize,
    ) -> impl Future<Output = Result<Vec<StoreEntry>, StoreError>> + Send;

    /// Writes in this order, and returns the last revision. After an error any of them may have been written.
    fn write(
        &self,
        changes: &[StoreChange],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes, or deletes without a value, if the key has this revision, 0 if there is none. `None`: it has another.
    fn replace(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        revision: u64,
    ) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Sends the entry of this key, and each later one. Ends with an error, or once the receiver is gone.
    fn watch(
        &self,
        key: &str,
        changes: mpsc::Sender<StoreEntry>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn mark(&self, pattern: &str) -> impl Future<Output = Result<StoreMark, StoreError>> + Send;
}
