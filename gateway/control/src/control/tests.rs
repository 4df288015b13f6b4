use std::net::SocketAddr;

use evenkeel_config::{ConfigBitRate, DriverSettings, NodeConfig, ProbeKind};
use evenkeel_dataplane::flows::Flows;
use evenkeel_model::{Incarnation, IngressProtocol, MediaDescription, OfferId, Srtp};

use super::*;
use crate::{ListenerAddress, ListenerAddresses};

fn listed(name: &str, region: &str) -> Option<ListedNode> {
    let node = NodeConfig {
        name: name.into(),
        address: ([10, 0, 0, 9], 9).into(),
        region: region.into(),
        zone: "a".into(),
        carrier: None,
        driver: DriverSettings::Plain { probe: ProbeKind::Stun },
        capacity: ConfigBitRate(1_000_000),
        canary: false,
        standby: false,
        start: None,
        agent: None,
        srtp: evenkeel_config::NodeSrtp::Off,
    };
    Some(ListedNode { node: Arc::new(node), leaves: false })
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
    let media = MediaDescription { streams: Vec::new(), rtcp: RtcpPort::Mux, srtp: Srtp::Plain };
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
    let address = |listed: &[_], node| {
        let nodes = NodeResources { nodes: listed.to_vec(), ..NodeResources::default() };
        let hop = Hop { node: NodeId(node), incarnation: Incarnation(1) };
        open_request(&registry, &nodes, session, RoomId(1), hop).unwrap().address
    };
    assert_eq!(address(&[listed("sfu-1", "east")], 0), Some(own));
    let goes_and_comes = [listed("sfu-1", "east"), listed("sfu-1", "west")];
    assert_eq!(address(&goes_and_comes, 1), Some(own), "same node");
    let taken_again = [listed("sfu-9", "east")];
    assert_eq!(address(&taken_again, 0), None, "reused number");
}
