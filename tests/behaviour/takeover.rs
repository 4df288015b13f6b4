//! Takeovers and hand-overs in a group of two gateways, on hosts of their own.

use std::net::Ipv4Addr;
use std::process::Command;

use evenkeel_lab::network::{Host, INTERFACE, Network, PREFIX};
use evenkeel_testkit::binary::evenkeel;
use nix::ifaddrs::getifaddrs;
use nix::sys::signal::Signal;

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
    let socket = owner.folder().join("admin.sock");
    let mut command = Command::new(evenkeel());
    command.args(["gateway", "hand-over", "--to", "edge-2", "--api"]).arg(&socket);
    let mut handing = command.spawn().unwrap();
    talk(&mut [&mut ann], "the hand-over is answered", |_| handing.try_wait().unwrap().is_some());
    assert!(handing.wait().unwrap().success());
    expect_echo(&mut ann, "packets arrive at the other member");
    assert_eq!((place.has_address(0), place.has_address(1)), (false, true));
    assert_eq!(ids(&mut standby), opened);
    assert_continuous(&ann.heard);
}
