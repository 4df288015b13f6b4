//! A gateway that cannot start reports why and releases what it opened.

use std::net::UdpSocket;
use std::sync::Arc;

use evenkeel_config::{GatewayConfig, ListenIngress};
use evenkeel_control::AdmissionState;
use evenkeel_drivers::DRIVERS;
use evenkeel_model::Health;
use evenkeel_runtime::{RunError, RunningGateway};

use crate::harness::{Node, Phone, World, declared, offer, wait_until};

/// The settings of a gateway that has ended, with the addresses it had.
fn fixed(world: &World) -> GatewayConfig {
    let mut gateway = world.start();
    let status = gateway.status();
    let mut settings = GatewayConfig::clone(&gateway.settings);
    for listen in &mut settings.listens {
        match &mut listen.ingress {
            ListenIngress::Udp { rtcp, .. } => {
                listen.address = status.udp[0];
                *rtcp = None;
            }
            ListenIngress::Quic { .. } => listen.address = status.quic.unwrap(),
        }
    }
    gateway.end();
    settings
}

#[test]
fn second_gateway_on_same_port_is_refused() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut second = GatewayConfig::clone(&gateway.settings);
    second.listens[0].address = gateway.status().udp[0];
    let failure = evenkeel_runtime::start(&Arc::new(second), DRIVERS).unwrap_err();
    let message = failure.to_string();
    assert!(matches!(failure, RunError::Listen { .. }), "{message}");
    assert!(message.contains("is another gateway running"), "{message}");
}

#[test]
fn late_start_failure_releases_sockets() {
    let node = Node::agent("east-a1");
    let settings = Arc::new(fixed(&World::of(&[&node]).with_quic().routed()));
    let [udp, quic] = &settings.listens[..] else { panic!("{:?}", settings.listens) };
    // UDP is bound before QUIC finds its port taken.
    let rival = UdpSocket::bind(quic.address).unwrap();
    let failure = evenkeel_runtime::start(&settings, DRIVERS).unwrap_err();
    assert!(matches!(failure, RunError::Quic(_)), "{failure}");
    UdpSocket::bind(udp.address).unwrap();
    drop(rival);
    let running = evenkeel_runtime::start(&settings, DRIVERS).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(running.handle.shut_down(std::time::Duration::ZERO)).unwrap();
    runtime.block_on(running.ends()).unwrap();
    running.join().unwrap();
}

#[test]
fn broadcast_node_address_is_refused_by_name() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.nodes += "[[node]]\nname = \"all\"\naddress = \"127.255.255.255:4000\"\nregion = \"east\"\n\
                    zone = \"b\"\ndriver = \"plain\"\ncapacity = \"1 Mbit/s\"\n";
    let failure = world.try_start().map(drop).unwrap_err();
    assert!(matches!(failure, RunError::Node { .. }), "{failure}");
    assert!(failure.to_string().contains("node all at 127.255.255.255:4000"), "{failure}");
}

/// Settings with an invalid value for the routing policy.
fn broken(world: &World) -> Arc<GatewayConfig> {
    let mut settings = fixed(world);
    let call = settings.sets.iter_mut().find(|set| &*set.name == "call").unwrap();
    call.bindings[0].settings = serde_json::json!({"min_stay": "never"});
    Arc::new(settings)
}

#[test]
fn invalid_policy_prevents_start() {
    let node = Node::agent("east-a1");
    let settings = broken(&World::of(&[&node]).routed());
    let failure = evenkeel_runtime::start(&settings, DRIVERS).unwrap_err();
    assert!(matches!(failure, RunError::Policy { .. }), "{failure}");
    UdpSocket::bind(settings.listens[0].address).unwrap();
}

#[test]
fn invalid_policy_ends_forwarding_gateway() {
    let node = Node::agent("east-a1");
    let settings = broken(&World::of(&[&node]).routed());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let running = evenkeel_runtime::begin(&settings, DRIVERS).unwrap();
    let failure = runtime.block_on(running.ends()).unwrap_err();
    assert!(failure.to_string().starts_with("policy call/routing: "), "{failure}");
    runtime.block_on(running.handle.shut_down(std::time::Duration::ZERO)).unwrap();
    running.join().unwrap();
}

#[test]
fn offers_before_policies_wait_for_them() {
    let node = Node::agent("east-a1");
    let settings = Arc::new(fixed(&World::of(&[&node]).routed()));
    let phone = Phone::new(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let running = evenkeel_runtime::begin(&settings, DRIVERS).unwrap();
    runtime.block_on(running.handle.offer(offer("r", declared(&phone)))).unwrap();
    // A policy that has no processor answers too late, so the decision may be native.
    assert_eq!(runtime.block_on(running.handle.status()).unwrap().state, AdmissionState::Serving);
    runtime.block_on(running.handle.shut_down(std::time::Duration::ZERO)).unwrap();
    running.join().unwrap();
}

#[test]
fn started_node_counts_after_a_restart() {
    let (first, mut cold) = (Node::agent("east-a1"), Node::agent("east-b1"));
    cold.die();
    let cache = tempfile::tempdir().unwrap();
    let mut world = World::of(&[&first]);
    // One session takes nine tenths.
    world.nodes = world.nodes.replace("200 Mbit/s", "70 kbit/s");
    world.nodes += &format!("{}start = {{ command = [\"/bin/true\"] }}\n", cold.text());
    world.gateway = format!("cache = \"{}\"\n", cache.path().join("cache").display());
    let settings = Arc::new(fixed(&world));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begin = || evenkeel_runtime::start(&settings, DRIVERS).unwrap();
    let end = |running: RunningGateway| {
        runtime.block_on(running.handle.shut_down(std::time::Duration::ZERO)).unwrap();
        running.join().unwrap();
    };
    let standing = |running: &RunningGateway| {
        let nodes = runtime.block_on(running.handle.nodes()).unwrap();
        (nodes[1].started, nodes[1].health != Health::Cold)
    };
    let running = begin();
    let phones = [Phone::new(1), Phone::new(2)];
    let voice = |phone: &Phone| {
        let mut voice = offer(&format!("room {}", phone.number), declared(phone));
        Arc::make_mut(&mut voice.media).streams.truncate(1);
        voice
    };
    runtime.block_on(running.handle.offer(voice(&phones[0]))).unwrap();
    wait_until("an offer without capacity starts the node", || {
        runtime.block_on(running.handle.offer(voice(&phones[1]))).unwrap_err();
        standing(&running) == (true, false)
    });
    cold.revive();
    wait_until("the node runs", || standing(&running) == (true, true));
    end(running);
    let running = begin();
    wait_until("the node is found, and counts", || standing(&running) == (true, true));
    end(running);
}
