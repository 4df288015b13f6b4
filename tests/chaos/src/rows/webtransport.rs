//! Sessions of WebTransport under the deaths of nodes and gateways.

use crate::fault::Fault::{self, Kill, Owner};
use crate::fault::Loss::Killed;
use crate::fault::Target::Busiest;
use crate::fault::Way::Loud;
use crate::layout::Layout;
use crate::row::Row;

/// The gateways make their certificates, which the standby copies.
const GROUP: Layout = Layout { certificate: false, ..Layout::GROUP };
const SESSIONS: u32 = 20;

pub(super) const ROWS: &[Row] = &[
    row("webtransport.node-kill", Layout::HOT, Kill(Busiest, Loud)).times(20),
    row("webtransport.gateway-kill", GROUP, Owner(Killed)).times(10),
];

const fn row(id: &'static str, layout: Layout, fault: Fault) -> Row {
    Row::new(id, layout, fault).of(SESSIONS).both_ways().webtransport()
}
