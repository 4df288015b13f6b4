//! A table of measurements, and which metric is in which column.

use std::time::Duration;

use crate::registry::Metric;
use crate::wit::types;

/// A cell that nobody measured.
pub(crate) const UNMEASURED: u32 = u32::MAX;

/// A metric that has no column.
const NONE: u8 = u8::MAX;

/// Which metric is in which column of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Columns([u8; Metric::WIDTH]);

impl Columns {
    /// From the metrics granted at `init`, in their order. Numbers this SDK does not know are passed over.
    pub(crate) fn new(granted: &[u32]) -> Columns {
        let mut columns = [NONE; Metric::WIDTH];
        for (index, &metric) in granted.iter().enumerate().take(usize::from(NONE)) {
            if let Some(column) = columns.get_mut(metric as usize) {
                *column = index as u8;
            }
        }
        Columns(columns)
    }
}

/// A table of measurements at one moment.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) ids: Vec<u64>,
    cells: Vec<u32>,
    columns: &'a Columns,
    /// What the policy says it reads: reading anything else is a mistake that a native test finds.
    declared: &'static [Metric],
    /// A division, so it is made once for all rows.
    now: Duration,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(
        frame: types::Frame,
        columns: &'a Columns,
        declared: &'static [Metric],
        now_us: u64,
    ) -> Frame<'a> {
        let types::Frame { ids, mut cells } = frame;
        // Whatever lies behind the last column that a number can name is in none: see `measured`.
        cells.truncate(usize::from(NONE) * ids.len());
        let now = Duration::from_micros(now_us);
        Frame { ids, cells, columns, declared, now }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The cell of `metric` in `row`, if it was measured.
    ///
    /// # Panics
    ///
    /// In native tests with debug assertions, where the policy's `READS` does not name the metric: the gateway would never
    /// send it.
    #[inline]
    pub(crate) fn measured(&self, row: usize, metric: Metric) -> Option<u32> {
        if cfg!(not(target_arch = "wasm32")) {
            debug_assert!(
                self.declared.contains(&metric),
                "the policy reads {} but its READS does not name it",
                metric.name()
            );
        }
        // A metric without a column lies behind all that have one, where the table ends.
        let column = usize::from(self.columns.0[metric as usize]);
        let cell = column * self.ids.len() + row;
        self.cells.get(cell).copied().filter(|&value| value != UNMEASURED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_granted_metric_that_was_measured_has_a_value() {
        let columns = Columns::new(&[Metric::Load as u32, Metric::Delay as u32]);
        let declared = &[Metric::Load, Metric::Delay, Metric::Rooms];
        // However many cells a table has too many, they are of no metric.
        let mut cells = vec![7; 3 * 1_024];
        cells[1] = UNMEASURED;
        let frame = types::Frame { ids: vec![1, 2, 3], cells };
        let frame = Frame::new(frame, &columns, declared, 0);
        assert_eq!(frame.measured(0, Metric::Load), Some(7));
        assert_eq!(frame.measured(1, Metric::Load), None);
        assert_eq!(frame.measured(2, Metric::Delay), Some(7));
        assert_eq!([0, 1, 2].map(|row| frame.measured(row, Metric::Rooms)), [None; 3]);
    }
}
