use super::*;

#[test]
fn reduced_sessions_are_due_after_their_time() {
    let now = Instant::now();
    let ms = Duration::from_millis;
    let mut reduced = ReducedSessions::default();
    reduced.set(SessionId(1), Some(now));
    reduced.set(SessionId(2), Some(now + ms(5)));
    reduced.set(SessionId(3), Some(now));
    reduced.set(SessionId(3), None);
    assert_eq!(reduced.next_due(now + ms(7_999)), []);
    assert_eq!(reduced.next_due(now + ms(8_000)), [SessionId(1)]);
    assert_eq!(reduced.len(), 2);
}

#[test]
fn share_is_raised_by_one_step() {
    assert_eq!([raised(0), raised(1), raised(500), raised(999)], [500, 500, WHOLE, WHOLE]);
}
