use super::*;
use crate::rtcp::RtcpError;
use evenkeel_fuzz::Corpus;
use fastrand::Rng;

/// Feedback of sender 1 about source 2, the seventh packet of its receiver. `rest` is the chunks and deltas.
fn packet(base: u16, statuses: u16, reference: u32, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    out.extend_from_slice(&base.to_be_bytes());
    out.extend_from_slice(&statuses.to_be_bytes());
    out.extend_from_slice(&(reference << 8 | 7).to_be_bytes());
    out.extend_from_slice(rest);
    out.resize(out.len().next_multiple_of(4), 0);
    out[3] = (out.len() / 4 - 1) as u8;
    out
}

fn arrivals(packet: &[u8]) -> Vec<(u16, Option<i64>)> {
    TransportFeedback::parse(packet).unwrap().arrivals().collect()
}

fn written(base: u16, times: &[Option<i64>]) -> Vec<u8> {
    let mut out = Vec::new();
    write_transport_feedback(1, 2, base, 7, times, &mut out);
    out
}

/// A run of two small deltas, a run of three lost packets, the one-bit symbols 1, 0, 1 and eleven zeros, and the two-bit symbols
/// 2, 0, 1. The numbers wrap.
fn all_chunks() -> Vec<u8> {
    let chunks = [0x20, 0x02, 0x00, 0x03, 0b1010_1000, 0, 0b1110_0001, 0];
    let deltas = [4, 8, 1, 6, 0xff, 0xfe, 3];
    packet(65_534, 2 + 3 + 14 + 3, 9, &[&chunks[..], &deltas].concat())
}

#[test]
fn all_chunks_are_read() {
    let bytes = all_chunks();
    let feedback = TransportFeedback::parse(&bytes).unwrap();
    assert_eq!((feedback.sender, feedback.media), (1, 2));
    assert_eq!((feedback.base, feedback.reference), (65_534, 9));
    let read = arrivals(&bytes);
    assert!(read.iter().map(|&(number, _)| number).eq((0..22).map(|n| 65_534_u16.wrapping_add(n))));
    let received: Vec<_> = read.iter().filter_map(|&(number, at)| Some((number, at?))).collect();
    assert_eq!(received, [(65_534, 4), (65_535, 12), (3, 13), (5, 19), (17, 17), (19, 20)]);
}

#[test]
fn symbols_beyond_the_count_are_none() {
    assert_eq!(arrivals(&packet(1, 2, 0, &[0x3f, 0xff, 5, 6])), [(1, Some(5)), (2, Some(11))]);
    assert_eq!(arrivals(&packet(1, 1, 0, &[0xbf, 0xff, 5])), [(1, Some(5))]);
    assert!(arrivals(&packet(1, 0, 0, &[])).is_empty());
}

#[test]
fn empty_runs_have_no_packets() {
    assert_eq!(arrivals(&packet(1, 1, 0, &[0x20, 0, 0x20, 1, 5])), [(1, Some(5))]);
}

#[test]
fn short_or_reserved_feedback_is_refused() {
    // Five bytes of padding leave one byte of the delta.
    let mut half = packet(1, 1, 0, &[0x40, 1, 9, 0, 0, 0, 0, 5]);
    half[0] |= 0x20;
    let cases = [
        ("no chunk", packet(1, 1, 0, &[])),
        ("chunks for 14 of 15", packet(1, 15, 0, &[0x80, 0])),
        ("two of three small deltas", packet(1, 3, 0, &[0x20, 3, 4, 4])),
        ("half a large delta", half),
        ("reserved run", packet(1, 1, 0, &[0x60, 1, 0, 0])),
        ("reserved symbol", packet(1, 1, 0, &[0xf0, 0, 0, 0])),
    ];
    for (case, bytes) in cases {
        let error = TransportFeedback::parse(&bytes).map(|_| ()).unwrap_err();
        assert_eq!(error, RtcpError::Body(205), "{case}");
    }
    let short = [0x8f, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];
    assert_eq!(TransportFeedback::parse(&short).map(|_| ()), Err(RtcpError::Body(205)));
    let nack = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];
    assert!(TransportFeedback::parse(&nack).is_err());
}

#[test]
fn written_feedback_is_that_of_the_draft() {
    // 4 and 296 units after 9 times 64 ms: a small delta and a large one of 292.
    let times = [Some(9 * 256 + 4), None, Some(9 * 256 + 296)];
    assert_eq!(written(5, &times), packet(5, 3, 9, &[0b1101_0010, 0, 4, 0x01, 0x24]));
}

#[test]
fn written_feedback_is_read_back() {
    let mut rng = Rng::with_seed(66);
    for _ in 0..500 {
        let (base, mut at) = (rng.u16(..), rng.i64(1 << 28..1 << 30));
        let times: Vec<Option<i64>> = (0..rng.usize(1..200))
            .map(|_| {
                if rng.u8(..4) == 0 {
                    return None;
                }
                at += if rng.bool() { rng.i64(0..256) } else { rng.i64(-32_768..32_768) };
                Some(at)
            })
            .collect();
        let bytes = written(base, &times);
        let feedback = TransportFeedback::parse(&bytes).unwrap();
        let origin = i64::from(feedback.reference) * REFERENCE_TICKS;
        let read = feedback.arrivals().map(|(number, at)| (number, at.map(|at| origin + at)));
        let numbered = times.iter().zip(0..).map(|(&time, index)| (base.wrapping_add(index), time));
        assert!(read.eq(numbered));
    }
}

#[test]
fn fuzz_transport_cc() {
    let times = [Some(70), None, None, Some(80), Some(5_000), Some(4_000)];
    let corpus = Corpus::of("transport_cc").with(all_chunks()).with(written(9, &times));
    corpus.check(|bytes| {
        let Ok(feedback) = TransportFeedback::parse(bytes) else { return };
        let read: Vec<_> = feedback.arrivals().collect();
        assert_eq!(read.len(), usize::from(feedback.statuses));
        let origin = i64::from(feedback.reference) * REFERENCE_TICKS;
        let times: Vec<_> = read.iter().map(|&(_, at)| at.map(|at| origin + at)).collect();
        // The length in the header has 16 bits.
        if times.len() > 10_000 {
            return;
        }
        let again = written(feedback.base, &times);
        let again = TransportFeedback::parse(&again).unwrap();
        let moved = i64::from(again.reference) * REFERENCE_TICKS - origin;
        let in_reference = |at: i64| (at + moved).rem_euclid(REFERENCE_TICKS << 24);
        let same = again.arrivals().zip(&read).all(|((number, at), (same_number, same_at))| {
            let before = same_at.map(|at| at.rem_euclid(REFERENCE_TICKS << 24));
            number == *same_number && at.map(in_reference) == before
        });
        assert!(same && again.statuses == feedback.statuses);
    });
}
