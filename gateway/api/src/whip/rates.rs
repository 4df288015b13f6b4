//! Limits of the rate of offers, which cost more than other requests, also if they are refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A client repeats an offer that broke off, and gets a new token for another offer.
const OF_TOKEN: RateLimit = RateLimit { burst: 8, interval: Duration::from_secs(1) };

/// A network with one address may have hundreds of clients, which offer at the same time after an outage. Later offers, of 64 KiB each,
/// take a twentieth of a core.
const OF_SOURCE: RateLimit = RateLimit { burst: 256, interval: Duration::from_millis(31) };

/// Remembered tokens, and remembered sources. The one with the least use is forgotten first.
const KEYS_MAX: usize = 4_096;

/// Offers at one time, and the interval at which another one is admitted.
#[derive(Clone, Copy)]
struct RateLimit {
    burst: u32,
    interval: Duration,
}

/// Rates of offers by token and by source.
pub(super) struct OfferRates {
    tokens: RateTable<Box<str>>,
    sources: RateTable<IpAddr>,
}

/// Rates by the generic cell rate algorithm (ITU-T I.371, annex A).
struct RateTable<K> {
    limit: RateLimit,
    /// The time from which on a key has its whole burst again.
    restored: BTreeMap<K, Instant>,
}

impl OfferRates {
    pub(super) fn new() -> OfferRates {
        OfferRates { tokens: RateTable::new(OF_TOKEN), sources: RateTable::new(OF_SOURCE) }
    }

    /// Counts an offer. An offer beyond the rate of its token does not count for its source.
    ///
    /// # Errors
    /// The offer is refused; the next one is admitted after this time.
    pub(super) fn admit(
        &mut self,
        token: &str,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Duration> {
        self.tokens.admit(token.into(), now)?;
        source.map_or(Ok(()), |source| self.sources.admit(source, now))
    }
}

impl<K: Ord + Clone> RateTable<K> {
    fn new(limit: RateLimit) -> RateTable<K> {
        RateTable { limit, restored: BTreeMap::new() }
    }

    fn admit(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        let RateLimit { burst, interval } = self.limit;
        let known = self.restored.get(&key).copied();
        let restored = known.unwrap_or(now).max(now) + interval;
        let early = (restored - now).saturating_sub(interval * burst);
        if !early.is_zero() {
            return Err(early);
        }
        if known.is_none() && self.restored.len() >= KEYS_MAX {
            self.forget(now);
        }
        self.restored.insert(key, restored);
        Ok(())
    }

    fn forget(&mut self, now: Instant) {
        self.restored.retain(|_, restored| *restored > now);
        let least = self.restored.iter().min_by_key(|(_, restored)| **restored);
        let least = least.map(|(key, _)| key.clone());
        if let Some(least) = least.filter(|_| self.restored.len() >= KEYS_MAX) {
            self.restored.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests;
