use super::*;

#[test]
fn five_faults_in_ten_seconds_are_tolerated() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for _ in 0..5 {
        faults.count(now, true);
    }
    assert!(!faults.has_too_many(now));
    faults.count(now, true);
    assert!(faults.has_too_many(now));
}

#[test]
fn call_without_a_fault_rolls_nothing_back() {
    let now = Instant::now();
    let mut calls = CallRecord::new(now);
    let faulted = |fault| PolicyCallResult { answered: false, fault, beyond_repair: false };
    let call = faulted(Some(PluginFault::Deadline));
    let reasons = (0..6).filter_map(|_| calls.note_active(&call, now)).count();
    assert_eq!(reasons, 1);
    assert_eq!(calls.note_active(&faulted(None), now), None);
    assert!(calls.note_candidate(&call, 0, now).is_some());
    assert_eq!(calls.note_candidate(&faulted(None), 0, now), None);
}

#[test]
fn candidate_may_fault_as_often_as_allowed() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    (0..998).for_each(|_| faults.count(now, false));
    faults.count(now, true);
    assert!(faults.exceeds(0, now) && faults.exceeds(1, now), "one of 999");
    faults.count(now, false);
    assert!(faults.exceeds(0, now) && !faults.exceeds(1, now));
}

#[test]
fn old_faults_are_forgotten() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for _ in 0..5 {
        faults.count(now, true);
    }
    let later = now + WINDOW + Duration::from_millis(1);
    faults.count(later, true);
    assert!(!faults.has_too_many(later));
}

#[test]
fn one_fault_in_a_thousand_calls_is_tolerated() {
    let now = Instant::now();
    let mut faults = FaultWindow::new(now);
    for _ in 0..10_000 {
        faults.count(now, false);
    }
    let rolled = (1..=12).find(|_| {
        faults.count(now, true);
        faults.has_too_many(now)
    });
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
