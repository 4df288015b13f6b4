use super::*;

#[test]
fn spread_is_min_median_and_p99() {
    assert_eq!(TimeSpread::of(vec![]), TimeSpread::default());
    assert_eq!(TimeSpread::of(vec![7]), TimeSpread { min: 7, median: 7, p99: 7 });
    let many = (1..=100).rev().collect();
    assert_eq!(TimeSpread::of(many), TimeSpread { min: 1, median: 50, p99: 99 });
    assert_eq!(TimeSpread::of((1..=101).collect()), TimeSpread { min: 1, median: 51, p99: 100 });
}
