//! Links that flap: the number of changes within an hour.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Minute;

/// Changes are counted within this many minutes.
const WINDOW_MINUTES: u64 = 60;

/// Maintenance ends and resumes a link up to three times, six changes.
const CHANGES_MIN: usize = 7;

/// A link with this many changes in the window flaps, whatever their exact number.
const CHANGES_MAX: usize = 64;

/// The changes of one link between up and down.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct FlapForecast {
    /// Minutes of the newest changes, oldest first.
    changes: VecDeque<Minute>,
}

impl FlapForecast {
    /// Takes the number of changes within this minute. Returns the number within the window if the link flaps.
    pub fn sample(&mut self, minute: Minute, changes: u32) -> Option<u32> {
        self.changes.retain(|at| minute.abs_diff(*at) < WINDOW_MINUTES);
        let new = (changes as usize).min(CHANGES_MAX);
        self.changes.extend(std::iter::repeat_n(minute, new));
        while self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
        }
        (self.changes.len() >= CHANGES_MIN).then_some(self.changes.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The warnings of samples in consecutive minutes.
    fn warnings(changes: impl IntoIterator<Item = u32>) -> Vec<Option<u32>> {
        let mut link = FlapForecast::default();
        let samples = changes.into_iter().enumerate();
        samples.map(|(minute, changes)| link.sample(minute as Minute, changes)).collect()
    }

    #[test]
    fn link_that_changes_for_long_flaps() {
        let warnings = warnings((0..20).map(|minute| u32::from(minute % 3 == 0)));
        assert_eq!(warnings.iter().position(Option::is_some), Some(18), "the seventh change");
    }

    #[test]
    fn maintenance_and_old_changes_do_not_flap() {
        let maintenance = [2, 2, 2].into_iter().chain([0; 57]);
        assert!(warnings(maintenance.chain([2, 0, 2])).iter().all(Option::is_none));
    }

    #[test]
    fn changes_of_a_clock_that_was_ahead_are_forgotten() {
        let mut link = FlapForecast::default();
        assert!(link.sample(1_000_000, 20).is_some());
        assert_eq!(link.sample(100, 0), None);
    }

    #[test]
    fn number_of_changes_in_memory_is_bounded() {
        let mut link = FlapForecast::default();
        (0..10).for_each(|minute| _ = link.sample(minute, u32::MAX));
        assert_eq!(link.changes.len(), CHANGES_MAX);
    }
}
