//! Builder for measures, metric by metric.

use std::ops::Deref;

use super::Cells;
use crate::registry::Metric;

/// Measured values of a trial, built from [`measured`]. Each metric of the registry has a function with the same name as
/// in the views. Metrics that are not set are unmeasured.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Measurements(Cells);

/// Empty measures: `measured().jitter_up_us(30_000).video(true)`.
pub fn measured() -> Measurements {
    Measurements::default()
}

impl Measurements {
    /// Sets a metric by its registry name. Each metric also has a function. The last value is used.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: u32) -> Self {
        self.0.retain(|&(there, _)| there != metric);
        self.0.push((metric, value));
        self
    }
}

impl Deref for Measurements {
    type Target = [(Metric, u32)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<Measurements> for Cells {
    fn from(measurements: Measurements) -> Cells {
        measurements.0
    }
}
