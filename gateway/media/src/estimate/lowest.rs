//! The lowest value of a period.

/// The lowest of the values of the last period and a part of the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lowest {
    period_us: i64,
    since_us: Option<i64>,
    now: f64,
    before: f64,
}

impl Lowest {
    pub(super) fn within(period_us: i64) -> Lowest {
        Lowest { period_us, since_us: None, now: f64::INFINITY, before: f64::INFINITY }
    }

    /// Adds a value. Returns the lowest one.
    pub(super) fn update(&mut self, value: f64, at_us: i64) -> f64 {
        let passed_us = self.since_us.map_or(i64::MAX, |since_us| at_us.saturating_sub(since_us));
        if passed_us >= self.period_us {
            let is_next = passed_us / 2 < self.period_us;
            self.before = if is_next { self.now } else { f64::INFINITY };
            (self.now, self.since_us) = (value, Some(at_us));
        }
        self.now = self.now.min(value);
        self.now.min(self.before)
    }
}

#[cfg(test)]
mod tests;
