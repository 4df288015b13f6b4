//! Circuit breakers of the providers that start nodes: programs and hosts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{BreakerState, CoreEvent};
use serde::{Deserialize, Serialize};

/// Consecutive failed starts that open the breaker of a provider. One node alone fails so often within half a minute.
const OPENS_AFTER: u32 = 5;

/// First time that a breaker stays open; it doubles until a start succeeds.
const OPEN_FOR: Duration = Duration::from_secs(30);

/// Maximum of that time. Sessions without a node wait for 10 minutes.
const OPEN_FOR_MAX: Duration = Duration::from_secs(5 * 60);

/// Openings that still double the time; beyond them the maximum applies anyway.
const DOUBLINGS_MAX: u32 = 4;

/// A breaker of a provider that is not closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderBreakerStanding {
    /// The program or host that starts nodes.
    pub provider: Arc<str>,
    /// The state: `open`.
    pub breaker: &'static str,
    /// The time until an open breaker is half-open, in milliseconds.
    pub half_open_in_ms: Option<u64>,
    /// Failed starts in a row.
    pub failures: u32,
}

/// The breakers by providers, which the configuration names.
#[derive(Default, Debug)]
pub(crate) struct ProviderBreakers(BTreeMap<Arc<str>, ReportedBreaker>);

/// Opens after failed starts in a row. Half-open, it admits starts until one fails or succeeds.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct ProviderBreaker {
    failures: u32,
    /// Openings since a start succeeded.
    openings: u32,
    /// The end of the time for which it is open. `None`: it is closed.
    #[serde(with = "evenkeel_instant::option")]
    open_until: Option<Instant>,
}

#[derive(Debug)]
struct ReportedBreaker {
    breaker: ProviderBreaker,
    /// The state in the last event.
    reported: BreakerState,
}

impl Default for ReportedBreaker {
    fn default() -> ReportedBreaker {
        ReportedBreaker { breaker: ProviderBreaker::default(), reported: BreakerState::Closed }
    }
}

impl ProviderBreaker {
    fn state(&self, now: Instant) -> BreakerState {
        match self.open_until {
            None => BreakerState::Closed,
            Some(until) if now < until => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    fn close(&mut self) {
        (self.failures, self.openings, self.open_until) = (0, 0, None);
    }

    fn note_failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= OPENS_AFTER {
            let open_for = OPEN_FOR.saturating_mul(1 << self.openings.min(DOUBLINGS_MAX));
            self.openings = self.openings.saturating_add(1);
            self.open_until = Some(now + open_for.min(OPEN_FOR_MAX));
        }
    }
}

impl ProviderBreakers {
    /// Returns true while no start is called there.
    pub(crate) fn is_open(&self, provider: &str, now: Instant) -> bool {
        let found = self.0.get(provider);
        found.is_some_and(|it| it.breaker.state(now) == BreakerState::Open)
    }

    /// A start has succeeded or failed. A node without a provider has no breaker.
    pub(crate) fn judge(&mut self, provider: &str, has_started: bool, now: Instant) {
        if provider.is_empty() {
            return;
        }
        let breaker = &mut self.0.entry(provider.into()).or_default().breaker;
        if has_started {
            breaker.close();
        } else {
            breaker.note_failed(now);
        }
    }

    /// The changes of state since the last call. The breaker of a provider that no node has any more is closed.
    pub(crate) fn changes(
        &mut self,
        is_listed: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<CoreEvent> {
        let changed = self.0.iter_mut().filter_map(|(provider, found)| {
            let ReportedBreaker { breaker, reported } = found;
            if !is_listed(provider) {
                breaker.close();
            }
            let to = breaker.state(now);
            let from = std::mem::replace(reported, to);
            let (provider, failures) = (Arc::clone(provider), breaker.failures);
            (from != to).then_some(CoreEvent::ProviderBreaker { provider, from, to, failures })
        });
        let changed = changed.collect();
        self.0.retain(|_, it| it.breaker.failures > 0);
        changed
    }

    /// Returns the breakers for the process that continues them.
    pub(crate) fn records(&self) -> BTreeMap<Arc<str>, ProviderBreaker> {
        let records = self.0.iter();
        records.map(|(provider, it)| (Arc::clone(provider), it.breaker.clone())).collect()
    }

    /// Continues the breakers of another process. The next changes report what is new here.
    pub(crate) fn restore(&mut self, records: BTreeMap<Arc<str>, ProviderBreaker>) {
        self.0.values_mut().for_each(|it| it.breaker.close());
        for (provider, breaker) in records {
            self.0.entry(provider).or_default().breaker = breaker;
        }
    }

    /// The breakers that are not closed.
    pub(crate) fn standings(&self, now: Instant) -> impl Iterator<Item = ProviderBreakerStanding> {
        let all = self.0.iter().map(|(provider, it)| (provider, &it.breaker));
        let tripped = all.filter(|(_, breaker)| breaker.open_until.is_some());
        tripped.map(move |(provider, breaker)| {
            let left = breaker.open_until.map(|until| until.saturating_duration_since(now));
            let left = left.filter(|left| !left.is_zero());
            ProviderBreakerStanding {
                provider: Arc::clone(provider),
                breaker: breaker.state(now).name(),
                half_open_in_ms: left.map(|left| left.as_millis() as u64),
                failures: breaker.failures,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_without_an_answer_opens_for_longer_each_time() {
        let mut now = Instant::now();
        let mut breakers = ProviderBreakers::default();
        for _ in 1..OPENS_AFTER {
            breakers.judge("cloud", false, now);
        }
        assert!(!breakers.is_open("cloud", now));
        let mut opened = Vec::new();
        for _ in 0..6 {
            breakers.judge("cloud", false, now);
            let standing = breakers.standings(now).next().unwrap();
            let open_for = Duration::from_millis(standing.half_open_in_ms.unwrap());
            assert!(breakers.is_open("cloud", now) && !breakers.is_open("other", now));
            now += open_for;
            assert!(!breakers.is_open("cloud", now), "half-open");
            opened.push(open_for.as_secs());
        }
        assert_eq!(opened, [30, 60, 120, 240, 300, 300]);
        breakers.judge("cloud", true, now);
        assert_eq!(breakers.standings(now).count(), 0);
        breakers.judge("cloud", false, now);
        assert!(!breakers.is_open("cloud", now), "the row begins anew");
    }

    fn state(change: &CoreEvent) -> BreakerState {
        let CoreEvent::ProviderBreaker { to, .. } = change else { panic!("{change:?}") };
        *to
    }

    #[test]
    fn breaker_of_an_unlisted_provider_is_closed() {
        let now = Instant::now();
        let mut breakers = ProviderBreakers::default();
        (0..OPENS_AFTER).for_each(|_| breakers.judge("cloud", false, now));
        let changes = breakers.changes(|provider| provider == "cloud", now);
        assert_eq!(changes.iter().map(state).collect::<Vec<_>>(), [BreakerState::Open]);
        let changes = breakers.changes(|provider| provider == "other", now);
        assert_eq!(changes.iter().map(state).collect::<Vec<_>>(), [BreakerState::Closed]);
        assert!(!breakers.is_open("cloud", now) && breakers.0.is_empty());
    }

    #[test]
    fn breaker_of_another_process_goes_on_and_is_reported() {
        let now = Instant::now();
        let mut breakers = ProviderBreakers::default();
        (0..OPENS_AFTER).for_each(|_| breakers.judge("cloud", false, now));
        let mut next = ProviderBreakers::default();
        next.restore(breakers.records());
        let states = |breakers: &mut ProviderBreakers| -> Vec<BreakerState> {
            breakers.changes(|_| true, now).iter().map(state).collect()
        };
        assert_eq!(states(&mut next), [BreakerState::Open]);
        assert!(next.is_open("cloud", now + OPEN_FOR - Duration::from_millis(1)));
        next.judge("cloud", false, now + OPEN_FOR);
        assert!(next.is_open("cloud", now + 2 * OPEN_FOR), "for longer: its openings count");
        next.restore(BTreeMap::new());
        assert_eq!(states(&mut next), [BreakerState::Closed]);
        assert!(next.0.is_empty());
    }

    #[test]
    fn each_state_of_a_breaker_is_reported_once() {
        let now = Instant::now();
        let mut breakers = ProviderBreakers::default();
        let mut states = Vec::new();
        let mut note = |breakers: &mut ProviderBreakers, now| {
            states.extend(breakers.changes(|_| true, now).iter().map(state));
        };
        for _ in 0..OPENS_AFTER {
            breakers.judge("cloud", false, now);
            note(&mut breakers, now);
        }
        note(&mut breakers, now + OPEN_FOR);
        note(&mut breakers, now + OPEN_FOR);
        breakers.judge("cloud", true, now + OPEN_FOR);
        note(&mut breakers, now + OPEN_FOR);
        assert_eq!(states, [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed]);
    }
}
