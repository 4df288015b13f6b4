//! One timer per connection, by number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Limit of heap entries per active timer; beyond it outdated entries are removed.
const ENTRIES: usize = 4;

#[derive(Default)]
pub(super) struct ConnectionTimers {
    /// The earliest set time by number.
    due: Vec<Option<Instant>>,
    count: usize,
    /// Includes outdated entries, which were replaced by an earlier time.
    entries: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl ConnectionTimers {
    /// Sets a timer, unless an earlier time is set. A timer that each packet postpones therefore costs nothing until
    /// its first time has passed.
    pub(super) fn note(&mut self, number: usize, due: Instant) {
        if self.due.len() <= number {
            self.due.resize(number + 1, None);
        }
        let noted = &mut self.due[number];
        if noted.is_some_and(|noted| noted <= due) {
            return;
        }
        self.count += usize::from(noted.is_none());
        *noted = Some(due);
        self.entries.push(Reverse((due, number)));
        if self.entries.len() > ENTRIES * self.count {
            let due = &self.due;
            self.entries.retain(|Reverse((time, number))| due[*number] == Some(*time));
        }
    }

    pub(super) fn forget(&mut self, number: usize) {
        if let Some(due) = self.due.get_mut(number) {
            self.count -= usize::from(due.take().is_some());
        }
    }

    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(&Reverse((due, number))) = self.entries.peek() {
            if self.due[number] == Some(due) {
                return Some(due);
            }
            self.entries.pop();
        }
        None
    }

    /// Takes the number of a timer that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<usize> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, number)) = self.entries.pop()?;
        self.forget(number);
        Some(number)
    }
}

#[cfg(test)]
mod tests;
