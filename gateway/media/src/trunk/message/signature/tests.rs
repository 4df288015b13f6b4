use super::*;

const NOW_US: u64 = 1_000_000_000;

fn message(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

#[test]
fn replay_is_refused_within_the_window() {
    let mut replays = Replays::default();
    assert_eq!(replays.note(&message(1), NOW_US, NOW_US), Ok(()));
    for later_us in [0, 1, SKEW_MAX_US] {
        let copy = replays.note(&message(1), NOW_US, NOW_US + later_us);
        assert_eq!(copy, Err(MessageError::Replayed));
    }
    assert_eq!(
        replays.note(&message(2), NOW_US, NOW_US),
        Ok(()),
        "another message of the same time"
    );
    assert_eq!(replays.note(&message(1), NOW_US + 1, NOW_US), Ok(()), "the same, signed anew");
}

#[test]
fn expired_messages_are_not_remembered() {
    let mut replays = Replays::default();
    for number in 0..100 {
        replays.note(&message(number), NOW_US + number, NOW_US).unwrap();
    }
    replays.note(&message(100), NOW_US + 100, NOW_US + 90 + SKEW_MAX_US).unwrap();
    assert_eq!(replays.seen.len(), 11);
}

#[test]
fn messages_as_old_as_evicted_ones_are_refused() {
    let mut replays = Replays::default();
    let many = REPLAYS_MAX as u64 + 3;
    for number in 0..many {
        replays.note(&message(number), NOW_US + number, NOW_US).unwrap();
    }
    assert_eq!(replays.seen.len(), REPLAYS_MAX);
    for number in 0..many {
        let copy = replays.note(&message(number), NOW_US + number, NOW_US);
        assert_eq!(copy, Err(MessageError::Replayed), "{number}");
    }
}

#[test]
fn message_older_than_the_process_is_refused() {
    let mut replays = Replays::since(NOW_US);
    let older = replays.note(&message(1), NOW_US - 1, NOW_US + 2);
    assert_eq!(older, Err(MessageError::Replayed), "the process before may have accepted it");
    assert_eq!(replays.note(&message(2), NOW_US, NOW_US + 2), Ok(()));
}
