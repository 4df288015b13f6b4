//! Nodes that decay before they fail: delay, loss or memory that rises for hours towards its limit, or restarts.
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
/// The present value is the median of this many values: half an hour.
const PRESENT_VALUES: usize = 3;
/// Values of a day. Their median is the usual delay of the node.
const DAY_VALUES: usize = 144;
/// A usual delay is known after so many values: half a day.
const USUAL_VALUES_MIN: usize = 72;

/// A limit below one millisecond would be one of the scheduler's.
const DELAY_MS_MIN: f64 = 2.0;

/// Share of its memory with which a process fails soon: files and children need the rest.
const MEMORY_LIMIT: f64 = 0.9;

/// Restarts within this many minutes are counted.
const RESTARTS_MINUTES: u64 = 120;
/// A process that restarts so often fails again. Maintenance restarts it once or twice.
const RESTARTS_LIMIT: usize = 3;
/// The start of a process is known to a second at the agent, and by two clocks.
const START_TOLERANCE_S: u64 = 10;

/// Constants of [`DecayForecast`]. The default is that of `make bench-forecast`, which chooses them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DecayParameters {
    /// Pairs that rise less those that fall, as a share of all pairs. 1: each value is higher than the one before.
    pub tau_min: f64,
    /// Delay that a node reaches only if it decays, as a multiple of its usual delay.
    pub delay_factor: f64,
    /// Share of lost packets that users hear.
    pub loss_limit: f64,
    /// A warning covers trends that reach their limit within this time. Congestion rises as fast, but not as long.
    pub horizon_minutes: f64,
}

impl Default for DecayParameters {
    fn default() -> DecayParameters {
        DecayParameters {
            tau_min: 0.75,
            delay_factor: 3.0,
            loss_limit: 0.02,
            horizon_minutes: 60.0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct NodeSample {
    /// Round trip, milliseconds. `None` if no probe was answered.
    pub round_trip_ms: Option<f64>,
    /// Share of lost probes.
    pub loss: f64,
    /// Share of its memory that the process uses. `None` without an agent that reports it.
    pub memory: Option<f64>,
    /// Start of the process, Unix time in seconds.
    pub started_s: Option<u64>,
    /// The node is drained or stopped, so that its process may start anew without a fault.
    pub may_restart: bool,
}

/// The sign by which a failure announces itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecaySign {
    /// The round trip rises.
    Delay,
    /// Loss rises.
    Loss,
    /// The memory of the process rises.
    Memory,
    /// The process restarts.
    Restarts,
}

/// A node that decays.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct DecayWarning {
    /// The value that rises.
    pub sign: DecaySign,
    /// The value now: milliseconds, a share, or a number.
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
    #[serde(default)]
    memory: ValueSeries,
    #[serde(default)]
    restarts: Restarts,
    warned: Option<DecayWarning>,
    #[serde(skip)]
    parameters: DecayParameters,
}

impl DecayForecast {
    /// A forecast with other constants.
    pub fn with(parameters: DecayParameters) -> DecayForecast {
        DecayForecast { parameters, ..DecayForecast::default() }
    }

    /// Takes the sample of this minute. Returns the sign of decay that is nearest to its limit.
    pub fn sample(&mut self, minute: Minute, sample: NodeSample) -> Option<DecayWarning> {
        let is_new = [
            self.delay.sample(minute, sample.round_trip_ms, DAY_VALUES),
            self.loss.sample(minute, Some(sample.loss), TREND_VALUES),
            self.memory.sample(minute, sample.memory, TREND_VALUES),
            self.restarts.sample(minute, &sample),
        ];
        if is_new.contains(&true) {
            self.warned = self.trend(minute);
        }
        self.warned
    }

    fn trend(&self, minute: Minute) -> Option<DecayWarning> {
        let DecayParameters { tau_min, delay_factor, loss_limit, horizon_minutes } =
            self.parameters;
        let usual_delay = (self.delay.values.len() >= USUAL_VALUES_MIN)
            .then(|| median(self.delay.values.iter().copied()))
            .flatten();
        let delay_limit =
            usual_delay.map(|usual| (f64::from(usual) * delay_factor).max(DELAY_MS_MIN));
        // A new route may have any delay, as long as it is steady.
        let signs = [
            (DecaySign::Delay, &self.delay, delay_limit, false),
            (DecaySign::Loss, &self.loss, Some(loss_limit), true),
            // Caches may fill the memory, and stay.
            (DecaySign::Memory, &self.memory, Some(MEMORY_LIMIT), false),
        ];
        let warnings = signs.into_iter().filter_map(|(sign, series, limit, holds_steady)| {
            let limit = limit?;
            let value = series.value()?;
            let minutes = match holds_steady && value >= limit {
                true => 0.0,
                false => {
                    series.minutes_to(limit - value, tau_min).filter(|it| *it <= horizon_minutes)?
                }
            };
            Some(DecayWarning { sign, value, limit, at: minute + minutes.round() as u64 })
        });
        let restarts = self.restarts.within(minute);
        let restarts = (restarts >= RESTARTS_LIMIT).then_some(DecayWarning {
            sign: DecaySign::Restarts,
            value: restarts as f64,
            limit: RESTARTS_LIMIT as f64,
            at: minute,
        });
        warnings.chain(restarts).min_by_key(|warning| warning.at)
    }
}

/// The newest restarts of a process, as many as matter.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Restarts {
    started_s: Option<u64>,
    /// Oldest first.
    minutes: VecDeque<Minute>,
}

impl Restarts {
    /// Returns true if the process has restarted since the last sample of it.
    fn sample(&mut self, minute: Minute, sample: &NodeSample) -> bool {
        if sample.may_restart {
            self.started_s = None;
            return false;
        }
        let Some(started_s) = sample.started_s else { return false };
        let before = self.started_s.replace(started_s);
        let is_new = before.is_some_and(|before| started_s > before + START_TOLERANCE_S);
        if is_new {
            self.minutes.push_back(minute);
            if self.minutes.len() > RESTARTS_LIMIT {
                self.minutes.pop_front();
            }
        }
        is_new
    }

    fn within(&self, minute: Minute) -> usize {
        self.minutes.iter().filter(|at| minute.abs_diff(**at) < RESTARTS_MINUTES).count()
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
            let is_gap = number != self.number + 1;
            self.number = number;
            let samples = std::mem::take(&mut self.samples);
            self.is_present = !is_gap && samples.len() >= SAMPLES_MIN;
            if is_gap {
                self.values.clear();
            }
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
    fn minutes_to(&self, rise: f64, tau_min: f64) -> Option<f64> {
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
        let is_rising = slope > 0.0 && rising >= tau_min * slopes.len() as f64;
        is_rising.then(|| (rise / slope).max(0.0))
    }
}

#[cfg(test)]
mod tests;
