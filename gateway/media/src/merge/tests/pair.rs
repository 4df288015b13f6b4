use super::*;

const A: u8 = 0;
const B: u8 = 1;
const C: u8 = 2;

fn send(pair: &mut HopPair<u8>, from: u8, sequence: u16) -> MergeOutcome {
    *pair = handed_over(pair);
    let fields = rtp::Fields { payload_type: 0, marker: false, sequence, timestamp: 0, ssrc: 7 };
    let mut packet = Vec::new();
    rtp::write(&fields, &sequence.to_be_bytes(), &mut packet);
    pair.take(from, &rtp::RtpHeader::parse(&packet).unwrap(), &packet)
}

/// Creates a pair of A and B; A leads, and B may have proved to deliver copies.
fn pair(proven: bool) -> Option<Box<HopPair<u8>>> {
    let mut pair = None;
    assert_eq!(HopPair::settle(&mut pair, None, (A, Some(B)), true), Settled::Begins);
    let both = pair.as_deref_mut().unwrap();
    for sequence in 0..if proven { 10 } else { 2 } {
        send(both, A, sequence);
        send(both, B, sequence);
    }
    pair
}

fn hops(pair: &Option<Box<HopPair<u8>>>) -> Option<[u8; 2]> {
    pair.as_deref().map(HopPair::hops)
}

#[test]
fn hop_heard_by_the_client_leads() {
    let mut pair = pair(true);
    for (from, other) in [(A, B), (B, A)] {
        let settled = HopPair::settle(&mut pair, Some(A), (from, Some(other)), true);
        assert_eq!((settled, hops(&pair)), (Settled::Same, Some([A, B])));
    }
}

#[test]
fn twin_leads_after_leader_is_gone() {
    let mut pair = pair(true);
    assert_eq!(HopPair::settle(&mut pair, Some(A), (B, None), true), Settled::Turned(B));
    assert_eq!(pair.as_deref().unwrap().leads(), B);
    assert_eq!(send(pair.as_deref_mut().unwrap(), B, 9), MergeOutcome::Again);
    assert_eq!(send(pair.as_deref_mut().unwrap(), B, 10), MergeOutcome::First);
    // The next twin must prove itself.
    assert_eq!(HopPair::settle(&mut pair, Some(B), (C, Some(B)), true), Settled::Same);
    assert_eq!(hops(&pair), Some([B, C]));
    assert_eq!(send(pair.as_deref_mut().unwrap(), C, 11), MergeOutcome::Unproven);
}

#[test]
fn twin_leads_even_if_a_new_hop_sends_first() {
    let mut pair = pair(true);
    assert_eq!(HopPair::settle(&mut pair, Some(A), (C, Some(B)), true), Settled::Turned(B));
    assert_eq!(hops(&pair), Some([B, C]));
}

#[test]
fn unproven_twin_begins_like_any_hop() {
    let mut pair = pair(false);
    assert_eq!(HopPair::settle(&mut pair, Some(A), (B, Some(C)), true), Settled::Begins);
    assert_eq!(hops(&pair), Some([B, C]));
}

#[test]
fn dead_twin_changes_nothing_until_replaced() {
    let mut pair = pair(true);
    assert_eq!(HopPair::settle(&mut pair, Some(A), (A, None), true), Settled::Same);
    assert_eq!(hops(&pair), Some([A, B]));
    assert_eq!(HopPair::settle(&mut pair, Some(A), (A, Some(C)), true), Settled::Same);
    assert_eq!(hops(&pair), Some([A, C]));
}

#[test]
fn single_hop_is_no_pair() {
    let mut pair = pair(true);
    assert_eq!(HopPair::settle(&mut pair, Some(A), (A, None), false), Settled::Same);
    assert!(pair.is_none());
}

#[test]
fn difference_is_reported_each_second_and_per_twin() {
    #[expect(clippy::disallowed_methods, reason = "only distances count")]
    let begin = Instant::now();
    let at = |ms| begin + Duration::from_millis(ms);
    let mut pair = pair(false);
    let told = pair.as_deref_mut().unwrap();
    assert_eq!(
        [0, 1, 999, 1_000, 1_500, 2_000].map(|ms| told.tells(at(ms))),
        [true, false, false, true, false, true]
    );
    HopPair::settle(&mut pair, Some(A), (A, Some(C)), true);
    assert!(pair.as_deref_mut().unwrap().tells(at(2_001)));
}

#[test]
fn pair_is_renamed_or_ends_with_a_hop() {
    let both = *pair(true).unwrap();
    let mut renamed = both.clone().map(|hop| Some(hop + 10)).unwrap();
    assert_eq!(renamed.hops(), [A + 10, B + 10]);
    assert_eq!(send(&mut renamed, B + 10, 10), MergeOutcome::First, "still proven");
    assert!(both.map(|hop| (hop == A).then_some(hop)).is_none());
}
