//! WebRTC sessions under the faults of nodes and gateways.

use std::time::Duration;

use crate::fault::Fault::{self, HelloFlood, Kill, Owner, Upgrade};
use crate::fault::Loss::{Killed, Silent, Stopped};
use crate::fault::Way::Loud;
use crate::fault::Whom::Busiest;
use crate::layout::Layout;
use crate::limits::Limits;
use crate::row::Row;
use crate::webrtc::ThirdParty::{Libraries, Pages, Publisher};

const SESSIONS: u32 = 20;
/// A publisher and its viewers.
const AUDIENCE: u32 = 301;
const TWO_S: Duration = Duration::from_secs(2);
const FIVE_S: Duration = Duration::from_secs(5);
const BY_NODE: Limits = Limits { no_freeze: true, ..Limits::gap(60.0, 150.0) };
const BY_GATEWAY: Limits = Limits { none_condemned: true, ..Limits::gap(80.0, 200.0) };
const SILENTLY: Limits = Limits { none_condemned: true, ..Limits::gap(100.0, 250.0) };
/// Video of other programs is not measured at the interface.
const VOICE_BY_NODE: Limits = Limits::gap(60.0, 150.0);
const BY_NODE_LIVE: Limits = Limits { key_frames_asked: Some(1.0), ..VOICE_BY_NODE };
const PAGES_BY_NODE: Limits = Limits { frozen_max: Some(250.0), ..Limits::gap(60.0, 150.0) };
const PAGES_BY_GATEWAY: Limits = Limits { frozen_max: Some(350.0), ..BY_GATEWAY };
const FLOODED: Limits =
    Limits { none_condemned: true, no_freeze: true, ..Limits::gap(60.0, 150.0) };
const NONE_LOST: Limits =
    Limits { none_lost: true, none_condemned: true, no_freeze: true, ..Limits::NONE };

pub(super) const ROWS: &[Row] = &[
    row("webrtc.node-kill", Layout::HOSTS, Kill(Busiest, Loud), BY_NODE).times(20),
    row("webrtc.gateway-kill", Layout::GROUP, Owner(Killed), BY_GATEWAY).times(10),
    row("webrtc.gateway-silent", Layout::GROUP, Owner(Silent), SILENTLY).times(8),
    row("webrtc.upgrade", Layout::HOSTS, Upgrade, NONE_LOST).times(10),
    row("webrtc.hello-flood", Layout::HOSTS, HelloFlood(TWO_S), FLOODED).times(6),
    // Half of the faults hit each member.
    row("webrtc.gateway-stopped", Layout::GROUP, Owner(Stopped(FIVE_S)), SILENTLY).times(6),
    Row::new("webrtc.live", Layout::LIVE, Kill(Busiest, Loud), BY_NODE_LIVE)
        .with_third_party(Publisher)
        .of(AUDIENCE)
        .times(10),
    Row::new("webrtc.browsers.node-kill", Layout::GROUP, Kill(Busiest, Loud), PAGES_BY_NODE)
        .with_third_party(Pages)
        .both_ways()
        .times(6),
    Row::new("webrtc.browsers.gateway-kill", Layout::GROUP, Owner(Killed), PAGES_BY_GATEWAY)
        .with_third_party(Pages)
        .both_ways()
        .times(6),
    Row::new("webrtc.libraries.node-kill", Layout::GROUP, Kill(Busiest, Loud), VOICE_BY_NODE)
        .with_third_party(Libraries)
        .both_ways()
        .times(10),
    Row::new("webrtc.libraries.gateway-kill", Layout::GROUP, Owner(Killed), BY_GATEWAY)
        .with_third_party(Libraries)
        .both_ways()
        .times(6),
];

const fn row(id: &'static str, layout: Layout, fault: Fault, limits: Limits) -> Row {
    Row::new(id, layout, fault, limits).of(SESSIONS).both_ways().webrtc()
}
