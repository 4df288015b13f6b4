//! The parity of a client's video.

use std::time::{Duration, Instant};

use super::{LastLoss, RETRANSMISSION_MAX_PPM, is_in_time};
use crate::loss::LossSample;
use crate::repair::flexfec::Overhead;

/// The loss from which on each share is made. At the loss where the next one begins, it leaves at most 2 % of frames broken, if they have 12 packets.
const OVERHEADS: [(u32, Overhead); 4] = [
    (0, Overhead::Tenth),
    (15_000, Overhead::Fifth),
    (40_000, Overhead::Third),
    (100_000, Overhead::Half),
];

/// The losses of a longer burst than this mean (in hundredths) are in fewer groups of packets, so that the same loss needs more parity.
const LONG_BURST_X100: u32 = 150;

/// The path of a client's video.
#[derive(Clone, Copy, Debug)]
pub struct VideoPath {
    /// Loss before repair. `None` if it is unknown.
    pub loss: Option<LossSample>,
    /// Loss after repair, in parts per million. `None` if it is unknown.
    pub left_ppm: Option<u32>,
    /// Mean length of bursts of losses in hundredths of packets: 100 for single ones.
    pub burst_x100: u32,
    /// `None` if it is unknown.
    pub round_trip: Option<Duration>,
    /// Time for which the client's jitter buffer holds a packet.
    pub latency: Duration,
    /// The client requests lost packets again (RFC 4585), and packets are kept for it.
    pub takes_retransmission: bool,
}

/// The choice for one path, with its hysteresis.
#[derive(Clone, Copy, Default, Debug)]
pub struct ParityChoice {
    /// The last sample with loss, if there is loss to repair.
    lossy: LastLoss,
    /// The last sample of which retransmission left too much.
    left: LastLoss,
    /// The last samples that need each share.
    needed: [LastLoss; OVERHEADS.len()],
}

impl ParityChoice {
    /// Returns the share of parity from now on; `None` while the path loses nothing, or retransmission repairs it in time.
    pub fn update(&mut self, path: &VideoPath, now: Instant) -> Option<Overhead> {
        let Some(loss) = path.loss else {
            *self = ParityChoice::default();
            return None;
        };
        let is_lossy = self.lossy.note(loss, self.lossy.least(), now);
        let left = LossSample { ppm: path.left_ppm.unwrap_or(0), ..loss };
        let leaves_much = self.left.note(left, RETRANSMISSION_MAX_PPM + 1, now);
        let is_long = path.burst_x100 > LONG_BURST_X100;
        let weighed = LossSample { ppm: if is_long { 2 * loss.ppm } else { loss.ppm }, ..loss };
        let mut needed = None;
        for (last, (least, overhead)) in self.needed.iter_mut().zip(OVERHEADS) {
            if last.note(weighed, least, now) {
                needed = Some(overhead);
            }
        }
        let retransmits = path.takes_retransmission && is_in_time(path.round_trip, path.latency);
        needed.filter(|_| is_lossy && (leaves_much || !retransmits))
    }
}

#[cfg(test)]
mod tests;
