//! The store of the shared index.

use crate::fault::Fault::Store;
use crate::fault::Outage::{Down, DownAtTakeover, Emptied, Restarted, RolledBack, Slow, Split};
use crate::layout::Layout;
use crate::limits::Limits;
use crate::row::Row;

const INDEXED: Layout = Layout { store: true, ..Layout::GROUP };
const CORRECT_WITHIN: Option<f64> = Some(5_000.0);
const UNTOUCHED: Limits = Limits {
    none_lost: true,
    none_condemned: true,
    no_freeze: true,
    moves_max: Some(0.0),
    index_within: CORRECT_WITHIN,
    ..Limits::NONE
};
/// As without a store.
const TAKEN_OVER: Limits =
    Limits { none_condemned: true, index_within: CORRECT_WITHIN, ..Limits::gap(60.0, 200.0) };

pub(super) const ROWS: &[Row] = &[
    Row::new("store.down", INDEXED, Store(Down), UNTOUCHED).both_ways().times(3),
    Row::new("store.down.kill", INDEXED, Store(DownAtTakeover), TAKEN_OVER).both_ways().times(5),
    Row::new("store.slow", INDEXED, Store(Slow), UNTOUCHED).both_ways().times(3),
    Row::new("store.restarted", INDEXED, Store(Restarted), UNTOUCHED).both_ways().times(3),
    Row::new("store.emptied", INDEXED, Store(Emptied), UNTOUCHED).both_ways().times(3),
    Row::new("store.rolled-back", INDEXED, Store(RolledBack), UNTOUCHED).both_ways().times(2),
    Row::new("store.split", INDEXED, Store(Split), UNTOUCHED).both_ways().times(3),
];
