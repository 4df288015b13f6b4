use super::*;
use crate::tests::at;

const LATENCY_MS: u64 = 60;
const LENGTH: usize = 1_200;

/// A pacer in virtual time, and the packets that left, each with its time.
struct Bench {
    pacer: Pacer<u32>,
    start: Instant,
    us: u64,
    left: Vec<(u64, u32)>,
    late: usize,
}

impl Bench {
    fn new(kbps: u32) -> Bench {
        let start = at(0);
        Bench { pacer: Pacer::new(kbps, start), start, us: 0, left: Vec::new(), late: 0 }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.us)
    }

    /// A packet comes. It waits unless it may leave at once.
    fn offer(&mut self, number: u32, class: PacedClass, ssrc: u32, latency_ms: u64) {
        let now = self.now();
        if self.pacer.admits(LENGTH, now) {
            self.left.push((self.us, number));
        } else {
            let until = now + Duration::from_millis(latency_ms);
            self.pacer.push(number, LENGTH, class, ssrc, until);
        }
    }

    fn video(&mut self, numbers: std::ops::Range<u32>) {
        numbers.for_each(|number| self.offer(number, PacedClass::Video, 1, LATENCY_MS));
    }

    /// Sends what may leave now.
    fn send(&mut self) {
        let now = self.now();
        self.late += self.pacer.expire(now);
        while let Some(number) = self.pacer.next(now) {
            self.left.push((self.us, number));
        }
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.us += QUANTUM.as_micros() as u64;
            self.send();
        }
    }

    fn numbers(&self) -> Vec<u32> {
        self.left.iter().map(|(_, number)| *number).collect()
    }
}

#[test]
fn burst_budget_leaves_at_once_and_returns() {
    let mut bench = Bench::new(1_000);
    bench.video(0..4);
    assert_eq!(bench.numbers(), [0, 1, 2, 3], "four packets");
    bench.video(4..5);
    assert_eq!(bench.pacer.waiting(), 1);
    bench.run_ms(50);
    assert_eq!((bench.pacer.waiting(), bench.left.len()), (0, 5));
    bench.video(5..10);
    assert_eq!(bench.left.len(), 9, "and no more after any pause");
}

#[test]
fn burst_budget_of_a_fast_path_is_longer() {
    let mut bench = Bench::new(10_000);
    bench.video(0..40);
    // 5 ms at 15 Mbit/s.
    assert_eq!(bench.left.len(), 8);
}

#[test]
fn packets_leave_at_half_more_than_the_estimate() {
    let mut bench = Bench::new(2_000);
    let latency_ms = 1_000;
    (0..104).for_each(|number| bench.offer(number, PacedClass::Video, 1, latency_ms));
    bench.run_ms(320);
    // 3 Mbit/s are 375 bytes in a millisecond.
    let bytes = (bench.left.len() - 4) * LENGTH;
    assert!((118_000..=121_200).contains(&bytes), "{bytes}");
    let gaps = bench.left[4..].windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.clone().min() >= Some(3_000) && gaps.max() <= Some(4_000), "evenly");
}

#[test]
fn another_rate_is_followed() {
    let mut bench = Bench::new(2_000);
    (0..200).for_each(|number| bench.offer(number, PacedClass::Video, 1, 5_000));
    bench.run_ms(100);
    let before = bench.left.len();
    bench.pacer.set_rate(500, bench.now());
    bench.run_ms(100);
    let after = bench.left.len() - before;
    assert!((7..=8).contains(&after), "9,375 bytes, not {after} packets");
}

#[test]
fn key_frame_of_any_size_leaves_in_time() {
    for (kbps, packets, latency_ms) in
        [(1_000, 40, 60), (100, 40, 60), (1_000, 400, 60), (300, 40, 20), (1, 10, 10)]
    {
        let mut bench = Bench::new(kbps);
        (0..packets).for_each(|number| bench.offer(number, PacedClass::KeyFrame, 1, latency_ms));
        assert_eq!(bench.left.len(), 4);
        bench.run_ms(latency_ms);
        assert_eq!(bench.numbers(), (0..packets).collect::<Vec<_>>(), "{kbps} {packets}");
        let last = bench.left.last().unwrap().0;
        assert!(last <= (latency_ms - 5) * 1_000 && bench.late == 0, "{last} µs");
        let most = bench.left[4..].chunk_by(|one, other| one.0 == other.0).map(<[_]>::len).max();
        let even = (packets as usize).div_ceil(latency_ms as usize - 5) + 1;
        assert!(most <= Some(even), "spread: {most:?} at once");
    }
}

#[test]
fn classes_leave_in_their_order() {
    let mut bench = Bench::new(1_000);
    bench.video(0..4);
    bench.offer(10, PacedClass::VideoRepair, 1, LATENCY_MS);
    bench.offer(11, PacedClass::Video, 1, LATENCY_MS);
    bench.offer(12, PacedClass::KeyFrame, 2, LATENCY_MS);
    bench.offer(13, PacedClass::Video, 2, LATENCY_MS);
    bench.run_ms(60);
    assert_eq!(bench.numbers()[4..], [12, 11, 13, 10]);
}

#[test]
fn packet_overtakes_none_of_its_stream() {
    let mut bench = Bench::new(1_000);
    bench.video(0..4);
    bench.offer(10, PacedClass::Video, 1, LATENCY_MS);
    bench.offer(11, PacedClass::KeyFrame, 1, LATENCY_MS);
    bench.offer(12, PacedClass::KeyFrame, 2, LATENCY_MS);
    bench.run_ms(60);
    assert_eq!(bench.numbers()[4..], [12, 10, 11]);
    // Nothing waits any more.
    bench.video(20..24);
    bench.offer(30, PacedClass::Video, 3, LATENCY_MS);
    bench.offer(31, PacedClass::KeyFrame, 1, LATENCY_MS);
    bench.run_ms(60);
    assert_eq!(bench.numbers()[11..], [31, 30]);
}

#[test]
fn streams_are_bounded_and_keep_their_order() {
    let mut bench = Bench::new(1_000);
    bench.video(0..4);
    let streams = 100..100 + STREAMS_MAX as u32;
    streams.clone().for_each(|ssrc| bench.offer(ssrc, PacedClass::KeyFrame, ssrc, LATENCY_MS));
    for (number, class) in [(10, PacedClass::Video), (11, PacedClass::KeyFrame)] {
        bench.offer(number, class, 2, LATENCY_MS);
    }
    assert_eq!(bench.pacer.streams.len(), STREAMS_MAX);
    bench.run_ms(60);
    assert_eq!(bench.numbers()[4..], [streams.collect(), vec![10, 11]].concat());
}

#[test]
fn packet_that_is_late_is_dropped() {
    let mut bench = Bench::new(1_000);
    bench.video(0..6);
    // The thread wakes up at last.
    bench.us = LATENCY_MS * 1_000;
    bench.video(6..7);
    bench.send();
    assert_eq!((bench.late, bench.numbers()), (2, vec![0, 1, 2, 3, 6]));
    let mut bench = Bench::new(1_000);
    bench.video(0..6);
    bench.us = LATENCY_MS * 1_000 - 1;
    bench.send();
    assert_eq!((bench.late, bench.left.len()), (0, 6));
}

#[test]
fn all_packets_are_taken_on_demand() {
    let mut bench = Bench::new(100);
    bench.video(0..10);
    let taken: Vec<_> = std::iter::from_fn(|| bench.pacer.take()).collect();
    assert_eq!(taken, [4, 5, 6, 7, 8, 9]);
    assert_eq!(bench.pacer.waiting(), 0);
}

/// Whatever comes, every packet leaves once and in time, and in the order of its stream.
#[test]
fn random_traffic_leaves_in_time() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(rng.u32(1..5_000));
        let (mut sent, mut number) = (Vec::new(), 0);
        for _ in 0..200 {
            for _ in 0..rng.usize(0..6) {
                let class = [PacedClass::KeyFrame, PacedClass::Video][rng.usize(0..2)];
                let ssrc = rng.u32(0..3);
                bench.offer(number, class, ssrc, LATENCY_MS);
                sent.push((ssrc, bench.us));
                number += 1;
            }
            if rng.u32(0..50) == 0 {
                bench.pacer.set_rate(rng.u32(1..5_000), bench.now());
            }
            bench.run_ms(1);
        }
        bench.run_ms(LATENCY_MS);
        assert_eq!((bench.late, bench.left.len()), (0, sent.len()), "seed {seed}");
        for (at, number) in &bench.left {
            assert!(at - sent[*number as usize].1 < LATENCY_MS * 1_000, "seed {seed}");
        }
        for ssrc in 0..3 {
            let of_stream = bench.numbers().into_iter();
            let of_stream = of_stream.filter(|number| sent[*number as usize].0 == ssrc);
            assert!(of_stream.is_sorted(), "seed {seed}");
        }
    }
}
