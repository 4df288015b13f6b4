//! The share of probes to a node that are lost in either direction.

use std::time::Duration;

/// Time constant of smoothing. One lost probe of a near node shows as 0.2 %, and 15 % loss as 15 ± 1 %.
const SMOOTHED_OVER: Duration = Duration::from_secs(5);

/// Loss of probes in both directions together, in ppm, from which rooms avoid the node while others can take them. It
/// equals 5 % loss in each direction, at which rooms on the node vote against it.
const MUCH_PPM: u32 = 97_500;

/// Loss in ppm below which the path is good again: 3 % in each direction. The measured loss of a near path that loses 5
/// % is off by up to a half, so a path at the threshold does not flap.
const STILL_MUCH_PPM: u32 = 59_100;

/// The share of lost probes. Each probe is weighted by its interval, so near and far nodes are smoothed over the same
/// time. A probe counts for no more than the regular interval, so a cold node, which is probed less often, is smoothed
/// over a longer time.
#[derive(Default, Debug)]
pub(super) struct Loss {
    share: f64,
    is_much: bool,
}

impl Loss {
    pub(super) fn answered(&mut self, every: Duration) {
        self.shows(self.share - self.share * weight(every));
    }

    /// A probe was not answered in time.
    pub(super) fn missed(&mut self, every: Duration) {
        self.shows(self.share + (1.0 - self.share) * weight(every));
    }

    /// A missed probe was answered after all: it was late, not lost.
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

    pub(super) fn ppm(&self) -> u32 {
        (self.share * 1e6) as u32
    }
}

fn weight(every: Duration) -> f64 {
    every.div_duration_f64(SMOOTHED_OVER).min(1.0)
}

#[cfg(test)]
mod tests;
