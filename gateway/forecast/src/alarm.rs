//! A warning with a hold time, so that a value at its limit causes one warning.

use serde::{Deserialize, Serialize};

use crate::Minute;

/// A warning that ends once its cause was absent for some time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ForecastAlarm {
    /// The last minute with the cause, while the warning holds.
    last: Option<Minute>,
}

/// A change of an [`ForecastAlarm`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlarmChange {
    /// The warning begins.
    Raised,
    /// The warning ends.
    Cleared,
}

impl ForecastAlarm {
    /// Takes the state of the cause in this minute. The warning ends after `hold` minutes without the cause.
    pub fn update(&mut self, has_cause: bool, hold: u64, minute: Minute) -> Option<AlarmChange> {
        if has_cause {
            return self.last.replace(minute).is_none().then_some(AlarmChange::Raised);
        }
        self.last.take_if(|last| minute.abs_diff(*last) >= hold)?;
        Some(AlarmChange::Cleared)
    }

    /// True while the warning holds.
    pub fn is_raised(&self) -> bool {
        self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_absence_does_not_end_the_alarm() {
        let mut alarm = ForecastAlarm::default();
        assert_eq!(alarm.update(false, 30, 0), None);
        assert_eq!(alarm.update(true, 30, 1), Some(AlarmChange::Raised));
        assert_eq!(alarm.update(true, 30, 2), None, "raised once");
        assert_eq!(alarm.update(false, 30, 31), None);
        assert!(alarm.is_raised());
        assert_eq!(alarm.update(false, 30, 32), Some(AlarmChange::Cleared));
        assert!(!alarm.is_raised());
    }

    #[test]
    fn alarm_of_a_clock_that_was_ahead_ends() {
        let mut alarm = ForecastAlarm::default();
        alarm.update(true, 30, 1_000_000);
        assert_eq!(alarm.update(false, 30, 100), Some(AlarmChange::Cleared));
    }
}
