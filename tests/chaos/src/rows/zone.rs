//! Whole zones of a region.

use crate::fault::Fault::Kill;
use crate::fault::Way::{Loud, Silent};
use crate::fault::Whom::BusiestZone;
use crate::layout::Layout;
use crate::limits::Limits;
use crate::row::Row;

/// As for the death of one node.
const LOUD: Limits = Limits { no_freeze: true, ..Limits::gap(50.0, 150.0) }.found(20.0).predicted();
const SILENT: Limits = Limits { no_freeze: true, ..Limits::gap(70.0, 170.0) }.predicted();

pub(super) const ROWS: &[Row] = &[
    Row::new("zone.kill", Layout::ZONES, Kill(BusiestZone, Loud), LOUD).times(6),
    Row::new("zone.kill.silent", Layout::ZONES, Kill(BusiestZone, Silent), SILENT).times(6),
];
