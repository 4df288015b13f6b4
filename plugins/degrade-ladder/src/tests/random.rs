//! Runs the policy with the settings of the set `call` on a path with random loss, which no cap mends.

use super::*;

/// Bit rate of the sender without a cap, kbit/s.
const WANTS: u32 = 1_000;

const SETTINGS: &str = r#"{"down_at_loss": 0.03, "voice_only_at_loss": 0.15, "down_at_queue": "100ms",
    "down_at_jitter": "80ms", "down_after": "600ms", "up_after": "2s", "cap_factor": 0.85,
    "cut_per_loss": 4, "raise_factor": 1.5}"#;

struct RandomLoss {
    call: Call,
    /// True if all lost packets are repaired.
    is_repaired: bool,
}

impl RandomLoss {
    /// Runs a minute at this loss. Returns the lowest rate, and whether video was dropped.
    fn minute(&mut self, loss_ppm: u32) -> (u32, bool) {
        let mut lowest = WANTS;
        for _ in 0..600 {
            lowest = lowest.min(self.step(loss_ppm));
        }
        (lowest, self.call.session.state.voice_only)
    }

    /// Runs one tick, and returns the rate.
    fn step(&mut self, loss_ppm: u32) -> u32 {
        let cap = self.call.path().cap;
        let sends = if cap == 0 { WANTS } else { cap.min(WANTS) };
        let missing_ppm = if self.is_repaired { 0 } else { loss_ppm };
        match self.call.direction {
            Direction::Up => {
                let arrives = u64::from(sends) * u64::from(1_000_000 - loss_ppm) / 1_000_000;
                self.call.measure(BitrateUp, arrives as u32);
                self.call.measure(LossUpAfterRepair, missing_ppm);
            }
            Direction::Down => {
                self.call.measure(BitrateDown, sends);
                self.call.measure(LossDownAfterRepair, missing_ppm);
            }
        }
        self.call.tick(loss_ppm);
        sends
    }
}

#[test]
fn random_loss_leaves_most_of_the_rate() {
    for direction in Direction::ALL {
        for (loss_ppm, least) in [(10_000, 900), (30_000, 800), (50_000, 700), (100_000, 500)] {
            for is_repaired in [false, true] {
                let call = Call::losing(direction, SETTINGS);
                let mut path = RandomLoss { call, is_repaired };
                let (lowest, voice_only) = path.minute(loss_ppm);
                let least = if is_repaired { WANTS } else { least };
                assert!(lowest >= least, "{direction:?} {loss_ppm} {is_repaired}: {lowest}");
                assert!(!voice_only, "{direction:?} {loss_ppm}");
                let back = (1..=80).find(|_| path.step(0) == WANTS);
                assert!(back.is_some(), "{direction:?} {loss_ppm}: within 8 s");
            }
        }
    }
}
