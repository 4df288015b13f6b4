use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn oldest_change_is_that_of_the_first_batch_without_confirmation() {
    let start = Instant::now();
    let mut batches = UnconfirmedBatches::new(start);
    assert_eq!(batches.oldest(), Some(start), "no standby was there yet");
    batches.handle_sent(1, true, start);
    batches.handle_confirmed(1);
    assert_eq!(batches.oldest(), None);
    for number in 2..=4 {
        batches.handle_sent(number, true, start + SECOND * number as u32);
    }
    assert_eq!(batches.oldest(), Some(start + SECOND * 2));
    batches.handle_confirmed(3);
    assert_eq!(batches.oldest(), Some(start + SECOND * 4));
    batches.handle_confirmed(4);
    assert_eq!(batches.oldest(), None);
}

#[test]
fn changes_stay_unconfirmed_without_a_standby() {
    let start = Instant::now();
    let mut batches = UnconfirmedBatches::new(start);
    batches.handle_disconnected(start + SECOND);
    assert_eq!(batches.oldest(), Some(start));
    // Batches of the next standby count from 1.
    batches.handle_sent(1, false, start + SECOND * 2);
    batches.handle_confirmed(1);
    assert_eq!(batches.oldest(), Some(start), "a part of the records");
    batches.handle_sent(2, true, start + SECOND * 3);
    assert_eq!(batches.oldest(), Some(start));
    batches.handle_confirmed(2);
    assert_eq!(batches.oldest(), None);
    batches.handle_disconnected(start);
    batches.clear();
    assert_eq!(batches.oldest(), None);
}

#[test]
fn acknowledgement_is_that_of_the_oldest_batch_with_its_number() {
    let mut sent = SentBatches::default();
    for (follower, number) in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)] {
        sent.note(SentBatch { follower, number, copies: Vec::new() });
    }
    let mut take = |number| sent.take_acknowledged(number).map(|it| (it.follower, it.number));
    assert_eq!(take(2), Some((1, 2)), "the peer has the one before");
    assert_eq!(take(9), None);
    assert_eq!(take(1), Some((2, 1)));
    assert_eq!(take(3), Some((2, 3)));
    assert_eq!(take(3), None);
}
