//! The store of the shared index.

use crate::fault::Fault::Store;
use crate::fault::Outage::{Down, DownAtTakeover, Emptied, Restarted, RolledBack, Slow, Split};
use crate::layout::Layout;
use crate::row::Row;

const INDEXED: Layout = Layout { store: true, ..Layout::GROUP };

pub(super) const ROWS: &[Row] = &[
    Row::new("store.down", INDEXED, Store(Down)).both_ways().times(3),
    Row::new("store.down.kill", INDEXED, Store(DownAtTakeover)).both_ways().times(5),
    Row::new("store.slow", INDEXED, Store(Slow)).both_ways().times(3),
    Row::new("store.restarted", INDEXED, Store(Restarted)).both_ways().times(3),
    Row::new("store.emptied", INDEXED, Store(Emptied)).both_ways().times(3),
    Row::new("store.rolled-back", INDEXED, Store(RolledBack)).both_ways().times(2),
    Row::new("store.split", INDEXED, Store(Split)).both_ways().times(3),
];
