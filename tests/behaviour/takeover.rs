//! Takeovers and hand-overs in a group of two gateways, on hosts of their own.

use std::net::Ipv4Addr;
use std::process::{Child, Command};

use evenkeel_client::{Call, Identity, Ingress};
use evenkeel_lab::network::{Host, INTERFACE, Network, PREFIX};
use evenkeel_testkit::binary::evenkeel;
use hyper::Method;
use nix::ifaddrs::getifaddrs;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    GatewayProcess, Node, Phone, World, assert_complete, assert_continuous, talk, talk_for,
    wait_until,
};

const SHARED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
const EDGES: [(&str, Ipv4Addr); 2] =
    [("edge-1", Ipv4Addr::new(10, 77, 0, 1)), ("edge-2", Ipv4Addr::new(10, 77, 0, 2))];
/// Packets of the client between events.
const PACKETS: u64 = 50;

/// A client's host, a node's host, and a host for each gateway.
struct Place {
    client: Host,
    edges: Vec<Host>,
    node: Host,
    _network: Network,
}

impl Place {
    /// `None` without root.
    fn lay(test: &str) -> Option<Place> {
        let network = match Network::lay() {
            Ok(network) => network,
            Err(reason) => {
                eprintln!("{test} skipped: {reason}");
                return None;
            }
        };
        let host = |name, at| network.host(name, at).unwrap();
        let edges = EDGES.map(|(name, at)| host(name, at)).into();
        let (client, node) = (host("client", CLIENT), host("node", NODE));
        Some(Place { client, edges, node, _network: network })
    }

    fn node(&self) -> Node {
        let _inside = self.node.enter().unwrap();
        Node::with("east-a1", &format!("{NODE}:0"), |_| {})
    }

    fn phone(&self) -> Phone {
        let _inside = self.client.enter().unwrap();
        Phone::on(&format!("{CLIENT}:0"), 1)
    }

    /// Starts both gateways, and waits until the first has the address.
    fn group(&self, node: &Node) -> [GatewayProcess; 2] {
        let gateways = [0, 1].map(|number| {
            let [own, peer] = [number, 1 - number].map(|at: usize| &self.edges[at]);
            let mut world = World::of(&[node]);
            world.listens =
                format!("[[listen]]\nudp = \"{SHARED}:7000\"\nidentity = [\"declared\"]\n");
            world.nodes += &format!(
                "[cluster]\nname = \"{}\"\nsecret_file = \"cluster.secret\"\nlisten = \"{}:7100\"\npreferred = {}\n\
                 [cluster.peer]\nname = \"{}\"\naddress = \"{}:7100\"\n\
                 [[cluster.address]]\naddress = \"{SHARED}/{PREFIX}\"\ninterface = \"{INTERFACE}\"\n",
                own.name(),
                own.address(),
                number == 0,
                peer.name(),
                peer.address(),
            );
            let _inside = own.enter().unwrap();
            GatewayProcess::start(&world)
        });
        wait_until("the preferred member owns the address", || self.has_address(0));
        gateways
    }

    fn has_address(&self, edge: usize) -> bool {
        let _inside = self.edges[edge].enter().unwrap();
        let addresses = getifaddrs().unwrap();
        addresses
            .filter_map(|address| Some(address.address?.as_sockaddr_in()?.ip()))
            .any(|ip| ip == SHARED)
    }
}

fn ids(gateway: &mut GatewayProcess) -> Vec<String> {
    let sessions = gateway.ask(async |client| client.list("sessions").await).unwrap();
    sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the owner sees that its standby has all records.
fn await_replica(owner: &mut GatewayProcess) {
    wait_until("the standby has all records", || {
        let seen = owner.read("/v1/gateways");
        let mut gateways = seen["gateways"].as_array().unwrap().iter();
        gateways.any(|gateway| gateway["role"] == "standby" && gateway["in_sync"] == true)
    });
}

fn hand_over(owner: &GatewayProcess, to: &str) -> Child {
    let mut command = Command::new(evenkeel());
    let socket = owner.folder().join("admin.sock");
    command.args(["gateway", "hand-over", "--to", to, "--api"]).arg(&socket).spawn().unwrap()
}

/// Offers a session for this client with a key, and returns the answer's body.
fn offer_with_key(gateway: &mut GatewayProcess, key: &str, phone: &Phone) -> Value {
    let identity = Identity::Declared { address: phone.address(), rtcp: None };
    let offer = GatewayProcess::offer("room", Ingress::Udp(identity));
    let body = serde_json::to_vec(&offer).unwrap().into();
    let headers = [("idempotency-key", key)];
    let call = Call { method: Method::POST, path: "/v1/sessions", headers: &headers, body };
    gateway.ask(async |client| client.ask(call).await.unwrap().accepted()).unwrap()
}

/// Talks until the echo of the next packets is heard.
fn expect_echo(phone: &mut Phone, what: &str) {
    let heard = phone.heard.len();
    talk(&mut [phone], what, |phones| phones[0].heard.len() >= heard + PACKETS as usize);
}

#[test]
fn killed_gateway_is_replaced_by_its_standby() {
    let Some(place) = Place::lay("killed_gateway_is_replaced_by_its_standby") else { return };
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    let opened = ids(&mut owner);
    // Without a fault every packet comes back, through the owner.
    talk_for(&mut [&mut ann], PACKETS);
    wait_until("the last packet is heard", || {
        ann.listen();
        ann.heard.len() as u64 == ann.voice.sent
    });
    assert_complete(&ann.heard, 0, ann.voice.sent);
    assert_eq!((ids(&mut standby), place.has_address(1)), (Vec::new(), false));

    owner.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive again");
    assert!(place.has_address(1));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);

    // The first member returns as standby, and takes over in turn.
    {
        let _inside = place.edges[0].enter().unwrap();
        owner.start_again();
    }
    await_replica(&mut standby);
    assert!(!place.has_address(0), "its lifetime is over");
    expect_echo(&mut ann, "its return changes nothing");
    standby.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "packets arrive once more");
    assert_eq!(ids(&mut owner), opened);
    assert_continuous(&ann.heard);
}

#[test]
fn handed_over_call_continues_at_the_standby() {
    let Some(place) = Place::lay("handed_over_call_continues_at_the_standby") else { return };
    let (node, mut ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    owner.open("room", &mut ann);
    talk_for(&mut [&mut ann], PACKETS);
    await_replica(&mut owner);
    let opened = ids(&mut owner);
    let mut handing = hand_over(&owner, "edge-2");
    talk(&mut [&mut ann], "the hand-over is answered", |_| handing.try_wait().unwrap().is_some());
    assert!(handing.wait().unwrap().success());
    expect_echo(&mut ann, "packets arrive at the other member");
    assert_eq!((place.has_address(0), place.has_address(1)), (false, true));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
}

#[test]
fn former_owner_is_listed_without_a_copy() {
    let Some(place) = Place::lay("former_owner_is_listed_without_a_copy") else { return };
    let node = place.node();
    let [mut first, mut second] = place.group(&node);
    await_replica(&mut first);
    assert!(hand_over(&first, "edge-2").wait().unwrap().success());
    {
        let _inside = place.edges[0].enter().unwrap();
        first.start_again();
    }
    await_replica(&mut second);
    // The second gateway had a copy before it owned.
    let mut handing = hand_over(&second, "edge-1");
    wait_until("the first gateway owns, and its peer has ended", || {
        let seen = first.read("/v1/gateways");
        let gateways = seen["gateways"].as_array().unwrap();
        let owns = gateways.iter().any(|it| it["here"] == true && it["role"] == "owner");
        let peer = gateways.iter().find(|it| it["here"] == false).unwrap();
        assert!(!owns || peer["in_sync"] == false, "{seen}");
        owns && peer["role"] == "silent"
    });
    assert!(handing.wait().unwrap().success());
}

#[test]
fn ids_and_answers_continue_without_sessions() {
    let Some(place) = Place::lay("ids_and_answers_continue_without_sessions") else { return };
    let (node, ann) = (place.node(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    let opened = offer_with_key(&mut owner, "first", &ann);
    owner.ask(async |client| client.close(opened["id"].as_str().unwrap()).await).unwrap();
    owner.process.signal(Signal::SIGKILL).unwrap();
    wait_until("the survivor admits sessions", || {
        standby.ask(async |client| client.is_ready().await).unwrap()
    });
    assert_eq!(offer_with_key(&mut standby, "first", &ann), opened);
    assert_eq!(ids(&mut standby), Vec::<String>::new(), "the repetition opened nothing");
    let other = offer_with_key(&mut standby, "second", &ann);
    assert_eq!(ids(&mut standby), [other["id"].as_str().unwrap()]);
    assert_ne!(other["id"], opened["id"]);
}
