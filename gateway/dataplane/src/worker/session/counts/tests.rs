use super::*;

/// A report about the stream 9 with these cumulative losses.
fn report(lost: i32) -> impl Iterator<Item = ReportBlock> {
    let block = ReportBlock {
        ssrc: 9,
        fraction_lost: 0,
        lost,
        sequence_max: 0,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    std::iter::once(block)
}

#[test]
fn reported_losses_are_differences() {
    // Another process counted the first three.
    for (is_continued, expected) in [(false, 8), (true, 5)] {
        let mut counts = SessionCounts { is_continued, ..SessionCounts::default() };
        // A duplicate lowers the number.
        for (lost, sent) in [(3, 100), (8, 200), (7, 300)] {
            counts.note_reports(report(lost), sent);
        }
        assert_eq!(counts.take().lost_down, expected);
        // The client claims more losses than packets.
        counts.note_reports(report(8_000_000), 310);
        assert_eq!(counts.take().lost_down, 10);
        counts.note_reports(report(8_000_000), 400);
        assert_eq!(counts.take(), MediaCounts::default());
    }
}

/// Counts the freezes of twenty pictures, 40 ms apart, of which the eleventh and later ones come `late` ms late.
fn freezes(late: u64) -> u32 {
    let (mut counts, began) = (SessionCounts::default(), Instant::now());
    for number in 0..20 {
        let late = if number < 10 { 0 } else { late };
        let at = began + Duration::from_millis(40 * number + late);
        for timestamp in [3_600 * number as u32, 3_600 * number as u32 - u32::from(number > 1)] {
            counts.note_picture(9, timestamp, at);
        }
    }
    counts.take().freezes
}

#[test]
fn late_picture_is_a_freeze() {
    assert_eq!([0, 149, 150, 9_959, 9_960].map(freezes), [0, 0, 1, 1, 0]);
}

#[test]
fn slower_camera_stops_to_freeze() {
    let (mut counts, mut at) = (SessionCounts::default(), Instant::now());
    for number in 0..100 {
        at += Duration::from_millis(if number < 50 { 40 } else { 400 });
        counts.note_picture(9, 3_600 * number, at);
    }
    let freezes = counts.take().freezes;
    assert!((1..=15).contains(&freezes), "{freezes}");
}

/// Pictures of so many packets, 40 ms apart, for a second. The last one comes `late` ms late.
fn pictures(packets: u32, late: u64) -> (SessionCounts, Instant) {
    let (mut counts, began) = (SessionCounts::default(), Instant::now());
    let mut at = began;
    for number in 0..25 {
        at = began + Duration::from_millis(40 * u64::from(number) + u64::from(number == 24) * late);
        (0..packets).for_each(|_| counts.note_picture(9, 3_600 * number, at));
    }
    (counts, at)
}

fn frozen_ppm(counts: &mut SessionCounts, loss: Option<HeardLoss>, now: Instant) -> Option<u64> {
    let (elapsed, round_trip) = (Duration::from_secs(1), Duration::from_millis(60));
    counts.frozen_ppm(elapsed, round_trip, |ssrc| loss.filter(|_| ssrc == 9), now)
}

#[test]
fn freeze_is_a_share_of_the_last_seconds() {
    let (mut counts, at) = pictures(1, 0);
    assert_eq!(frozen_ppm(&mut counts, None, at), Some(0));
    let (mut counts, at) = pictures(1, 960);
    // A second of ten; later ones weigh more.
    assert_eq!(frozen_ppm(&mut counts, None, at), Some(100_000));
    assert_eq!(frozen_ppm(&mut counts, None, at), Some(90_000));
    assert_eq!(frozen_ppm(&mut counts, None, at + FREEZE_MAX), None, "the camera is off");
    assert_eq!(frozen_ppm(&mut SessionCounts::default(), None, at), None);
}

#[test]
fn picture_without_a_packet_stands_until_a_key_frame() {
    let loss = |ppm, burst_ratio| Some(HeardLoss { ppm, burst_ratio });
    let (mut counts, at) = pictures(1, 0);
    // A tenth of the pictures, 160 ms each, of one each 40 ms.
    assert_eq!(frozen_ppm(&mut counts, loss(100_000, 1.0), at), Some(285_714));
    counts.note_key_frame(Duration::from_millis(340));
    assert_eq!(frozen_ppm(&mut counts, loss(100_000, 1.0), at), Some(500_000));
    assert_eq!(frozen_ppm(&mut counts, loss(0, 1.0), at), Some(0));
    // Pictures of ten packets lack one more often, but less in bursts.
    let (mut counts, at) = pictures(10, 0);
    let random = frozen_ppm(&mut counts, loss(10_000, 1.0), at).unwrap();
    let bursts = frozen_ppm(&mut counts, loss(10_000, 4.0), at).unwrap();
    assert!((270_000..=285_000).contains(&random), "{random}");
    assert!((85_000..=95_000).contains(&bursts), "{bursts}");
}
