//! Sessions of one scenario by one indicator, in the buckets of each window.

use std::collections::VecDeque;

use evenkeel_model::SloIndicator;
use serde::{Deserialize, Serialize};

/// Length of the shortest bucket in seconds.
pub(crate) const TICK_S: u64 = 10;

/// The windows of multiwindow alerts (*The Site Reliability Workbook*, chapter 5), and that of the budget. Each has buckets of
/// its own, 2.3 KiB together.
pub(crate) const WINDOWS: [WindowLength; 4] = [
    WindowLength { name: "5m", buckets: 30, ticks: 1 },
    WindowLength { name: "1h", buckets: 60, ticks: 6 },
    WindowLength { name: "6h", buckets: 72, ticks: 30 },
    WindowLength { name: "30d", buckets: 120, ticks: 2_160 },
];

/// The place of the shortest window.
pub(crate) const SHORTEST: usize = 0;

/// A window of equally long buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLength {
    pub(crate) name: &'static str,
    pub(crate) buckets: u32,
    /// The length of a bucket.
    pub(crate) ticks: u32,
}

impl WindowLength {
    pub(crate) fn seconds(self) -> u64 {
        u64::from(self.buckets * self.ticks) * TICK_S
    }
}

/// Indicators that are judged while a session is open.
pub(crate) const MEDIA: [SloIndicator; 2] = [SloIndicator::Gap, SloIndicator::RFactor];

/// Tells by each indicator of the media, gap and R-factor, if a session misses the limit; `None` without a limit or a measure.
pub type SessionMisses = [Option<bool>; MEDIA.len()];

/// How a session is counted by each indicator of its media.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct SessionMarks(pub(crate) [SessionMark; MEDIA.len()]);

impl SessionMarks {
    /// The session is not counted.
    pub fn are_empty(&self) -> bool {
        *self == SessionMarks::default()
    }
}

/// How a session is counted by one indicator.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub(crate) enum SessionMark {
    #[default]
    Uncounted,
    Good,
    /// The session missed the limit in this tick, and in none since.
    BadIn(u32),
}

impl SessionMark {
    /// The mark of a session that was measured; `None` if it stays.
    pub(crate) fn next(self, is_bad: bool, tick: u32) -> Option<SessionMark> {
        let next = match self {
            _ if is_bad => SessionMark::BadIn(tick),
            SessionMark::Uncounted => SessionMark::Good,
            counted => counted,
        };
        (next != self).then_some(next)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(from = "[u32; 2]", into = "[u32; 2]")]
pub(crate) struct Bucket {
    /// Sessions that ended, or offers that were answered.
    pub(crate) ended: u32,
    /// Sessions that missed the limit, and did not miss it again in a newer bucket.
    pub(crate) bad: u32,
}

impl From<[u32; 2]> for Bucket {
    fn from([ended, bad]: [u32; 2]) -> Bucket {
        Bucket { ended, bad }
    }
}

impl From<Bucket> for [u32; 2] {
    fn from(Bucket { ended, bad }: Bucket) -> [u32; 2] {
        [ended, bad]
    }
}

/// The buckets of one window.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct BucketRing {
    /// The number of the last bucket.
    newest: u32,
    /// Oldest first, at most those of the window.
    buckets: VecDeque<Bucket>,
}

impl BucketRing {
    fn new(length: WindowLength, tick: u32) -> BucketRing {
        let buckets = VecDeque::from([Bucket::default()]);
        BucketRing { newest: tick / length.ticks, buckets }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| *bucket == Bucket::default())
    }

    /// Has the form that this version writes.
    pub(crate) fn fits(&self, length: WindowLength) -> bool {
        (1..=length.buckets as usize).contains(&self.buckets.len())
    }

    /// The bucket of this tick; `None` if it is older than the window.
    fn bucket(&mut self, length: WindowLength, tick: u32) -> Option<&mut Bucket> {
        let number = tick / length.ticks;
        let ahead = number.saturating_sub(self.newest).min(length.buckets);
        self.newest = self.newest.max(number);
        for _ in 0..ahead {
            if self.buckets.len() == length.buckets as usize {
                self.buckets.pop_front();
            }
            self.buckets.push_back(Bucket::default());
        }
        let age = (self.newest - number) as usize;
        let place = self.buckets.len().checked_sub(age + 1)?;
        self.buckets.get_mut(place)
    }

    /// The sum of this many buckets up to that of the tick.
    fn sum(&self, length: WindowLength, buckets: u32, tick: u32) -> Bucket {
        // Nothing was counted since the newest bucket.
        let since = (tick / length.ticks).saturating_sub(self.newest);
        let kept = buckets.saturating_sub(since) as usize;
        let skipped = self.buckets.len().saturating_sub(kept);
        self.buckets.range(skipped..).fold(Bucket::default(), |sum, it| Bucket {
            ended: sum.ended.saturating_add(it.ended),
            bad: sum.bad.saturating_add(it.bad),
        })
    }
}

/// Sessions of one scenario by one indicator.
#[derive(Debug)]
pub(crate) struct SessionCounts {
    /// Sessions that are open and measured.
    open: u32,
    /// In the order of [`WINDOWS`].
    pub(crate) windows: [BucketRing; WINDOWS.len()],
}

impl SessionCounts {
    pub(crate) fn new(tick: u32) -> SessionCounts {
        SessionCounts { open: 0, windows: WINDOWS.map(|length| BucketRing::new(length, tick)) }
    }

    fn windows_mut(&mut self) -> impl Iterator<Item = (WindowLength, &mut BucketRing)> {
        WINDOWS.into_iter().zip(&mut self.windows)
    }

    pub(crate) fn note_offer(&mut self, is_bad: bool, tick: u32) {
        for (length, ring) in self.windows_mut() {
            if let Some(bucket) = ring.bucket(length, tick) {
                bucket.ended += 1;
                bucket.bad += u32::from(is_bad);
            }
        }
    }

    /// Counts an open session. One that missed the limit before moves to the bucket of its new mark.
    pub(crate) fn note(&mut self, mark: &mut SessionMark, next: SessionMark) {
        let before = std::mem::replace(mark, next);
        self.open += u32::from(before == SessionMark::Uncounted);
        let SessionMark::BadIn(tick) = next else { return };
        for (length, ring) in self.windows_mut() {
            if let Some(bucket) = ring.bucket(length, tick) {
                bucket.bad += 1;
            }
            if let SessionMark::BadIn(before) = before
                && let Some(bucket) = ring.bucket(length, before)
            {
                // The copy of another process may lack the miss.
                bucket.bad = bucket.bad.saturating_sub(1);
            }
        }
    }

    /// Counts an open session of another process whose windows continue here.
    pub(crate) fn resume(&mut self, mark: &mut SessionMark, tick: u32) {
        self.open += u32::from(*mark != SessionMark::Uncounted);
        if let SessionMark::BadIn(last) = mark {
            // The time at which a copy arrived from another machine is not exactly that at which it was made.
            *last = tick.min(*last);
        }
    }

    pub(crate) fn leave(&mut self, mark: SessionMark, tick: u32) {
        if mark == SessionMark::Uncounted {
            return;
        }
        self.open -= 1;
        for (length, ring) in self.windows_mut() {
            if let Some(bucket) = ring.bucket(length, tick) {
                bucket.ended += 1;
            }
        }
    }

    /// The windows once all sessions that are open have ended in this tick.
    pub(crate) fn windows_once_ended(&self, tick: u32) -> [BucketRing; WINDOWS.len()] {
        let mut windows = self.windows.clone();
        for (length, ring) in WINDOWS.into_iter().zip(&mut windows) {
            if let Some(bucket) = ring.bucket(length, tick) {
                bucket.ended = bucket.ended.saturating_add(self.open);
            }
        }
        windows
    }

    /// The sessions of the last buckets of a window up to this tick, and the bad ones of them.
    pub(crate) fn within(&self, window: usize, buckets: u32, tick: u32) -> (u32, u32) {
        let Bucket { ended, bad } = self.windows[window].sum(WINDOWS[window], buckets, tick);
        (self.open.saturating_add(ended), bad)
    }
}

#[cfg(test)]
mod tests;
