use super::*;

const DAY: u64 = crate::MINUTES_OF_DAY;

fn healthy() -> NodeSample {
    NodeSample {
        round_trip_ms: Some(10.0),
        loss: 0.001,
        memory: Some(0.3),
        started_s: Some(1_000),
        may_restart: false,
    }
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
    // 50 ms after five hours. The limit of 30 ms is reached after 150 minutes.
    let rise = |minute: u64| 10.0 + 40.0 * minute as f64 / 300.0;
    let found =
        warned(300, |minute, sample| NodeSample { round_trip_ms: Some(rise(minute)), ..sample });
    let (minute, warning) = found.unwrap();
    assert_eq!((warning.sign, warning.limit.round()), (DecaySign::Delay, 30.0));
    assert!((60..150).contains(&minute), "after {minute} minutes");
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
    (0..DAY).for_each(|minute| _ = node.sample(minute, healthy()));
    let rise = |minute: Minute| 10.0 + 40.0 * (minute - DAY) as f64 / 300.0;
    let sick = |minute| NodeSample { round_trip_ms: Some(rise(minute)), ..healthy() };
    let warned = (DAY..DAY + 240).filter_map(|minute| node.sample(minute, sick(minute))).count();
    assert!(warned > 0);
    let gone = NodeSample { round_trip_ms: None, ..healthy() };
    let mut later = (DAY + 240..DAY + 280).map(|minute| node.sample(minute, gone));
    assert!(later.nth(20).is_some_and(|warning| warning.is_none()));
}

#[test]
fn trend_does_not_run_across_a_gap() {
    let mut node = DecayForecast::default();
    let loss = |minute: Minute| NodeSample { loss: minute as f64 / 10_000.0, ..healthy() };
    let warned = |node: &mut DecayForecast, minutes: std::ops::Range<Minute>| {
        minutes.filter_map(|minute| node.sample(minute, loss(minute % DAY))).count()
    };
    assert_eq!(warned(&mut node, 0..180), 0, "a value less than a trend has");
    assert_eq!(warned(&mut node, DAY + 180..DAY + 201), 0);
    let mut whole = DecayForecast::default();
    assert!(warned(&mut whole, 0..190) > 0);
}

#[test]
fn memory_is_bounded() {
    let mut node = DecayForecast::default();
    (0..10 * DAY).for_each(|minute| _ = node.sample(minute, healthy()));
    let series = [&node.delay, &node.loss, &node.memory];
    let lengths = [DAY_VALUES, TREND_VALUES, TREND_VALUES];
    assert_eq!(series.map(|series| series.values.len()), lengths);
    assert!(series.iter().all(|series| series.samples.len() <= VALUE_MINUTES as usize));
}

#[test]
fn memory_that_leaks_is_warned_of_before_its_limit() {
    // From 30 % to 90 % within 600 minutes.
    let leaks = |minute: u64| 0.3 + 0.6 * minute as f64 / 600.0;
    let found = warned(600, |minute, sample| NodeSample { memory: Some(leaks(minute)), ..sample });
    let (minute, warning) = found.unwrap();
    assert_eq!((warning.sign, warning.limit), (DecaySign::Memory, 0.9));
    assert!((500..600).contains(&minute), "after {minute} minutes");
    let cache = |minute: u64| if minute < 60 { 0.3 } else { 0.95 };
    let found = warned(600, |minute, sample| NodeSample { memory: Some(cache(minute)), ..sample });
    assert_eq!(found, None, "a cache that is full");
}

#[test]
fn third_restart_within_two_hours_is_warned_of() {
    let restarts = |every: u64| {
        warned(300, move |minute, sample| {
            let started_s = Some(1_000 + minute / every * every * 60);
            NodeSample { started_s, ..sample }
        })
    };
    let (minute, warning) = restarts(50).unwrap();
    assert_eq!((minute, warning.sign, warning.value), (150, DecaySign::Restarts, 3.0));
    assert_eq!(restarts(65), None);
    let drifting = |minute: u64, sample: NodeSample| NodeSample {
        started_s: Some(1_000 + minute % 5),
        ..sample
    };
    assert_eq!(warned(300, drifting), None, "clocks");
}

#[test]
fn restarts_of_drained_node_are_no_sign() {
    let found = warned(300, |minute, sample| NodeSample {
        started_s: Some(1_000 + minute / 20 * 1_200),
        may_restart: minute % 20 >= 18,
        ..sample
    });
    assert_eq!(found, None);
}

#[test]
fn warning_of_restarts_ends() {
    let mut node = DecayForecast::default();
    let sample =
        |minute: Minute| NodeSample { started_s: Some(1_000 + 60 * minute.min(3)), ..healthy() };
    let warned: Vec<bool> =
        (0..200).map(|minute| node.sample(minute, sample(minute)).is_some()).collect();
    assert!(!warned[2] && warned[3] && warned[110]);
    assert!(!warned[130]);
}
