//! Distribution of measurements.

use serde::Serialize;

/// The spread of durations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TimeSpread {
    /// Minimum, nanoseconds.
    pub min: u64,
    /// Median, nanoseconds.
    pub median: u64,
    pub(crate) p99: u64,
}

impl TimeSpread {
    /// All fields are 0 if there are no figures.
    pub(crate) fn of(mut figures: Vec<u64>) -> TimeSpread {
        figures.sort_unstable();
        // Selects by nearest rank.
        let at = |share: usize| {
            let rank = (figures.len() * share).div_ceil(100).max(1);
            figures.get(rank - 1).copied().unwrap_or(0)
        };
        TimeSpread { min: at(0), median: at(50), p99: at(99) }
    }
}

#[cfg(test)]
mod tests;
