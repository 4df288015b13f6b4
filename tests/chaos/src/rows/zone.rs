//! Whole zones of a region.

use crate::fault::Fault::Kill;
use crate::fault::Target::BusiestZone;
use crate::fault::Way::{Loud, Silent};
use crate::layout::Layout;
use crate::row::Row;

pub(super) const ROWS: &[Row] = &[
    Row::new("zone.kill", Layout::ZONES, Kill(BusiestZone, Loud)).times(6),
    Row::new("zone.kill.silent", Layout::ZONES, Kill(BusiestZone, Silent)).times(6),
];
