//! Senders that send more than they may: when they count as such, which of their bytes pass, and the numbers of the packets that do.

mod left_out;

use std::time::{Duration, Instant};

pub use left_out::LeftOutNumbers;

/// Smoothing time of a rate, so that a key frame is no excess.
const FOLLOWS_IN: Duration = Duration::from_secs(1);

/// Share of the limit, in percent, up to which no packet is dropped: senders follow a limit by steps, and frames differ.
const TOLERATED_PERCENT: u64 = 110;

/// A sender that was told of the limit follows it within this time.
const IGNORED_AFTER: Duration = Duration::from_secs(2);

/// A sender that sends no more than the limit for this time has followed it.
const ENDS_AFTER: Duration = Duration::from_secs(5);

/// Time for which the unused part of a rate is kept.
const SAVED: Duration = Duration::from_millis(250);

/// The excess of a sender over its limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RateExcess {
    /// It sends no more than the limit.
    #[default]
    None,
    /// It sends more, and is to be told of the limit.
    Begun,
    /// It sends more than 110 % although it had the time to follow.
    Lasting,
}

/// The smoothed rate of a sender beside its limit.
#[derive(Debug)]
pub struct SenderRate {
    limit_kbps: u32,
    sent_kbps: f64,
    updated: Instant,
    excess: RateExcess,
    /// Since when it has sent more than is tolerated.
    above_since: Option<Instant>,
    /// Since when it has sent no more than the limit.
    below_since: Option<Instant>,
}

impl SenderRate {
    /// The rate of a sender that has sent no more than the limit until now.
    pub fn new(limit_kbps: u32, now: Instant) -> SenderRate {
        SenderRate {
            limit_kbps,
            sent_kbps: f64::from(limit_kbps) / 2.0,
            updated: now,
            excess: RateExcess::None,
            above_since: None,
            below_since: Some(now),
        }
    }

    /// Takes the rate since the last update. A sender that gets another limit has the time to follow it.
    pub fn update(&mut self, sent_kbps: u32, limit_kbps: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).min(FOLLOWS_IN);
        let part = elapsed.as_secs_f64() / FOLLOWS_IN.as_secs_f64();
        self.sent_kbps += (f64::from(sent_kbps) - self.sent_kbps) * part;
        self.updated = now;
        if std::mem::replace(&mut self.limit_kbps, limit_kbps) != limit_kbps {
            (self.above_since, self.below_since) = (None, None);
        }
        let is_above =
            |percent: u64| u64::from(self.sent_kbps()) * 100 > u64::from(limit_kbps) * percent;
        let (exceeds, is_beyond) = (is_above(100), is_above(TOLERATED_PERCENT));
        self.above_since = is_beyond.then(|| self.above_since.unwrap_or(now));
        self.below_since = (!exceeds).then(|| self.below_since.unwrap_or(now));
        let lasted = |since: Option<Instant>, time: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= time)
        };
        if lasted(self.below_since, ENDS_AFTER) {
            self.excess = RateExcess::None;
        } else if lasted(self.above_since, IGNORED_AFTER) {
            self.excess = RateExcess::Lasting;
        } else if exceeds && self.excess == RateExcess::None {
            self.excess = RateExcess::Begun;
        }
    }

    pub fn excess(&self) -> RateExcess {
        self.excess
    }

    /// Returns whether a new rate would judge alike: the sender has followed its limit for long enough.
    pub fn is_settled(&self, now: Instant) -> bool {
        let settled = |since: Instant| now.saturating_duration_since(since) >= ENDS_AFTER;
        self.excess == RateExcess::None && self.below_since.is_some_and(settled)
    }

    pub fn limit_kbps(&self) -> u32 {
        self.limit_kbps
    }

    /// The rate of about the last second.
    pub fn sent_kbps(&self) -> u32 {
        self.sent_kbps as u32
    }
}

/// The bytes that may pass at a rate. More may be spent, and are owed then.
#[derive(Clone, Copy, Debug)]
pub struct RateBudget {
    kbps: u32,
    /// In thousandths of a bit, those of a microsecond at 1 kbit/s.
    left: i64,
    at: Instant,
}

impl RateBudget {
    pub fn new(kbps: u32, now: Instant) -> RateBudget {
        RateBudget { kbps, left: 0, at: now }
    }

    /// Adds the bytes of the time since the last call.
    pub fn refill(&mut self, now: Instant) {
        let earned = self.of(now.saturating_duration_since(self.at));
        self.left = self.left.saturating_add(earned).min(self.of(SAVED));
        self.at = now;
    }

    /// Changes the rate. A debt remains one of as many bytes.
    pub fn set_rate(&mut self, kbps: u32) {
        self.kbps = kbps;
    }

    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub((bytes as i64).saturating_mul(8_000));
    }

    /// The time after which no byte is owed.
    pub fn debt(&self) -> Duration {
        let owed = self.left.min(0).unsigned_abs();
        Duration::from_micros(owed / u64::from(self.kbps.max(1)))
    }

    fn of(&self, time: Duration) -> i64 {
        let us = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        us.saturating_mul(self.kbps.into())
    }
}

#[cfg(test)]
mod tests;
