use super::*;

#[test]
fn lease_lasts_until_its_end() {
    let lease = SendLease::forever();
    let now = Instant::now();
    let is_held_now = || lease.is_held(Instant::now);
    assert!(lease.is_held(|| now + Duration::from_secs(1 << 40)) && is_held_now());
    let until = now + Duration::from_secs(3_600);
    lease.renew(until);
    assert!(lease.is_held(|| until - Duration::from_nanos(1)) && is_held_now());
    assert!(!lease.is_held(|| until));
    lease.renew(now);
    assert!(!is_held_now());
    lease.renew(until);
    lease.end();
    assert!(!lease.is_held(|| now) && !is_held_now());
    lease.renew_forever();
    assert!(lease.is_held(|| until) && is_held_now());
}
