//! Links that are cut, lossy, slow, narrow, or all in turns.

use std::time::Duration;

use crate::fault::Fault::{BlockUdp, Links, Rebind};
use crate::fault::Whom::{All, Busiest};
use crate::layout::Layout;
use crate::limits::Limits;
use crate::row::Row;
use crate::weather::Weather::{
    Blackouts, Corrupt, Cut, Jitter, Later, LossRamp, Mtu, OneWay, Rate, Scatter, Unsteady,
};

const AT_ONCE: Duration = Duration::ZERO;
const FIVE_S: Duration = Duration::from_secs(5);
const SILENT: Limits = Limits { no_freeze: true, ..Limits::gap(70.0, 170.0) };
const NOBODY_DEAD: Limits = Limits { none_condemned: true, ..Limits::NONE };

pub(super) const ROWS: &[Row] = &[
    Row::new("link.cut", Layout::LINKED, Links(Busiest, Cut, AT_ONCE), SILENT).times(6),
    Row::new("link.one-way", Layout::LINKED, Links(Busiest, OneWay, AT_ONCE), SILENT).times(6),
    Row::new(
        "link.loss-ramp",
        Layout::LINKED,
        Links(Busiest, LossRamp(30), Duration::from_secs(10)),
        Limits { no_freeze: true, ..Limits::NONE.gently() },
    ),
    Row::new(
        "link.blackout",
        Layout::LINKED,
        Links(Busiest, Blackouts, Duration::from_secs(16)),
        Limits { moves_max: Some(1.0), ..SILENT },
    ),
    Row::new(
        "link.delay-200",
        Layout::LINKED,
        Links(Busiest, Later(200), FIVE_S),
        Limits::gap(70.0, 250.0),
    ),
    Row::new(
        "link.jitter-80",
        Layout::LINKED,
        Links(All, Jitter(80), Duration::from_secs(24)),
        NOBODY_DEAD,
    ),
    Row::new(
        "link.scatter-80",
        Layout::LINKED,
        Links(All, Scatter(80), Duration::from_secs(24)),
        // Two consecutive packets are up to 180 ms apart, depending on their delays.
        Limits { none_condemned: true, ..Limits::gap(180.0, 250.0) },
    ),
    Row::new("link.reorder-duplicate", Layout::LINKED, Links(All, Unsteady, FIVE_S), NOBODY_DEAD),
    Row::new(
        "link.corrupt",
        Layout::LINKED,
        Links(All, Corrupt, FIVE_S),
        Limits { damaged: true, ..NOBODY_DEAD },
    ),
    Row::new(
        "link.mtu",
        Layout::LINKED,
        Links(All, Mtu(1_252), FIVE_S),
        Limits { no_freeze: true, ..NOBODY_DEAD },
    ),
    Row::new(
        "link.bandwidth",
        Layout::LINKED,
        Links(Busiest, Rate(4_000_000), FIVE_S),
        // 2 s until the link is known to be worse than others, 1 s of doubt, and rooms move one by one.
        Limits { left_within: Some(3_500.0), ..Limits::NONE.gently() },
    ),
    // By STUN an address is renewed with the next check, one a second here.
    Row::new("nat.rebinding", Layout::HOT, Rebind, Limits::gap(1_100.0, 1_500.0))
        .of(200)
        .with_quic()
        .natted()
        .watched(4),
    Row::new(
        "udp.blocked",
        Layout::HOT,
        BlockUdp(Duration::from_secs(3)),
        Limits {
            none_condemned: true,
            others_suffer: Some("they are all UDP clients"),
            ..Limits::gap(50.0, 150.0)
        },
    )
    .of(200)
    .with_quic(),
];
