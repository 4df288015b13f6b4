//! Measures of a session, room, node or region: a number in a fixed unit for each metric of the registry.

use crate::registry::{Metric, WIDTH, place};

/// The value of a metric without a measurement.
pub const UNMEASURED: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measures([u32; WIDTH]);

impl Default for Measures {
    fn default() -> Self {
        Measures([UNMEASURED; WIDTH])
    }
}

impl Measures {
    #[inline]
    pub fn value(&self, metric: Metric) -> u32 {
        self.0[place(metric)]
    }

    /// The value; `None` if it is [`UNMEASURED`].
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        Some(self.value(metric)).filter(|&value| value != UNMEASURED)
    }

    /// Sets a value, limited to the largest that the wire format holds.
    pub fn set(&mut self, metric: Metric, value: u64) -> &mut Self {
        self.0[place(metric)] = value.min(u64::from(UNMEASURED - 1)) as u32;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The session, room, node or region, by the number of its id.
    pub id: u64,
    pub measures: Measures,
}

#[cfg(test)]
mod tests;
