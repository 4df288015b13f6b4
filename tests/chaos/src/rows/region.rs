//! Whole regions.

use std::time::Duration;

use crate::fault::Fault;
use crate::fault::Fault::{DrainRegion, Kill, Links, Reconnect, Return};
use crate::fault::Home;
use crate::fault::Way::{Loud, Silent};
use crate::fault::Whom::{Region, Regions};
use crate::layout::{Layout, ROOM_KBPS};
use crate::limits::Limits;
use crate::row::Row;
use crate::weather::Weather::{Cut, Loss};

const FAR: Layout = Layout { far: Duration::from_millis(40), ..Layout::REGIONS };
const PARTED: Layout = Layout { linked: true, ..FAR };
/// The policy may route rooms to another region.
const BROWNED: Layout = Layout { quality: true, ..PARTED };
/// The west has capacity for 60 of 100 rooms and half a room more, so that measured load comes close to the capacity
/// without reaching it.
const TIGHT: Layout = Layout { narrow: Some(("west", 150 * ROOM_KBPS + ROOM_KBPS / 2)), ..FAR };
const THREE: Layout = Layout { regions: &[("east", 2), ("west", 2), ("north", 2)], ..FAR };
const GOES_HOME: Limits =
    Limits { none_lost: true, no_freeze: true, none_condemned: true, ..Limits::NONE.gently() };
/// Deadline of a region's drain.
const DEADLINE: Duration = Duration::from_secs(10);
/// Each room moves once.
const DRAINED: Limits = Limits { moves_min: Some(1.0), moves_max: Some(1.0), ..GOES_HOME };
/// Every receiver gets packets, as in all rows.
const ALL_HOME: Limits = Limits::gap(300.0, 1_000.0);
/// All rooms that fit. A node that holds reserves for hundreds of sessions reports a twentieth of the load; the gauge
/// (`core/src/capacity.rs`) adapts step by step, and the last rooms wait for it.
const ALL_THAT_FIT: Limits =
    Limits { some_left_out: true, moves_min: Some(1.0), ..Limits::gap(2_500.0, 4_000.0) };
/// 8 % loss each way loses 15 % of a session's packets. A freeze needs nine lost packets in a row: one in 20 million.
const BROWN_OUT: Fault = Links(Region("east"), Loss(8), Duration::from_secs(10));
/// A room moves once. A moving room continues on a path that is 80 ms longer, and may have lost packets before; some
/// move when the impairment is over, since measurements are a second old.
const BROWNED_OUT: Limits =
    Limits { no_freeze: true, moves_max: Some(1.5), ..Limits::gap(180.0, 183.0).gently() };
/// The west has capacity for a third, so that most rooms stay and newcomers find the region full. The breaker opens 3
/// to 7 s into the brown-out, and half-opens after it has been over for as long as measurements count.
const SHUT: Layout = Layout {
    breaker_open_s: 14,
    narrow: Some(("west", 40 * ROOM_KBPS + ROOM_KBPS / 2)),
    ..BROWNED
};

pub(super) const ROWS: &[Row] = &[
    Row::new("region.kill", FAR, Kill(Region("east"), Loud), ALL_HOME).times(3).watched(3),
    // At most three fail-backs per room and minute are allowed.
    Row::new("region.kill.silent", FAR, Kill(Region("east"), Silent), ALL_HOME).times(3).watched(3),
    Row::new("region.partition", PARTED, Links(Region("east"), Cut, Duration::ZERO), ALL_HOME)
        .times(3)
        .watched(3),
    Row::new("region.kill.tight", TIGHT, Kill(Region("east"), Loud), ALL_THAT_FIT)
        .times(2)
        .watched(6),
    Row::new("region.kill.tight.silent", TIGHT, Kill(Region("east"), Silent), ALL_THAT_FIT)
        .times(2)
        .watched(6),
    Row::new("region.standby.idle-then-full", FAR, Kill(Region("east"), Loud), ALL_HOME)
        .after_idle(20)
        .watched(3),
    Row::new("region.standby.idle-then-full.silent", FAR, Kill(Region("east"), Silent), ALL_HOME)
        .after_idle(20)
        .watched(3),
    Row::new("region.brown-out", BROWNED, BROWN_OUT, BROWNED_OUT),
    // Both send, since quality is measured from received packets.
    Row::new("region.brown-out.newcomers", SHUT, BROWN_OUT, BROWNED_OUT)
        .of(500)
        .both_ways()
        .with_newcomers(),
    Row::new("region.return", PARTED, Return(Region("east"), Loud, Home::Alone), GOES_HOME).of(200),
    Row::new(
        "region.return.silent",
        PARTED,
        Return(Region("east"), Silent, Home::Alone),
        GOES_HOME,
    )
    .of(200)
    .times(2),
    Row::new("region.fail-back", PARTED, Return(Region("east"), Loud, Home::Forced), GOES_HOME)
        .of(200),
    Row::new(
        "region.fail-back.silent",
        PARTED,
        Return(Region("east"), Silent, Home::Forced),
        GOES_HOME,
    )
    .of(200)
    .times(2),
    Row::new(
        "region.two",
        THREE,
        Kill(Regions(&["east", "west"]), Loud),
        Limits { left_within: Some(3_000.0), ..Limits::NONE },
    )
    .times(2)
    .watched(5),
    Row::new(
        "region.two.silent",
        THREE,
        Kill(Regions(&["east", "west"]), Silent),
        Limits { left_within: Some(3_000.0), ..Limits::NONE },
    )
    .times(2)
    .watched(5),
    // At least 20 rooms per second, so that 500 have moved in time.
    Row::new("region.drain", FAR, DrainRegion("east", DEADLINE), DRAINED),
    Row::new("region.reconnect", Layout::HOT, Reconnect, Limits::gap(2_000.0, 3_000.0)).watched(5),
];
