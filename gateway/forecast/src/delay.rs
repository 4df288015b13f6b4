//! Round trips far above the usual one of the hour: the service works, but something has changed.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{Minute, median};

/// The usual round trip of an hour is the median of those of so many days. A fault of one day does not become usual.
const DAYS: usize = 3;
/// The present round trip is the median of so many minutes, and that of an hour the median of such values.
const VALUE_MINUTES: usize = 10;
/// A value needs this many samples.
const SAMPLES_MIN: usize = 3;

/// A round trip is unusual from this multiple of the usual one on…
const FACTOR: u32 = 3;
/// …if a call is worse by it. Milliseconds.
const RISE_MS: u32 = 50;

/// A round trip far above the usual one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnusualDelay {
    /// The round trip now, milliseconds.
    pub round_trip_ms: u32,
    /// The usual one of this hour of the day, milliseconds.
    pub usual_ms: u32,
}

/// The round trips to one node, in whole milliseconds. Bounded: three values for each hour of the day, and those of an hour.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DelayForecast {
    /// For hours of the day (UTC) those of the last days, oldest first.
    usual: BTreeMap<u8, VecDeque<u16>>,
    /// The hour in progress, since the epoch.
    hour: u64,
    /// The values of this hour.
    values: Vec<u16>,
    /// The minute of the newest sample.
    minute: Minute,
    /// The newest samples, one of each minute, oldest first.
    samples: VecDeque<Option<u16>>,
}

impl DelayForecast {
    /// Takes the round trip of this minute; `None` if no probe was answered. Returns the present round trip while it is unusual.
    pub fn sample(&mut self, minute: Minute, round_trip_ms: Option<f64>) -> Option<UnusualDelay> {
        let hour = minute / 60;
        if minute < self.minute {
            // The clock was set back, and comes to this hour again.
            self.values.clear();
        } else if hour != self.hour {
            self.end_hour();
        }
        self.hour = hour;
        if minute != self.minute + 1 {
            self.samples.clear();
        }
        self.minute = minute;
        self.samples.push_back(round_trip_ms.map(|ms| ms.round() as u16));
        if self.samples.len() > VALUE_MINUTES {
            self.samples.pop_front();
        }
        let known = self.samples.iter().flatten();
        if known.clone().count() < SAMPLES_MIN {
            return None;
        }
        let now = middle(known)?;
        if minute as usize % VALUE_MINUTES == VALUE_MINUTES - 1 && self.values.len() < 6 {
            self.values.push(now);
        }
        let [round_trip_ms, usual_ms] = [now, self.usual(hour)?].map(u32::from);
        let is_unusual = round_trip_ms >= usual_ms * FACTOR && round_trip_ms >= usual_ms + RISE_MS;
        is_unusual.then_some(UnusualDelay { round_trip_ms, usual_ms })
    }

    /// The least until a median can leave a fault of one day out.
    fn usual(&self, hour: u64) -> Option<u16> {
        let days = self.usual.get(&hour_of_day(hour))?;
        if days.len() < DAYS { days.iter().min().copied() } else { middle(days) }
    }

    fn end_hour(&mut self) {
        let values = std::mem::take(&mut self.values);
        let Some(value) = middle(&values) else { return };
        let days = self.usual.entry(hour_of_day(self.hour)).or_default();
        days.push_back(value);
        if days.len() > DAYS {
            days.pop_front();
        }
    }
}

fn middle<'a>(values: impl IntoIterator<Item = &'a u16>) -> Option<u16> {
    median(values.into_iter().copied().map(f32::from)).map(|middle| middle as u16)
}

fn hour_of_day(hour: u64) -> u8 {
    (hour % 24) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MINUTES_OF_DAY;

    const NEVER: [Minute; 0] = [];

    /// The minutes of samples, up to `until`, in which the round trip is unusual.
    fn unusual(
        node: &mut DelayForecast,
        minutes: std::ops::Range<Minute>,
        round_trip_ms: impl Fn(Minute) -> f64,
    ) -> Vec<Minute> {
        minutes.filter(|at| node.sample(*at, Some(round_trip_ms(*at))).is_some()).collect()
    }

    /// 50 ms, and 120 ms from 18:00 to 20:00.
    fn usual_course(minute: Minute) -> f64 {
        if (18 * 60..20 * 60).contains(&(minute % MINUTES_OF_DAY)) { 120.0 } else { 50.0 }
    }

    fn known(days: u64) -> DelayForecast {
        let mut node = DelayForecast::default();
        assert_eq!(unusual(&mut node, 0..days * MINUTES_OF_DAY, usual_course), NEVER);
        node
    }

    #[test]
    fn round_trip_of_four_times_the_usual_is_unusual_though_it_is_steady() {
        let (mut node, day) = (known(1), MINUTES_OF_DAY);
        let rises = |minute| if minute >= day + 100 { 200.0 } else { 50.0 };
        let found = unusual(&mut node, day..day + 160, rises);
        assert_eq!(found.first(), Some(&(day + 104)), "half of ten samples");
        assert_eq!(found.len(), 56, "as long as it lasts");
        let Some(UnusualDelay { round_trip_ms, usual_ms }) = node.sample(day + 160, Some(200.0))
        else {
            panic!("it lasts")
        };
        assert_eq!((round_trip_ms, usual_ms), (200, 50));
    }

    #[test]
    fn each_hour_has_its_own_usual_round_trip() {
        let (mut node, day) = (known(1), MINUTES_OF_DAY);
        let evening = day + 18 * 60..day + 20 * 60;
        assert_eq!(unusual(&mut node.clone(), evening.clone(), usual_course), NEVER);
        let steady = |_| 200.0;
        assert_eq!(
            unusual(&mut node.clone(), evening, steady),
            NEVER,
            "less than three times 120 ms"
        );
        assert!(!unusual(&mut node, day..day + 60, steady).is_empty());
    }

    #[test]
    fn small_rise_and_spike_are_usual() {
        let mut node = DelayForecast::default();
        let day = MINUTES_OF_DAY;
        assert_eq!(unusual(&mut node, 0..day, |_| 2.0), NEVER);
        assert_eq!(unusual(&mut node, day..day + 60, |_| 40.0), NEVER, "20 times, but below 50 ms");
        let spike = |minute| if minute < day + 64 { 500.0 } else { 2.0 };
        assert_eq!(unusual(&mut node, day + 60..day + 120, spike), NEVER);
    }

    #[test]
    fn fault_of_one_day_does_not_become_usual_and_a_new_route_does() {
        let day = MINUTES_OF_DAY;
        let mut young = known(1);
        for from in [1, 2] {
            let faulty = unusual(&mut young, from * day..(from + 1) * day, |_| 400.0).len() as u64;
            assert!(faulty > day - 60, "after {from} days: {faulty}");
        }
        let mut node = known(3);
        let faulty = unusual(&mut node, 3 * day..4 * day, |_| 400.0).len() as u64;
        assert!(faulty > day - 60, "{faulty}");
        let again = unusual(&mut node, 4 * day..5 * day, |_| 400.0).len() as u64;
        assert!(again > day - 60, "one of three days has it: {again}");
        assert_eq!(unusual(&mut node, 5 * day..6 * day, |_| 400.0), NEVER);
    }

    #[test]
    fn hour_that_the_clock_repeats_counts_once() {
        let (mut node, day) = (known(2), MINUTES_OF_DAY);
        let evening = 2 * day + 18 * 60;
        assert_eq!(unusual(&mut node, evening..evening + 55, |_| 100.0), NEVER);
        assert_eq!(unusual(&mut node, evening - 55..evening + 60, |_| 110.0), NEVER);
        node.sample(evening + 60, None);
        assert_eq!(node.usual[&18], [120, 120, 110]);
    }

    #[test]
    fn round_trip_that_is_not_measured_is_not_unusual() {
        let (mut node, day) = (known(1), MINUTES_OF_DAY);
        assert!(!unusual(&mut node, day..day + 30, |_| 400.0).is_empty());
        let silent = (day + 30..day + 50).filter(|at| node.sample(*at, None).is_some());
        assert!(silent.count() < VALUE_MINUTES);
    }
}
