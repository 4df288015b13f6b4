//! Packets flow and a node death is survived while API, telemetry and plugins are down.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_model::{Decider, Hook, PolicyName};
use evenkeel_telemetry::Telemetry;
use evenkeel_testkit::binary::evenkeel;
use nix::sys::signal::Signal;

use crate::harness::{
    GatewayProcess, Node, Phone, TIMEOUT, World, assert_continuous, declared, offer, talk, udp_of,
    wait_until,
};

#[test]
fn drill_signal_ends_policies_and_api_alone() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).routed();
    world.admin = "drills = true\n".into();
    let mut gateway = GatewayProcess::start(&world);
    let policies = |gateway: &GatewayProcess| {
        let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        // Linux shows the first 15 bytes of a thread's name.
        names.filter(|name| name.starts_with("policy call/rou")).count()
    };
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    assert_eq!(policies(&gateway), 1);
    gateway.process.signal(Signal::SIGUSR2).unwrap();
    wait_until("the API has ended", || !gateway.folder().join("admin.sock").exists());
    wait_until("the policy has ended", || policies(&gateway) == 0);
    let heard = ann.heard.len();
    talk(&mut [&mut ann], "media flows on", |phones| phones[0].heard.len() >= heard + 50);
}

#[test]
fn node_death_survived_without_api_and_plugins() {
    let mut nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let mut world = World::of(&nodes.each_ref()).routed();
    world.hooks += "[resolve]\nplugin = \"scenario-call\"\n[degradation]\nplugin = \"degrade-ladder\"\n\
                    [admission]\nplugin = \"admit-capacity\"\non_fault = \"admit\"\n";
    let gateway = world.start();
    let admin = gateway.settings.admin.clone();
    let socket = admin.socket.clone();
    let api =
        evenkeel_api::start(admin, gateway.handle.clone(), Box::new(|_| String::new())).unwrap();
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    let policies = gateway.ask(gateway.handle.policies()).unwrap();
    assert_eq!(policies.len(), 4);
    wait_until("they are asked", || {
        let policies = gateway.ask(gateway.handle.policies()).unwrap();
        policies.iter().any(|policy| policy.status.calls > 0)
    });
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let mut client = ApiClient::new(ApiEndpoint::Unix(socket));
    gateway.ask(client.read("/v1/sessions")).unwrap();

    api.shut_down();
    gateway.ask(client.read("/v1/sessions")).expect_err("the API is down");
    for hook in Hook::ALL {
        let policy = PolicyName { set: "call".into(), hook };
        gateway.ask(gateway.handle.stop_policy(policy)).unwrap();
    }
    assert!(gateway.ask(gateway.handle.policies()).unwrap().is_empty());

    nodes[opened.route[0].node.0 as usize].kill();
    let second = nodes[opened.route[1].node.0 as usize].number();
    talk(&mut [&mut ann], "media through the second hop", |phones| {
        phones[0].heard.iter().filter(|heard| heard.mark.node == second).count() >= 20
    });
    assert_continuous(&ann.heard);

    // New sessions are decided by native defaults.
    let mut bob = Phone::new(2);
    let opened = gateway.open(offer("another", declared(&bob)));
    assert_eq!((&opened.routed_by, &opened.admitted_by), (&Decider::Native, &Decider::Native));
    bob.set_target(udp_of(&opened));
    talk(&mut [&mut bob], "he hears himself", |phones| phones[0].heard.len() >= 5);
}

#[test]
fn node_death_survived_without_telemetry_receiver() {
    let mut nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::of(&nodes.each_ref()).routed();
    let address = receiver.local_addr().unwrap();
    world.limits += &format!("[telemetry]\notlp = \"http://{address}\"\n");
    let gateway = world.start();
    let telemetry = Telemetry::start(&gateway.settings, "test").unwrap();
    let (events, names) = (gateway.handle.events(), gateway.handle.names());
    let mut recorder = telemetry.recorder(events, names, gateway.handle.traces.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    std::thread::spawn(move || runtime.block_on(recorder.follow()));
    let mut ann = Phone::new(1);
    let opened = gateway.open(offer("room", declared(&ann)));
    ann.set_target(udp_of(&opened));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);

    drop(receiver);
    nodes[opened.route[0].node.0 as usize].kill();
    let second = nodes[opened.route[1].node.0 as usize].number();
    talk(&mut [&mut ann], "media through the second hop", |phones| {
        phones[0].heard.iter().filter(|heard| heard.mark.node == second).count() >= 20
    });
    assert_continuous(&ann.heard);
    let text = telemetry.prometheus();
    wait_until("the death is counted", || text.render().contains("evenkeel_node_failures_total"));
    assert!(telemetry.flush(TIMEOUT), "the flush gives up");
    wait_until("the loss is counted", || {
        text.render().contains("evenkeel_telemetry_dropped_total")
    });
}

/// The library that exports refuses a protocol of the environment that is not the exporter's.
#[test]
fn protocol_of_the_file_precedes_that_of_the_environment() {
    let node = Node::agent("east-a1");
    for (protocol, other) in [("http", "grpc"), ("grpc", "http/protobuf")] {
        let mut world = World::of(&[&node]);
        let keys = format!("otlp = \"http://127.0.0.1:9\"\nprotocol = \"{protocol}\"\n");
        world.limits += &format!("[telemetry]\n{keys}");
        let mut command = Command::new(evenkeel());
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", other);
        let mut gateway = GatewayProcess::start_by(&world, command);
        assert_eq!(gateway.read("/v1/status")["state"], "serving");
        wait_until("the status has the failed exports", || {
            let failing = gateway.read("/v1/status")["export_failures"].take();
            let mut failing = failing.as_array().unwrap().iter();
            let logs = failing.find(|it| it["signal"] == "logs");
            logs.is_some_and(|it| it["failures"].as_u64() > Some(0) && it["since_us"].is_u64())
        });
    }
}
