//! Forecasts from one sample per minute: when a region's capacity is exhausted, which nodes decay before they fail, which links
//! flap, and which are far slower than usual. No I/O and no clock: the minute is an argument. `make bench-forecast` measures each forecast beside a naive rule.

mod alarm;
mod decay;
mod delay;
mod flap;
mod load;
mod table;

pub use alarm::{AlarmChange, ForecastAlarm};
pub use decay::{DecayForecast, DecayParameters, DecaySign, DecayWarning, NodeSample};
pub use delay::{DelayForecast, UnusualDelay};
pub use flap::FlapForecast;
pub use load::{Exhaustion, LoadForecast, LoadParameters};
pub use table::{
    Forecast, ForecastChange, ForecastEvidence, ForecastRecord, ForecastTable, LOAD_HOLD_MINUTES,
    NODE_HOLD_MINUTES, NodeMinute, RegionSample,
};

/// Minutes since the Unix epoch.
pub type Minute = u64;

const MINUTES_OF_DAY: u64 = 24 * 60;

/// The middle value, the higher one of two. `None` without values.
fn median(values: impl IntoIterator<Item = f32>) -> Option<f32> {
    let mut sorted: Vec<f32> = values.into_iter().collect();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
