//! Rate limits for failed lookups and failed checks, so that a flood of them remains cheap.
//!
//! Lookups precede the limits: a flood never keeps out a client that has a session.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Hash buckets. Origins in the same bucket share an allowance. The hash is keyed, so that no sender can compute which
/// origins share the bucket of another.
const PLACES: u64 = 1_024;

/// Burst, in seconds of the rate.
const BURST: f32 = 2.0;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FailureOrigin {
    network: Ipv6Addr,
    port: u16,
}

impl FailureOrigin {
    /// The source's /24 (IPv4) or /56 (IPv6). Used for unknown sources, which may have any number of addresses.
    pub(crate) fn prefix(source: SocketAddr) -> FailureOrigin {
        let (bits, length) = match source.ip() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), 96 + 24),
            IpAddr::V6(v6) => (v6.to_bits(), 56),
        };
        FailureOrigin { network: Ipv6Addr::from_bits(bits & u128::MAX << (128 - length)), port: 0 }
    }

    /// The source's address and port. Used for failed checks of a session, so that its client is not limited with the
    /// senders of the same prefix.
    pub(crate) fn address(source: SocketAddr) -> FailureOrigin {
        let network = match source.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        FailureOrigin { network, port: source.port() }
    }
}

/// A token bucket per origin. Only failures are charged, so many clients behind one address do not reach the limit.
#[derive(Debug)]
pub(crate) struct FailureLimiter {
    allowances: Box<[(f32, Instant)]>,
    per_second: f32,
    keys: RandomState,
}

impl FailureLimiter {
    pub(crate) fn new(per_second: u32, keys: RandomState, now: Instant) -> FailureLimiter {
        // Precise up to 16 million per second; the configured maximum is 1 million.
        let per_second = per_second as f32;
        let allowances = vec![(BURST * per_second, now); PLACES as usize].into();
        FailureLimiter { allowances, per_second, keys }
    }

    /// Returns whether the origin may make another attempt.
    pub(crate) fn allows(&mut self, origin: FailureOrigin, now: Instant) -> bool {
        let (left, at) = &mut self.allowances[self.place(origin)];
        let elapsed = now.saturating_duration_since(*at).as_secs_f32();
        *left = (*left + elapsed * self.per_second).min(BURST * self.per_second);
        *at = now;
        *left >= 1.0
    }

    /// Charges a failed attempt. The balance stays at or above zero, so that the limit ends with the flood.
    pub(crate) fn charge(&mut self, origin: FailureOrigin) {
        let (left, _) = &mut self.allowances[self.place(origin)];
        *left = (*left - 1.0).max(0.0);
    }

    fn place(&self, origin: FailureOrigin) -> usize {
        (self.keys.hash_one(origin) % PLACES) as usize
    }
}

#[cfg(test)]
mod tests;
