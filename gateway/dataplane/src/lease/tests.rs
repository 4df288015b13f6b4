use super::*;

#[test]
fn lease_lasts_until_its_end() {
    let lease = SendLease::forever();
    let now = Instant::now();
    assert!(lease.is_held(now + Duration::from_secs(1 << 40)) && lease.is_held_now());
    let until = now + Duration::from_secs(3_600);
    lease.renew(until);
    assert!(lease.is_held(until - Duration::from_nanos(1)) && lease.is_held_now());
    assert!(!lease.is_held(until));
    lease.renew(now);
    assert!(!lease.is_held_now());
    lease.renew(until);
    lease.end();
    assert!(!lease.is_held(now) && !lease.is_held_now());
    lease.renew_forever();
    assert!(lease.is_held(until) && lease.is_held_now());
}

#[test]
fn permit_notes_held_packets_until_the_next_pass() {
    let lease = Arc::new(SendLease::forever());
    let permit = Permit::new(Arc::clone(&lease));
    assert!(permit.may_send() && !permit.has_held_back());
    lease.end();
    assert!(!permit.may_send() && permit.has_held_back());
    permit.begin_pass();
    assert!(!permit.has_held_back());
}
