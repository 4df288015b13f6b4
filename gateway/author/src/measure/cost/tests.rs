use super::*;

#[test]
fn declared_cost_is_inclusive() {
    let of = |found| Exceeded::of("tick", 100, found, Some(32_000));
    assert_eq!(of(32_000), None);
    let broken = Exceeded { call: "tick", rows: 100, found: 32_001, promised: 32_000 };
    assert_eq!(of(32_001), Some(broken));
    assert_eq!(Exceeded::of("open", 100, u64::MAX, None), None);
}
