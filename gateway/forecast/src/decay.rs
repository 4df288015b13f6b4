//! Nodes that decay before they fail: delay, loss or memory that rises for hours towards its limit, and restarts that recur.
//!
//! The trend is the median of the slopes between all pairs of values (Theil, 1950; Sen, 1968) and counts only if most pairs rise
//! (Kendall's tau): a spike, a nightly backup and a route with a new steady delay do not.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Minute, median};

/// Samples of so many minutes give one value, their median: shorter spikes vanish.
const VALUE_MINUTES: u64 = 10;
/// A value needs this many samples.
const SAMPLES_MIN: usize = 3;

/// Values of a trend: three hours.
const TREND_VALUES: usize = 18;
/// Values whose median is the present value: half an hour.
const PRESENT_VALUES: usize = 3;
/// Values of a day, whose median is the usual delay of the node.
const DAY_VALUES: usize = 144;
/// A usual delay is known after so many values: half a day.
const USUAL_VALUES_MIN: usize = 72;

/// Pairs that rise less those that fall, as a share of all pairs. 1: each value is higher than the one before.
const TAU_MIN: f64 = 0.75;

/// Delay that a node reaches only if it decays, as a multiple of its usual delay.
const DELAY_FACTOR: f64 = 2.4;
/// A limit below one millisecond would be one of the scheduler's.
const DELAY_MS_MIN: f64 = 2.0;
/// Share of lost packets that users hear.
const LOSS_LIMIT: f64 = 0.02;
/// Share of used memory at which processes are ended.
const MEMORY_LIMIT: f64 = 0.95;

/// Restarts within [`RESTART_WINDOW_MINUTES`] that announce a failure. A deployment restarts a node once or twice.
const RESTARTS_MIN: usize = 4;
const RESTART_WINDOW_MINUTES: u64 = 12 * 60;

/// A warning covers trends that reach their limit within this time. Congestion rises as fast, but not as long.
const HORIZON_MINUTES: f64 = 60.0;

/// A sample of a node.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct NodeSample {
    /// Round trip, milliseconds. `None` if no probe was answered.
    pub round_trip_ms: Option<f64>,
    /// Share of lost probes.
    pub loss: f64,
    /// Restarts within the minute.
    pub restarts: u32,
    /// Share of used memory, if an agent reports it.
    pub memory: Option<f64>,
}

/// The sign by which a failure announces itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecaySign {
    /// The round trip rises.
    Delay,
    /// Loss rises.
    Loss,
    /// The used memory rises.
    Memory,
    /// The node restarts again and again.
    Restarts,
}

/// A node that decays.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct DecayWarning {
    /// The sign.
    pub sign: DecaySign,
    /// The value now: milliseconds, a share, or a number of restarts.
    pub value: f64,
    /// The value at which the node is of no use.
    pub limit: f64,
    /// The minute at which the trend reaches the limit: now, if it has.
    pub at: Minute,
}

/// Samples of one node. Bounded: a day of values of each kind.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct DecayForecast {
    delay: ValueSeries,
    loss: ValueSeries,
    memory: ValueSeries,
    /// Minutes of the newest restarts, oldest first.
    restarts: VecDeque<Minute>,
    /// By the trends.
    warned: Option<DecayWarning>,
}

impl DecayForecast {
    /// Takes the sample of this minute. Returns the sign of decay that is nearest to its limit.
    pub fn sample(&mut self, minute: Minute, sample: NodeSample) -> Option<DecayWarning> {
        let (delay, memory) = (sample.round_trip_ms, sample.memory);
        let is_new = [
            self.delay.sample(minute, delay, DAY_VALUES),
            self.loss.sample(minute, Some(sample.loss), TREND_VALUES),
            self.memory.sample(minute, memory, TREND_VALUES),
        ];
        if is_new.contains(&true) {
            self.warned = self.trend(minute);
        }
        let restarts = (sample.restarts as usize).min(RESTARTS_MIN);
        self.restarts.extend(std::iter::repeat_n(minute, restarts));
        let excess = self.restarts.len().saturating_sub(RESTARTS_MIN);
        self.restarts.drain(..excess);
        self.restarts.retain(|at| minute.saturating_sub(*at) < RESTART_WINDOW_MINUTES);
        if self.restarts.len() >= RESTARTS_MIN {
            let limit = RESTARTS_MIN as f64;
            let sign = DecaySign::Restarts;
            return Some(DecayWarning { sign, value: limit, limit, at: minute });
        }
        self.warned
    }

    fn trend(&self, minute: Minute) -> Option<DecayWarning> {
        let usual_delay = (self.delay.values.len() >= USUAL_VALUES_MIN)
            .then(|| median(self.delay.values.iter().copied()))
            .flatten();
        let delay_limit =
            usual_delay.map(|usual| (f64::from(usual) * DELAY_FACTOR).max(DELAY_MS_MIN));
        // A new route may have any delay, as long as it is steady.
        let signs = [
            (DecaySign::Delay, &self.delay, delay_limit, false),
            (DecaySign::Loss, &self.loss, Some(LOSS_LIMIT), true),
            (DecaySign::Memory, &self.memory, Some(MEMORY_LIMIT), true),
        ];
        let warnings = signs.into_iter().filter_map(|(sign, series, limit, holds_steady)| {
            let limit = limit?;
            let value = series.value()?;
            let minutes = match holds_steady && value >= limit {
                true => 0.0,
                false => series.minutes_to(limit - value).filter(|it| *it <= HORIZON_MINUTES)?,
            };
            Some(DecayWarning { sign, value, limit, at: minute + minutes.round() as u64 })
        });
        warnings.min_by_key(|warning| warning.at)
    }
}

/// Values of one kind, each the median of the samples of [`VALUE_MINUTES`].
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
struct ValueSeries {
    /// Number of the value in progress since the epoch.
    number: u64,
    samples: Vec<f32>,
    /// Oldest first.
    values: VecDeque<f32>,
    /// The newest of them is that of the last minutes.
    is_present: bool,
}

impl ValueSeries {
    /// Returns true if this sample completes a value.
    fn sample(&mut self, minute: Minute, sample: Option<f64>, values_max: usize) -> bool {
        let number = minute / VALUE_MINUTES;
        let is_new = number != self.number;
        if is_new {
            self.number = number;
            let samples = std::mem::take(&mut self.samples);
            self.is_present = samples.len() >= SAMPLES_MIN;
            if self.is_present {
                self.values.extend(median(samples));
            }
            while self.values.len() > values_max {
                self.values.pop_front();
            }
        }
        if self.samples.len() < VALUE_MINUTES as usize {
            self.samples.extend(sample.map(|sample| sample as f32));
        }
        is_new
    }

    /// The present value: the median of half an hour. `None` if it is not measured now.
    fn value(&self) -> Option<f64> {
        if !self.is_present {
            return None;
        }
        let first = self.values.len().checked_sub(PRESENT_VALUES)?;
        median(self.values.range(first..).copied()).map(f64::from)
    }

    /// Minutes in which a rising trend rises by so much. `None` if the values do not rise.
    fn minutes_to(&self, rise: f64) -> Option<f64> {
        let first = self.values.len().checked_sub(TREND_VALUES)?;
        let values: Vec<f64> = self.values.range(first..).map(|value| f64::from(*value)).collect();
        let (mut slopes, mut rising) = (Vec::new(), 0.0);
        for (at, later) in values.iter().enumerate() {
            for (distance, earlier) in (1_u32..).zip(values[..at].iter().rev()) {
                let slope = (later - earlier) / f64::from(distance);
                rising += if slope == 0.0 { 0.0 } else { slope.signum() };
                slopes.push(slope);
            }
        }
        slopes.sort_by(f64::total_cmp);
        let slope = slopes[slopes.len() / 2] / VALUE_MINUTES as f64;
        let is_rising = slope > 0.0 && rising >= TAU_MIN * slopes.len() as f64;
        is_rising.then(|| (rise / slope).max(0.0))
    }
}

#[cfg(test)]
mod tests;
