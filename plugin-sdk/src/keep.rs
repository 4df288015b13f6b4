//! States of a batch: the states read, and the states to write back.

use std::cell::Cell;

use crate::diag::{Level, log};
use crate::state::{State, unpack};
use crate::wit::types;

/// States and memo written by a batch.
#[derive(Debug)]
pub(crate) struct Keep<M> {
    rows: Vec<u32>,
    states: types::Blobs,
    memo: M,
    memo_touched: bool,
}

impl<M: State> Keep<M> {
    /// Begins with room for as many bytes as the states had before.
    pub(crate) fn new(memo: &[u8], before: StateTable<'_>) -> Keep<M> {
        let memo = if memo.is_empty() { M::fresh() } else { Reading::default().state(memo) };
        let mut offsets = Vec::with_capacity(before.offsets.len());
        offsets.push(0);
        let states = types::Blobs { offsets, bytes: Vec::with_capacity(before.bytes.len()) };
        let rows = Vec::with_capacity(before.offsets.len());
        Keep { rows, states, memo, memo_touched: false }
    }

    /// Keeps a state of a row. The last state of a row is written.
    pub(crate) fn keep(&mut self, row: u32, state: &impl State) {
        if self.rows.last() == Some(&row) {
            self.rows.pop();
            self.states.offsets.pop();
            self.states.bytes.truncate(self.states.offsets.last().map_or(0, |&end| end as usize));
        }
        self.rows.push(row);
        push(&mut self.states, state);
    }

    pub(crate) fn memo(&self) -> &M {
        &self.memo
    }

    pub(crate) fn memo_mut(&mut self) -> &mut M {
        self.memo_touched = true;
        &mut self.memo
    }

    pub(crate) fn finish(self) -> types::Keep {
        let memo = self.memo_touched.then(|| crate::state::pack(&self.memo));
        types::Keep { rows: self.rows, states: self.states, memo }
    }
}

pub(crate) fn no_blobs() -> types::Blobs {
    types::Blobs { offsets: vec![0], bytes: Vec::new() }
}

/// Adds a row.
pub(crate) fn push(blobs: &mut types::Blobs, state: &impl State) {
    state.pack(&mut blobs.bytes);
    blobs.offsets.push(blobs.bytes.len() as u32);
}

/// States of a batch as the gateway sent them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateTable<'a> {
    pub(crate) offsets: &'a [u32],
    pub(crate) bytes: &'a [u8],
}

impl<'a> From<&'a types::Blobs> for StateTable<'a> {
    fn from(blobs: &'a types::Blobs) -> StateTable<'a> {
        StateTable { offsets: &blobs.offsets, bytes: &blobs.bytes }
    }
}

/// Returns the bytes of a row; empty if the table has no such row.
pub(crate) fn row<'a>(states: impl Into<StateTable<'a>>, row: usize) -> &'a [u8] {
    let StateTable { offsets, bytes } = states.into();
    let offset = |at: usize| offsets.get(at).map(|&offset| offset as usize);
    let range = offset(row).zip(offset(row + 1));
    range.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default()
}

/// Reads the states of a batch.
///
/// An unreadable state is replaced by a new one, with one log line per batch: losing a session's
/// state is better than failing the batch.
#[derive(Default, Debug)]
pub(crate) struct Reading {
    complained: Cell<bool>,
}

impl Reading {
    pub(crate) fn state<S: State>(&self, bytes: &[u8]) -> S {
        unpack(bytes).unwrap_or_else(|| {
            if !self.complained.replace(true) {
                log(Level::Warn, "unreadable states are replaced by new ones");
            }
            S::fresh()
        })
    }
}
