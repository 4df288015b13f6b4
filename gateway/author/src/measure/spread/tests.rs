use super::*;

#[test]
fn spread_is_min_median_and_p99() {
    assert_eq!(Spread::of(vec![]), Spread::default());
    assert_eq!(Spread::of(vec![7]), Spread { min: 7, median: 7, p99: 7 });
    let many = (1..=100).rev().collect();
    assert_eq!(Spread::of(many), Spread { min: 1, median: 50, p99: 99 });
    assert_eq!(Spread::of((1..=101).collect()), Spread { min: 1, median: 51, p99: 100 });
}
