//! What was measured of something, said metric by metric.

use std::ops::Deref;

use super::Cells;
use crate::registry::Metric;

/// What was measured of something; begin with [`measured`]. There is a function for each metric of the registry, named
/// as the views name it. Whatever is not said was not measured.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Measurements(Cells);

/// Nothing yet: `measured().jitter_up_us(30_000).video(true)`.
pub fn measured() -> Measurements {
    Measurements::default()
}

impl Measurements {
    /// A metric by its name in the registry; there is a function for each. The last word counts.
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
