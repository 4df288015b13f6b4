//! The gateway itself: stalls and upgrades.

use std::time::Duration;

use crate::fault::Fault::{Stall, StallControl, Upgrade};
use crate::layout::{Kind, Layout};
use crate::row::Row;

const STALLED: Duration = Duration::from_millis(200);

pub(super) const ROWS: &[Row] = &[
    Row::new("control.stalled", Layout::HOT, StallControl(STALLED)).times(5),
    Row::new("gateway.stalled", Layout::HOT, Stall(STALLED)).times(5),
    Row::new("gateway.upgrade", Layout::HOT, Upgrade).both_ways().times(10),
    Row::new("gateway.upgrade.hosts", Layout::HOSTS, Upgrade).both_ways().times(30),
    Row::new("gateway.upgrade.ports", Layout { kind: Kind::Rtpengine, ..Layout::HOT }, Upgrade)
        .of(200)
        .both_ways()
        .times(5),
    // As many replaced processes keep connections.
    Row::new("gateway.upgrade.quic", Layout::HOT, Upgrade).of(200).with_quic().both_ways().times(4),
];
