use super::*;
use crate::loss::StreamLoss;
use crate::tests::at;

fn origin() -> Instant {
    at(0)
}

/// A receiver report up to this number.
fn report(sequence: u32, lost: i32, fraction_lost: u8) -> ReportBlock {
    ReportBlock { sequence_max: sequence, lost, fraction_lost, ..ReportBlock::default() }
}

/// A stream of which these numbers were sent.
fn sent(numbers: impl IntoIterator<Item = u32>) -> StreamLoss {
    let numbers = numbers.into_iter().map(|number| number as u16);
    let mut loss = StreamLoss::default();
    numbers.for_each(|number| loss.note_sent(number));
    loss
}

fn ppm(loss: &StreamLoss, now: Instant) -> Option<u32> {
    loss.sample(now).map(|sample| sample.ppm)
}

#[test]
fn loss_behind_the_gateway_is_measured_from_reports() {
    let now = origin();
    // The numbers wrap.
    let mut loss = sent(65_500..65_700);
    assert_eq!(ppm(&loss, now), None);
    loss.read(&report(65_599, 50, 64), 0, now);
    assert_eq!(ppm(&loss, now), Some(250_000), "the share in the first report");
    loss.read(&report(65_699, 60, 26), 0, now);
    assert_eq!(ppm(&loss, now), Some(100_000), "the difference in later ones");
    loss.read(&report(65_699, 60, 0), 0, now);
    assert_eq!(ppm(&loss, now), Some(100_000), "no packet since");
}

/// mediasoup 1898.
#[test]
fn loss_before_the_gateway_is_no_loss_behind_it() {
    let now = origin();
    let is_sent = |number: &u32| !number.is_multiple_of(10);
    let mut loss = sent((1..251).filter(is_sent));
    loss.read(&report(249, 24, 24), 0, now);
    assert_eq!(ppm(&loss, now), Some(0), "the first report");
    (251..501).filter(is_sent).for_each(|number| loss.note_sent(number as u16));
    loss.read(&report(499, 49, 25), 0, now);
    assert_eq!(ppm(&loss, now), Some(0));
    // 9 of the next 90 packets are lost behind the gateway, too.
    (501..601).filter(is_sent).for_each(|number| loss.note_sent(number as u16));
    loss.read(&report(599, 49 + 10 + 9, 48), 0, now);
    assert_eq!(ppm(&loss, now), Some(100_000));
    // The client asks for packets that the gateway never got.
    loss.note_missing([510, 520, 530, 540].into_iter(), now);
    assert_eq!(loss.bursts().mean_centi(), None);
}

#[test]
fn reports_out_of_range_are_no_evidence() {
    let now = origin();
    for (number, lost) in [(3_000, 0), (99, 0), (0, 0)] {
        let mut loss = sent(100..200);
        loss.read(&report(number, lost, 255), 0, now);
        assert_eq!(ppm(&loss, now), None, "{number}");
    }
    let mut loss = sent(100..200);
    loss.read(&report(150, i32::MIN, 0), 0, now);
    loss.read(&report(199, i32::MAX, 0), 0, now);
    assert_eq!(ppm(&loss, now), Some(1_000_000));
    // More packets than are remembered.
    let mut loss = sent(100..200);
    loss.read(&report(199, 0, 0), 0, now);
    (200..2_000).for_each(|number| loss.note_sent(number));
    loss.read(&report(1_999, 900, 128), 0, now);
    assert_eq!(ppm(&loss, now), Some(0), "that of the first report");
}

#[test]
fn two_requested_packets_are_evidence() {
    let now = origin();
    let mut loss = sent(0..50);
    loss.note_missing([10].into_iter(), now);
    assert_eq!(ppm(&loss, now), Some(5_000));
    // The same packet again, and another one.
    loss.note_missing([10, 30].into_iter(), now);
    assert_eq!(ppm(&loss, now), Some(10_000));
    assert_eq!(loss.bursts().mean_centi(), Some(100));
    loss.note_missing([31, 32, 60].into_iter(), now);
    assert_eq!(ppm(&loss, now), Some(20_000), "60 was not sent");
    assert_eq!(loss.bursts().mean_centi(), Some(200));
    (50..250).for_each(|number| loss.note_sent(number));
    assert_eq!(ppm(&loss, now), Some(0), "the windows are over");
}

#[test]
fn evidence_expires() {
    let now = origin();
    let mut loss = sent(0..50);
    loss.note_missing([10, 11].into_iter(), now);
    let at = now + Duration::from_secs(10);
    loss.read(&report(49, 0, 0), 0, at);
    assert_eq!(loss.sample(at), Some(LossSample { ppm: 10_000, at: now }), "the higher one");
    assert_eq!(loss.sample(now + KEPT_FOR), Some(LossSample { ppm: 0, at }));
    assert_eq!(loss.sample(at + KEPT_FOR), None);
}

#[test]
fn old_numbers_are_forgotten() {
    let mut numbers = SentNumbers::new(0);
    [1, 2, 1_025].into_iter().for_each(|number| numbers.note_sent(number));
    assert!(numbers.was_sent(2) && numbers.was_sent(1_025));
    assert!(!numbers.was_sent(1) && !numbers.was_sent(0) && !numbers.was_sent(1_024));
    numbers.note_sent(30_000);
    assert!(!numbers.was_sent(1_025) && !numbers.was_sent(29_999) && numbers.was_sent(30_000));
    numbers.note_sent(1_025);
    assert!(numbers.was_sent(1_025) && !numbers.was_sent(30_000), "the stream began anew");
}

#[test]
fn requests_count_again_after_a_pause() {
    let now = origin();
    let mut loss = sent([1, 2]);
    loss.note_missing([1].into_iter(), now);
    // The numbers went through half of their range.
    (3..40_000).for_each(|number| loss.note_sent(number));
    let later = now + KEPT_FOR;
    loss.note_missing([39_998, 39_999].into_iter(), later);
    assert_eq!(loss.sample(later), Some(LossSample { ppm: 10_000, at: later }));
}
