//! How much of what we ask a node is lost on its way, there or back.

use std::time::Duration;

/// What was seen longer ago than this counts for little: a probe of a near node that is lost is a fifth of a per cent, and
/// 15 % of them lost look like 15 % give or take 1.
const SMOOTHED_OVER: Duration = Duration::from_secs(5);

/// The share of probes that is lost, each counted for the time until the next one: smoothed over time, whether a node is
/// near or far. A cold one is asked more seldom, and counts less for it.
#[derive(Default, Debug)]
pub(super) struct Loss {
    share: f64,
}

impl Loss {
    /// One was answered.
    pub(super) fn answered(&mut self, every: Duration) {
        self.share -= self.share * weight(every);
    }

    /// One was not, by the time that it should have been.
    pub(super) fn missed(&mut self, every: Duration) {
        self.share += (1.0 - self.share) * weight(every);
    }

    /// One that was missed was answered after all: it was late, not lost.
    pub(super) fn came_late(&mut self, every: Duration) {
        self.share = (self.share - weight(every)).max(0.0);
    }

    /// Parts per million.
    pub(super) fn ppm(&self) -> u32 {
        (self.share * 1e6) as u32
    }
}

fn weight(every: Duration) -> f64 {
    every.div_duration_f64(SMOOTHED_OVER).min(1.0)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const NEAR: Duration = Duration::from_millis(10);
    const FAR: Duration = Duration::from_millis(50);

    /// What is shown of a way that loses so much, per cent, after each probe of so many seconds.
    fn shown(loss: &mut Loss, every: Duration, percent: u32, seconds: u32) -> Vec<u32> {
        let mut rng = Rng::with_seed(2);
        let probes = 0..Duration::from_secs(seconds.into()).as_millis() / every.as_millis();
        let shown = probes.map(|_| {
            match rng.u32(0..100) < percent {
                true => loss.missed(every),
                false => loss.answered(every),
            }
            loss.ppm() / 10_000
        });
        shown.collect()
    }

    #[test]
    fn what_a_way_loses_is_known_after_seconds_and_stays_known() {
        for (every, between) in [(NEAR, 10..=20), (FAR, 6..=24)] {
            let mut loss = Loss::default();
            let rises = shown(&mut loss, every, 15, 20);
            let known = rises.iter().position(|percent| *percent >= 7).unwrap() as u32;
            assert!((1..=7).contains(&(every * known).as_secs()), "{every:?} {known}");
            let stays = shown(&mut loss, every, 15, 60);
            assert!(stays.iter().all(|percent| between.contains(percent)), "{every:?}");
            let heals = shown(&mut loss, every, 0, 15);
            assert_eq!(heals.last(), Some(&0), "{every:?}");
        }
    }

    #[test]
    fn one_lost_probe_says_little_and_a_late_one_nothing() {
        let mut loss = Loss::default();
        loss.missed(NEAR);
        assert_eq!(loss.ppm(), 2_000);
        loss.came_late(NEAR);
        assert_eq!(loss.ppm(), 0);
    }
}
