use std::time::Duration;

use super::*;

fn limiter(now: Instant) -> FailureLimiter {
    FailureLimiter::new(200, RandomState::new(), now)
}

#[test]
fn flood_from_one_prefix_spares_others() {
    let now = Instant::now();
    let mut limiter = limiter(now);
    let flood = |limiter: &mut FailureLimiter, at| {
        let stranger = |port: &u16| {
            let source = FailureOrigin::prefix(([10, 0, 0, 1], *port).into());
            limiter.allows(source, at) && {
                limiter.charge(source);
                true
            }
        };
        (0..2_000_u16).filter(stranger).count()
    };
    assert_eq!(flood(&mut limiter, now), 400);
    assert!(
        !limiter.allows(FailureOrigin::prefix(([10, 0, 0, 77], 1).into()), now),
        "the same prefix"
    );
    // Another prefix may share the bucket, so all of them are asked.
    let others = (1..=255).map(|third| FailureOrigin::prefix(([10, 0, third, 1], 1).into()));
    assert!(others.filter(|other| limiter.allows(*other, now)).count() > 240);
    assert_eq!(flood(&mut limiter, now + Duration::from_secs(1)), 200);
}

#[test]
fn successful_lookups_cost_nothing() {
    let now = Instant::now();
    let mut limiter = limiter(now);
    let origin = FailureOrigin::prefix(([10, 0, 0, 1], 7).into());
    assert!((0..2_000).all(|_| limiter.allows(origin, now)));
}

#[test]
fn no_debt_is_left_after_a_flood() {
    let now = Instant::now();
    let mut limiter = limiter(now);
    let origin = FailureOrigin::prefix(([10, 0, 0, 1], 7).into());
    (0..100_000).for_each(|_| limiter.charge(origin));
    assert!(!limiter.allows(origin, now));
    assert!(limiter.allows(origin, now + Duration::from_millis(6)));
}

#[test]
fn prefixes_are_24_and_56_bits() {
    let same = |one: &str, other: &str| {
        let prefix =
            |source: &str| FailureOrigin::prefix(SocketAddr::new(source.parse().unwrap(), 1));
        prefix(one) == prefix(other)
    };
    assert!(same("10.1.2.3", "10.1.2.200") && !same("10.1.2.3", "10.1.3.3"));
    assert!(same("2001:db8:1:2ff::1", "2001:db8:1:200::2"));
    assert!(!same("2001:db8:1:2ff::1", "2001:db8:1:300::1"));
}

#[test]
fn buckets_differ_between_two_keys() {
    let now = Instant::now();
    let (one, other) = (limiter(now), limiter(now));
    let sources = (0..=255).map(|third| FailureOrigin::prefix(([10, 0, third, 1], 1).into()));
    let same = sources.filter(|source| one.place(*source) == other.place(*source)).count();
    assert!(same < 16, "{same} of 256 prefixes have the bucket that another process computes");
}
