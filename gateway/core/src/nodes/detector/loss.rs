//! The share of questions to a node that is lost on the way there or back.

use std::time::Duration;

/// Probes longer ago than this count for little: a lost probe of a near node is a fifth of a per cent, and 15 % of
/// them lost look like 15 % give or take 1.
const SMOOTHED_OVER: Duration = Duration::from_secs(5);

/// Of what we ask so much is lost, there or back, parts per million, that no room goes there of which others can take care:
/// where each of the two ways loses 5 %, as makes a room that is there vote against it.
const MUCH_PPM: u32 = 97_500;

/// It is no longer much once no more than this is lost: 3 % each way. The measured loss of a near way that loses 5 %
/// is right give or take a half, so one that hovers there is not good one moment and bad the next.
const STILL_MUCH_PPM: u32 = 59_100;

/// The share of probes that is lost, each counted for the time until the next one: smoothed over time, whether a node is
/// near or far. A cold one is asked more seldom, and counts less for it.
#[derive(Default, Debug)]
pub(super) struct Loss {
    share: f64,
    is_much: bool,
}

impl Loss {
    pub(super) fn answered(&mut self, every: Duration) {
        self.shows(self.share - self.share * weight(every));
    }

    /// One was not, by the time that it should have been.
    pub(super) fn missed(&mut self, every: Duration) {
        self.shows(self.share + (1.0 - self.share) * weight(every));
    }

    /// One that was missed was answered after all: it was late, not lost.
    pub(super) fn came_late(&mut self, every: Duration) {
        self.shows((self.share - weight(every)).max(0.0));
    }

    fn shows(&mut self, share: f64) {
        self.share = share;
        self.is_much = self.ppm() >= if self.is_much { STILL_MUCH_PPM } else { MUCH_PPM };
    }

    pub(super) fn is_much(&self) -> bool {
        self.is_much
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
mod tests;
