//! Events of generated days, which forecasts should have announced, and the score of their warnings.

use std::collections::BTreeMap;

use evenkeel_forecast::ForecastAlarm;

/// An event that a forecast should announce, in minutes from the start of the days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TruthEvent {
    /// From here on a warning is right.
    pub(crate) from: usize,
    /// The event.
    pub(crate) at: usize,
    /// Until here a warning is late, but not false.
    pub(crate) until: usize,
}

/// First and last minute of a warning.
type WarningSpan = (usize, usize);

/// A longer warning is counted again for each such time.
const WARNING_MINUTES: usize = 120;

/// Joins minutes with a warning. A warning ends after `hold` minutes without its cause.
pub(crate) fn warnings(minutes: impl IntoIterator<Item = bool>, hold: u64) -> Vec<WarningSpan> {
    let (mut alarm, mut spans) = (ForecastAlarm::default(), Vec::new());
    for (minute, has_cause) in minutes.into_iter().enumerate() {
        alarm.update(has_cause, hold, minute as u64);
        match spans.last_mut() {
            Some((first, last))
                if alarm.is_raised()
                    && *last + 1 == minute
                    && minute - *first < WARNING_MINUTES =>
            {
                *last = minute;
            }
            _ if alarm.is_raised() => spans.push((minute, minute)),
            _ => {}
        }
    }
    spans
}

/// Counts of warnings and events.
#[derive(Default)]
pub(crate) struct Score {
    events: u32,
    found: u32,
    right: u32,
    false_warnings: u32,
    leads: Vec<usize>,
}

impl Score {
    /// Adds the warnings of one series. A warning less than `lead_min` minutes before its event is late: it finds nothing, and is
    /// not false.
    pub(crate) fn add(&mut self, events: &[TruthEvent], warnings: &[WarningSpan], lead_min: usize) {
        let in_time = |(first, last): WarningSpan, event: &TruthEvent| {
            last >= event.from && first + lead_min <= event.at
        };
        for event in events {
            self.events += 1;
            let found = warnings.iter().find(|warning| in_time(**warning, event));
            if let Some((first, _)) = found {
                self.found += 1;
                self.leads.push(event.at - *first.max(&event.from));
            }
        }
        for warning in warnings {
            let (first, last) = *warning;
            let mut near = events.iter().filter(|it| last >= it.from && first <= it.until);
            if near.clone().any(|event| in_time(*warning, event)) {
                self.right += 1;
            } else if near.next().is_none() {
                self.false_warnings += 1;
            }
        }
    }

    /// Share of right warnings among those that were not late.
    pub(crate) fn precision(&self) -> f64 {
        f64::from(self.right) / f64::from((self.right + self.false_warnings).max(1))
    }

    /// Share of events that were announced in time.
    pub(crate) fn recall(&self) -> f64 {
        f64::from(self.found) / f64::from(self.events.max(1))
    }

    /// The harmonic mean of precision and recall.
    pub(crate) fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE)
    }

    /// Median of the minutes from a right warning to its event.
    fn lead_minutes(&self) -> f64 {
        let mut leads = self.leads.clone();
        leads.sort_unstable();
        leads.get(leads.len() / 2).map_or(0.0, |lead| *lead as f64)
    }

    /// The figures of a row, with this prefix.
    pub(crate) fn figures(&self, prefix: &str) -> BTreeMap<String, f64> {
        let figures = [
            ("precision", self.precision()),
            ("recall", self.recall()),
            ("f1", self.f1()),
            ("lead_minutes", self.lead_minutes()),
        ];
        figures.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }

    pub(crate) fn events(&self) -> u32 {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_join_to_warnings() {
        let minutes = [false, true, false, true, false, false, false, true];
        assert_eq!(warnings(minutes, 2), [(1, 4), (7, 7)]);
        assert_eq!(warnings([true; 250], 2), [(0, 119), (120, 239), (240, 249)]);
    }

    #[test]
    fn warnings_are_right_late_or_false() {
        let event = TruthEvent { from: 100, at: 200, until: 230 };
        let score = |warning: WarningSpan| {
            let mut score = Score::default();
            score.add(&[event], &[warning], 10);
            (score.found, score.right, score.false_warnings)
        };
        assert_eq!(score((120, 200)), (1, 1, 0));
        assert_eq!(score((50, 100)), (1, 1, 0), "early, but lasting");
        assert_eq!(score((190, 190)), (1, 1, 0));
        assert_eq!(score((191, 210)), (0, 0, 0), "late");
        assert_eq!(score((50, 99)), (0, 0, 1));
        assert_eq!(score((231, 240)), (0, 0, 1));
    }

    #[test]
    fn lead_time_is_the_median_from_the_right_time_on() {
        let event = TruthEvent { from: 100, at: 200, until: 230 };
        let mut score = Score::default();
        for first in [50, 150, 180] {
            score.add(&[event], &[(first, 200)], 10);
        }
        assert_eq!(score.figures("naive_")["naive_lead_minutes"], 50.0);
        assert_eq!(score.figures("")["recall"], 1.0);
    }
}
