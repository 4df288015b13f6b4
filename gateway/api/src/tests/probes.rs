//! Probes of clients, and offers that carry their results.

use std::collections::BTreeMap;

use evenkeel_contract::probes::{ProbeAnswer, ProbeReport};
use evenkeel_model::OfferRefusal;

use super::*;

/// Opens a probe.
fn opened(world: &mut World) -> ProbeAnswer {
    let asking = world.ask("POST /v1/probes", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    let udp = vec![(Ipv4Addr::LOCALHOST, 5004).into()];
    reply.send(StatusReport { udp, ..status("serving") }).unwrap();
    let (status, body) = asking.answer();
    assert_eq!(status, 201, "{body}");
    serde_json::from_value(body).unwrap()
}

fn measured(world: &World, id: &str, body: &Value) -> (u16, Value) {
    world.ask(&format!("PUT /v1/probes/{id}"), &body.to_string()).answer()
}

/// An offer with these members beside those of [`OFFER`].
fn offer(members: &Value) -> String {
    let mut offer: Value = serde_json::from_str(OFFER).unwrap();
    offer.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    offer.to_string()
}

#[test]
fn probe_names_listeners_and_trains() {
    let mut world = World::start();
    let probe = opened(&mut world);
    let addresses: Vec<String> = probe.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:5004"]);
    assert_eq!((probe.id.len(), probe.password.len(), probe.ends_ms), (16, 32, 30_000));
    let packets: u16 = probe.trains.iter().map(|train| train.packets).sum();
    assert_eq!((packets, probe.trains[0].bytes, probe.trains[0].interval_us), (367, 160, 10_000));
    assert_ne!(opened(&mut world).id, probe.id);

    let asking = world.ask("POST /v1/probes", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    reply.send(StatusReport { udp: Vec::new(), ..status("serving") }).unwrap();
    assert_eq!(asking.answer().0, 409, "there is no UDP listener");
}

#[test]
fn probe_by_webtransport_has_a_url() {
    let mut world = World::start();
    let mut open = |quic| {
        let asking = world.ask("POST /v1/probes", r#"{"ingress": "webtransport"}"#);
        let ControlRequest::Status(reply) = world.request() else { panic!("status") };
        let short_lived_sha256 = vec![[0x01; 32], [0x02; 32]];
        reply.send(StatusReport { quic, short_lived_sha256, ..status("serving") }).unwrap();
        asking.answer()
    };
    assert_eq!(open(None).0, 409, "there is no QUIC listener");
    let (status, body) = open(Some((Ipv4Addr::LOCALHOST, 443).into()));
    assert_eq!(status, 201, "{body}");
    let probe: ProbeAnswer = serde_json::from_value(body).unwrap();
    let webtransport = probe.webtransport.unwrap();
    let query = format!("id={}&token={}", probe.id, probe.password);
    assert_eq!(webtransport.urls, [format!("https://127.0.0.1:443/probe?{query}")]);
    assert_eq!(webtransport.certificates_sha256, ["01".repeat(32), "02".repeat(32)]);
    assert!(probe.addresses.is_empty());
    let packets: u16 = probe.trains.iter().map(|train| train.packets).sum();
    assert_eq!((packets, probe.trains[4].bytes), (410, 1_000));
    let times = |packets: usize| json!({"round_trips_us": vec![1; packets]});
    assert_eq!(measured(&world, &probe.id, &times(410)).0, 200);
    assert_eq!(measured(&world, &probe.id, &times(411)).0, 400);
}

#[test]
fn result_reaches_control_as_labels_once() {
    let mut world = World::start();
    let probe = opened(&mut world);
    let (status, body) = measured(&world, &probe.id, &json!({"round_trips_us": [20_000]}));
    assert_eq!(status, 200, "{body}");
    let report: ProbeReport = serde_json::from_value(body).unwrap();
    // The gateway received nothing, whatever the client says.
    assert_eq!((report.loss_up_ppm, report.rate_kbps, report.mtu), (1_000_000, 0, 0));
    assert_eq!(report.verdict, "no call: UDP does not pass; try another network");
    let members = json!({"probe": report.signed, "labels": {"region": "east"}});
    let asking = world.ask("POST /v1/sessions", &offer(&members));
    let ControlRequest::Offer(_, reply) = world.request() else { panic!("offer") };
    reply.send(Err(ControlError::Refused(OfferRefusal::Draining))).unwrap();
    assert!(asking.answer().0 >= 400, "no session has the result");
    let asking = world.ask("POST /v1/sessions", &offer(&members));
    let ControlRequest::Offer(wanted, reply) = world.request() else { panic!("offer") };
    let labels: BTreeMap<&str, &str> =
        wanted.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    let right = [
        ("probe-loss", "100"),
        ("probe-r", "15"),
        ("probe-rate", "0"),
        ("probe-rtt", "0"),
        ("probe-video", "0"),
        ("region", "east"),
    ];
    assert_eq!(labels, BTreeMap::from(right));
    reply.send(Ok(super::opened(17))).unwrap();
    assert_eq!(asking.answer().0, 201);
    for again in [&*report.signed, "forged"] {
        let (status, body) =
            world.ask("POST /v1/sessions", &offer(&json!({"probe": again}))).answer();
        assert_eq!((status, &body["error"]["field"]), (400, &json!("probe")), "{body}");
    }
}

#[test]
fn offer_cannot_set_the_labels_itself() {
    let world = World::start();
    let offer = offer(&json!({"labels": {"probe-r": "93"}}));
    let (status, body) = world.ask("POST /v1/sessions", &offer).answer();
    assert_eq!((status, &body["error"]["field"]), (400, &json!("labels.probe-r")), "{body}");
}

#[test]
fn wrong_measurement_is_refused() {
    let mut world = World::start();
    let probe = opened(&mut world);
    let (status, body) = measured(&world, "0123456789abcdef", &json!({"round_trips_us": []}));
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
    for wrong in [json!({"round_trips_us": vec![1; 368]}), json!({"round_trips_us": 5})] {
        let (status, body) = measured(&world, &probe.id, &wrong);
        assert_eq!((status, &body["error"]["field"]), (400, &json!("round_trips_us")), "{body}");
    }
    assert_eq!(measured(&world, &probe.id, &json!({"round_trips_us": vec![1; 367]})).0, 200);
}

#[test]
fn probes_beyond_the_limit_wait() {
    let mut world = World::start();
    (0..256).for_each(|_| _ = opened(&mut world));
    let asking = world.ask("POST /v1/probes", "");
    let ControlRequest::Status(reply) = world.request() else { panic!("status") };
    let udp = vec![(Ipv4Addr::LOCALHOST, 5004).into()];
    reply.send(StatusReport { udp, ..status("serving") }).unwrap();
    let (status, body) = asking.answer();
    assert_eq!((status, &body["error"]["retry_after_ms"]), (429, &json!(10_000)), "{body}");
}

#[test]
fn probe_is_no_change() {
    let mut world = World::start();
    let probe = opened(&mut world);
    assert_eq!(measured(&world, &probe.id, &json!({"round_trips_us": []})).0, 200);
    let (_, body) = world.ask("GET /v1/changes", "").answer();
    assert_eq!(body["changes"], json!([]));
}
