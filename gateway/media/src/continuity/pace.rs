//! The usual pace of a stream (ticks per frame, packets per frame), and the packets lost in a
//! silence.

use crate::rtp::VIDEO_CLOCK_HZ;
use serde::{Deserialize, Serialize};

/// Limit of skipped numbers. A receiver has given up on older packets, and treats a larger jump as
/// another source (RFC 3550, appendix A.1, MAX_DROPOUT 3,000).
const LOST_MAX: u64 = 1_000;

/// Numbers skipped beyond twice the usual packets, for a sender that sends in bursts.
const SPARE: u16 = 64;

/// Divisor of the weight of a new sample, as in RTT estimators: the average adapts within a dozen
/// frames and ignores a single one.
const SMOOTHING: i64 = 8;

/// Number of consecutive frames off the grid after which a new grid is assumed.
const OFF_GRID_MAX: u8 = 4;

/// The position at which numbers continue after a silence, relative to the last packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leap {
    /// Sequence numbers to skip: lost or still in flight.
    pub(super) lost: u16,
    pub(super) ticks: u32,
}

/// Duration of a silence, in timestamp units.
#[derive(Clone, Copy, Debug)]
pub(super) struct SilenceSpan {
    /// Time since the start of the last frame, which the last timestamp refers to.
    pub(super) since_frame: u64,
    pub(super) since_packet: u64,
    /// Advantage of the new path: earlier packets may arrive this much later.
    pub(super) lead: u64,
}

/// The pace learned from consecutive packets. A frame is all packets of one timestamp: a video
/// picture, or one packet of voice.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct TimestampPace {
    /// Smoothed ticks from frame to frame; 0 if unknown.
    smoothed: u32,
    /// The last two frame intervals.
    last: [u32; 2],
    /// The grid of timestamps: the smallest interval seen; 0 if unknown.
    grain: u32,
    off_grid: u8,
    /// Smoothed packets per frame, in 1/16; 0 if unknown.
    packets_x16: u16,
    in_frame: u16,
    /// True if the last packet ended its frame.
    ended: bool,
    /// True if the stream uses marker bits, so that a frame without one is unfinished.
    marks: bool,
}

impl TimestampPace {
    /// Handles a packet that is `numbers` (at least 1) ahead in sequence and `ticks` in timestamp.
    pub(super) fn advance(&mut self, numbers: u16, ticks: i32, marker: bool) {
        if ticks == 0 {
            self.in_frame = self.in_frame.saturating_add(numbers);
        } else {
            if numbers == 1 && ticks > 0 {
                self.learn(ticks.unsigned_abs());
            }
            self.in_frame = 1;
        }
        self.ended = marker;
        self.marks |= marker;
    }

    /// Handles a packet whose distance to the last one is meaningless: the first one, or the first
    /// after a switch.
    pub(super) fn resume(&mut self, marker: bool) {
        self.in_frame = 1;
        self.ended = marker;
        self.marks |= marker;
    }

    fn learn(&mut self, ticks: u32) {
        self.smoothed = match self.smoothed {
            0 => ticks,
            smoothed => smooth(smoothed, ticks),
        };
        self.last = [ticks, self.last[0]];
        if self.grain == 0 || ticks < self.grain {
            self.grain = ticks;
            self.off_grid = 0;
        } else if ticks.is_multiple_of(self.grain) {
            self.off_grid = 0;
        } else {
            self.off_grid += 1;
            if self.off_grid == OFF_GRID_MAX {
                self.grain = ticks;
                self.off_grid = 0;
            }
        }
        let packets_x16 = self.in_frame.min(u16::MAX / 16) * 16;
        self.packets_x16 = match self.packets_x16 {
            0 => packets_x16,
            smoothed => smooth(smoothed.into(), packets_x16.into()) as u16,
        };
    }

    /// Returns the usual ticks from frame to frame; `None` before the second frame.
    ///
    /// Silent voice (DTX) sends rarely. Two consecutive long intervals become the usual one, while
    /// a single one only moves the average.
    pub(super) fn interval(&self) -> Option<u32> {
        let [newer, older] = self.last;
        match (self.smoothed, older) {
            (0, _) => None,
            (smoothed, 0) => Some(smoothed),
            (smoothed, _) => Some(smoothed.clamp(newer.min(older), newer.max(older))),
        }
    }

    /// Returns the position of a new sender's first packet after this silence.
    pub(super) fn leap(&self, silence: SilenceSpan, clock_rate: u32) -> Leap {
        let ticks = silence.since_frame + silence.lead;
        let Some(interval) = self.interval() else {
            return Leap { lost: 0, ticks: ticks.max(1) as u32 };
        };
        // Video frames may take several packets and come at the camera's pace. Other media keep a grid of samples.
        if clock_rate == VIDEO_CLOCK_HZ {
            return self.leap_of_video(silence, interval);
        }
        let frames = rounded(ticks, interval).max(1);
        let grains = rounded(ticks, self.grain).max(1);
        Leap { lost: self.packets_of(frames - 1), ticks: (grains * u64::from(self.grain)) as u32 }
    }

    fn leap_of_video(&self, silence: SilenceSpan, interval: u32) -> Leap {
        let ticks = silence.since_frame + silence.lead;
        let on_the_way = (silence.lead * u64::from(self.packets_x16))
            .div_ceil(16 * u64::from(interval))
            .min(LOST_MAX) as u16;
        let unfinished = self.marks && !self.ended;
        let interval = u64::from(interval);
        if unfinished && silence.since_frame < interval && silence.since_packet * 2 < interval {
            // The frame continues where the old sender stopped, because it is useless otherwise.
            return Leap { lost: on_the_way, ticks: 0 };
        }
        let frames = rounded(ticks, interval as u32).max(1);
        let rest =
            if unfinished { self.packets_of(1).saturating_sub(self.in_frame).max(1) } else { 0 };
        let lost = (u64::from(self.packets_of(frames - 1)) + u64::from(rest)).min(LOST_MAX) as u16;
        Leap { lost: lost.max(on_the_way), ticks: ticks.max(interval / 2).max(1) as u32 }
    }

    /// Returns more packets than the sender can have sent in this time, unless it became twice as
    /// fast.
    pub(super) fn most_within(&self, ticks: u64, clock_rate: u32) -> u16 {
        let unknown = (clock_rate / 1_000).max(1);
        let frames = rounded(ticks, self.interval().unwrap_or(unknown)) + 1;
        2 * self.packets_of(frames) + SPARE
    }

    fn packets_of(&self, frames: u64) -> u16 {
        frames
            .saturating_mul(self.packets_x16.max(16).into())
            .saturating_add(8)
            .checked_div(16)
            .map_or(0, |packets| packets.min(LOST_MAX) as u16)
    }
}

fn smooth(smoothed: u32, sample: u32) -> u32 {
    (i64::from(smoothed) + (i64::from(sample) - i64::from(smoothed)) / SMOOTHING) as u32
}

fn rounded(ticks: u64, unit: u32) -> u64 {
    let unit = u64::from(unit.max(1));
    (ticks + unit / 2) / unit
}

#[cfg(test)]
mod tests;
