use std::net::SocketAddr;

use evenkeel_config::{ConfigBitRate, DriverSettings, NodeConfig, NodeProbe, Signalling};
use evenkeel_dataplane::flows::Flows;
use evenkeel_dataplane::worker::WorkerStats;
use evenkeel_model::{Incarnation, IngressProtocol, MediaDescription, OfferId, Srtp};

use super::*;
use crate::{ListenerAddress, ListenerAddresses};

fn node(name: &str, region: &str) -> NodeConfig {
    NodeConfig::new(
        name.into(),
        ([10, 0, 0, 9], 9).into(),
        region.into(),
        "a".into(),
        DriverSettings::new("plain", NodeProbe::Stun, Signalling::None),
        ConfigBitRate(1_000_000),
    )
}

#[test]
fn offered_address_follows_the_node_name() {
    let at = ListenerAddress { rtp: ([127, 0, 0, 1], 1).into(), rtcp: None, carrier: None };
    let addresses = ListenerAddresses { default: at, others: Vec::new() };
    let quic = crate::QuicListener { addresses, certificate_sha256: [0; 32], short_lived: None };
    let flows = Arc::new(Flows::new(16));
    let traces = Arc::new(crate::TraceRegistry::new(evenkeel_config::Traceparent::Link));
    let mut registry = SessionRegistry::new(Vec::new(), Some(quic), flows, None, false, 1, traces);
    let (session, own) = (SessionId(1), SocketAddr::from(([10, 0, 0, 1], 40_112)));
    let media = MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain);
    let offer = Offer {
        id: OfferId(1),
        scenario: "call".into(),
        room: "r".into(),
        labels: Vec::new().into(),
        ingress: IngressProtocol::Quic,
        media: Arc::new(media),
    };
    let nodes = vec![("sfu-1".into(), own)];
    registry.register(session, &offer, nodes, &mut |bytes| bytes.fill(1)).unwrap();
    let handshakes = Arc::new(WorkerStats::new(Instant::now(), 0));
    let workers = WorkerLines::new(Vec::new(), handshakes, None);
    let sessions = Sessions::new(registry, workers, Arc::default(), 0, false);
    let address = |number, node: &NodeConfig| {
        let hop = Hop { node: NodeId(number), incarnation: Incarnation(1) };
        sessions.open_request(session, RoomId(1), hop, Some(node)).unwrap().address
    };
    assert_eq!(address(0, &node("sfu-1", "east")), Some(own));
    assert_eq!(address(1, &node("sfu-1", "west")), Some(own), "same node");
    assert_eq!(address(0, &node("sfu-9", "east")), None, "reused number");
}
