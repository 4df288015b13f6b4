use super::*;

#[test]
fn pauses_grow_from_100_ms_to_30_s_with_jitter() {
    let mut restarts = Restarts::new(7);
    assert!(restarts.is_due(0), "the first restart is immediate");
    let pauses: Vec<Duration> = (0..12).map(|_| restarts.note_failed(0)).collect();
    for (tries, pause) in pauses.iter().enumerate() {
        let most = Duration::from_millis(100 << tries).min(Duration::from_secs(30));
        assert!(*pause <= most && *pause >= most * 3 / 4, "{pause:?} of {most:?}");
    }
    let mut other = Restarts::new(8);
    let others: Vec<Duration> = (0..12).map(|_| other.note_failed(0)).collect();
    assert_ne!(pauses, others, "pauses have jitter");
}

#[test]
fn restart_waits_for_its_pause() {
    let mut restarts = Restarts::new(7);
    let pause = restarts.note_failed(1_000).as_micros() as u64;
    assert!(!restarts.is_due(1_000 + pause - 1));
    assert!(restarts.is_due(1_000 + pause));
    restarts.note_failed(1_000 + pause);
    assert!(!restarts.is_due(1_000 + pause));
    restarts.hurry();
    assert!(restarts.is_due(1_000 + pause));
}

#[test]
fn third_failure_in_a_row_gives_up() {
    let mut restarts = Restarts::new(7);
    restarts.note_failed(0);
    restarts.note_failed(0);
    assert!(!restarts.is_hopeless());
    restarts.note_started();
    restarts.note_failed(0);
    restarts.note_failed(0);
    assert!(!restarts.is_hopeless(), "a success resets the count");
    restarts.note_failed(0);
    assert!(restarts.is_hopeless());
}
