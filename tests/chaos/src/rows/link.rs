//! Links that are cut, lossy, slow, narrow, or all in turns.

use std::time::Duration;

use crate::fault::Fault::{BlockUdp, Links, Rebind};
use crate::fault::Target::{All, Busiest};
use crate::impairment::Impairment::{
    Blackouts, Corrupt, Cut, Jitter, Later, LossRamp, Mtu, OneWay, Rate, Scatter, Unsteady,
};
use crate::layout::Layout;
use crate::limits::Checks;
use crate::row::Row;

const AT_ONCE: Duration = Duration::ZERO;
const FIVE_S: Duration = Duration::from_secs(5);

pub(super) const ROWS: &[Row] = &[
    Row::new("link.cut", Layout::LINKED, Links(Busiest, Cut, AT_ONCE)).times(6),
    Row::new("link.one-way", Layout::LINKED, Links(Busiest, OneWay, AT_ONCE)).times(6),
    Row::new(
        "link.loss-ramp",
        Layout::LINKED,
        Links(Busiest, LossRamp(30), Duration::from_secs(10)),
    )
    .checked(Checks::OVERLAP),
    Row::new("link.blackout", Layout::LINKED, Links(Busiest, Blackouts, Duration::from_secs(16))),
    Row::new("link.delay-200", Layout::LINKED, Links(Busiest, Later(200), FIVE_S)),
    Row::new("link.jitter-80", Layout::LINKED, Links(All, Jitter(80), Duration::from_secs(24))),
    Row::new("link.scatter-80", Layout::LINKED, Links(All, Scatter(80), Duration::from_secs(24))),
    Row::new("link.reorder-duplicate", Layout::LINKED, Links(All, Unsteady, FIVE_S)),
    Row::new("link.corrupt", Layout::LINKED, Links(All, Corrupt, FIVE_S))
        .checked(Checks { damaged: true, ..Checks::ALL }),
    Row::new("link.mtu", Layout::LINKED, Links(All, Mtu(1_252), FIVE_S)),
    Row::new("link.bandwidth", Layout::LINKED, Links(Busiest, Rate(4_000_000), FIVE_S))
        .checked(Checks::OVERLAP),
    Row::new("nat.rebinding", Layout::HOT, Rebind).of(200).with_quic().natted().watched(4),
    Row::new("udp.blocked", Layout::HOT, BlockUdp(Duration::from_secs(3)))
        .checked(Checks { others_suffer: Some("they are all UDP clients"), ..Checks::ALL })
        .of(200)
        .with_quic(),
];
