//! How often strangers of one prefix may be looked up: a miss costs a lock, and a flood must not.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Prefixes told apart; two that share a place share their allowance.
const PLACES: usize = 1_024;

/// Look-ups at once, in seconds of the long run's.
const BURST: f32 = 2.0;

/// An allowance per /24 (IPv4) or /56 (IPv6) of source addresses: of look-ups in vain.
/// Those who are found cost nothing, so that a call centre behind one address is no flood.
#[derive(Debug)]
pub(crate) struct Limiter {
    allowances: Box<[(f32, Instant)]>,
    per_second: f32,
}

impl Limiter {
    pub(crate) fn new(per_second: u32, now: Instant) -> Limiter {
        // A rate; beyond 16 million a second it would lose a digit, and 1 million is the most there can be.
        let per_second = per_second as f32;
        Limiter { allowances: vec![(BURST * per_second, now); PLACES].into(), per_second }
    }

    /// Whether one more source of this prefix may be looked up now.
    pub(crate) fn allows(&mut self, source: SocketAddr, now: Instant) -> bool {
        let (left, at) = &mut self.allowances[place(source.ip())];
        let elapsed = now.saturating_duration_since(*at).as_secs_f32();
        *left = (*left + elapsed * self.per_second).min(BURST * self.per_second);
        *at = now;
        *left >= 1.0
    }

    /// It was looked up in vain.
    pub(crate) fn charge(&mut self, source: SocketAddr) {
        self.allowances[place(source.ip())].0 -= 1.0;
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
            let stranger = |port: &u16| {
                let source = ([10, 0, 0, 1], *port).into();
                limiter.allows(source, at) && {
                    limiter.charge(source);
                    true
                }
            };
            (0..2_000_u16).filter(stranger).count()
        };
        assert_eq!(flood(&mut limiter, now), 400);
        assert!(limiter.allows(([10, 0, 1, 1], 1).into(), now), "another prefix");
        assert!(!limiter.allows(([10, 0, 0, 77], 1).into(), now), "the same prefix");
        assert_eq!(flood(&mut limiter, now + Duration::from_secs(1)), 200);
    }

    #[test]
    fn those_who_are_found_cost_nothing() {
        let now = Instant::now();
        let mut limiter = Limiter::new(200, now);
        assert!((0..2_000).all(|_| limiter.allows(([10, 0, 0, 1], 7).into(), now)));
    }
}
