//! A lossless path with jitter of ±80 ms: everything arrives, up to 160 ms late in each direction.

use super::*;

const LATEST_MS: u64 = 160;
/// Time until the usual lateness is known, in ms. Before that, a pause looks like a death.
const USED_TO_IT: u64 = 10_000;

/// A path to a node that sends 1,000 packets a second. Each packet has its own delay, and none overtakes another.
struct Way {
    detector: Detector,
    start: Instant,
    dice: u64,
    /// Arrival times in ms of media in flight.
    media: std::collections::VecDeque<u64>,
    answers: Vec<(u64, u64)>,
    received: u64,
    last_received: Option<Instant>,
}

impl Way {
    fn late(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % (LATEST_MS + 1)
    }

    /// Lets 1 ms pass, in which the node sends if `sends`.
    fn step(&mut self, ms: u64, sends: bool) -> DetectorFinding {
        let now = self.start + MS * ms as u32;
        if sends {
            let behind = self.media.back().copied().unwrap_or(0);
            let arrives = (ms + self.late()).max(behind);
            self.media.push_back(arrives);
        }
        if ms.is_multiple_of(10) {
            self.detector.handle_probe_sent(ms, now);
            let arrives = ms + self.late() + self.late();
            self.answers.extend(sends.then_some((arrives, ms)));
        }
        while self.media.pop_front_if(|arrives| *arrives <= ms).is_some() {
            self.received += 1;
            self.last_received = Some(now);
        }
        for (_, probe) in self.answers.extract_if(.., |(arrives, _)| *arrives <= ms) {
            self.detector.handle_probe_answered(probe, now);
        }
        if !ms.is_multiple_of(2) {
            return DetectorFinding::Well;
        }
        let (received, last_received) = (self.received, self.last_received);
        let stamp = Stamp { last_received, received, last_sent: Some(now) };
        self.detector.handle_stamp(stamp, now);
        self.detector.weigh(now)
    }
}

impl Way {
    fn new(distance: Distance) -> Way {
        Way {
            detector: Detector::new(Timings::default(), distance),
            start: Instant::now(),
            dice: 7,
            media: Default::default(),
            answers: Vec::new(),
            received: 0,
            last_received: None,
        }
    }
}

#[test]
fn jitter_neither_triggers_nor_masks_failure() {
    for distance in [Distance::Near, Distance::Far] {
        let mut way = Way::new(distance);
        let death = 600_000;
        for ms in 1..=death {
            let finding = way.step(ms, true);
            assert!(
                ms < USED_TO_IT || finding != DetectorFinding::Dead,
                "{distance:?}: after {ms} ms"
            );
        }
        let found =
            (death + 1..).find(|&ms| way.step(ms, false) == DetectorFinding::Dead).unwrap() - death;
        assert!(found <= 500 + 2 * LATEST_MS, "{distance:?}: found after {found} ms");
    }
}

#[test]
fn reported_death_skips_usual_pause() {
    let mut way = Way::new(Distance::Near);
    let death = 60_000;
    for ms in 1..=death {
        way.step(ms, true);
    }
    way.media.clear();
    way.answers.clear();
    way.detector.handle_kernel_error(way.start + MS * death as u32);
    let found =
        (death + 1..).find(|&ms| way.step(ms, false) == DetectorFinding::Dead).unwrap() - death;
    assert!(found <= 20, "found after {found} ms");
}
