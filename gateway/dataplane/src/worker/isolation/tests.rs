use super::*;

#[test]
fn ninth_panic_within_a_minute_is_fatal() {
    let (start, mut panics) = (Instant::now(), PanicBudget::default());
    let at = |second| start + Duration::from_secs(second);
    assert!((0..8).all(|second| panics.allows(None, at(second))));
    assert!(!panics.allows(None, at(59)));
    let mut panics = PanicBudget::default();
    assert!((0..8).all(|second| panics.allows(None, at(second))));
    assert!(panics.allows(None, at(60)), "the first counts no more");
    assert!(!panics.allows(None, at(60)));
}

#[test]
fn same_client_counts_once() {
    let (now, mut panics) = (Instant::now(), PanicBudget::default());
    let client = |number| Some(IpAddr::from([192, 0, 2, number]));
    assert!((0..100).all(|_| panics.allows(client(1), now)));
    assert!((2..=8).all(|number| panics.allows(client(number), now)));
    assert!(!panics.allows(client(9), now));
}
