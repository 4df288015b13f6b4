//! Whole regions.

use std::time::Duration;

use crate::fault::Fault;
use crate::fault::Fault::{DrainRegion, Kill, Links, Reconnect, Return};
use crate::fault::Home;
use crate::fault::Target::{Region, Regions};
use crate::fault::Way::{Loud, Silent};
use crate::impairment::Impairment::{Cut, Loss};
use crate::layout::{Layout, ROOM_KBPS};
use crate::limits::Checks;
use crate::row::Row;

const FAR: Layout = Layout { far: Duration::from_millis(40), ..Layout::REGIONS };
const PARTED: Layout = Layout { linked: true, ..FAR };
/// The policy may route rooms to another region.
const BROWNED: Layout = Layout { quality: true, ..PARTED };
/// The west has capacity for 60 of 100 rooms and half a room more, so that measured load comes close to the capacity
/// without reaching it.
const TIGHT: Layout = Layout { narrow: Some(("west", 150 * ROOM_KBPS + ROOM_KBPS / 2)), ..FAR };
const THREE: Layout = Layout { regions: &[("east", 2), ("west", 2), ("north", 2)], ..FAR };
/// Deadline of a region's drain.
const DEADLINE: Duration = Duration::from_secs(10);
/// Only rooms that fit move.
const ALL_THAT_FIT: Checks = Checks { some_unplaced: true, ..Checks::ALL };
/// 8 % loss each way loses 15 % of a session's packets. A freeze needs nine lost packets in a row: one in 20 million.
const BROWN_OUT: Fault = Links(Region("east"), Loss(8), Duration::from_secs(10));
/// The west has capacity for a third, so that most rooms stay and newcomers find the region full. The breaker opens 3
/// to 7 s into the brown-out, and half-opens after it has been over for as long as measurements count.
const SHUT: Layout = Layout {
    breaker_open_s: 14,
    narrow: Some(("west", 40 * ROOM_KBPS + ROOM_KBPS / 2)),
    ..BROWNED
};

pub(super) const ROWS: &[Row] = &[
    Row::new("region.kill", FAR, Kill(Region("east"), Loud)).times(3).watched(3),
    // At most three fail-backs per room and minute are allowed.
    Row::new("region.kill.silent", FAR, Kill(Region("east"), Silent)).times(3).watched(3),
    Row::new("region.partition", PARTED, Links(Region("east"), Cut, Duration::ZERO))
        .times(3)
        .watched(3),
    Row::new("region.kill.tight", TIGHT, Kill(Region("east"), Loud))
        .checked(ALL_THAT_FIT)
        .times(2)
        .watched(6),
    Row::new("region.kill.tight.silent", TIGHT, Kill(Region("east"), Silent))
        .checked(ALL_THAT_FIT)
        .times(2)
        .watched(6),
    Row::new("region.standby.idle-then-full", FAR, Kill(Region("east"), Loud))
        .after_idle(20)
        .watched(3),
    Row::new("region.standby.idle-then-full.silent", FAR, Kill(Region("east"), Silent))
        .after_idle(20)
        .watched(3),
    Row::new("region.brown-out", BROWNED, BROWN_OUT).checked(Checks::OVERLAP),
    // Both send, since quality is measured from received packets.
    Row::new("region.brown-out.newcomers", SHUT, BROWN_OUT)
        .checked(Checks::OVERLAP)
        .of(500)
        .both_ways()
        .with_newcomers(),
    Row::new("region.return", PARTED, Return(Region("east"), Loud, Home::Alone))
        .checked(Checks::OVERLAP)
        .of(200),
    Row::new("region.return.silent", PARTED, Return(Region("east"), Silent, Home::Alone))
        .checked(Checks::OVERLAP)
        .of(200)
        .times(2),
    Row::new("region.fail-back", PARTED, Return(Region("east"), Loud, Home::Forced))
        .checked(Checks::OVERLAP)
        .of(200),
    Row::new("region.fail-back.silent", PARTED, Return(Region("east"), Silent, Home::Forced))
        .checked(Checks::OVERLAP)
        .of(200)
        .times(2),
    Row::new("region.two", THREE, Kill(Regions(&["east", "west"]), Loud)).times(2).watched(5),
    Row::new("region.two.silent", THREE, Kill(Regions(&["east", "west"]), Silent))
        .times(2)
        .watched(5),
    // At least 20 rooms per second, so that 500 have moved in time.
    Row::new("region.drain", FAR, DrainRegion("east", DEADLINE)).checked(Checks::OVERLAP),
    Row::new("region.reconnect", Layout::HOT, Reconnect).watched(5),
];
