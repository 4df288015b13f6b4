use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn oldest_change_is_that_of_the_first_batch_without_confirmation() {
    let start = Instant::now();
    let mut batches = UnconfirmedBatches::new(start);
    assert_eq!(batches.oldest(), Some(start), "no standby was there yet");
    batches.handle_confirmed(0);
    assert_eq!(batches.oldest(), None);
    for number in 1..=3 {
        batches.handle_sent(number, start + SECOND * number as u32);
    }
    assert_eq!(batches.oldest(), Some(start + SECOND));
    batches.handle_confirmed(2);
    assert_eq!(batches.oldest(), Some(start + SECOND * 3));
    batches.handle_confirmed(3);
    assert_eq!(batches.oldest(), None);
}

#[test]
fn changes_stay_unconfirmed_without_a_standby() {
    let start = Instant::now();
    let mut batches = UnconfirmedBatches::new(start);
    batches.handle_disconnected(start + SECOND);
    assert_eq!(batches.oldest(), Some(start));
    // Batches of the next standby count from 1.
    batches.handle_sent(1, start + SECOND * 2);
    assert_eq!(batches.oldest(), Some(start));
    batches.handle_confirmed(1);
    assert_eq!(batches.oldest(), None);
    batches.handle_disconnected(start);
    batches.clear();
    assert_eq!(batches.oldest(), None);
}
