use super::*;

#[test]
fn call_has_its_whole_budget_at_any_tick_phase() {
    assert_eq!(ticks(Duration::ZERO), 1);
    assert_eq!(ticks(Duration::from_micros(1)), 2);
    assert_eq!(ticks(Duration::from_millis(5)), 6);
    assert_eq!(ticks(Duration::from_micros(5_001)), 7);
    assert!(ticks(Duration::MAX) <= u64::MAX >> 1);
}
