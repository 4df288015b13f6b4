//! Changes by operators, files and rollouts. They travel beside the records, so that the standby of an owner has them as well.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use evenkeel_control::ChangeRecord;
use evenkeel_process::lock;
use tokio::sync::Notify;

/// Changes that are kept: weeks of a gateway that is operated by hand.
const CHANGES_MAX: usize = 1_024;

/// Bytes after which a batch of records takes no further change. A change has a few hundred.
const PART_BYTES: usize = 16 << 10;

/// The newest changes of this gateway and of the owners that it followed.
#[derive(Default, Debug)]
pub struct ChangeList {
    recent: Mutex<RecentChanges>,
    copied: Notify,
}

#[derive(Default, Debug)]
struct RecentChanges {
    /// In the order of their times.
    changes: VecDeque<ChangeRecord>,
    /// The number of the first.
    first: u64,
}

impl RecentChanges {
    /// Adds a change. Returns false if it is there already.
    fn add(&mut self, change: ChangeRecord) -> bool {
        let at = self.changes.partition_point(|it| it.at_us <= change.at_us);
        let mut same_time =
            self.changes.range(..at).rev().take_while(|it| it.at_us == change.at_us);
        if same_time.any(|it| *it == change) {
            return false;
        }
        if at < self.changes.len() {
            // All get numbers that no reader has passed.
            self.first += self.changes.len() as u64;
        }
        self.changes.insert(at, change);
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
            self.first += 1;
        }
        true
    }
}

impl ChangeList {
    /// Adds changes, unless they are there already.
    pub fn add(&self, changes: impl IntoIterator<Item = ChangeRecord>) {
        let mut recent = lock(&self.recent);
        for change in changes {
            recent.add(change);
        }
    }

    /// The changes since a Unix time in microseconds, oldest first.
    pub fn since(&self, since_us: u64) -> Vec<ChangeRecord> {
        let recent = lock(&self.recent);
        recent.changes.iter().filter(|it| it.at_us >= since_us).cloned().collect()
    }

    /// Returns once changes of the owner were added.
    pub async fn copied(&self) {
        self.copied.notified().await;
    }

    /// Some changes from this number on, and the number after them.
    fn part_from(&self, from: u64) -> (u64, Vec<ChangeRecord>) {
        // Beats do not wait for a reader of the list: the next batch has them.
        let Ok(recent) = self.recent.try_lock() else { return (from, Vec::new()) };
        let from = from.max(recent.first);
        let rest = recent.changes.iter().skip((from - recent.first) as usize);
        let mut room = PART_BYTES;
        let fits = |change: &&ChangeRecord| {
            let has_room = room > 0;
            room = room.saturating_sub(change.text.len());
            has_room
        };
        let part: Vec<_> = rest.take_while(fits).cloned().collect();
        (from + part.len() as u64, part)
    }
}

/// The member's end of the exchange of changes.
#[derive(Clone, Debug)]
pub(super) struct ChangeExchange {
    list: Arc<ChangeList>,
    /// The number of the next change for the standby.
    next: u64,
    /// Changes of the owner that are not in the list yet.
    received: Vec<ChangeRecord>,
}

impl ChangeExchange {
    pub(super) fn new(list: Arc<ChangeList>) -> ChangeExchange {
        ChangeExchange { list, next: 0, received: Vec::new() }
    }

    /// Another standby has no change yet.
    pub(super) fn begin(&mut self) {
        self.next = 0;
    }

    /// The next changes for the standby.
    pub(super) fn next_part(&mut self) -> Vec<ChangeRecord> {
        let (next, part) = self.list.part_from(self.next);
        self.next = next;
        part
    }

    /// Takes changes of the owner, for [`ChangeExchange::add_received`].
    pub(super) fn take(&mut self, changes: Vec<ChangeRecord>) {
        self.received.extend(changes);
    }

    /// Adds the owner's changes to the list, unless a reader holds it: beats do not wait.
    pub(super) fn add_received(&mut self) {
        if self.received.is_empty() {
            return;
        }
        let Ok(mut recent) = self.list.recent.try_lock() else { return };
        let mut is_any_new = false;
        for change in self.received.drain(..) {
            is_any_new |= recent.add(change);
        }
        drop(recent);
        if is_any_new {
            self.list.copied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
