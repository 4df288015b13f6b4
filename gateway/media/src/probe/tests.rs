use super::ProbeTransport::{Udp, WebTransport};
use super::*;

const PACKETS: usize = Udp.packets();

/// A path without loss, with this round trip.
fn clean(round_trip_us: u32) -> Vec<Option<u32>> {
    vec![Some(round_trip_us); PACKETS]
}

fn measured(round_trips_us: &[Option<u32>]) -> PathMeasurement {
    PathMeasurement::new(Udp, |_| true, round_trips_us)
}

/// The numbers of the train at this position.
fn numbers(position: usize) -> Range<usize> {
    let (numbers, _) = Udp.numbered_trains().nth(position).unwrap();
    usize::from(numbers.start)..usize::from(numbers.end)
}

/// Sets the round trips of a train, by its packet from 0.
fn set(times: &mut [Option<u32>], train: usize, round_trip: impl Fn(usize) -> Option<u32>) {
    for (at, time) in times[numbers(train)].iter_mut().enumerate() {
        *time = round_trip(at);
    }
}

#[test]
fn trains_last_three_seconds() {
    for transport in [Udp, WebTransport] {
        let trains = transport.trains();
        let lasts: Duration = trains.iter().map(|it| it.interval * u32::from(it.packets)).sum();
        let right = Duration::from_millis(2_900)..=Duration::from_secs(3);
        assert!(right.contains(&lasts), "{lasts:?}");
        assert!(trains.iter().all(|it| it.bytes.is_multiple_of(4)));
        let video = transport.numbered_trains().skip(VIDEO);
        let rates = video.map(|(numbers, it)| rate_kbps(numbers, it, |_| Some(0)));
        for (rate, (_, target)) in rates.zip(RESOLUTIONS.into_iter().rev()) {
            assert!(100 * rate >= 99 * target && rate <= target, "{rate} of {target}");
        }
    }
}

#[test]
fn number_is_read_from_its_transaction() {
    for of in [0, 1, 366, u16::MAX] {
        assert_eq!(number(transaction(of, [7; 10])), of);
    }
    assert_ne!(transaction(1, [7; 10]), transaction(1, [8; 10]));
    let bytes = [0, 139, 140, 366, 367].map(|number| Udp.bytes_of(number));
    assert_eq!(bytes, [Some(160), Some(160), Some(1_252), Some(VIDEO_BYTES), None]);
    let bytes = [0, 140, 409, 410].map(|number| WebTransport.bytes_of(number));
    assert_eq!(bytes, [Some(160), Some(1_052), Some(WEBTRANSPORT_VIDEO_BYTES), None]);
    assert_eq!((Udp.packets(), WebTransport.packets(), PACKETS_MAX), (367, 410, 410));
}

#[test]
fn clean_path_carries_the_highest_resolution() {
    let path = measured(&clean(20_000));
    assert_eq!((path.loss_ppm(), path.round_trip_us, path.jitter_us), (0, 20_000, 0));
    assert_eq!((path.payload_max, path.video_lines()), (1_472, 1080));
    assert_eq!(path.verdict(), "voice good, video 1080p");
}

#[test]
fn clean_path_by_webtransport_carries_the_highest_resolution() {
    let times = [Some(20_000); WebTransport.packets()];
    let path = PathMeasurement::new(WebTransport, |_| true, &times);
    assert_eq!((path.loss_ppm(), path.round_trip_us), (0, 20_000));
    assert_eq!((path.payload_max, path.video_lines()), (1_152, 1080));
    // Without packets as large as those of video.
    let small = PathMeasurement::new(WebTransport, |number| number < 140, &times);
    assert_eq!((small.payload_max, small.video_lines()), (160, 0));
    assert_eq!(small.verdict(), "voice good, no video; try without VPN");
}

#[test]
fn loss_counts_in_its_direction() {
    let mut times = clean(20_000);
    set(&mut times, 0, |at| (at % 10 != 0).then_some(20_000));
    let down = measured(&times);
    assert_eq!((down.loss_up_ppm, down.loss_down_ppm), (0, 100_000));
    let up = PathMeasurement::new(Udp, |number| number % 10 != 0, &clean(20_000));
    assert_eq!((up.loss_up_ppm, up.loss_down_ppm), (100_000, 0));
    assert_eq!(up.loss_ppm(), 100_000);
    assert!(up.r_factor() < R_FAIR && up.verdict().ends_with("; try Wi-Fi"), "{}", up.verdict());
}

#[test]
fn picture_needs_loss_up_to_a_limit() {
    let lossy = |lost: u16| PathMeasurement::new(Udp, |number| number >= lost, &clean(20_000));
    assert_eq!((lossy(14).loss_ppm(), lossy(14).video_lines()), (100_000, 1080));
    assert_eq!(lossy(15).video_lines(), 0);
}

#[test]
fn late_answer_counts_as_lost() {
    for (late, lost) in [(150_000, 0), (150_001, 7_142)] {
        let mut times = clean(20_000);
        times[3] = Some(20_000 + late);
        assert_eq!(measured(&times).loss_down_ppm, lost, "{late}");
    }
}

#[test]
fn answer_to_no_question_counts_as_none() {
    let path = PathMeasurement::new(Udp, |_| false, &clean(20_000));
    assert_eq!((path.loss_up_ppm, path.loss_down_ppm), (1_000_000, 0));
    assert_eq!((path.rate_kbps, path.payload_max, path.video_lines()), (0, 0, 0));
    assert_eq!(path.verdict(), "no call: UDP does not pass; try another network");
    assert_eq!(measured(&[]).loss_down_ppm, 1_000_000);
}

#[test]
fn jitter_is_smoothed_over_16_packets() {
    let mut times = clean(20_000);
    set(&mut times, 0, |at| Some(if at % 2 == 0 { 20_000 } else { 30_000 }));
    let path = measured(&times);
    assert!((9_900..=10_000).contains(&path.jitter_us), "{}", path.jitter_us);
    let (even, uneven) = (measured(&clean(30_000)).r_factor(), path.r_factor());
    assert_eq!(even, uneven, "a buffer of 40 ms holds it");
    set(&mut times, 0, |at| Some(if at % 2 == 0 { 20_000 } else { 90_000 }));
    assert!(measured(&times).r_factor() < even);
}

#[test]
fn rate_is_that_of_answers_that_queue() {
    // The path carries 1 Mbit/s: of the trains beyond, answers come each 9.6 ms, until they are late.
    let mut times = clean(20_000);
    for (train, interval) in [(8, 3_840), (9, 2_400)] {
        set(&mut times, train, |at| Some(20_000 + at as u32 * (9_600 - interval)));
    }
    let path = measured(&times);
    assert!((950..=1_000).contains(&path.rate_kbps), "{}", path.rate_kbps);
    assert_eq!((path.video_lines(), &*path.verdict()), (540, "voice good, video 540p; try Wi-Fi"));
}

#[test]
fn remedy_suits_the_cause() {
    let verdict = |times: &[Option<u32>]| measured(times).verdict();
    assert_eq!(verdict(&clean(700_000)), "voice poor, video 1080p; try a nearer region");
    let mut small = clean(20_000);
    (1..UDP_TRAINS.len()).for_each(|train| set(&mut small, train, |_| None));
    assert_eq!(verdict(&small), "voice good, no video; try without VPN");
    let mut slow = clean(20_000);
    (7..UDP_TRAINS.len()).for_each(|train| set(&mut slow, train, |_| None));
    assert_eq!(verdict(&slow), "voice good, video 360p; try Wi-Fi");
}

#[test]
fn r_is_between_the_thresholds_of_its_word() {
    for (round_trip_us, word) in [(100_000, "good"), (400_000, "fair"), (600_000, "poor")] {
        let verdict = measured(&clean(round_trip_us)).verdict();
        assert!(verdict.starts_with(&format!("voice {word}")), "{verdict}");
    }
}
