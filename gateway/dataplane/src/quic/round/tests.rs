use super::*;

const EVERY: Duration = Duration::from_millis(100);

fn homes(count: u32) -> impl Iterator<Item = Home> {
    (0..count).map(|slot| Home { worker: 0, slot, generation: 1 })
}

#[test]
fn each_session_is_reported_once_per_round() {
    let start = Instant::now();
    let mut round = Round::new(EVERY, start);
    for number in 1..=3 {
        assert!(round.is_over());
        assert_eq!(round.due(), start + EVERY * number);
        round.begin(homes(1_000), round.due());
        let mut seen = Vec::new();
        while !round.is_over() {
            assert!(round.due() < start + EVERY * (number + 1));
            let (due, share) = (round.due(), round.share().to_vec());
            assert!((1..=128).contains(&share.len()));
            assert!(round.due() >= due + EVERY / 8);
            seen.extend(share);
        }
        assert_eq!(seen, homes(1_000).collect::<Vec<_>>());
    }
}

#[test]
fn empty_round_waits_and_missed_rounds_are_skipped() {
    let start = Instant::now();
    let mut round = Round::new(EVERY, start);
    round.begin(homes(0), round.due());
    assert!(round.is_over() && round.share().is_empty());
    assert_eq!(round.due(), start + EVERY * 2);
    let late = start + EVERY * 50;
    round.begin(homes(3), late);
    assert_eq!(round.share().len(), 3);
    assert_eq!(round.due(), late + EVERY);
}
