//! The core with a data plane that completes every opening at once, answers every probe, and binds no policy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_model::{
    AdmitOnFault, CapBounds, ClientIdentity, CoreSettings, DegradeOnFault, FailureScope,
    FeedbackSupport, GatewayLimits, IngressProtocol, MediaDescription, MediaStream, NodeSettings,
    Offer, OfferId, PayloadType, RegionId, RouteCell, RtcpPort, Scenario, SessionId, Srtp, Stamp,
    StreamKind, Timings, Zone, ZoneId,
};
use evenkeel_nodes::{NodeEffect, NodeEvidence};

/// A gateway's core, alone.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) now: Instant,
    /// The route of each session, in the order of offers.
    pub(crate) routes: Vec<Arc<RouteCell>>,
    pub(crate) accepted: Vec<SessionId>,
    /// The longest call of the core, including the handling of its outputs.
    pub(crate) longest: Duration,
    nodes: usize,
    /// Nodes that neither answer nor send.
    dead: Vec<bool>,
    media: Arc<MediaDescription>,
}

impl World {
    /// A home region with this many nodes, and with capacity for up to `sessions` sessions.
    pub(crate) fn new(nodes: usize, sessions: usize) -> World {
        let now = Instant::now();
        let opus = PayloadType::new(111, "opus", 48_000);
        let voice = MediaStream {
            kind: StreamKind::Audio,
            payload_types: vec![opus],
            feedback: FeedbackSupport::default(),
            bitrate_kbps: None,
        };
        let media = MediaDescription::new(vec![voice], RtcpPort::Mux, Srtp::Plain);
        World {
            gateway: Gateway::new(settings(nodes, sessions), now),
            now,
            routes: Vec::new(),
            accepted: Vec::new(),
            longest: Duration::ZERO,
            nodes,
            dead: vec![false; nodes],
            media: Arc::new(media),
        }
    }

    /// One more session in a room of its own, from its offer to its route.
    pub(crate) fn offer(&mut self) {
        let number = self.routes.len() as u32;
        let address = SocketAddr::new(Ipv4Addr::from_bits(0x7f01_0000 + number).into(), 5_004);
        let offer = Offer {
            id: OfferId(u64::from(number)),
            scenario: "call".into(),
            room: format!("room-{number}").into(),
            labels: [].into(),
            ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
            media: Arc::clone(&self.media),
        };
        self.gateway.handle_offer(offer, self.now);
        self.drain();
    }

    /// A tick of control; all live nodes were heard just now.
    pub(crate) fn watch(&mut self, after: Duration) {
        self.now += after;
        let heard: Vec<Stamp> = (0..self.nodes).map(|_| Stamp::default()).collect();
        self.time(|gateway, now| {
            gateway.handle_watch(&heard, Duration::ZERO, now);
            gateway.handle_timeout(now);
        });
    }

    /// Stops a node's answers.
    pub(crate) fn kill(&mut self, node: usize) {
        self.dead[node] = true;
    }

    fn time(&mut self, act: impl FnOnce(&mut Gateway, Instant)) {
        let before = Instant::now();
        act(&mut self.gateway, self.now);
        self.drain();
        self.longest = self.longest.max(before.elapsed());
    }

    /// Executes the core's outputs.
    fn drain(&mut self) {
        while let Some(output) = self.gateway.poll_output() {
            match output {
                GatewayEffect::Install(installed, _) => self.routes.push(installed.route),
                GatewayEffect::Open { session, hop, .. } => {
                    self.gateway.handle_opened(session, hop, Ok(()), self.now);
                }
                GatewayEffect::Node(NodeEffect::Probe { node, sequence })
                    if !self.dead[node.0 as usize] =>
                {
                    self.gateway.handle_evidence(
                        node,
                        NodeEvidence::ProbeAnswered(sequence),
                        self.now,
                    );
                }
                GatewayEffect::Reply { result, .. } => {
                    self.accepted.extend(result.ok().map(|accepted| accepted.session));
                }
                _ => {}
            }
        }
    }
}

fn settings(nodes: usize, sessions: usize) -> CoreSettings {
    let scenario = Scenario {
        set: "call".into(),
        bound: [false; 4],
        bounds: CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 },
        mode: evenkeel_model::RedundancyMode::Hot,
        affinity: evenkeel_model::Affinity::Room,
        regions: Vec::new(),
        spares: 2,
        reserve: Some(FailureScope::Node),
        spares_outside: FailureScope::Node,
        close_after: Duration::from_secs(3_600),
        priority: 0,
        slo: None,
        on_admission_fault: AdmitOnFault::Admit,
        on_degradation_fault: DegradeOnFault::Hold,
    };
    let node =
        |at: usize| NodeSettings::new(format!("n{at}"), ZoneId(at as u32 % 3), 1_000_000_000);
    let zone = |name: &str| Zone { name: name.into(), region: RegionId(0) };
    CoreSettings {
        home: RegionId(0),
        regions: vec!["home".into()],
        carriers: Vec::new(),
        zones: vec![zone("a"), zone("b"), zone("c")],
        nodes: (0..nodes).map(node).collect(),
        scenarios: BTreeMap::from([("call".into(), scenario)]),
        timings: Timings::default(),
        limits: GatewayLimits { sessions_max: sessions, ..GatewayLimits::default() },
    }
}
