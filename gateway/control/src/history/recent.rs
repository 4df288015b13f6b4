//! The newest records of a kind, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ended::{BYTES_MAX, RECORDS_MAX};

#[derive(Default, Debug)]
pub(super) struct RecentRecords<T> {
    /// Oldest first, each with its size.
    pub(super) records: VecDeque<(Arc<T>, usize)>,
    pub(super) bytes: usize,
    /// The number of the oldest record.
    pub(super) first: u64,
}

impl<T> RecentRecords<T> {
    /// The number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Up to `limit` records from this number on, oldest first.
    pub(super) fn from(&self, from: u64, limit: usize) -> impl ExactSizeIterator<Item = &Arc<T>> {
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.records.iter().skip(skipped).take(limit).map(|(record, _)| record)
    }

    pub(super) fn push(&mut self, record: Arc<T>, bytes: usize) {
        self.records.push_back((record, bytes));
        self.bytes += bytes;
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some((_, bytes)) = self.records.pop_front() else { return };
            self.bytes -= bytes;
            self.first += 1;
        }
    }
}
