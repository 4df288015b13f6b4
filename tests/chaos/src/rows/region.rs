//! Whole regions.

use std::time::Duration;

use crate::fault::Fault::{DrainRegion, Kill, Links, Reconnect, Return};
use crate::fault::Home;
use crate::fault::Way::{Loud, Silent};
use crate::fault::Whom::{Region, Regions};
use crate::layout::Layout;
use crate::limits::Limits;
use crate::row::Row;
use crate::weather::Weather::{Cut, Loss};

const FAR: Layout = Layout { far: Duration::from_millis(40), ..Layout::REGIONS };
const PARTED: Layout = Layout { linked: true, ..FAR };
/// Where the policy may send rooms to another region.
const BROWNED: Layout = Layout { quality: true, ..PARTED };
const THREE: Layout = Layout { regions: &[("east", 2), ("west", 2), ("north", 2)], ..FAR };
const GOES_HOME: Limits =
    Limits { none_lost: true, no_freeze: true, none_condemned: true, ..Limits::NONE.gently() };
/// By when a region that is drained is to be empty.
const DEADLINE: Duration = Duration::from_secs(10);
/// Each room goes once.
const DRAINED: Limits = Limits { moves_min: Some(1.0), moves_max: Some(1.0), ..GOES_HOME };
/// Nobody is left without packets, which every row must hold.
const ALL_HOME: Limits = Limits::gap(300.0, 1_000.0);

pub(super) const ROWS: &[Row] = &[
    Row::new("region.kill", FAR, Kill(Region("east"), Loud), ALL_HOME).times(3).watched(3),
    // No more often: within a minute a room goes home three times at most.
    Row::new("region.kill.silent", FAR, Kill(Region("east"), Silent), ALL_HOME).times(3).watched(3),
    Row::new("region.partition", PARTED, Links(Region("east"), Cut, Duration::ZERO), ALL_HOME)
        .times(3)
        .watched(3),
    // 8 % there and 8 % back are 15 % of what a session hears. Nine packets in a row are a freeze, one in 20 million.
    // A room leaves once, and does not come to try.
    Row::new(
        "region.brown-out",
        BROWNED,
        Links(Region("east"), Loss(8), Duration::from_secs(10)),
        Limits { no_freeze: true, moves_max: Some(1.5), ..Limits::NONE.gently() },
    ),
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
    // 20 rooms a second at least: 500 of them have left in time.
    Row::new("region.drain", FAR, DrainRegion("east", DEADLINE), DRAINED),
    Row::new("region.reconnect", Layout::HOT, Reconnect, Limits::gap(2_000.0, 3_000.0)).watched(5),
];
