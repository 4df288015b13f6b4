use super::*;

#[test]
fn stolen_is_a_share_of_the_used_time() {
    let before = ProcessorTime { used: 1_360, stolen: 10, idle: 9_050 };
    let after = ProcessorTime { used: 1_460, stolen: 20, idle: 9_970 };
    assert_eq!(stolen_percent(before, after), 10.0);
    assert_eq!(stolen_percent(before, before), 0.0);
}

#[test]
fn machine_is_late_by_either() {
    let of = |p99, stolen_percent| Timeliness {
        woken_late_ms: GapSpread { p50: 0.1, p99, max: p99 },
        stolen_percent,
    };
    assert!(!of(2.0, 2.0).is_late());
    assert!(of(2.1, 0.0).is_late() && of(0.1, 2.1).is_late());
}
