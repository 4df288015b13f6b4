//! Zones, and the blast radius of a loss.

use evenkeel_config::GatewayConfig;
use evenkeel_control::Slice;
use evenkeel_core::{Gateway, GatewayEffect, NodeStanding};
use evenkeel_model::{
    EvidenceSource, Health, IngressProtocol, MediaDescription, MediaStream, Offer, OfferId,
    RtcpPort, Srtp, StreamKind,
};

use super::*;

fn node_standing(number: u32, rooms: u32, draining: bool) -> NodeStanding {
    NodeStanding {
        hop: Hop { node: NodeId(number), incarnation: Incarnation(1) },
        health: Health::Up,
        suspected_by: [false; EvidenceSource::ALL.len()],
        draining,
        leaves: false,
        ejected: false,
        started: false,
        stopping: false,
        need: None,
        capacity_kbps: 1_000,
        opening: 0,
        waiting: 0,
        load_permille: 250,
        carried_kbps: 0,
        reported_permille: None,
        process: None,
        rooms,
        round_trip: None,
        loss_ppm: 0,
        is_probed: true,
    }
}

#[test]
fn zones_sum_up_their_nodes() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/zones", "");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(vec![node_standing(0, 3, false), node_standing(1, 4, true)]).unwrap();
    let right = json!({"zones": [
        {"region": "east", "zone": "a", "nodes": 1, "nodes_up": 1, "nodes_draining": 0,
         "nodes_ejected": 0, "rooms": 3, "capacity_kbps": 1_000, "load_permille": 250},
        {"region": "west", "zone": "b", "nodes": 1, "nodes_up": 0, "nodes_draining": 1,
         "nodes_ejected": 0, "rooms": 4, "capacity_kbps": 1_000, "load_permille": 250},
    ]});
    assert_eq!(asking.answer().1, right);
}

/// Answers requests for a copy of the gateway, without its rooms.
fn copy_nodes(world: &mut World, gateway: &mut Gateway) {
    let ControlRequest::CopyNodes(reply) = world.request() else { panic!("nodes") };
    reply.send(Box::new(gateway.records().copy_nodes())).unwrap();
    let ControlRequest::CopyRooms { reply, .. } = world.request() else { panic!("rooms") };
    reply.send(Slice { items: Vec::new(), last: None }).unwrap();
    let ControlRequest::CopySessions { reply, .. } = world.request() else { panic!("sessions") };
    reply.send(Slice { items: Vec::new(), last: None }).unwrap();
}

#[test]
fn blast_radius_is_asked_by_name() {
    let mut world = World::start();
    let ask = |world: &mut World, query: &str| {
        let asking = world.ask(&format!("GET /v1/blast?{query}"), "");
        let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
        reply.send(vec![node_standing(0, 3, false), node_standing(1, 4, false)]).unwrap();
        asking
    };
    for (query, nodes) in [
        ("nodes=east-a1", json!(["east-a1"])),
        ("zones=east/a,b", json!(["east-a1", "west-b1"])),
        ("regions=west", json!(["west-b1"])),
        ("busiest=1", json!(["west-b1"])),
    ] {
        let asking = ask(&mut world, query);
        copy_nodes(&mut world, &mut Gateway::new(settings(), std::time::Instant::now()));
        let (status, body) = asking.answer();
        assert_eq!((status, &body["nodes"]), (200, &nodes), "{query}: {body}");
        assert_eq!((&body["rooms"], &body["unplaced"]["rooms"]), (&json!(0), &json!(0)));
        assert!(body.get("details").is_none());
    }
    for (query, status, words) in [
        ("nodes=north", 404, "there are east-a1, west-b1"),
        ("zones=east/b", 404, "there are east/a, west/b"),
        ("regions=north", 404, "there are east, west"),
        ("rooms=true", 400, "a name in `nodes`, `zones`, `regions` or `carriers`"),
    ] {
        let (found, body) = ask(&mut world, query).answer();
        assert_eq!(found, status, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(words), "{body}");
    }
}

/// A gateway with a session of a client of each of these carriers.
fn gateway_with(carriers: &[&str]) -> Gateway {
    let now = std::time::Instant::now();
    let mut settings = settings();
    settings.scenarios = GatewayConfig::load(None, None).unwrap().core().scenarios;
    settings.scenarios.values_mut().for_each(|scenario| scenario.bound.fill(false));
    let mut gateway = Gateway::new(settings, now);
    for (number, carrier) in (1..).zip(carriers) {
        let audio = MediaStream {
            kind: StreamKind::Audio,
            payload_types: Vec::new(),
            feedback: Default::default(),
            bitrate_kbps: None,
        };
        let (streams, rtcp, srtp) = (vec![audio], RtcpPort::Mux, Srtp::Plain);
        let offer = Offer {
            id: OfferId(number),
            scenario: "call".into(),
            room: format!("r{number}").into(),
            labels: [("carrier".into(), (*carrier).into())].into(),
            ingress: IngressProtocol::Quic,
            media: Arc::new(MediaDescription { streams, rtcp, srtp }),
        };
        gateway.handle_offer(offer, now);
        while let Some(output) = gateway.poll_output() {
            if let GatewayEffect::Open { session, hop, .. } = output {
                gateway.handle_opened(session, hop, Ok(()), now);
            }
        }
    }
    gateway
}

#[test]
fn carrier_losses_name_clients_addresses_and_nodes() {
    let mut gateway = gateway_with(&["ct", "cu", "ct"]);
    let mut world = World::start();
    let ask = |world: &mut World, gateway: &mut Gateway, carrier: &str| {
        let asking = world.ask(&format!("GET /v1/blast?carriers={carrier}&rooms=true"), "");
        let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
        reply.send(vec![node_standing(0, 3, false), node_standing(1, 4, false)]).unwrap();
        let ControlRequest::Status(reply) = world.request() else { panic!("status") };
        let carriers = [("ct".into(), vec![([203, 0, 113, 7], 5_004).into()])].into();
        reply.send(StatusReport { carriers, ..status("serving") }).unwrap();
        let ControlRequest::CopySessions { reply, .. } = world.request() else { panic!("copy") };
        let records = gateway.records();
        let copies = records.copy_sessions(SessionId(0)).filter_map(|(_, copy)| copy);
        reply.send(Slice { items: copies.collect(), last: None }).unwrap();
        asking
    };
    let (status, body) = ask(&mut world, &mut gateway, "ct,cu").answer();
    let right = json!([
        {
            "carrier": "ct", "nodes": [], "rooms": 2, "sessions": 2, "addresses": ["203.0.113.7:5004"],
            "other_addresses": ["127.0.0.1:5004"], "details": ["s1", "s3"],
        },
        {
            "carrier": "cu", "nodes": [], "rooms": 1, "sessions": 1, "addresses": [],
            "other_addresses": ["127.0.0.1:5004", "203.0.113.7:5004"], "details": ["s2"],
        },
    ]);
    assert_eq!((status, &body["carriers"]), (200, &right), "{body}");
    assert!(body.get("nodes").is_none(), "the gateway is not copied: {body}");
    let (status, body) = ask(&mut world, &mut gateway, "cm").answer();
    assert_eq!(status, 404, "{body}");
    let asking = ask(&mut world, &mut gateway, "cn");
    copy_nodes(&mut world, &mut gateway);
    let (status, body) = asking.answer();
    let (lost, right) = (&body["carriers"][0], json!(["west-b1"]));
    assert_eq!((status, &lost["nodes"], &body["nodes"]), (200, &right, &right), "{body}");
}
