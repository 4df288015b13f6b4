//! Silence: media that should have arrived from a node and did not.

use std::time::{Duration, Instant};

use evenkeel_model::{Since, Stamp};

/// A node that was silent this long while alive is expected to send nothing more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// The media that a session gets from its node, as long as it was not heard: voice in frames of 40 ms.
const PACKETS_PER_SECOND: f64 = 25.0;

/// Minimum of missing arrivals even for slow flows: one lost packet between two speech pauses is no death.
const ARRIVALS_MIN: u32 = 3;

/// A pause is longer than usual if it exceeds the usual one by this factor.
const USUALLY: u32 = 2;

#[derive(Default, Debug)]
pub(super) struct SilenceDetector {
    pub(super) stamp: Stamp,
    /// Packets per second from the whole node, smoothed over a second. During silence it keeps its previous value.
    rate: f64,
    rated: Option<Instant>,
    /// The time since which the gateway has been sending without receiving anything.
    since: Option<Since>,
    /// Lengths of pauses that ended.
    lately: Lateness,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SilenceLimits {
    /// The shortest silence that accuses.
    pub(super) min: Duration,
    /// Number of arrivals that must be missing.
    pub(super) arrivals: u32,
    /// The silence after which fewer missing arrivals suffice, for slow flows.
    pub(super) max: Duration,
    /// The death was reported, so usual lateness no longer delays the accusation.
    pub(super) is_reported: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SilenceVerdict {
    /// Media is overdue.
    Accuses,
    /// No media is expected: nothing is sent, or the last arrival is long ago.
    Withdraws,
    Nothing,
}

impl SilenceDetector {
    /// Takes the workers' stamp. Returns true if something arrived.
    pub(super) fn handle_stamp(&mut self, stamp: Stamp, now: Instant) -> bool {
        let arrived = stamp.received.saturating_sub(self.stamp.received);
        let unanswered = stamp.last_sent > stamp.last_received;
        // The rate is kept while an answer is awaited, because it tells how much is missing.
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

    /// Expects media of so many sessions once something is sent to the node.
    pub(super) fn expect(&mut self, sessions: u32) {
        self.rate = self.rate.max(PACKETS_PER_SECOND * f64::from(sessions));
    }

    pub(super) fn excuse(&mut self, late: Duration) {
        if let Some(since) = &mut self.since {
            since.excuse(late);
        }
    }

    pub(super) fn weigh(&mut self, limits: SilenceLimits, now: Instant) -> SilenceVerdict {
        let Some(since) = self.since else { return SilenceVerdict::Nothing };
        if since.lasted(now) >= FORGOTTEN_AFTER.max(limits.max * 3) {
            self.rate = 0.0;
        }
        let Some(limit) = self.limit(limits) else { return SilenceVerdict::Withdraws };
        let sent = |within| {
            self.stamp.last_sent.is_some_and(|sent| now.saturating_duration_since(sent) < within)
        };
        if sent(limit) && since.lasted(now) >= limit {
            SilenceVerdict::Accuses
        } else if sent(limit.max(limits.max)) {
            SilenceVerdict::Nothing
        } else {
            // A node that sends again later starts a new measurement.
            self.forget();
            SilenceVerdict::Withdraws
        }
    }

    /// Since when the node is silent, if the silence reached half of the accusing minimum and a few arrivals are
    /// missing. It is too early to accuse, and time to probe.
    pub(super) fn begins(&self, limits: SilenceLimits, now: Instant) -> Option<Instant> {
        let since = self.since?;
        let begun = (limits.min / 2).max(self.interval()? * ARRIVALS_MIN.min(limits.arrivals));
        (since.lasted(now) >= begun).then_some(since.at)
    }

    /// The mean interval between arrivals; `None` if nothing is expected.
    fn interval(&self) -> Option<Duration> {
        (self.rate >= 1.0).then(|| Duration::from_secs_f64(1.0 / self.rate))
    }

    /// The longest normal silence of the whole node; `None` if nothing is expected. If pauses exceeded half of that in
    /// more than one of the last ten seconds, twice the usual pause, unless the death was reported.
    pub(super) fn limit(&self, limits: SilenceLimits) -> Option<Duration> {
        let interval = self.interval()?;
        let few = interval * ARRIVALS_MIN.min(limits.arrivals);
        let usual = if limits.is_reported { Duration::ZERO } else { self.lately.usual() * USUALLY };
        Some((interval * limits.arrivals).max(usual).min(limits.max).max(limits.min).max(few))
    }

    /// Expects nothing until media arrives again.
    pub(super) fn forget(&mut self) {
        self.since = None;
        self.rate = 0.0;
        self.lately.forget();
    }

    pub(super) fn last_received(&self) -> Option<Instant> {
        self.stamp.last_received
    }
}

/// Length of a turn. Each turn keeps its greatest lateness.
const TURN: Duration = Duration::from_secs(1);
const TURNS: usize = 10;

/// The greatest lateness in each of the last ten seconds.
#[derive(Default, Debug)]
pub(super) struct Lateness {
    began: Option<Instant>,
    /// The turn of the last note, from which turns are counted.
    turn: u64,
    latest: [Duration; TURNS],
}

impl Lateness {
    /// Notes an arrival that was this late.
    pub(super) fn note(&mut self, late: Duration, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let turn = now.saturating_duration_since(began).as_secs() / TURN.as_secs();
        for passed in (self.turn + 1..=turn).take(TURNS) {
            self.latest[passed as usize % TURNS] = Duration::ZERO;
        }
        self.turn = self.turn.max(turn);
        let latest = &mut self.latest[turn as usize % TURNS];
        *latest = late.max(*latest);
    }

    /// The lateness exceeded in at most one of these seconds: a single bad moment is not usual.
    pub(super) fn usual(&self) -> Duration {
        let mut latest = self.latest;
        latest.sort_unstable();
        latest[TURNS - 2]
    }

    pub(super) fn forget(&mut self) {
        *self = Lateness::default();
    }
}

#[cfg(test)]
mod tests;
