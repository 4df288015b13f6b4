//! The gateway itself: stalls and upgrades.

use std::time::Duration;

use crate::fault::Fault::{Stall, StallControl, Upgrade};
use crate::layout::{Kind, Layout};
use crate::limits::Limits;
use crate::row::Row;

const STALLED: Duration = Duration::from_millis(200);
const UNTOUCHED: Limits =
    Limits { none_lost: true, none_condemned: true, no_freeze: true, ..Limits::NONE };
/// A packet every 20 ms, and a delay of 20 ms.
const DELAYED: Limits = Limits { gap_p99: Some(40.0), gap_max: Some(40.0), ..UNTOUCHED };

pub(super) const ROWS: &[Row] = &[
    Row::new("control.stalled", Layout::HOT, StallControl(STALLED), UNTOUCHED).times(5),
    Row::new(
        "gateway.stalled",
        Layout::HOT,
        Stall(STALLED),
        Limits { none_condemned: true, ..Limits::NONE },
    )
    .times(5),
    Row::new("gateway.upgrade", Layout::HOT, Upgrade, DELAYED).both_ways().times(10),
    Row::new("gateway.upgrade.hosts", Layout::HOSTS, Upgrade, DELAYED).both_ways().times(30),
    Row::new(
        "gateway.upgrade.ports",
        Layout { kind: Kind::Rtpengine, ..Layout::HOT },
        Upgrade,
        DELAYED,
    )
    .of(200)
    .both_ways()
    .times(5),
];
