//! The usual pace of a stream (ticks per frame, packets per frame), and what a silence cost.

/// The clock of all video formats (RFC 3551, section 4); video frames may take several packets and
/// come at the camera's pace. Other media keep a grid of samples.
const VIDEO_CLOCK_HZ: u32 = 90_000;

/// Numbers skipped at most: a receiver has given up on older packets, and takes a larger jump for
/// another source (RFC 3550, appendix A.1, MAX_DROPOUT 3,000).
const LOST_MAX: u64 = 1_000;

/// Weight 1/8 for a new sample, as in RTT estimators: adapts within a dozen frames, ignores a
/// single one.
const SMOOTHING: i64 = 8;

/// After this many frames off the grid in a row, a new grid is assumed.
const OFF_GRID_MAX: u8 = 4;

/// Where numbers continue after a silence, relative to the last packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leap {
    /// Sequence numbers to skip: lost or still in flight.
    pub(super) lost: u16,
    pub(super) ticks: u32,
}

/// Duration of a silence, in timestamp units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// Since the start of the last frame, which its timestamp refers to.
    pub(super) since_frame: u64,
    pub(super) since_packet: u64,
    /// How much sooner the new path delivers: earlier packets may arrive this much later.
    pub(super) lead: u64,
}

/// Learned from consecutive packets. A frame is all packets of one timestamp: a video picture, or
/// one packet of voice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Smoothed ticks from frame to frame; 0: unknown.
    smoothed: u32,
    /// The last two frame intervals.
    last: [u32; 2],
    /// The grid of timestamps: the smallest interval seen; 0: unknown.
    grain: u32,
    off_grid: u8,
    /// Smoothed packets per frame, in 1/16; 0: unknown.
    packets_x16: u16,
    in_frame: u16,
    /// The last packet ended its frame.
    ended: bool,
    /// The stream uses marker bits, so that a frame without one is unfinished.
    marks: bool,
}

impl Pace {
    /// A packet arrived, `numbers` (at least 1) ahead in sequence and `ticks` in timestamp.
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

    /// A packet arrived and its distance to the last one is meaningless: the first one, or after a
    /// switch.
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

    /// Usual ticks from frame to frame; none before the second frame.
    ///
    /// Silent voice (DTX) sends rarely: two long intervals in a row become the usual one, while a
    /// single one only moves the average.
    pub(super) fn interval(&self) -> Option<u32> {
        let [newer, older] = self.last;
        match (self.smoothed, older) {
            (0, _) => None,
            (smoothed, 0) => Some(smoothed),
            (smoothed, _) => Some(smoothed.clamp(newer.min(older), newer.max(older))),
        }
    }

    /// The position of a new sender's first packet after this silence.
    pub(super) fn leap(&self, silence: Silence, clock_rate: u32) -> Leap {
        if clock_rate == VIDEO_CLOCK_HZ {
            self.leap_of_video(silence)
        } else {
            self.leap_of_voice(silence)
        }
    }

    fn leap_of_voice(&self, silence: Silence) -> Leap {
        let ticks = silence.since_frame + silence.lead;
        let Some(interval) = self.interval() else {
            return Leap { lost: 0, ticks: ticks.max(1) as u32 };
        };
        let frames = rounded(ticks, interval).max(1);
        let grains = rounded(ticks, self.grain).max(1);
        Leap { lost: self.packets_of(frames - 1), ticks: (grains * u64::from(self.grain)) as u32 }
    }

    fn leap_of_video(&self, silence: Silence) -> Leap {
        let ticks = silence.since_frame + silence.lead;
        let Some(interval) = self.interval() else {
            return Leap { lost: 0, ticks: ticks.max(1) as u32 };
        };
        let on_the_way = (silence.lead * u64::from(self.packets_x16))
            .div_ceil(16 * u64::from(interval))
            .min(LOST_MAX) as u16;
        let unfinished = self.marks && !self.ended;
        let interval = u64::from(interval);
        if unfinished && silence.since_frame < interval && silence.since_packet * 2 < interval {
            // The frame continues where the old sender stopped: it is useless otherwise.
            return Leap { lost: on_the_way, ticks: 0 };
        }
        let frames = rounded(ticks, interval as u32).max(1);
        let rest =
            if unfinished { self.packets_of(1).saturating_sub(self.in_frame).max(1) } else { 0 };
        let lost = (u64::from(self.packets_of(frames - 1)) + u64::from(rest)).min(LOST_MAX) as u16;
        Leap { lost: lost.max(on_the_way), ticks: ticks.max(interval / 2).max(1) as u32 }
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
mod tests {
    use super::*;

    const VOICE_HZ: u32 = 48_000;

    fn voice(distances: &[i32]) -> Pace {
        let mut pace = Pace::default();
        pace.resume(false);
        for ticks in distances {
            pace.advance(1, *ticks, false);
        }
        pace
    }

    /// Frames of `packets` packets, 3,000 ticks apart, the last one finished.
    fn video(frames: usize, packets: usize) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..frames {
            for packet in 0..packets {
                let ticks = if packet == 0 { 3_000 } else { 0 };
                pace.advance(1, ticks, packet + 1 == packets);
            }
        }
        pace
    }

    fn silence(ticks: u64) -> Silence {
        Silence { since_frame: ticks, since_packet: ticks, lead: 0 }
    }

    #[test]
    fn voice_continues_at_the_next_whole_frame() {
        let pace = voice(&[960; 10]);
        for (ticks, lost, advance) in [
            (0, 0, 960),
            (960, 0, 960),
            (1_439, 0, 960),
            (1_440, 1, 1_920),
            (2_880, 2, 2_880),
            (3_000, 2, 2_880),
        ] {
            assert_eq!(
                pace.leap(silence(ticks), VOICE_HZ),
                Leap { lost, ticks: advance },
                "{ticks}"
            );
        }
    }

    #[test]
    fn voice_silence_is_not_loss() {
        let mut distances = vec![960; 20];
        distances.extend([19_200; 3]);
        let leap = voice(&distances).leap(silence(19_200), VOICE_HZ);
        assert_eq!(leap, Leap { lost: 0, ticks: 19_200 });
        distances.extend([960; 2]);
        let leap = voice(&distances).leap(silence(2_880), VOICE_HZ);
        assert_eq!(leap, Leap { lost: 2, ticks: 2_880 }, "voice resumes at once");
    }

    #[test]
    fn intervals_across_a_loss_are_ignored() {
        let mut pace = voice(&[960; 10]);
        for _ in 0..10 {
            pace.advance(2, 1_920, false);
        }
        assert_eq!(pace.leap(silence(2_880), VOICE_HZ), Leap { lost: 2, ticks: 2_880 });
    }

    #[test]
    fn voice_that_changes_frame_size_stays_on_grid() {
        let mut distances = vec![2_880; 10];
        distances.extend([960; 10]);
        assert_eq!(voice(&distances).leap(silence(4_800), VOICE_HZ).ticks, 4_800);
        let mut distances = vec![960; 10];
        distances.extend([882; 3]);
        assert_eq!(voice(&distances).grain, 882, "a smaller step counts at once");
        let mut distances = vec![882; 10];
        distances.extend([960; 3]);
        assert_eq!(voice(&distances).grain, 882, "three may be chance");
        distances.push(960);
        assert_eq!(voice(&distances).grain, 960, "four are not");
    }

    #[test]
    fn video_loses_whole_frames() {
        let pace = video(10, 6);
        for (ticks, lost) in [(2_000, 0), (3_000, 0), (4_499, 0), (4_500, 6), (9_000, 12)] {
            let leap = pace.leap(silence(ticks), VIDEO_CLOCK_HZ);
            assert_eq!(leap, Leap { lost, ticks: ticks as u32 }, "{ticks}");
        }
    }

    #[test]
    fn video_frames_never_share_a_timestamp() {
        assert_eq!(video(10, 6).leap(silence(10), VIDEO_CLOCK_HZ).ticks, 1_500);
    }

    #[test]
    fn unfinished_frame_continues_soon_or_is_lost() {
        let mut pace = video(10, 6);
        pace.advance(1, 3_000, false);
        pace.advance(1, 0, false);
        assert_eq!(pace.leap(silence(1_499), VIDEO_CLOCK_HZ), Leap { lost: 0, ticks: 0 });
        assert_eq!(pace.leap(silence(1_500), VIDEO_CLOCK_HZ), Leap { lost: 4, ticks: 1_500 });
        assert_eq!(pace.leap(silence(6_000), VIDEO_CLOCK_HZ), Leap { lost: 10, ticks: 6_000 });
    }

    #[test]
    fn paced_frame_continues_until_the_next_is_due() {
        let mut pace = video(10, 6);
        pace.advance(1, 3_000, false);
        for (since_frame, goes_on) in [(2_999, true), (3_000, false)] {
            let silence = Silence { since_frame, since_packet: 500, lead: 0 };
            assert_eq!(pace.leap(silence, VIDEO_CLOCK_HZ).ticks == 0, goes_on);
        }
    }

    #[test]
    fn streams_without_markers_have_no_unfinished_frames() {
        let pace = voice(&[3_000; 10]);
        assert_eq!(pace.leap(silence(3_000), VIDEO_CLOCK_HZ), Leap { lost: 0, ticks: 3_000 });
        assert_eq!(pace.leap(silence(100), VIDEO_CLOCK_HZ).ticks, 1_500);
    }

    #[test]
    fn numbers_are_kept_free_for_packets_in_flight() {
        let lead = |lead| Silence { lead, ..silence(960) };
        let pace = voice(&[960; 10]);
        assert_eq!(pace.leap(lead(960), VOICE_HZ), Leap { lost: 1, ticks: 1_920 });
        assert_eq!(pace.leap(lead(0), VOICE_HZ), Leap { lost: 0, ticks: 960 });
        let pace = video(10, 6);
        let lead = Silence { lead: 90, ..silence(10) };
        assert_eq!(pace.leap(lead, VIDEO_CLOCK_HZ).lost, 1);
    }

    #[test]
    fn unknown_pace_counts_no_loss() {
        for clock_rate in [VOICE_HZ, VIDEO_CLOCK_HZ, 0] {
            let leap = Pace::default().leap(silence(96_000), clock_rate);
            assert_eq!(leap, Leap { lost: 0, ticks: 96_000 });
            assert_eq!(Pace::default().leap(silence(0), clock_rate).ticks, 1);
        }
    }

    #[test]
    fn long_silence_skips_a_bounded_range() {
        let day = silence(86_400 * 48_000);
        assert_eq!(voice(&[960; 10]).leap(day, VOICE_HZ).lost, LOST_MAX as u16);
        assert_eq!(video(10, 6).leap(day, VIDEO_CLOCK_HZ).lost, LOST_MAX as u16);
    }
}
