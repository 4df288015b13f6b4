//! Whole zones of a region.

use crate::fault::Fault::{Kill, Zone};
use crate::fault::Target::BusiestZone;
use crate::fault::Way::{Loud, Silent};
use crate::fault::ZoneLoss;
use crate::layout::Layout;
use crate::row::Row;

pub(super) const ROWS: &[Row] = &[
    Row::new("zone.kill", Layout::ZONES, Kill(BusiestZone, Loud)).times(6),
    Row::new("zone.kill.silent", Layout::ZONES, Kill(BusiestZone, Silent)).times(6),
    // The zone of the first group's owner. The second group's loses its standby, and nodes.
    Row::new("zone.two-groups", Layout::TWO_GROUPS, Zone("a", ZoneLoss::Killed))
        .both_ways()
        .times(6),
    Row::new("zone.two-groups.silent", Layout::TWO_GROUPS, Zone("a", ZoneLoss::Silent))
        .both_ways()
        .times(6),
];
