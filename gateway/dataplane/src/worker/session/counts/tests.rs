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
