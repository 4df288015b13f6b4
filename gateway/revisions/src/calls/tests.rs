use super::*;

#[test]
fn five_faults_in_ten_seconds_are_tolerated() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for _ in 0..5 {
        assert!(!faults.count(now, true));
    }
    assert!(faults.count(now, true));
    assert!(!faults.count(now, false), "a call without a fault rolls nothing back");
}

#[test]
fn old_faults_are_forgotten() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for _ in 0..5 {
        faults.count(now, true);
    }
    assert!(!faults.count(now + WINDOW + Duration::from_millis(1), true));
}

#[test]
fn one_fault_in_a_thousand_calls_is_tolerated() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for _ in 0..10_000 {
        faults.count(now, false);
    }
    let rolled = (1..=12).find(|_| faults.count(now, true));
    assert_eq!(rolled, Some(11));
}

#[test]
fn calls_are_counted_by_the_second() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for call in 0..30_000 {
        faults.count(now + Duration::from_millis(call), false);
    }
    assert!(faults.buckets.len() <= 11, "{}", faults.buckets.len());
}

#[test]
fn rare_faults_for_long_enough_are_good() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    assert!(faults.is_good(now));
    faults.count(now, true);
    assert!(!faults.is_good(now + Duration::from_secs(9)));
    faults.count(now + Duration::from_secs(9), true);
    assert!(faults.is_good(now + Duration::from_secs(10)));
    for _ in 0..6 {
        faults.count(now + Duration::from_secs(10), true);
    }
    assert!(!faults.is_good(now + Duration::from_secs(15)));
}
