//! The load of a region: its usual course over days and weekdays, times how the load differs from it now.
//!
//! This is Holt–Winters with a season of a week, apart from the trend: growth over weeks enters the season, and a trend within
//! the hour would continue every flash crowd.

use std::array;

use serde::{Deserialize, Serialize};

use crate::{MINUTES_OF_DAY, Minute};

/// A slot of the course of a day has this many minutes.
const SLOT_MINUTES: u64 = 15;
const SLOTS: usize = (MINUTES_OF_DAY / SLOT_MINUTES) as usize;

/// Limits of the ratio of the load to its usual course that lasts for the day. Load beyond them, such as of a region that
/// failed, adds to the usual course instead of multiplying it.
const RATIO_RANGE: (f64, f64) = (0.7, 1.3);

/// Minutes between two values of a forecast.
const STEP_MINUTES: u64 = 5;

/// Errors of forecasts are measured so many minutes ahead.
const ERROR_MINUTES: u64 = 30;
/// Errors per two days: one is measured each half hour.
const ERROR_WEIGHT: f64 = 1.0 / 96.0;
/// Square of the relative error before one was measured.
const ERROR_SQUARE: f64 = 0.05 * 0.05;

/// Constants of [`LoadForecast`]. The default is that of `make bench-forecast`, which chooses them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LoadParameters {
    /// Warns from this share of the capacity.
    pub warned_share: f64,
    /// Share of the newest day in the usual course of its weekday.
    pub season_weight: f32,
}

impl Default for LoadParameters {
    fn default() -> LoadParameters {
        LoadParameters { warned_share: 1.0, season_weight: 0.25 }
    }
}

/// The course of a day: the mean load of each slot, `None` if there was no sample.
type DayCourse = Vec<Option<f32>>;

/// The load of one region. Bounded: a week of slots of 15 minutes, and the day in progress.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LoadForecast {
    /// The usual course of each weekday, in UTC; empty before the first one.
    weekdays: [DayCourse; 7],
    /// The course of yesterday, for weekdays without one.
    yesterday: DayCourse,
    /// Sum and number of the samples in each slot of this day.
    today: Vec<(f32, u16)>,
    minute: Minute,
    load: f64,
    /// A forecast with the minute at which its error is measured.
    checked: Option<(Minute, f64)>,
    error_square: f64,
    #[serde(skip)]
    parameters: LoadParameters,
}

/// The forecast that the capacity will be exhausted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Exhaustion {
    /// The first minute at which the load is expected to reach the capacity.
    pub at: Minute,
    /// The highest expected load within the horizon.
    pub load: f64,
    /// Probability of it, by the errors of earlier forecasts.
    pub confidence: f64,
}

impl Default for LoadForecast {
    fn default() -> LoadForecast {
        LoadForecast {
            weekdays: array::from_fn(|_| Vec::new()),
            yesterday: Vec::new(),
            today: vec![(0.0, 0); SLOTS],
            minute: 0,
            load: 0.0,
            checked: None,
            error_square: ERROR_SQUARE,
            parameters: LoadParameters::default(),
        }
    }
}

impl LoadForecast {
    /// A forecast with other constants.
    pub fn with(parameters: LoadParameters) -> LoadForecast {
        LoadForecast { parameters, ..LoadForecast::default() }
    }

    /// True if the lists have the lengths that this version writes.
    pub fn is_valid(&self) -> bool {
        let is_course = |course: &DayCourse| matches!(course.len(), 0 | SLOTS);
        self.today.len() == SLOTS
            && is_course(&self.yesterday)
            && self.weekdays.iter().all(is_course)
    }

    /// Takes the load of this minute. Minutes without a sample are left out.
    pub fn sample(&mut self, minute: Minute, load: f64) {
        if minute / MINUTES_OF_DAY != self.minute / MINUTES_OF_DAY {
            self.end_day();
        }
        (self.minute, self.load) = (minute, load);
        let (sum, samples) = &mut self.today[slot(minute)];
        *sum += load as f32;
        *samples = samples.saturating_add(1);
        self.measure_error();
    }

    /// Forecasts if the load reaches the capacity within so many minutes. `None` before the load of a day is known.
    pub fn exhaustion(&self, capacity: f64, horizon: u64) -> Option<Exhaustion> {
        let limit = self.parameters.warned_share * capacity;
        if self.load >= limit {
            return Some(Exhaustion { at: self.minute, load: self.load, confidence: 1.0 });
        }
        let ahead = (1..=horizon.div_ceil(STEP_MINUTES)).map(|step| step * STEP_MINUTES);
        let expected = ahead.filter_map(|ahead| Some((ahead, self.expected(ahead)?)));
        let course: Vec<(u64, f64)> = expected.collect();
        let (ahead, _) = course.iter().find(|(_, load)| *load >= limit)?;
        let load = course.iter().map(|(_, load)| *load).fold(0.0, f64::max);
        let deviations = (load / capacity.max(1.0) - 1.0) / self.error_square.sqrt().max(0.001);
        // The logistic curve that is nearest to the normal distribution.
        let confidence = 1.0 / (1.0 + (-1.702 * deviations).exp());
        Some(Exhaustion { at: self.minute + ahead, load, confidence })
    }

    /// The highest load expected within so many minutes, the present one included.
    pub fn peak(&self, horizon: u64) -> f64 {
        let steps = 1..=horizon.div_ceil(STEP_MINUTES);
        steps.filter_map(|step| self.expected(step * STEP_MINUTES)).fold(self.load, f64::max)
    }

    /// The load expected after so many minutes.
    fn expected(&self, ahead: u64) -> Option<f64> {
        let usual_now = self.usual(self.minute)?;
        let ratio = self.load / usual_now.max(f64::MIN_POSITIVE);
        let lasting = ratio.clamp(RATIO_RANGE.0, RATIO_RANGE.1);
        let added = self.load - lasting * usual_now;
        Some(self.usual(self.minute + ahead)? * lasting + added)
    }

    /// The usual load at this minute, between the middles of two slots.
    fn usual(&self, minute: Minute) -> Option<f64> {
        let half = SLOT_MINUTES / 2;
        let earlier = minute.saturating_sub(half + 1);
        let value = |minute: Minute| {
            let usual = &self.weekdays[weekday(minute)];
            let course = if usual.is_empty() { &self.yesterday } else { usual };
            course.get(slot(minute)).copied().flatten().map(f64::from)
        };
        let (first, second) = (value(earlier), value(earlier + SLOT_MINUTES));
        let share = (earlier % SLOT_MINUTES) as f64 / SLOT_MINUTES as f64;
        match (first, second) {
            (Some(first), Some(second)) => Some(first + (second - first) * share),
            (one, other) => one.or(other),
        }
    }

    /// Adds the samples of the day in progress to the usual course of its weekday.
    fn end_day(&mut self) {
        let samples = std::mem::replace(&mut self.today, vec![(0.0, 0); SLOTS]);
        if samples.iter().all(|(_, number)| *number == 0) {
            return;
        }
        let mean = |(sum, number): (f32, u16)| (number > 0).then(|| sum / f32::from(number));
        let day: DayCourse = samples.into_iter().map(mean).collect();
        let weight = self.parameters.season_weight;
        let usual = &mut self.weekdays[weekday(self.minute)];
        usual.resize(SLOTS, None);
        for (usual, new) in usual.iter_mut().zip(&day) {
            *usual = match (*usual, *new) {
                (Some(usual), Some(new)) => Some(usual + weight * (new - usual)),
                (usual, new) => new.or(usual),
            };
        }
        self.yesterday = day;
    }

    fn measure_error(&mut self) {
        let minute = self.minute;
        let is_due = |at: Minute| minute.abs_diff(at) >= ERROR_MINUTES || at <= minute;
        if let Some((at, expected)) = self.checked.take_if(|(at, _)| is_due(*at))
            && at == minute
        {
            let error = (self.load - expected) / expected.max(1.0);
            // An error of the whole load is a failure elsewhere or a gap.
            self.error_square += ERROR_WEIGHT * (error.powi(2).min(1.0) - self.error_square);
        }
        if self.checked.is_none() {
            let expected = self.expected(ERROR_MINUTES);
            self.checked = expected.map(|expected| (self.minute + ERROR_MINUTES, expected));
        }
    }
}

fn slot(minute: Minute) -> usize {
    (minute % MINUTES_OF_DAY / SLOT_MINUTES) as usize
}

fn weekday(minute: Minute) -> usize {
    (minute / MINUTES_OF_DAY % 7) as usize
}

#[cfg(test)]
mod tests;
