use super::*;
use crate::repair::tests::at;

fn origin() -> Instant {
    at(0)
}

/// A receiver report up to this number.
fn report(sequence: u32, lost: i32, fraction_lost: u8) -> ReportBlock {
    ReportBlock { sequence_max: sequence, lost, fraction_lost, ..ReportBlock::default() }
}

/// A stream of which these numbers were sent.
fn sent(numbers: impl IntoIterator<Item = u32>) -> StreamLoss {
    let mut numbers = numbers.into_iter().map(|number| number as u16);
    let mut loss = StreamLoss::new(numbers.next().unwrap());
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
    loss.note_report(&report(65_599, 50, 64), now);
    assert_eq!(ppm(&loss, now), Some(250_000), "the share in the first report");
    loss.note_report(&report(65_699, 60, 26), now);
    assert_eq!(ppm(&loss, now), Some(100_000), "the difference in later ones");
    loss.note_report(&report(65_699, 60, 0), now);
    assert_eq!(ppm(&loss, now), Some(100_000), "no packet since");
}

/// mediasoup 1898.
#[test]
fn loss_before_the_gateway_is_no_loss_behind_it() {
    let now = origin();
    let is_sent = |number: &u32| !number.is_multiple_of(10);
    let mut loss = sent((1..251).filter(is_sent));
    loss.note_report(&report(249, 24, 24), now);
    assert_eq!(ppm(&loss, now), Some(0), "the first report");
    (251..501).filter(is_sent).for_each(|number| loss.note_sent(number as u16));
    loss.note_report(&report(499, 49, 25), now);
    assert_eq!(ppm(&loss, now), Some(0));
    // 9 of the next 90 packets are lost behind the gateway, too.
    (501..601).filter(is_sent).for_each(|number| loss.note_sent(number as u16));
    loss.note_report(&report(599, 49 + 10 + 9, 48), now);
    assert_eq!(ppm(&loss, now), Some(100_000));
    // The client asks for packets that the gateway never got.
    loss.note_requests([510, 520, 530, 540].into_iter(), now);
    assert_eq!(loss.burst_x100(), 100);
    assert_eq!(loss.requested, None);
}

#[test]
fn reports_out_of_range_are_no_evidence() {
    let now = origin();
    for (number, lost) in [(3_000, 0), (99, 0), (0, 0)] {
        let mut loss = sent(100..200);
        loss.note_report(&report(number, lost, 255), now);
        assert_eq!(ppm(&loss, now), None, "{number}");
    }
    let mut loss = sent(100..200);
    loss.note_report(&report(150, i32::MIN, 0), now);
    loss.note_report(&report(199, i32::MAX, 0), now);
    assert_eq!(ppm(&loss, now), Some(1_000_000));
    // More packets than are remembered.
    let mut loss = sent(100..200);
    loss.note_report(&report(199, 0, 0), now);
    (200..2_000).for_each(|number| loss.note_sent(number));
    loss.note_report(&report(1_999, 900, 128), now);
    assert_eq!(ppm(&loss, now), Some(0), "that of the first report");
}

#[test]
fn two_requested_packets_are_evidence() {
    let now = origin();
    let mut loss = sent(0..50);
    loss.note_requests([10].into_iter(), now);
    assert_eq!(ppm(&loss, now), Some(5_000));
    // The same packet again, and another one.
    loss.note_requests([10, 30].into_iter(), now);
    assert_eq!(ppm(&loss, now), Some(10_000));
    assert_eq!(loss.burst_x100(), 100);
    loss.note_requests([31, 32, 60].into_iter(), now);
    assert_eq!(ppm(&loss, now), Some(20_000), "60 was not sent");
    assert_eq!(loss.burst_x100(), 200);
    (50..250).for_each(|number| loss.note_sent(number));
    assert_eq!(ppm(&loss, now), Some(0), "the windows are over");
    assert_eq!(loss.burst_x100(), 100);
}

#[test]
fn evidence_expires() {
    let now = origin();
    let mut loss = sent(0..50);
    loss.note_requests([10, 11].into_iter(), now);
    let at = now + Duration::from_secs(10);
    loss.note_report(&report(49, 0, 0), at);
    assert_eq!(loss.sample(at), Some(LossSample { ppm: 10_000, at: now }), "the higher one");
    assert_eq!(loss.sample(now + KEPT_FOR), Some(LossSample { ppm: 0, at }));
    assert_eq!(loss.sample(at + KEPT_FOR), None);
}

#[test]
fn old_numbers_are_forgotten() {
    let mut loss = sent([0, 1, 2]);
    loss.note_sent(1_025);
    assert!(loss.was_sent(2) && loss.was_sent(1_025));
    assert!(!loss.was_sent(1) && !loss.was_sent(0) && !loss.was_sent(1_024));
    loss.note_sent(30_000);
    assert!(!loss.was_sent(1_025) && !loss.was_sent(29_999) && loss.was_sent(30_000));
    loss.note_sent(1_025);
    assert!(loss.was_sent(1_025) && !loss.was_sent(30_000), "the stream began anew");
}

#[test]
fn requests_count_again_after_a_pause() {
    let now = origin();
    let mut loss = sent([1, 2]);
    loss.note_requests([1].into_iter(), now);
    // The numbers went through half of their range.
    (3..40_000).for_each(|number| loss.note_sent(number));
    let later = now + KEPT_FOR;
    loss.note_requests([39_998, 39_999].into_iter(), later);
    assert_eq!(loss.sample(later), Some(LossSample { ppm: 10_000, at: later }));
}
