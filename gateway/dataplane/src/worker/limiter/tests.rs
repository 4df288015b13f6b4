use std::time::Duration;

use super::*;

#[test]
fn flood_from_one_prefix_spares_others() {
    let now = Instant::now();
    let mut limiter = Limiter::new(200, now);
    let flood = |limiter: &mut Limiter, at| {
        let stranger = |port: &u16| {
            let source = Origin::prefix(([10, 0, 0, 1], *port).into());
            limiter.allows(source, at) && {
                limiter.charge(source);
                true
            }
        };
        (0..2_000_u16).filter(stranger).count()
    };
    assert_eq!(flood(&mut limiter, now), 400);
    assert!(limiter.allows(Origin::prefix(([10, 0, 1, 1], 1).into()), now), "another prefix");
    assert!(!limiter.allows(Origin::prefix(([10, 0, 0, 77], 1).into()), now), "the same prefix");
    assert_eq!(flood(&mut limiter, now + Duration::from_secs(1)), 200);
}

#[test]
fn successful_lookups_cost_nothing() {
    let now = Instant::now();
    let mut limiter = Limiter::new(200, now);
    let origin = Origin::prefix(([10, 0, 0, 1], 7).into());
    assert!((0..2_000).all(|_| limiter.allows(origin, now)));
}

#[test]
fn no_debt_is_left_after_a_flood() {
    let now = Instant::now();
    let mut limiter = Limiter::new(200, now);
    let origin = Origin::prefix(([10, 0, 0, 1], 7).into());
    (0..100_000).for_each(|_| limiter.charge(origin));
    assert!(!limiter.allows(origin, now));
    assert!(limiter.allows(origin, now + Duration::from_millis(6)));
}

#[test]
fn known_address_differs_from_its_neighbours() {
    let origin = |port| Origin::address(([10, 0, 0, 1], port).into());
    assert_ne!(place(origin(1)), place(origin(2)));
    assert_ne!(place(origin(1)), place(Origin::address(([10, 0, 0, 2], 1).into())));
}
