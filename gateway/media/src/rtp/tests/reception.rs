use super::super::*;
use crate::tests::handed_over;
use evenkeel_fuzz::Corpus;

const HZ: u32 = 48_000;

fn at(ms: u64) -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *ORIGIN + Duration::from_millis(ms)
}

fn header(sequence: u16, timestamp: u32) -> RtpHeader {
    RtpHeader {
        payload_type: 111,
        marker: false,
        sequence,
        timestamp,
        ssrc: 1,
        payload_offset: 12,
        payload_end: 112,
    }
}

/// Receives these packets on time, 20 ms each, with numbers counted from `base`.
fn received(base: u16, numbers: &[u64]) -> Reception {
    let mut reception = Reception::new(HZ);
    receive(&mut reception, base, numbers);
    reception
}

fn receive(reception: &mut Reception, base: u16, numbers: &[u64]) {
    for number in numbers {
        if number % 97 == 5 {
            *reception = handed_over(reception);
        }
        let sequence = base.wrapping_add(*number as u16);
        reception.receive(&header(sequence, *number as u32 * 960), 112, at(number * 20));
    }
}

#[test]
fn counts_cross_the_wrap() {
    let numbers: Vec<_> = (0..200_000).collect();
    let totals = received(65_000, &numbers).totals();
    let expected = ReceptionCounts {
        packets: 200_000,
        bytes: 200_000 * 112,
        expected: 200_000,
        gap_max: Duration::from_millis(20),
        ..ReceptionCounts::default()
    };
    assert_eq!(totals, expected);
}

#[test]
fn packets_that_another_process_received_are_no_loss() {
    let mut receptions = Receptions::default();
    let receive = |receptions: &mut Receptions, number: u64| {
        let header = header(65_000_u16.wrapping_add(number as u16), number as u32 * 960);
        receptions.receive(&header, 112, HZ, at(number * 20));
    };
    (0..10).for_each(|number| receive(&mut receptions, number));
    receptions.went_on_elsewhere();
    [60, 61, 63].into_iter().for_each(|number| receive(&mut receptions, number));
    let totals = receptions.iter_mut().next().unwrap().totals();
    assert_eq!((totals.packets, totals.expected, totals.lost, totals.gaps), (13, 14, 1, 0));
}

#[test]
fn lost_duplicate_and_reordered_packets_are_distinct() {
    let totals = received(65_534, &[0, 1, 4, 3, 3, 4, 6, 0]).totals();
    assert_eq!((totals.packets, totals.expected, totals.lost), (5, 7, 2));
    assert_eq!((totals.duplicates, totals.reordered), (3, 1));
}

#[test]
fn packet_before_the_first_is_no_gain() {
    let totals = received(0, &[5, 3]).totals();
    assert_eq!((totals.packets, totals.expected, totals.lost), (2, 3, 1));
}

#[test]
fn intervals_count_since_the_last() {
    let mut reception = received(0, &[0, 1, 3]);
    let first = reception.interval();
    assert_eq!((first.packets, first.expected, first.lost, first.bytes), (3, 4, 1, 336));
    assert_eq!(first.gap_max, Duration::from_millis(40));
    receive(&mut reception, 0, &[4, 4, 6]);
    let second = reception.interval();
    assert_eq!((second.packets, second.expected, second.lost), (2, 3, 1));
    assert_eq!(second.duplicates, 1);
    assert_eq!(reception.interval(), ReceptionCounts::default());
}

#[test]
fn late_packet_lowers_the_total_not_below_zero() {
    let mut reception = received(0, &[0, 2]);
    assert_eq!(reception.interval().lost, 1);
    reception.receive(&header(1, 960), 112, at(50));
    let interval = reception.interval();
    assert_eq!((interval.lost, interval.reordered), (0, 1));
    assert_eq!(reception.totals().lost, 0);
}

#[test]
fn packet_beyond_reordering_was_lost_at_first() {
    for (number, late) in [(7, 0), (6, 1)] {
        let mut reception = received(65_530, &[0, 1, 2, 3, 4, 5, 10]);
        assert_eq!(reception.interval().lost, 4);
        receive(&mut reception, 65_530, &[number, 11, 13]);
        let interval = reception.interval();
        // Number 12 is missing now; the reordered packet is not any more.
        assert_eq!((interval.lost, interval.late, interval.filled()), (late, late, late));
        assert_eq!(reception.totals().lost, 4, "as reports count");
    }
}

#[test]
fn recovered_packet_stays_lost_and_is_filled_once() {
    let mut reception = received(65_530, &[0, 1, 2, 4, 8, 10]);
    assert!(reception.filled(65_530_u16.wrapping_add(9)));
    for number in [3, 5] {
        assert!(reception.filled(65_530_u16.wrapping_add(number)));
        assert!(!reception.filled(65_530_u16.wrapping_add(number)), "once");
    }
    for number in [0, 4, 10, 11] {
        assert!(!reception.filled(65_530_u16.wrapping_add(number)), "arrived, or is to come");
    }
    assert!(!reception.filled(65_529), "before the first");
    receive(&mut reception, 65_530, &[3]);
    let interval = reception.interval();
    assert_eq!((interval.lost, interval.recovered, interval.duplicates), (5, 3, 1));
    assert_eq!(reception.report(1).lost, 5, "reports tell of what arrived");
    assert!(!Reception::new(HZ).filled(1));
}

#[test]
fn bursts_are_runs_of_missing_numbers() {
    let cases: [(&[u64], u64, u64); 8] = [
        (&[0, 1, 2, 3], 0, 0),
        (&[0, 2, 4, 6], 3, 3),
        (&[0, 4, 5, 9], 6, 2),
        // Reordered packets end, shorten and divide a burst.
        (&[0, 2, 1, 3], 0, 0),
        (&[0, 3, 2, 4], 1, 1),
        (&[0, 4, 2, 5], 2, 2),
        (&[0, 4, 2, 1, 3, 5], 0, 0),
        // A retransmission divides none.
        (&[0, 4, 5, 6, 2], 3, 1),
    ];
    for (numbers, lost, bursts) in cases {
        let interval = received(65_534, numbers).interval();
        assert_eq!((interval.lost, interval.bursts), (lost, bursts), "{numbers:?}");
    }
}

#[test]
fn gap_is_longer_than_its_threshold() {
    for (ms, gaps) in [(100, 0), (101, 1)] {
        let mut reception = Reception::new(HZ);
        reception.receive(&header(0, 0), 1, at(0));
        reception.receive(&header(1, 960), 1, at(ms));
        let interval = reception.interval();
        assert_eq!((interval.gaps, interval.gap_max), (gaps, Duration::from_millis(ms)));
    }
}

#[test]
fn largest_dropout_is_loss_larger_is_restart() {
    let jump = |ahead: u16| {
        let mut reception = received(0, &[0]);
        reception.receive(&header(ahead, 960), 1, at(20));
        reception.receive(&header(ahead.wrapping_add(1), 1_920), 1, at(40));
        reception.totals()
    };
    assert_eq!(jump(3_000).lost, 2_999);
    let anew = jump(3_001);
    assert_eq!((anew.lost, anew.packets, anew.expected), (0, 3, 3));
}

#[test]
fn largest_misorder_is_reordering_larger_is_restart() {
    let jump = |behind: u16| {
        let mut reception = received(0, &[200]);
        reception.receive(&header(200 - behind, 960), 1, at(20));
        reception.totals()
    };
    assert_eq!((jump(100).reordered, jump(100).lost), (1, 99));
    assert_eq!((jump(101).reordered, jump(101).lost), (0, 0));
}

#[test]
fn stray_number_is_no_restart() {
    let mut reception = received(0, &[0, 1]);
    reception.receive(&header(30_000, 0), 1, at(40));
    receive(&mut reception, 0, &[2, 3]);
    let totals = reception.totals();
    assert_eq!((totals.packets, totals.expected, totals.lost), (5, 4, 0));
}

#[test]
fn jitter_measures_deviation_of_arrival() {
    let steady = received(0, &(0..100).collect::<Vec<_>>());
    assert_eq!(steady.jitter_us(), 0);

    let mut reception = Reception::new(HZ);
    for number in 0..2_000 {
        let off = if number % 2 == 0 { 0 } else { 5 };
        reception.receive(
            &header(number, u32::from(number) * 960),
            1,
            at(u64::from(number) * 20 + off),
        );
    }
    let jitter_us = reception.jitter_us();
    assert!((4_900..=5_100).contains(&jitter_us), "{jitter_us}");
    assert_eq!(u64::from(reception.report(1).jitter), jitter_us * 48 / 1_000);
}

#[test]
fn packets_of_one_frame_add_no_jitter() {
    let mut reception = Reception::new(90_000);
    for number in 0..600u16 {
        let frame = u64::from(number / 6);
        let now_ms = frame * 40 + u64::from(number % 6);
        reception.receive(&header(number, frame as u32 * 3_600), 1, at(now_ms));
    }
    assert_eq!(reception.jitter_us(), 0);
}

#[test]
fn clock_reset_is_no_jitter() {
    let mut reception = received(0, &(0..10).collect::<Vec<_>>());
    reception.receive(&header(10, 1 << 31), 1, at(200));
    reception.receive(&header(11, (1 << 31) + 960), 1, at(220));
    assert_eq!(reception.jitter_us(), 0);
}

#[test]
fn unknown_clock_has_no_jitter() {
    let mut reception = Reception::new(0);
    for number in 0..10 {
        reception.receive(&header(number, 0), 1, at(u64::from(number) * 33));
    }
    assert_eq!(reception.jitter_us(), 0);
}

#[test]
fn report_matches_the_rfc() {
    let mut reception = received(65_535, &[0, 1, 3]);
    let first = reception.report(9);
    assert_eq!((first.ssrc, first.lost, first.fraction_lost), (9, 1, 64));
    assert_eq!(first.sequence_max, (1 << 16) + 2, "one cycle, then number 2");
    receive(&mut reception, 65_535, &[4, 5]);
    let second = reception.report(9);
    assert_eq!((second.lost, second.fraction_lost), (1, 0), "the share is since the last report");
    assert_eq!(Reception::new(HZ).report(9).sequence_max, 0);
}

#[test]
fn recent_numbers_cross_the_wrap() {
    let reception = received(65_534, &[0, 1, 2, 3]);
    let is_recent = |sequence| reception.is_recent(sequence, 3);
    assert!([65_534, 65_535, 0, 1].into_iter().all(is_recent));
    assert!(![65_533, 2, 30_000].into_iter().any(is_recent));
    assert!(!Reception::new(HZ).is_recent(0, 3));
}

#[test]
fn fuzz_reception() {
    // Per packet: milliseconds since the one before, what is read after it, sequence number, timestamp.
    let on_time = (0..40_u32).map(|number| {
        let [t0, t1, t2, t3] = (number * 960).to_be_bytes();
        [20, 0, 0, number as u8, t0, t1, t2, t3]
    });
    let corpus = Corpus::of("reception").with(on_time.flatten().collect::<Vec<_>>());
    corpus.check(|bytes| {
        let (mut reception, mut now) = (Reception::new(HZ), 0);
        let mut packets = 0;
        for [pause, reads, s0, s1, t0, t1, t2, t3] in bytes.as_chunks::<8>().0 {
            now += u64::from(*pause);
            let sequence = u16::from_be_bytes([*s0, *s1]);
            let timestamp = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
            reception.receive(&header(sequence, timestamp), 112, at(now));
            packets += 1;
            let counts = if reads & 1 == 0 { reception.totals() } else { reception.interval() };
            assert!(counts.packets + counts.duplicates <= packets);
            assert!(counts.lost <= counts.expected + counts.late);
            assert!(counts.recovered <= packets);
            if reads & 2 != 0 {
                let _ = reception.report(1);
            }
            if reads & 4 != 0 {
                reception.filled(sequence.wrapping_sub(u16::from(*pause)));
            }
            assert!(reception.jitter_us() < 10_100_000, "longer steps reset the clock");
        }
    });
}
