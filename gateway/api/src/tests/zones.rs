//! Zones, and the blast radius of a loss.

use evenkeel_config::GatewayConfig;
use evenkeel_control::{LossComparison, LossFigures, PredictedLoss, Slice, UncoveredLoss};
use evenkeel_core::{Gateway, GatewayEffect, NodeStanding, RoomStanding};
use evenkeel_model::{
    BreakerMode, BreakerState, ClientTransport, EvidenceSource, FailureScope, Health,
    IngressProtocol, MediaDescription, MediaStream, Offer, OfferId, RedundancyMode, RtcpPort, Srtp,
    StreamKind,
};
use evenkeel_policies::PolicyView;

use super::events::listening;
use super::views::{policy, session};
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
        impaired_sessions: 0,
        is_probed: true,
        zone_breaker: if draining { BreakerState::Open } else { BreakerState::Closed },
        zone_breaker_mode: BreakerMode::Auto,
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
         "nodes_ejected": 0, "breaker": "closed", "breaker_mode": "auto", "rooms": 3, "capacity_kbps": 1_000,
         "load_permille": 250},
        {"region": "west", "zone": "b", "nodes": 1, "nodes_up": 0, "nodes_draining": 1,
         "nodes_ejected": 0, "breaker": "open", "breaker_mode": "auto", "rooms": 4, "capacity_kbps": 1_000,
         "load_permille": 250},
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
        ("zones=west/b&busiest=1", json!(["east-a1", "west-b1"])),
        ("what_if=nodes%3D-1", json!(["west-b1"])),
        ("what_if=nodes%3D-1%2Czone%3Db", json!(["east-a1", "west-b1"])),
        ("what_if=node%3Deast-a1", json!(["east-a1"])),
        ("what_if=region%3Dwest", json!(["west-b1"])),
    ] {
        let asking = ask(&mut world, query);
        copy_nodes(&mut world, &mut Gateway::new(settings(), std::time::Instant::now()));
        let (status, body) = asking.answer();
        assert_eq!((status, &body["nodes"]), (200, &nodes), "{query}: {body}");
        assert_eq!((&body["rooms"], &body["unplaced"]["rooms"]), (&json!(0), &json!(0)));
        assert!(body.get("details").is_none());
    }
    let asking = ask(&mut world, "nodes=east-a1&rooms=true");
    copy_nodes(&mut world, &mut Gateway::new(settings(), std::time::Instant::now()));
    let (_, body) = asking.answer();
    assert_eq!((&body["details"], &body["without_spare"]), (&json!([]), &json!([])), "{body}");
    for (query, status, words) in [
        ("nodes=north", 404, "there are east-a1, west-b1"),
        ("zones=east/b", 404, "there are east/a, west/b"),
        ("regions=north", 404, "there are east, west"),
        ("rooms=true", 400, "a name in `nodes`, `zones`, `regions`, `carriers`"),
        ("what_if=zone%3Dnorth", 404, "there are east/a, west/b"),
    ] {
        let (found, body) = ask(&mut world, query).answer();
        assert_eq!(found, status, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(words), "{body}");
    }
}

#[test]
fn lost_and_draining_nodes_are_named_in_the_blast() {
    let mut world = World::start();
    let now = std::time::Instant::now();
    let mut gateway = Gateway::new(settings(), now);
    gateway.handle_eject(NodeId(0), now).unwrap();
    let asking = world.ask("GET /v1/blast?nodes=east-a1", "");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    let ejected =
        NodeStanding { health: Health::Down, ejected: true, ..node_standing(0, 0, false) };
    reply.send(vec![ejected, node_standing(1, 4, true)]).unwrap();
    copy_nodes(&mut world, &mut gateway);
    let (_, body) = asking.answer();
    let happened = json!([{"node": "east-a1", "state": "ejected"}]);
    assert_eq!((&body["nodes"], &body["lost_before"]), (&json!([]), &happened), "{body}");
    let draining = json!([{"node": "west-b1", "state": "draining"}]);
    assert_eq!((&body["loads"], &body["unavailable"]), (&json!([]), &draining), "{body}");
    let asking = world.ask("GET /v1/blast?nodes=west-b1", "");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    let down = NodeStanding { health: Health::Down, ..node_standing(0, 0, false) };
    reply.send(vec![down, node_standing(1, 4, true)]).unwrap();
    copy_nodes(&mut world, &mut gateway);
    let (_, body) = asking.answer();
    assert_eq!((&body["nodes"], &body["lost_before"]), (&json!(["west-b1"]), &json!([])), "{body}");
    assert_eq!(body["unavailable"], json!([{"node": "east-a1", "state": "down"}]), "{body}");
}

/// A gateway with a session of a client of each of these carriers.
fn gateway_with(carriers: &[&str]) -> Gateway {
    let now = std::time::Instant::now();
    let mut settings = settings();
    settings.scenarios = GatewayConfig::load(None, None, &[]).unwrap().core().scenarios;
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
            media: Arc::new(MediaDescription::new(streams, rtcp, srtp)),
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

#[test]
fn loss_is_played_in_each_mode() {
    let mut gateway = gateway_with(&["ct", "cu"]);
    let mut world = World::start();
    let asking = world.ask("GET /v1/blast?nodes=east-a1&modes=true", "");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(vec![node_standing(0, 2, false), node_standing(1, 0, false)]).unwrap();
    copy_nodes(&mut world, &mut gateway);
    let (records, now) = (gateway.records(), std::time::Instant::now());
    let ControlRequest::CopyNodes(reply) = world.request() else { panic!("nodes") };
    reply.send(Box::new(records.copy_nodes())).unwrap();
    let ControlRequest::CopyRooms { after, reply } = world.request() else { panic!("rooms") };
    let rooms = records.copy_rooms(after, now).filter_map(|(_, room)| room);
    reply.send(Slice { items: rooms.collect(), last: None }).unwrap();
    let ControlRequest::CopySessions { after, reply } = world.request() else { panic!("sessions") };
    let sessions = records.copy_sessions(after).filter_map(|(_, session)| session);
    reply.send(Slice { items: sessions.collect(), last: None }).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["nodes"]), (200, &json!(["east-a1"])), "{body}");
    let modes = body["modes"].as_array().unwrap();
    let names: Vec<&str> = modes.iter().map(|mode| mode["mode"].as_str().unwrap()).collect();
    assert_eq!(names, ["hitless", "hot", "active-active", "cold", "regional"]);
    let right = json!({
        "mode": "hot", "rooms": 2, "rooms_without_spare": 0, "needed_kbps": 0, "free_kbps": 1_744,
        "bandwidth_cost": 0.0, "unplaced_sessions": 0, "reduced_sessions": 0,
        "outage_ms": {"p50": 24.0, "max": 24.0},
    });
    assert_eq!(modes[1], right);
    let hitless = (&modes[0]["bandwidth_cost"], &modes[0]["outage_ms"]["max"]);
    assert_eq!(hitless, (&json!(1.0), &json!(0.0)));
    assert_eq!(modes[3]["rooms_without_spare"], 2);
}

#[test]
fn malformed_what_if_is_refused() {
    let world = World::start();
    for what_if in ["b", "nodes%3D1", "nodes%3D-x", "rooms%3D1"] {
        let (status, body) = world.ask(&format!("GET /v1/blast?what_if={what_if}"), "").answer();
        assert_eq!((status, &body["error"]["field"]), (400, &json!("what_if")), "{body}");
    }
}

#[test]
fn gateway_loss_counts_sessions_by_listener() {
    let mut world = World::start();
    let asking = world.ask("GET /v1/blast?gateway=", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    let quic = Some((Ipv4Addr::LOCALHOST, 4433).into());
    reply.send(StatusReport { quic, ..status("serving") }).unwrap();
    let ControlRequest::Sessions(.., reply) = world.request() else { panic!("sessions") };
    let mut quic = session(1);
    quic.state.transport = ClientTransport::Quic;
    reply.send(vec![quic, session(2)]).unwrap();
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(Vec::new()).unwrap();
    let (status, body) = asking.answer();
    let right = json!({
        "gateway": null, "here": true, "role": "owner", "sessions": 2, "successor": null,
        "copied_sessions": 0, "continues": false,
        "reasons": ["it belongs to no group; [cluster] adds a standby"], "warnings": [],
        "scenarios": {"call": 2},
        "listeners": [
            {"listener": "udp", "addresses": ["127.0.0.1:5004"], "sessions": 1},
            {"listener": "quic", "addresses": ["127.0.0.1:4433"], "sessions": 1},
        ],
    });
    assert_eq!((status, &body["gateway"]), (200, &right), "{body}");
    assert!(body.get("nodes").is_none(), "the gateway is not copied: {body}");
    let asking = world.ask("GET /v1/blast?gateway=", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    reply.send(super::status("serving")).unwrap();
    let ControlRequest::Sessions(.., reply) = world.request() else { panic!("sessions") };
    reply.send(Vec::new()).unwrap();
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(Vec::new()).unwrap();
    let listeners = json!([{"listener": "udp", "addresses": ["127.0.0.1:5004"], "sessions": 0}]);
    assert_eq!(asking.answer().1["gateway"]["listeners"], listeners, "no QUIC is configured");
    let asking = world.ask("GET /v1/blast?gateway=gw-b", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    reply.send(super::status("serving")).unwrap();
    assert_eq!(asking.answer().0, 404, "a gateway without a group has no other member");
}

/// A room of two sessions.
fn room(number: u64) -> RoomStanding {
    RoomStanding {
        room: RoomId(number),
        name: format!("room-{number}").into(),
        scenario: "call".into(),
        mode: RedundancyMode::Hot,
        kept: RedundancyMode::Hot,
        sessions: vec![SessionId(2 * number), SessionId(2 * number + 1)],
        route: Vec::new(),
        hop: None,
        placed_by: Decider::Native,
    }
}

#[test]
fn policy_loss_counts_sessions_by_revision() {
    let mut world = World::start();
    let ask = |world: &mut World, policy: PolicyView| {
        let asking = world.ask("GET /v1/blast?policies=call/routing", "");
        let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
        reply.send(Vec::new()).unwrap();
        let ControlRequest::Policies(reply) = world.request() else { panic!("policies") };
        reply.send(vec![policy]).unwrap();
        let ControlRequest::Rooms(.., reply) = world.request() else { panic!("rooms") };
        let other = RoomStanding { scenario: "other".into(), ..room(2) };
        reply.send(vec![room(1), other]).unwrap();
        asking.answer()
    };
    let (status, body) = ask(&mut world, policy());
    let hit = json!({"rooms": 1, "sessions": 2});
    let right = json!([{
        "policy": "call/routing", "rooms": 1, "sessions": 2,
        "scenarios": {"call": hit, "idle": {"rooms": 0, "sessions": 0}},
        "revisions": [{"arm": "canary", "revision": "aaaaaaaaaaaa", "sessions": 10}],
    }]);
    assert_eq!((status, &body["policies"]), (200, &right), "{body}");
    let (_, body) = ask(&mut world, PolicyView { cohorts: Vec::new(), ..policy() });
    let right = json!([{"arm": "active", "revision": "5f0c5f0c5f0c", "sessions": 2}]);
    assert_eq!(body["policies"][0]["revisions"], right);
    let other = PolicyName { set: "other".into(), hook: Hook::Routing };
    let (status, body) = ask(&mut world, PolicyView { policy: other, ..policy() });
    assert_eq!(status, 404, "{body}");
}

#[test]
fn real_loss_is_an_event_beside_its_prediction() {
    let (world, mut listening) = listening();
    let figures = LossFigures { rooms: 3, sessions: 4, unplaced_sessions: 1, reduced_sessions: 2 };
    let predicted = PredictedLoss {
        at_us: 5,
        scope: FailureScope::Node,
        place: "east-a1".into(),
        nodes: [NodeId(0)].into(),
        figures,
    };
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    let actual = LossFigures { unplaced_sessions: 0, ..figures };
    let compared = LossComparison {
        nodes: vec![hop],
        died_us: 7,
        witnesses: [EvidenceSource::Probe].into(),
        predicted: Some(predicted),
        actual,
    };
    world.happen(GatewayEvent::LossCompared(Box::new(compared)), None);
    let told = listening.notice("loss-compared");
    let counts = |unplaced: u32| json!({"rooms": 3, "sessions": 4, "unplaced_sessions": unplaced, "reduced_sessions": 2});
    let mut expected = counts(1);
    for (key, value) in [("at_us", json!(5)), ("scope", json!("node")), ("place", json!("east-a1"))]
    {
        expected[key] = value;
    }
    assert_eq!((&told["nodes"], &told["died_us"]), (&json!(["east-a1"]), &json!(7)));
    assert_eq!(told["witnesses"], json!(["probe"]));
    assert_eq!((&told["predicted"], &told["actual"]), (&expected, &counts(0)));
    let loss = UncoveredLoss {
        scope: FailureScope::Zone,
        place: "east/a".into(),
        figures,
        unprotected_rooms: 6,
    };
    world.happen(GatewayEvent::LossesUncovered(vec![loss]), None);
    let mut expected = counts(1);
    for (key, value) in
        [("scope", json!("zone")), ("place", json!("east/a")), ("unprotected_rooms", json!(6))]
    {
        expected[key] = value;
    }
    assert_eq!(listening.notice("losses-uncovered")["losses"], json!([expected]));
}
