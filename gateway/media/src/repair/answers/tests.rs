use super::*;
use crate::repair::tests::{at, timing};

const LENGTH: usize = 100;

/// A packet that was sent at this time, and again at another one.
fn packet(ms: u64, answered_ms: Option<u64>) -> CachedPacket<'static> {
    let answered = answered_ms.map(at);
    CachedPacket { ssrc: 7, sequence: 1, at: at(ms), answered, packet: &[0; LENGTH] }
}

/// A stream that has sent a packet each 10 ms for a second.
fn answers() -> Answers {
    let mut answers = Answers::default();
    (0..100).for_each(|number| answers.note_sent(LENGTH, at(10 * number)));
    answers
}

#[test]
fn packet_is_sent_again_once_per_round_trip() {
    let mut answers = answers();
    let timing = timing(40, 500);
    assert_eq!(answers.copies(&packet(980, None), timing, at(990)), 1);
    assert_eq!(answers.copies(&packet(980, Some(990)), timing, at(1_019)), 0);
    // The client's round trip is shorter than the measured one.
    assert_eq!(answers.copies(&packet(980, Some(990)), timing, at(1_020)), 1);
}

#[test]
fn request_that_is_older_than_the_packet_is_not_answered() {
    let mut answers = answers();
    let timing = PathTiming { is_measured: true, ..timing(40, 500) };
    assert_eq!(answers.copies(&packet(980, None), timing, at(1_009)), 0);
    assert_eq!(answers.copies(&packet(980, None), timing, at(1_010)), 1);
}

#[test]
fn last_round_that_fits_is_sent_twice() {
    let mut answers = answers();
    let timing = timing(40, 120);
    for (age, copies) in [(60, 1), (80, 1), (81, 2), (120, 2), (121, 1), (160, 1)] {
        assert_eq!(answers.copies(&packet(900, None), timing, at(900 + age)), copies, "{age}");
    }
}

#[test]
fn request_that_may_have_crossed_an_answer_is_answered_once() {
    let mut answers = answers();
    let timing = timing(40, 120);
    assert_eq!(answers.copies(&packet(900, Some(940)), timing, at(989)), 1);
    assert_eq!(answers.copies(&packet(900, Some(940)), timing, at(990)), 2);
}

#[test]
fn quarter_of_the_last_second_is_sent_again() {
    let mut answers = answers();
    let timing = timing(40, 500);
    let mut count = |ms, times: u32| -> u32 {
        (0..times).map(|_| answers.copies(&packet(ms - 10, None), timing, at(ms))).sum()
    };
    assert_eq!(count(990, 1_000), 25);
    assert_eq!(count(991, 1_000), 0);
    // After two seconds without packets one is sent again.
    assert_eq!(count(3_000, 1_000), 1);
}

#[test]
fn second_copy_is_within_the_limit_too() {
    let mut answers = Answers::default();
    (0..12).for_each(|_| answers.note_sent(LENGTH, at(0)));
    let timing = timing(40, 20);
    let copies = [(); 3].map(|()| answers.copies(&packet(0, None), timing, at(10)));
    assert_eq!(copies, [2, 1, 0]);
}

#[test]
fn stream_that_begins_is_repaired() {
    let mut answers = Answers::default();
    answers.note_sent(LENGTH, at(0));
    assert_eq!(answers.copies(&packet(0, None), timing(40, 500), at(50)), 1);
    assert_eq!(answers.copies(&packet(0, None), timing(40, 500), at(60)), 0);
}

#[test]
fn sum_forgets_what_is_older_than_a_second() {
    let mut sum = LastSecond::default();
    sum.add(5, at(0));
    sum.add(7, at(950));
    assert_eq!(sum.sum(at(999)), 12);
    assert_eq!(sum.sum(at(1_000)), 7);
    assert_eq!(sum.sum(at(1_899)), 7);
    assert_eq!(sum.sum(at(1_900)), 0);
    sum.add(1, at(100_000));
    assert_eq!(sum.sum(at(100_050)), 1);
}
