use super::*;

const DAY: u64 = MINUTES_OF_DAY;

/// A quiet night, and a peak of 1,000 at noon that begins at 9:00. No load at weekends.
fn usual_load(minute: Minute) -> f64 {
    if weekday(minute) >= 5 {
        return 100.0;
    }
    let from_noon = (minute % DAY).abs_diff(DAY / 2).min(180) as f64;
    100.0 + 900.0 * (1.0 - from_noon / 180.0)
}

/// A region with this load until the minute, exclusively.
fn sampled(until: Minute, load: impl Fn(Minute) -> f64) -> LoadForecast {
    let mut forecast = LoadForecast::default();
    (0..until).for_each(|minute| forecast.sample(minute, load(minute)));
    forecast
}

#[test]
fn exhaustion_is_expected_before_the_peak() {
    // Monday of the third week, 20 minutes before noon, with a tenth more load than usual.
    let now = 14 * DAY + DAY / 2 - 20;
    let load = |minute| usual_load(minute) * if minute >= 14 * DAY { 1.1 } else { 1.0 };
    let forecast = sampled(now, load);
    assert!(load(now) < 1_000.0, "capacity is left now");
    let found = forecast.exhaustion(1_050.0, 30).unwrap();
    assert!((now..now + 20).contains(&found.at), "{found:?}");
    assert!((1_040.0..1_120.0).contains(&found.load), "{found:?}");
    assert!(found.confidence > 0.5, "{found:?}");
    assert_eq!(forecast.exhaustion(1_200.0, 30), None);
    assert_eq!(forecast.exhaustion(1_050.0, 5), None, "beyond the horizon");
    assert!((forecast.peak(30) - found.load).abs() < 1.0);
    assert!(forecast.peak(5) < 1_050.0);
}

#[test]
fn quiet_weekday_is_not_taken_for_a_busy_one() {
    let forecast = sampled(19 * DAY + DAY / 2 - 20, usual_load);
    assert_eq!(forecast.exhaustion(200.0, 60), None);
}

#[test]
fn sessions_of_another_region_add_to_the_usual_load() {
    // From 9:00 on the load was ten times the usual one. It does not grow tenfold until noon.
    let now = 14 * DAY + 10 * 60;
    let load = |minute| usual_load(minute) + if minute >= now - 60 { 900.0 } else { 0.0 };
    let forecast = sampled(now, load);
    assert_eq!(forecast.exhaustion(2_200.0, 60), None);
    assert!(forecast.exhaustion(1_400.0, 60).is_some());
}

#[test]
fn nothing_is_forecast_on_the_first_day() {
    let now = DAY / 2 - 20;
    assert_eq!(sampled(now, usual_load).exhaustion(950.0, 60), None);
    assert!(sampled(DAY + now, usual_load).exhaustion(950.0, 60).is_some());
}

#[test]
fn exhausted_capacity_is_reported_at_once() {
    let found = sampled(10, |_| 100.0).exhaustion(100.0, 60);
    assert_eq!(found, Some(Exhaustion { at: 9, load: 100.0, confidence: 1.0 }));
}

#[test]
fn morning_ramp_is_forecast_from_a_low_load() {
    let now = 14 * DAY + 9 * 60 + 15;
    let forecast = sampled(now, usual_load);
    assert!(usual_load(now) < 0.3 * 600.0);
    let found = forecast.exhaustion(600.0, 120).unwrap();
    assert!(found.at.abs_diff(14 * DAY + 10 * 60 + 40) <= 10, "{found:?}");
}

#[test]
fn error_of_a_clock_that_was_ahead_is_not_measured() {
    let mut forecast = sampled(14 * DAY, usual_load);
    let ahead = 15 * DAY + DAY / 2;
    forecast.sample(ahead, usual_load(ahead));
    let before = forecast.error_square;
    // The forecast for the time ahead is dropped, and those of now are measured.
    let (at, _) = forecast.checked.unwrap();
    assert_eq!(at, ahead + ERROR_MINUTES);
    forecast.sample(14 * DAY, usual_load(14 * DAY));
    assert_eq!(
        (forecast.checked.unwrap().0, forecast.error_square),
        (14 * DAY + ERROR_MINUTES, before)
    );
    (14 * DAY + 1..=14 * DAY + ERROR_MINUTES)
        .for_each(|minute| forecast.sample(minute, 2.0 * usual_load(minute)));
    assert!(forecast.error_square > before);
}

#[test]
fn gap_keeps_the_usual_load_and_memory_is_bounded() {
    let now = 28 * DAY + DAY / 2 - 20;
    // Down for four hours of each Monday.
    let mut forecast = LoadForecast::default();
    let is_down = |minute: Minute| weekday(minute) == 0 && minute % DAY < 240;
    let samples = (0..now).filter(|minute| !is_down(*minute));
    samples.for_each(|minute| forecast.sample(minute, usual_load(minute)));
    let found = forecast.exhaustion(950.0, 60).unwrap();
    let slots: usize = forecast.weekdays.iter().map(Vec::len).sum();
    assert_eq!((slots, forecast.yesterday.len(), forecast.today.len()), (7 * SLOTS, SLOTS, SLOTS));
    assert!(forecast.is_valid());
    let written = serde_json::to_string(&forecast).unwrap();
    let read: LoadForecast = serde_json::from_str(&written).unwrap();
    assert_eq!(read.exhaustion(950.0, 60).unwrap().at, found.at);
}
