use super::super::tests::start;
use super::*;

fn ms(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn copies_hold_as_long_as_echoes_come() {
    let (start, mut proof) = (start(), CopyProof::default());
    assert!(!proof.receive(1, 0, start), "the owner has received nothing");
    assert_eq!(proof.holds_until(start), None);
    assert!(proof.receive(2, 1, ms(start, 100)));
    assert_eq!(proof.holds_until(start), None, "it came before the proof");
    assert_eq!(proof.holds_until(ms(start, 100)), Some(ms(start, 1_800)));
    assert!(proof.receive(3, 2, ms(start, 1_799)));
    assert_eq!(proof.holds_until(ms(start, 100)), Some(ms(start, 1_900)));
}

#[test]
fn copies_before_a_gap_of_the_proof_do_not_hold() {
    let (start, mut proof) = (start(), CopyProof::default());
    proof.receive(1, 0, start);
    proof.receive(2, 1, start);
    // Batch 3 is acknowledged at 1,900 ms, when the proof has ended.
    assert!(!proof.receive(3, 2, ms(start, 1_900)), "the echo is too old");
    assert!(proof.receive(4, 3, ms(start, 2_000)));
    assert_eq!(proof.holds_until(start), None);
    assert_eq!(proof.holds_until(ms(start, 1_900)), None);
    assert_eq!(proof.holds_until(ms(start, 2_000)), Some(ms(start, 3_700)));
}

#[test]
fn echo_of_older_copies_takes_nothing_back() {
    let (start, mut proof) = (start(), CopyProof::default());
    proof.receive(1, 0, start);
    proof.receive(2, 1, ms(start, 100));
    assert!(proof.receive(3, 2, ms(start, 200)));
    assert!(proof.receive(4, 1, ms(start, 300)), "copies that were made before");
    assert_eq!(proof.holds_until(ms(start, 300)), Some(ms(start, 1_900)));
}

#[test]
fn unknown_echo_proves_nothing() {
    let (start, mut proof) = (start(), CopyProof::default());
    proof.receive(1, 0, start);
    assert!(!proof.receive(2, 5_000, start));
    assert_eq!(proof.holds_until(start), None);
}
