//! How often strangers of one prefix may be looked up: a miss costs a lock, and a flood must not.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Prefixes told apart; two that share a place share their allowance.
const PLACES: usize = 1_024;

/// Look-ups at once, in seconds of the long run's.
const BURST: f32 = 2.0;

/// An allowance per /24 (IPv4) or /56 (IPv6) of source addresses.
#[derive(Debug)]
pub(crate) struct Limiter {
    per_second: f32,
    allowances: Box<[(f32, Instant)]>,
}

impl Limiter {
    /// So many look-ups per second and prefix in the long run.
    pub(crate) fn new(per_second: u32, now: Instant) -> Limiter {
        let per_second = per_second as f32;
        Limiter { per_second, allowances: vec![(per_second * BURST, now); PLACES].into() }
    }

    /// Whether one more stranger with this source may be looked up now.
    pub(crate) fn allows(&mut self, source: SocketAddr, now: Instant) -> bool {
        let (left, at) = &mut self.allowances[place(source.ip())];
        let elapsed = now.saturating_duration_since(*at).as_secs_f32();
        *left = (*left + elapsed * self.per_second).min(self.per_second * BURST);
        *at = now;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }
}

/// Fibonacci hashing of the prefix.
fn place(ip: IpAddr) -> usize {
    let prefix = match ip {
        IpAddr::V4(v4) => u64::from(u32::from(v4) >> 8),
        IpAddr::V6(v6) => (u128::from(v6) >> 72) as u64,
    };
    (prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_from_one_prefix_leaves_others_alone() {
        let now = Instant::now();
        let mut limiter = Limiter::new(200, now);
        let flood = |limiter: &mut Limiter, at| {
            (0..2_000_u16).filter(|port| limiter.allows(([10, 0, 0, 1], *port).into(), at)).count()
        };
        assert_eq!(flood(&mut limiter, now), 400);
        assert!(limiter.allows(([10, 0, 1, 1], 1).into(), now), "another prefix");
        assert!(!limiter.allows(([10, 0, 0, 77], 1).into(), now), "the same prefix");
        assert_eq!(flood(&mut limiter, now + Duration::from_secs(1)), 200);
    }
}
