//! Sessions of WebTransport under the deaths of nodes and gateways.

use crate::fault::Fault::{self, Kill, Owner};
use crate::fault::Loss::Killed;
use crate::fault::Way::Loud;
use crate::fault::Whom::Busiest;
use crate::layout::Layout;
use crate::limits::Limits;
use crate::row::Row;

/// The gateways make their certificates, which the standby copies.
const GROUP: Layout = Layout { certificate: false, ..Layout::GROUP };
const SESSIONS: u32 = 20;
const BY_NODE: Limits = Limits { no_freeze: true, ..Limits::gap(60.0, 150.0) };
/// Clients connect again.
const BY_GATEWAY: Limits = Limits { gap_p99: Some(150.0), ..Limits::NONE };

pub(super) const ROWS: &[Row] = &[
    row("webtransport.node-kill", Layout::HOT, Kill(Busiest, Loud), BY_NODE).times(20),
    row("webtransport.gateway-kill", GROUP, Owner(Killed), BY_GATEWAY).times(10),
];

const fn row(id: &'static str, layout: Layout, fault: Fault, limits: Limits) -> Row {
    Row::new(id, layout, fault, limits).of(SESSIONS).both_ways().webtransport()
}
