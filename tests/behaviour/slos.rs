//! Service level objectives at a running gateway.

use std::process::Command;

use evenkeel_contract::offers::OfferIngress;
use evenkeel_testkit::binary::evenkeel;
use serde_json::{Value, json};

use crate::harness::{GatewayProcess, Node, Phone, World};

/// The objectives of the status, without the time for which they count: a young gateway has it in each window.
fn slos(gateway: &mut GatewayProcess) -> Value {
    let mut slos = gateway.read("/v1/status")["slos"].take();
    for slo in slos.as_array_mut().unwrap() {
        for window in slo["windows"].as_array_mut().unwrap() {
            let counted = window.as_object_mut().unwrap().remove("counted_ms");
            assert!(counted.is_some_and(|it| it.is_u64()), "{window}");
        }
    }
    slos
}

#[test]
fn refused_offers_burn_the_error_budget() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.limits = "workers = 1\nsessions = 8\n".into();
    world.scenario = "spares = 2\nslo = { objective = 0.9, set_up = \"1m\" }\n".into();
    let mut gateway = GatewayProcess::start(&world);
    let phones: Vec<Phone> = (1..=12).map(Phone::new).collect();
    let opened = phones.iter().filter(|phone| {
        let ingress = OfferIngress::declared(phone.address());
        let room = format!("room-{}", phone.number);
        let offer = GatewayProcess::offer(&room, ingress);
        gateway.ask(async |client| client.open(&offer).await).is_ok()
    });
    assert_eq!(opened.count(), 8);

    let before = slos(&mut gateway);
    let window = |window, sessions, bad, burn_rate: Option<f64>| json!({"window": window, "sessions": sessions, "bad": bad, "burn_rate": burn_rate});
    let slo = |slo, budget, sessions, bad, burn_rate| {
        let windows = ["5m", "1h", "6h", "30d"].map(|name| window(name, sessions, bad, burn_rate));
        json!({"scenario": "call", "slo": slo, "objective": 0.9, "budget": budget, "windows": windows})
    };
    let refusals = slo("refusals", -2.333, 12, 4, Some(3.333));
    assert_eq!(before, json!([refusals, slo("set-up", 1.0, 8, 0, None)]));

    let mut command = Command::new(evenkeel());
    command.args(["status", "--api"]).arg(gateway.folder().join("admin.sock"));
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = said.lines().find(|line| line.contains("slo call refusals"));
    assert!(line.is_some_and(|line| line.contains("burn rate 3.333 within ")), "{said}");

    let upgraded = gateway.upgrade(json!({})).join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    assert_eq!(slos(&mut gateway), before, "the next process continues");
}
