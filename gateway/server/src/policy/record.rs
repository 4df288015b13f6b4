//! What became of the calls of the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Faults are counted within this.
const FAULTS_WITHIN: Duration = Duration::from_secs(10);

/// More faults than this within [`FAULTS_WITHIN`] roll a revision back, however many calls there were.
const FAULTS_MAX: u64 = 5;

/// Of many calls, one in this many may fault.
const FAULTS_SHARE: u64 = 1_000;

/// Calls are counted together that came within this; a policy may be asked thousands of times in it.
const COUNTED_BY: Duration = Duration::from_secs(1);

/// Lines about faults are written once in this.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Calls and faults of one revision.
#[derive(Debug)]
pub(super) struct Record {
    began: Instant,
    seconds: VecDeque<Second>,
}

#[derive(Debug)]
struct Second {
    began: Instant,
    calls: u64,
    faults: u64,
}

impl Record {
    pub(super) fn new(now: Instant) -> Record {
        Record { began: now, seconds: VecDeque::new() }
    }

    /// Whether there were too many faults.
    pub(super) fn note(&mut self, now: Instant, faulted: bool) -> bool {
        let ago = |from: Instant| now.saturating_duration_since(from);
        while self.seconds.front().is_some_and(|second| ago(second.began) > FAULTS_WITHIN) {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|second| ago(second.began) >= COUNTED_BY) {
            self.seconds.push_back(Second { began: now, calls: 0, faults: 0 });
        }
        if let Some(second) = self.seconds.back_mut() {
            second.calls += 1;
            second.faults += u64::from(faulted);
        }
        faulted && self.too_many(now)
    }

    /// Whether the revision has shown that it can be relied on: it never failed, or rarely and for long enough.
    pub(super) fn is_good(&self, now: Instant) -> bool {
        let long = now.saturating_duration_since(self.began) >= FAULTS_WITHIN;
        self.sum(now).1 == 0 || long && !self.too_many(now)
    }

    fn too_many(&self, now: Instant) -> bool {
        let (calls, faults) = self.sum(now);
        faults > FAULTS_MAX.max(calls / FAULTS_SHARE)
    }

    /// Calls and faults that are not long ago.
    fn sum(&self, now: Instant) -> (u64, u64) {
        let recent = self
            .seconds
            .iter()
            .filter(|second| now.saturating_duration_since(second.began) <= FAULTS_WITHIN);
        recent
            .fold((0, 0), |(calls, faults), second| (calls + second.calls, faults + second.faults))
    }
}

/// Keeps a policy that fails over every question from filling the log.
#[derive(Default, Debug)]
pub(super) struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// How many faults the line is about that is to be written now; `None`: none is.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LINE_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_may_fail_five_times_in_ten_seconds_and_not_six() {
        let now = Instant::now();
        let mut record = Record::new(now);
        for _ in 0..5 {
            assert!(!record.note(now, true));
        }
        assert!(record.note(now, true));
        assert!(!record.note(now, false), "a call that went well rolls nothing back");
    }

    #[test]
    fn faults_of_long_ago_are_forgotten() {
        let now = Instant::now();
        let mut record = Record::new(now);
        for _ in 0..5 {
            record.note(now, true);
        }
        assert!(!record.note(now + FAULTS_WITHIN + Duration::from_millis(1), true));
    }

    #[test]
    fn one_call_in_a_thousand_may_fail_however_many_there_are() {
        let now = Instant::now();
        let mut record = Record::new(now);
        for _ in 0..10_000 {
            record.note(now, false);
        }
        let rolled = (1..=12).find(|_| record.note(now, true));
        assert_eq!(rolled, Some(11));
    }

    #[test]
    fn calls_are_counted_by_the_second() {
        let now = Instant::now();
        let mut record = Record::new(now);
        for call in 0..30_000 {
            record.note(now + Duration::from_millis(call), false);
        }
        assert!(record.seconds.len() <= 11, "{}", record.seconds.len());
    }

    #[test]
    fn a_revision_is_good_that_never_failed_or_rarely_and_for_long_enough() {
        let now = Instant::now();
        let mut record = Record::new(now);
        assert!(record.is_good(now));
        record.note(now, true);
        assert!(!record.is_good(now + Duration::from_secs(9)));
        record.note(now + Duration::from_secs(9), true);
        assert!(record.is_good(now + Duration::from_secs(10)));
        for _ in 0..6 {
            record.note(now + Duration::from_secs(10), true);
        }
        assert!(!record.is_good(now + Duration::from_secs(15)));
    }

    #[test]
    fn a_line_a_second_says_how_many_faults_there_were() {
        let now = Instant::now();
        let mut complaints = Complaints::default();
        assert_eq!(complaints.count(now), Some(1));
        for _ in 0..500 {
            assert_eq!(complaints.count(now + Duration::from_millis(999)), None);
        }
        assert_eq!(complaints.count(now + LINE_EVERY), Some(501));
    }
}
