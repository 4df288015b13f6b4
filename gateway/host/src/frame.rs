//! Columns for plugins, and conversions shared by several hooks.

use evenkeel_model::{Metric, Row};

use crate::bindings::evenkeel::policy::types;

/// A table of measurements with the granted columns only.
pub(crate) struct GrantedTable {
    ids: Vec<u64>,
    cells: Vec<u32>,
}

impl GrantedTable {
    /// Column-major, with the columns in the order of the grant.
    pub(crate) fn of<'a>(
        columns: &[Metric],
        rows: impl ExactSizeIterator<Item = &'a Row>,
    ) -> GrantedTable {
        let length = rows.len();
        let mut ids = Vec::with_capacity(length);
        let mut cells = vec![0; columns.len() * length];
        // Iterates by row, since rows are far apart in memory and the table is not.
        for (at, row) in rows.enumerate() {
            ids.push(row.id);
            for (column, &metric) in columns.iter().enumerate() {
                cells[column * length + at] = row.measures.value(metric);
            }
        }
        GrantedTable { ids, cells }
    }

    pub(crate) fn wire(&self) -> types::Frame<'_> {
        types::Frame { ids: &self.ids, cells: &self.cells }
    }
}

/// Labels in the contract's type.
pub(crate) fn labels(labels: &[(Box<str>, Box<str>)]) -> Vec<types::Label<'_>> {
    labels.iter().map(|(key, value)| types::Label { key, value }).collect()
}

#[cfg(test)]
mod tests;
