//! One timer per connection, by number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Heap entries per active timer; beyond that outdated entries are removed.
const ENTRIES: usize = 4;

#[derive(Default)]
pub(super) struct Timers {
    /// The current time by number.
    due: Vec<Option<Instant>>,
    /// Active timers.
    count: usize,
    /// Includes outdated entries, which an earlier time has replaced.
    entries: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Timers {
    /// Sets a timer, unless an earlier time is set. A timer that moves later with every packet so costs nothing until
    /// its first time has come.
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

    /// Takes a timer that is due.
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn ms(number: u32) -> Duration {
        Duration::from_millis(number.into())
    }

    #[test]
    fn timers_are_taken_once_in_order() {
        let (mut table, start) = (Timers::default(), Instant::now());
        for (number, due) in [(3, 30), (0, 10), (7, 20)] {
            table.note(number, start + ms(due));
        }
        assert_eq!(table.next_due(), Some(start + ms(10)));
        assert_eq!(table.take(start + ms(9)), None);
        let mut taken = || table.take(start + ms(20));
        assert_eq!([taken(), taken(), taken()], [Some(0), Some(7), None]);
        assert_eq!(table.next_due(), Some(start + ms(30)));
    }

    #[test]
    fn earlier_time_replaces_later_one() {
        let (mut table, start) = (Timers::default(), Instant::now());
        table.note(1, start + ms(50));
        table.note(1, start + ms(10));
        table.note(1, start + ms(80));
        assert_eq!(table.take(start + ms(10)), Some(1));
        assert_eq!(table.next_due(), None);
        assert_eq!(table.take(start + ms(100)), None);
    }

    #[test]
    fn reused_number_has_no_old_timer() {
        let (mut table, start) = (Timers::default(), Instant::now());
        table.note(1, start + ms(10));
        table.forget(1);
        assert_eq!(table.next_due(), None);
        table.note(1, start + ms(20));
        assert_eq!(table.take(start + ms(15)), None);
        assert_eq!(table.next_due(), Some(start + ms(20)));
        assert_eq!(table.take(start + ms(20)), Some(1));
    }

    #[test]
    fn earlier_and_earlier_times_use_bounded_memory() {
        let (mut table, start) = (Timers::default(), Instant::now());
        for round in 0..1_000 {
            for number in 0..10 {
                table.note(number, start + ms(10_000 - round));
            }
            assert!(table.entries.len() <= ENTRIES * 10);
        }
        for _ in 0..10 {
            assert!(table.take(start + ms(9_001)).is_some());
        }
        assert_eq!(table.next_due(), None);
    }
}
