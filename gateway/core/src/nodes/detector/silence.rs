//! Silence: what should have come from a node by now, and did not.

use std::time::{Duration, Instant};

use super::lateness::Lateness;
use super::{Since, Stamp};

/// A node that was silent so long, and alive all the while, is expected to send nothing any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// Arrivals that must be missing however seldom they are: a lost packet between two pauses for breath is no death.
const ARRIVALS_MIN: u32 = 3;

/// A pause is longer than usual where it is so many times as long.
const USUALLY: u32 = 2;

/// Media that came from a node, and media that went there.
#[derive(Default, Debug)]
pub(super) struct Silence {
    stamp: Stamp,
    /// Packets per second from the node as a whole, smoothed over a second; what it was before it fell silent.
    rate: f64,
    rated: Option<Instant>,
    /// Since when we have been sending without hearing anything.
    since: Option<Since>,
    /// Pauses that ended.
    lately: Lateness,
}

/// Limits of silence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The shortest that accuses.
    pub(super) min: Duration,
    /// Arrivals that must be missing.
    pub(super) arrivals: u32,
    /// If arrivals are seldom, fewer may be missing than that after this long.
    pub(super) max: Duration,
    /// Its death was reported: usual lateness is no reason to wait any more.
    pub(super) told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Something should have come.
    Accuses,
    /// Nothing is expected, now that nothing is sent or what came is long ago.
    Withdraws,
    Nothing,
}

impl Silence {
    /// Takes the workers' stamp. Returns true if something arrived.
    pub(super) fn handle_stamp(&mut self, stamp: Stamp, now: Instant) -> bool {
        let arrived = stamp.received.saturating_sub(self.stamp.received);
        let unanswered = stamp.last_sent > stamp.last_received;
        // While an answer is awaited the rate stays what it was: it says what is missing.
        if arrived > 0 || !unanswered {
            let elapsed = self.rated.map_or(0.0, |at| (now - at).as_secs_f64());
            if elapsed > 0.0 {
                self.rate += (arrived as f64 / elapsed - self.rate) * elapsed.min(1.0);
            }
            self.rated = Some(now);
        }
        if arrived > 0
            && let Some(since) = self.since.take()
        {
            self.lately.note(since.lasted(now), now);
        }
        if unanswered && self.since.is_none() {
            self.since = stamp.last_sent.map(|sent| Since::new(sent.min(now)));
        }
        self.stamp = stamp;
        arrived > 0
    }

    pub(super) fn excuse(&mut self, late: Duration) {
        if let Some(since) = &mut self.since {
            since.excuse(late);
        }
    }

    pub(super) fn weigh(&mut self, limits: Limits, now: Instant) -> Word {
        let Some(since) = self.since else {
            return Word::Nothing;
        };
        if since.lasted(now) >= FORGOTTEN_AFTER.max(limits.max * 3) {
            self.rate = 0.0;
        }
        let Some(limit) = self.limit(limits) else {
            return Word::Withdraws;
        };
        let sent = |within| {
            self.stamp.last_sent.is_some_and(|sent| now.saturating_duration_since(sent) < within)
        };
        if sent(limit) && since.lasted(now) >= limit {
            Word::Accuses
        } else if sent(limit.max(limits.max)) {
            Word::Nothing
        } else {
            // A node that sends again later begins anew.
            self.forget();
            Word::Withdraws
        }
    }

    /// Since when it is silent, where that is half of the shortest silence that accuses and a few arrivals are missing:
    /// too early to say anything, and time to ask.
    pub(super) fn begins(&self, limits: Limits, now: Instant) -> Option<Instant> {
        let since = self.since?;
        let begun = (limits.min / 2).max(self.interval()? * ARRIVALS_MIN.min(limits.arrivals));
        (since.lasted(now) >= begun).then_some(since.at)
    }

    /// Between two arrivals; `None` where nothing is expected.
    fn interval(&self) -> Option<Duration> {
        (self.rate >= 1.0).then(|| Duration::from_secs_f64(1.0 / self.rate))
    }

    /// The longest silence of the node as a whole; `None` if nothing is expected of it. If it pauses longer than half
    /// of that in more than one of the last ten seconds, twice as long as it does, unless its death was reported.
    fn limit(&self, limits: Limits) -> Option<Duration> {
        let interval = self.interval()?;
        let few = interval * ARRIVALS_MIN.min(limits.arrivals);
        let usual = if limits.told { Duration::ZERO } else { self.lately.usual() * USUALLY };
        Some((interval * limits.arrivals).max(usual).min(limits.max).max(limits.min).max(few))
    }

    /// Nothing is expected any more.
    pub(super) fn forget(&mut self) {
        self.since = None;
        self.rate = 0.0;
        self.lately.forget();
    }

    #[cfg(test)]
    pub(super) fn received(&self) -> u64 {
        self.stamp.received
    }

    pub(super) fn last_received(&self) -> Option<Instant> {
        self.stamp.last_received
    }
}
