use super::*;

#[test]
fn beyond_the_limit_the_oldest_session_is_dropped_whole() {
    let mut held = HeldSpans::default();
    for (session, spans) in [(1, 1), (2, 1), (1, 4), (3, HELD_MAX - 6)] {
        held.hold(SessionId(session), spans, spans);
    }
    assert_eq!(held.spans, HELD_MAX, "full");
    held.hold(SessionId(4), 2, 2);
    assert_eq!(held.spans, HELD_MAX - 3, "all spans of the first one are gone");
    let mut taken = |session| held.take(SessionId(session)).collect::<Vec<_>>();
    assert_eq!([1, 2, 3, 4].map(&mut taken), [vec![], vec![1], vec![HELD_MAX - 6], vec![2]]);
    assert_eq!((held.spans, held.sessions.len()), (0, 0));
}

#[test]
fn spans_are_taken_in_the_order_of_their_events() {
    let mut held = HeldSpans::default();
    ["opening", "move"].into_iter().for_each(|writer| held.hold(SessionId(1), 1, writer));
    assert_eq!(held.take(SessionId(1)).collect::<Vec<_>>(), ["opening", "move"]);
}
