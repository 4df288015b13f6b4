use super::*;

const DAY: u64 = crate::MINUTES_OF_DAY;

fn healthy() -> NodeSample {
    NodeSample { round_trip_ms: Some(10.0), loss: 0.001, restarts: 0, memory: Some(0.4) }
}

/// A healthy node, and then the samples of so many minutes. Returns the first warning, with its minute.
fn warned(
    minutes: u64,
    sample: impl Fn(u64, NodeSample) -> NodeSample,
) -> Option<(u64, DecayWarning)> {
    let mut node = DecayForecast::default();
    (0..DAY).for_each(|minute| assert_eq!(node.sample(minute, healthy()), None));
    let mut later = (0..minutes).map(|minute| {
        let warning = node.sample(DAY + minute, sample(minute, healthy()));
        warning.map(|warning| (minute, warning))
    });
    later.find_map(|warning| warning)
}

#[test]
fn rising_delay_is_warned_of_before_its_limit() {
    // 50 ms after five hours. The limit of 24 ms is reached after 105 minutes.
    let rise = |minute: u64| 10.0 + 40.0 * minute as f64 / 300.0;
    let found =
        warned(300, |minute, sample| NodeSample { round_trip_ms: Some(rise(minute)), ..sample });
    let (minute, warning) = found.unwrap();
    assert_eq!((warning.sign, warning.limit.round()), (DecaySign::Delay, 24.0));
    assert!((60..150).contains(&minute), "after {minute} minutes");
}

#[test]
fn leak_is_warned_of_with_the_time_of_its_limit() {
    // 0.95 after 22 hours.
    let leak = |minute: u64| 0.4 + 0.55 * minute as f64 / 1_320.0;
    let found = warned(1_400, |minute, sample| NodeSample { memory: Some(leak(minute)), ..sample });
    let (minute, warning) = found.unwrap();
    assert_eq!(warning.sign, DecaySign::Memory);
    assert!((1_240..1_290).contains(&minute), "after {minute} minutes");
    assert!(warning.at.abs_diff(DAY + 1_320) <= 20, "{warning:?}");
}

#[test]
fn loss_is_warned_of_while_it_lasts() {
    let lossy = |until: u64| {
        warned(90, move |minute, sample| NodeSample {
            loss: if minute < until { 0.05 } else { 0.001 },
            ..sample
        })
    };
    assert_eq!(lossy(5), None, "a spike");
    assert_eq!(lossy(90).unwrap().1.sign, DecaySign::Loss);
}

#[test]
fn recurring_restarts_are_warned_of() {
    let restarts = |every: usize, number: u64| {
        warned(1_440, move |minute, sample| {
            let is_restart = minute as usize % every == 0 && minute < every as u64 * number;
            NodeSample { restarts: is_restart.into(), ..sample }
        })
    };
    assert_eq!(restarts(5, 3), None, "a deployment");
    assert_eq!(restarts(300, 4), None, "not within half a day");
    let (minute, warning) = restarts(60, 4).unwrap();
    assert_eq!((minute, warning.sign), (180, DecaySign::Restarts));
}

#[test]
fn harmless_disturbances_are_not_warned_of() {
    let delays = |what, delay: fn(u64) -> f64| {
        let found = warned(600, |minute, sample| NodeSample {
            round_trip_ms: Some(delay(minute)),
            ..sample
        });
        assert_eq!(found, None, "{what}");
    };
    delays("a spike", |minute| if minute == 200 { 100.0 } else { 10.0 });
    delays("a backup", |minute| if (200..260).contains(&minute) { 25.0 } else { 10.0 });
    delays("a new route", |minute| if minute >= 200 { 25.0 } else { 10.0 });
    delays("congestion", |minute| {
        let from_peak = minute.abs_diff(300).min(100) as f64;
        16.0 - 6.0 * from_peak / 100.0
    });
}

#[test]
fn warning_ends_while_its_value_is_not_measured() {
    let mut node = DecayForecast::default();
    let sick = NodeSample { memory: Some(0.99), ..healthy() };
    let warned = (0..40).filter_map(|minute| node.sample(minute, sick)).count();
    assert!(warned > 0);
    let gone = NodeSample { round_trip_ms: None, memory: None, ..healthy() };
    let warnings: Vec<_> = (40..80).map(|minute| node.sample(minute, gone)).collect();
    assert_eq!(warnings[20..], [None; 20]);
}

#[test]
fn memory_is_bounded() {
    let mut node = DecayForecast::default();
    for minute in 0..10 * DAY {
        node.sample(minute, NodeSample { restarts: u32::MAX, ..healthy() });
    }
    let series = [&node.delay, &node.loss, &node.memory];
    assert_eq!(series.map(|series| series.values.len()), [DAY_VALUES, TREND_VALUES, TREND_VALUES]);
    assert!(series.iter().all(|series| series.samples.len() <= VALUE_MINUTES as usize));
    assert_eq!(node.restarts.len(), RESTARTS_MIN);
}
