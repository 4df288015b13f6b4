use super::*;

#[test]
fn sessions_are_visited_each_millisecond_while_packets_wait() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let home = |slot| Home { worker: 0, slot, generation: 1 };
    let mut paced = PacedSessions::new(start);
    assert_eq!((paced.due(), paced.is_empty()), (None, true));
    paced.add(home(1), at(10));
    paced.add(home(2), at(10));
    assert_eq!((paced.due(), paced.is_empty()), (Some(at(11)), false));
    assert_eq!(paced.begin(at(10)), 0, "not yet");
    assert_eq!(paced.begin(at(11)), 2);
    assert_eq!(paced.pop(), Some(home(1)));
    assert_eq!(paced.pop(), Some(home(2)));
    paced.add(home(2), at(11));
    assert_eq!((paced.due(), paced.begin(at(12))), (Some(at(12)), 1));
}
