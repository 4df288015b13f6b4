//! Rate limits for failed lookups and failed checks, so that a flood of them remains cheap.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Hash buckets. Origins in the same bucket share an allowance.
const PLACES: usize = 1_024;

/// Burst, in seconds of the rate.
const BURST: f32 = 2.0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin(u64);

impl Origin {
    /// The source's /24 (IPv4) or /56 (IPv6). Used for unknown sources, which may have any number of addresses.
    pub(crate) fn prefix(source: SocketAddr) -> Origin {
        Origin(match source.ip() {
            IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
            IpAddr::V6(v6) => (u128::from(v6) >> 72) as u64,
        })
    }

    /// The source's address. Used for known sources, so that unknown sources of the same prefix cannot lock them out.
    pub(crate) fn address(source: SocketAddr) -> Origin {
        let ip = match source.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bits = u128::from(ip);
        Origin((bits >> 64) as u64 ^ (bits as u64).rotate_left(16) ^ u64::from(source.port()))
    }
}

/// A token bucket per origin. Only failures are charged, so many clients behind one address do not reach the limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    allowances: Box<[(f32, Instant)]>,
    per_second: f32,
}

impl Limiter {
    pub(crate) fn new(per_second: u32, now: Instant) -> Limiter {
        // Precise up to 16 million per second; the configured maximum is 1 million.
        let per_second = per_second as f32;
        Limiter { allowances: vec![(BURST * per_second, now); PLACES].into(), per_second }
    }

    /// Returns whether the origin may make another attempt.
    pub(crate) fn allows(&mut self, origin: Origin, now: Instant) -> bool {
        let (left, at) = &mut self.allowances[place(origin)];
        let elapsed = now.saturating_duration_since(*at).as_secs_f32();
        *left = (*left + elapsed * self.per_second).min(BURST * self.per_second);
        *at = now;
        *left >= 1.0
    }

    /// Charges a failed attempt. The balance stays at or above zero, so that the limit ends with the flood.
    pub(crate) fn charge(&mut self, origin: Origin) {
        let (left, _) = &mut self.allowances[place(origin)];
        *left = (*left - 1.0).max(0.0);
    }
}

/// Returns the origin's bucket by Fibonacci hashing.
fn place(Origin(bits): Origin) -> usize {
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
}

#[cfg(test)]
mod tests;
