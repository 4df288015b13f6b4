mod memory;
mod version;

use super::*;

#[test]
fn cohort_has_its_share_and_only_grows() {
    let shares = [0, 1, 5, 25, 50, 99, 100];
    let holds = |percent, unit| is_in_cohort("5f0c5f0c5f0c", percent, unit);
    for pair in shares.windows(2) {
        assert!((0..10_000).all(|unit| !holds(pair[0], unit) || holds(pair[1], unit)));
    }
    for percent in shares {
        let held = (0..10_000).filter(|unit| holds(percent, *unit)).count() as i64;
        let right = i64::from(percent) * 100;
        assert!((held - right).abs() <= 150, "{held} of 10000 at {percent} %");
    }
    assert!((0..10_000).all(|unit| !holds(0, unit) && holds(100, unit)));
}

#[test]
fn another_candidate_has_another_cohort() {
    let both = |unit: &u64| {
        is_in_cohort("5f0c5f0c5f0c", 5, *unit) && is_in_cohort("0123456789ab", 5, *unit)
    };
    let both = (0..10_000).filter(both).count();
    assert!(both < 100, "{both} of 10000 are in both");
}
