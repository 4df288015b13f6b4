//! The arguments of calls, in the types of the contract.

use evenkeel_model::{Metric, Row};

use crate::store::bindings::evenkeel::policy::types::{BlobsParam, Frame, Label};

pub(crate) struct AdmitArguments<'a> {
    pub(crate) now_us: u64,
    pub(crate) session: u64,
    pub(crate) room: u64,
    pub(crate) standing: Option<u64>,
    pub(crate) scenario: &'a str,
    pub(crate) labels: &'a [Label<'a>],
    pub(crate) regions: Frame<'a>,
}

pub(crate) struct PlaceArguments<'a> {
    pub(crate) now_us: u64,
    pub(crate) room: u64,
    pub(crate) scenario: &'a str,
    pub(crate) labels: &'a [Label<'a>],
    pub(crate) nodes: Frame<'a>,
}

pub(crate) struct RerouteArguments<'a> {
    pub(crate) now_us: u64,
    pub(crate) nodes: Frame<'a>,
    pub(crate) rooms: Frame<'a>,
    pub(crate) width: u32,
    pub(crate) standing: &'a [u32],
    pub(crate) states: BlobsParam<'a>,
    pub(crate) memo: &'a [u8],
}

pub(crate) struct TickArguments<'a> {
    pub(crate) now_us: u64,
    pub(crate) sessions: Frame<'a>,
    pub(crate) states: BlobsParam<'a>,
    pub(crate) memo: &'a [u8],
}

/// A table of measurements with the granted columns only.
#[derive(Default)]
pub(crate) struct GrantedTable {
    ids: Vec<u64>,
    cells: Vec<u32>,
}

impl GrantedTable {
    /// Replaces the rows. Column-major, with the columns in the order of the grant.
    pub(crate) fn fill<'a>(
        &mut self,
        columns: &[Metric],
        rows: impl ExactSizeIterator<Item = &'a Row>,
    ) {
        let length = rows.len();
        // Everything is overwritten.
        self.ids.resize(length, 0);
        self.cells.resize(columns.len() * length, 0);
        // Iterates by row, since rows are far apart in memory and the table is not.
        for (at, (row, id)) in rows.zip(&mut self.ids).enumerate() {
            *id = row.id;
            for (column, &metric) in columns.iter().enumerate() {
                self.cells[column * length + at] = row.measures.value(metric);
            }
        }
    }

    pub(crate) fn wire(&self) -> Frame<'_> {
        Frame { ids: &self.ids, cells: &self.cells }
    }
}

/// States of a batch.
#[derive(Default)]
pub(crate) struct Blobs {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl Blobs {
    /// Replaces the states.
    pub(crate) fn fill<'a>(&mut self, states: impl Iterator<Item = &'a [u8]>) {
        self.offsets.clear();
        self.bytes.clear();
        self.offsets.push(0);
        self.offsets.extend(states.map(|state| {
            self.bytes.extend_from_slice(state);
            self.bytes.len() as u32
        }));
    }

    pub(crate) fn wire(&self) -> BlobsParam<'_> {
        BlobsParam { offsets: &self.offsets, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests;
