//! WebRTC sessions under the faults of nodes and gateways.

use std::time::Duration;

use crate::fault::Fault::{self, HelloFlood, Kill, Owner, Upgrade};
use crate::fault::Loss::{Killed, Silent, Stopped};
use crate::fault::Target::Busiest;
use crate::fault::Way::Loud;
use crate::layout::Layout;
use crate::row::Row;
use crate::webrtc::ThirdParty::{Libraries, Pages, Publisher};

const SESSIONS: u32 = 20;
/// A publisher and its viewers.
const AUDIENCE: u32 = 301;
const TWO_S: Duration = Duration::from_secs(2);
const FIVE_S: Duration = Duration::from_secs(5);

pub(super) const ROWS: &[Row] = &[
    row("webrtc.node-kill", Layout::HOSTS, Kill(Busiest, Loud)).times(20),
    row("webrtc.gateway-kill", Layout::GROUP, Owner(Killed)).times(10),
    row("webrtc.gateway-silent", Layout::GROUP, Owner(Silent)).times(8),
    row("webrtc.upgrade", Layout::HOSTS, Upgrade).times(10),
    row("webrtc.hello-flood", Layout::HOSTS, HelloFlood(TWO_S)).times(6),
    // Half of the faults hit each member.
    row("webrtc.gateway-stopped", Layout::GROUP, Owner(Stopped(FIVE_S))).times(6),
    Row::new("webrtc.live", Layout::LIVE, Kill(Busiest, Loud))
        .with_third_party(Publisher)
        .of(AUDIENCE)
        .times(10),
    Row::new("webrtc.browsers.node-kill", Layout::GROUP, Kill(Busiest, Loud))
        .with_third_party(Pages)
        .both_ways()
        .times(6),
    Row::new("webrtc.browsers.gateway-kill", Layout::GROUP, Owner(Killed))
        .with_third_party(Pages)
        .both_ways()
        .times(6),
    Row::new("webrtc.libraries.node-kill", Layout::GROUP, Kill(Busiest, Loud))
        .with_third_party(Libraries)
        .both_ways()
        .times(10),
    Row::new("webrtc.libraries.gateway-kill", Layout::GROUP, Owner(Killed))
        .with_third_party(Libraries)
        .both_ways()
        .times(6),
];

const fn row(id: &'static str, layout: Layout, fault: Fault) -> Row {
    Row::new(id, layout, fault).of(SESSIONS).both_ways().webrtc()
}
