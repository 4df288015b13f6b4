use super::*;

const VOICE_HZ: u32 = 48_000;

fn voice(distances: &[i32]) -> TimestampPace {
    let mut pace = TimestampPace::default();
    pace.resume(false);
    for ticks in distances {
        pace.advance(1, *ticks, false);
    }
    pace
}

/// Learns from frames of `packets` packets, 3,000 ticks apart; the last frame is complete.
fn video(frames: usize, packets: usize) -> TimestampPace {
    let mut pace = TimestampPace::default();
    for _ in 0..frames {
        for packet in 0..packets {
            let ticks = if packet == 0 { 3_000 } else { 0 };
            pace.advance(1, ticks, packet + 1 == packets);
        }
    }
    pace
}

fn silence(ticks: u64) -> SilenceSpan {
    SilenceSpan { since_frame: ticks, since_packet: ticks, lead: 0 }
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
        assert_eq!(pace.leap(silence(ticks), VOICE_HZ), Leap { lost, ticks: advance }, "{ticks}");
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
        let silence = SilenceSpan { since_frame, since_packet: 500, lead: 0 };
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
    let lead = |lead| SilenceSpan { lead, ..silence(960) };
    let pace = voice(&[960; 10]);
    assert_eq!(pace.leap(lead(960), VOICE_HZ), Leap { lost: 1, ticks: 1_920 });
    assert_eq!(pace.leap(lead(0), VOICE_HZ), Leap { lost: 0, ticks: 960 });
    let pace = video(10, 6);
    let lead = SilenceSpan { lead: 90, ..silence(10) };
    assert_eq!(pace.leap(lead, VIDEO_CLOCK_HZ).lost, 1);
}

#[test]
fn unknown_pace_counts_no_loss() {
    for clock_rate in [VOICE_HZ, VIDEO_CLOCK_HZ, 0] {
        let leap = TimestampPace::default().leap(silence(96_000), clock_rate);
        assert_eq!(leap, Leap { lost: 0, ticks: 96_000 });
        assert_eq!(TimestampPace::default().leap(silence(0), clock_rate).ticks, 1);
    }
}

#[test]
fn long_silence_skips_a_bounded_range() {
    let day = silence(86_400 * 48_000);
    assert_eq!(voice(&[960; 10]).leap(day, VOICE_HZ).lost, LOST_MAX as u16);
    assert_eq!(video(10, 6).leap(day, VIDEO_CLOCK_HZ).lost, LOST_MAX as u16);
}
