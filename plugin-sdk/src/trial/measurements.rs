//! Measures set metric by metric.

use std::ops::Deref;

use super::Cells;
use crate::registry::Metric;

/// Measures; begin with [`measured`]. Each metric of the registry has a function, named as in the
/// views. Others are not measured.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Measurements(Cells);

/// Empty measures: `measured().jitter_up_us(30_000).video(true)`.
pub fn measured() -> Measurements {
    Measurements::default()
}

impl Measurements {
    /// A metric by its registry name; each metric also has a function. The last value wins.
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
