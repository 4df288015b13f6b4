//! A table of measurements with its columns.

use std::time::Duration;

use crate::registry::Metric;
use crate::wit::types;

/// Value of a cell that was not measured.
pub(crate) const UNMEASURED: u32 = u32::MAX;

/// Column number of a metric without a column.
const NONE: u8 = u8::MAX;

/// The column of each metric in a frame.
#[derive(Clone, Debug)]
pub(crate) struct Columns([u8; Metric::WIDTH]);

impl Columns {
    /// Maps the metrics granted at `init` to columns, in their order. Unknown numbers are ignored.
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

/// A table of measurements as the gateway sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) ids: &'a [u64],
    pub(crate) cells: &'a [u32],
}

impl<'a> From<&'a types::Frame> for Table<'a> {
    fn from(frame: &'a types::Frame) -> Table<'a> {
        Table { ids: &frame.ids, cells: &frame.cells }
    }
}

/// A table of measurements at one time.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) ids: &'a [u64],
    cells: &'a [u32],
    columns: &'a Columns,
    /// The policy's `READS`. Reading any other metric is a mistake, which native tests detect.
    declared: &'static [Metric],
    /// The frame's time, converted once for all rows because the conversion needs a division.
    now: Duration,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(
        table: Table<'a>,
        columns: &'a Columns,
        declared: &'static [Metric],
        now_us: u64,
    ) -> Frame<'a> {
        let Table { ids, cells } = table;
        // Cells beyond the last possible column belong to no metric: see `measured`.
        let cells = &cells[..cells.len().min(usize::from(NONE) * ids.len())];
        let now = Duration::from_micros(now_us);
        Frame { ids, cells, columns, declared, now }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns the cell of `metric` in `row`, if measured.
    ///
    /// # Panics
    ///
    /// In native tests with debug assertions, if the policy's `READS` does not name the metric: the gateway would never
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
        // The column number `NONE` is beyond the end of the table.
        let column = usize::from(self.columns.0[metric as usize]);
        let cell = column * self.ids.len() + row;
        self.cells.get(cell).copied().filter(|&value| value != UNMEASURED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_granted_and_measured_metrics_have_values() {
        let columns = Columns::new(&[Metric::Load as u32, Metric::Delay as u32]);
        let declared = &[Metric::Load, Metric::Delay, Metric::Rooms];
        // Surplus cells belong to no metric.
        let mut cells = vec![7; 3 * 1_024];
        cells[1] = UNMEASURED;
        let frame = types::Frame { ids: vec![1, 2, 3], cells };
        let frame = Frame::new((&frame).into(), &columns, declared, 0);
        assert_eq!(frame.measured(0, Metric::Load), Some(7));
        assert_eq!(frame.measured(1, Metric::Load), None);
        assert_eq!(frame.measured(2, Metric::Delay), Some(7));
        assert_eq!([0, 1, 2].map(|row| frame.measured(row, Metric::Rooms)), [None; 3]);
    }
}
