//! Feedback that lies: of a sender of 1,000 kbit/s, the estimate may be 1,500.

use fastrand::Rng;

use super::*;

const PACKET_US: i64 = 10_000;
const PACKETS: u16 = 10;
const MOST_KBPS: u32 = 1_500;

/// Sends 10 packets each 100 ms for 30 s, to a receiver that tells such arrivals of them, by their index and the times of their sending, in units of
/// 250 µs. Returns the highest estimate.
fn highest(mut lie: impl FnMut(u16, &[i64]) -> (u16, Vec<Option<i64>>)) -> Option<u32> {
    let mut estimate = RateEstimate::new();
    let mut highest = None;
    for turn in 0..300_u16 {
        let first = turn * PACKETS;
        let sent_us: Vec<i64> =
            (first..first + PACKETS).map(|number| i64::from(number) * PACKET_US).collect();
        for (number, &us) in (first..).zip(&sent_us) {
            estimate.note_sent(number, 1_250, at_us(us));
        }
        let now = at_us(i64::from(first + PACKETS) * PACKET_US + 40_000);
        let sent: Vec<i64> = sent_us.iter().map(|us| us / 250).collect();
        let (base, arrivals) = lie(first, &sent);
        let mut packet = Vec::new();
        write_transport_feedback(1, 2, base, 0, &arrivals, &mut packet);
        estimate.note_feedback(&TransportFeedback::parse(&packet).unwrap(), now);
        highest = highest.max(estimate.kbps(now));
    }
    highest
}

#[test]
fn honest_feedback_has_the_highest_estimate() {
    let kbps = highest(|first, sent| (first, sent.iter().map(|at| Some(at + 80)).collect()));
    assert_eq!(kbps, Some(MOST_KBPS));
}

#[test]
fn numbers_never_sent_tell_nothing() {
    let kbps =
        highest(|first, sent| (first + 20_000, sent.iter().map(|at| Some(at + 80)).collect()));
    assert_eq!(kbps, None);
}

#[test]
fn arrivals_faster_than_sending_raise_nothing() {
    // All packets of a feedback came at once, or each within 250 µs of the one before.
    let kbps = highest(|first, sent| (first, vec![Some(sent[0] + 80); sent.len()]));
    assert!(kbps <= Some(MOST_KBPS), "{kbps:?}");
    let kbps = highest(|first, sent| {
        (first, (0..).zip(sent).map(|(i, _)| Some(i64::from(first) + i)).collect())
    });
    assert!(kbps <= Some(MOST_KBPS), "{kbps:?}");
}

#[test]
fn times_that_run_backwards_raise_nothing() {
    let kbps = highest(|first, sent| (first, sent.iter().map(|at| Some(1_000_000 - at)).collect()));
    assert!(kbps <= Some(MOST_KBPS), "{kbps:?}");
}

#[test]
fn repeated_feedback_counts_once() {
    let mut again = Vec::new();
    let kbps = highest(|first, sent| {
        again.extend(sent.iter().map(|at| Some(at + 80)));
        let kept = again.len().min(1_000);
        (first + PACKETS - kept as u16, again[again.len() - kept..].to_vec())
    });
    assert_eq!(kbps, Some(MOST_KBPS));
}

#[test]
fn random_lies_raise_nothing() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let kbps = highest(|first, sent| {
            let base = first.wrapping_sub(rng.u16(..200)).wrapping_add(rng.u16(..20));
            let is_own_clock = seed % 2 == 0 || rng.u8(..50) > 0;
            let mut at = if is_own_clock { sent[0] + rng.i64(0..400) } else { rng.i64(0..1 << 31) };
            let count = rng.usize(1..400);
            let arrivals = (0..count).map(|_| {
                at += rng.i64(-300..300);
                (rng.u8(..3) > 0).then_some(at)
            });
            (base, arrivals.collect())
        });
        assert!(kbps <= Some(MOST_KBPS), "seed {seed}: {kbps:?}");
    }
}
