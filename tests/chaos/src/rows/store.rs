//! The store of the shared index.

use std::time::Duration;

use crate::fault::Fault::Store;
use crate::fault::Outage::{
    Down, DownAtTakeover, Emptied, Far, Restarted, RolledBack, Slow, Split,
};
use crate::layout::Layout;
use crate::row::Row;

const INDEXED: Layout = Layout { store: true, ..Layout::GROUP };
const LINKED: Layout = Layout { store_delay: Some(Duration::ZERO), ..INDEXED };

pub(super) const ROWS: &[Row] = &[
    Row::new("store.down", INDEXED, Store(Down)).both_ways().times(3),
    Row::new("store.down.kill", INDEXED, Store(DownAtTakeover)).both_ways().times(5),
    Row::new("store.slow", INDEXED, Store(Slow)).both_ways().times(3),
    Row::new("store.restarted", INDEXED, Store(Restarted)).both_ways().times(3),
    Row::new("store.emptied", INDEXED, Store(Emptied)).both_ways().times(3),
    Row::new("store.rolled-back", INDEXED, Store(RolledBack)).both_ways().times(2),
    Row::new("store.split", INDEXED, Store(Split)).both_ways().times(3),
    // An offer of a new room claims it in the store.
    Row::new("store.far", LINKED, Store(Far)).both_ways().with_offers().times(3),
];
