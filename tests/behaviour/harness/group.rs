//! The gateways of a group, on hosts of their own.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use evenkeel_client::{ApiCall, ClientError};
use evenkeel_contract::offers::OfferIngress;
use evenkeel_lab::network::{Host, INTERFACE, NamespaceNetwork, PREFIX};
use evenkeel_lab::sample_node::{PlainRoom, SampleNodeOptions};
use evenkeel_testkit::binary::evenkeel;
use hyper::Method;
use nix::ifaddrs::getifaddrs;
use serde_json::Value;

use super::{GatewayProcess, Node, Phone, World, wait_until};

pub(crate) const SHARED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
pub(crate) const GATEWAYS: [(&str, Ipv4Addr); 3] = [
    ("edge-1", Ipv4Addr::new(10, 77, 0, 1)),
    ("edge-2", Ipv4Addr::new(10, 77, 0, 2)),
    ("edge-3", Ipv4Addr::new(10, 77, 0, 3)),
];

/// A client's host, a node's host, and a host for each gateway.
pub(crate) struct Hosts {
    pub(crate) client: Host,
    pub(crate) gateways: Vec<Host>,
    pub(crate) node: Host,
    /// Lines of `[limits]` of each gateway.
    pub(crate) limits: String,
    /// The program of the first gateway.
    pub(crate) program: PathBuf,
    network: NamespaceNetwork,
}

impl Hosts {
    /// Needs [`Need::Namespaces`](evenkeel_testkit::need::Need).
    pub(crate) fn lay() -> Hosts {
        let network = NamespaceNetwork::lay().unwrap();
        let host = |name, at| network.host(name, at).unwrap();
        let gateways = GATEWAYS.map(|(name, at)| host(name, at)).into();
        let (client, node) = (host("client", CLIENT), host("node", NODE));
        let (limits, program) = (String::new(), evenkeel().into());
        Hosts { client, gateways, node, limits, program, network }
    }

    pub(crate) fn node(&self) -> Node {
        self.node_named("east-a1")
    }

    pub(crate) fn node_named(&self, name: &str) -> Node {
        let _inside = self.node.enter().unwrap();
        Node::with(name, &format!("{NODE}:0"), |_| {})
    }

    /// A node with port legs that is not probed.
    pub(crate) fn silent_node(&self) -> Node {
        let _inside = self.node.enter().unwrap();
        let driver = "driver = \"plain\"\nprobe = \"none\"";
        let alone = |options: &mut SampleNodeOptions| options.plain_room = PlainRoom::Alone;
        Node::start("east-a1", &format!("{NODE}:0"), driver, alone)
    }

    pub(crate) fn phone(&self) -> Phone {
        self.phone_of(1)
    }

    /// The phone of this number.
    pub(crate) fn phone_of(&self, number: u64) -> Phone {
        let _inside = self.client.enter().unwrap();
        Phone::on(&format!("{CLIENT}:0"), number)
    }

    /// Starts both gateways, and waits until the first has the address.
    pub(crate) fn group(&self, node: &Node) -> [GatewayProcess; 2] {
        self.group_before(&node.text(), "")
    }

    /// Starts both gateways before these nodes, with more keys of the address, and waits until the first has the address.
    pub(crate) fn group_before(&self, nodes: &str, keys: &str) -> [GatewayProcess; 2] {
        self.start(nodes, |_| String::new(), keys, |_, _| {})
    }

    /// Starts both gateways before these nodes, each with a world that was changed for its host.
    pub(crate) fn group_with(
        &self,
        nodes: &str,
        change: impl Fn(&Host, &mut World),
    ) -> [GatewayProcess; 2] {
        self.start(nodes, |_| String::new(), "", change)
    }

    /// Starts both gateways before these nodes, with the shipped routing policy.
    pub(crate) fn routed_group_before(&self, nodes: &str) -> [GatewayProcess; 2] {
        self.group_with(nodes, |_, world| world.hooks = World::of(&[]).routed().hooks)
    }

    /// Starts both gateways before these nodes. Each asks an agent beside the other one.
    pub(crate) fn group_with_agents(&self, nodes: &str) -> [GatewayProcess; 2] {
        let agent = |host: &Host| {
            format!("agent = \"{}:7200\"\nsecret_file = \"secret\"\n", host.address())
        };
        self.start(nodes, agent, "", |_, _| {})
    }

    /// Starts both gateways before these nodes. Each fences the other one by this program.
    pub(crate) fn group_with_fence(&self, nodes: &str, program: &str) -> [GatewayProcess; 2] {
        let fence = |_: &Host| format!("fence = [\"/bin/sh\", \"-c\", \"{program}\"]\n");
        self.start(nodes, fence, "port_legs = true\n", |_, _| {})
    }

    /// Starts three gateways before these nodes, and waits until the first has the address.
    pub(crate) fn group_of_three(&self, nodes: &str) -> [GatewayProcess; 3] {
        self.start(nodes, |_| String::new(), "", |_, _| {})
    }

    /// `peer_keys` are the keys of `[[cluster.peer]]` for this peer, `keys` those of the address. `change` is called with the
    /// host and the world of each gateway.
    fn start<const MEMBERS: usize>(
        &self,
        nodes: &str,
        peer_keys: impl Fn(&Host) -> String,
        keys: &str,
        change: impl Fn(&Host, &mut World),
    ) -> [GatewayProcess; MEMBERS] {
        let gateways = std::array::from_fn(|number| {
            let own = &self.gateways[number];
            let others = self.gateways[..MEMBERS].iter().filter(|peer| peer.name() != own.name());
            let peer = |peer: &Host| {
                let (name, address, keys) = (peer.name(), peer.address(), peer_keys(peer));
                format!("[[cluster.peer]]\nname = \"{name}\"\naddress = \"{address}:7100\"\n{keys}")
            };
            let peers: String = others.map(peer).collect();
            let mut world = World::of(&[]);
            world.nodes = nodes.to_owned();
            world.limits += &self.limits;
            world.listens =
                format!("[[listen]]\nudp = \"{SHARED}:7000\"\nidentity = [\"declared\"]\n");
            world.nodes += &format!(
                "[cluster]\nname = \"{}\"\nsecret_file = \"cluster.secret\"\nlisten = \"{}:7100\"\npreferred = {}\n\
                 {peers}\
                 [[cluster.address]]\naddress = \"{SHARED}/{PREFIX}\"\ninterface = \"{INTERFACE}\"\n{keys}",
                own.name(),
                own.address(),
                number == 0,
            );
            change(own, &mut world);
            let _inside = own.enter().unwrap();
            let program = if number == 0 { &*self.program } else { evenkeel() };
            GatewayProcess::start_by(&world, Command::new(program))
        });
        wait_until("the preferred member owns the address", || self.has_address(0));
        gateways
    }

    /// Cuts the link of a gateway's host, or restores it.
    pub(crate) fn set_link(&self, gateway: usize, is_up: bool) {
        self.network.set_link(&self.gateways[gateway], is_up).unwrap();
    }

    pub(crate) fn has_address(&self, gateway: usize) -> bool {
        let _inside = self.gateways[gateway].enter().unwrap();
        let addresses = getifaddrs().unwrap();
        addresses
            .filter_map(|address| Some(address.address?.as_sockaddr_in()?.ip()))
            .any(|ip| ip == SHARED)
    }
}

pub(crate) fn ids(gateway: &mut GatewayProcess) -> Vec<String> {
    of_sessions(gateway, "id")
}

/// The ids of the sessions' traces.
pub(crate) fn trace_ids(gateway: &mut GatewayProcess) -> Vec<String> {
    of_sessions(gateway, "trace_id")
}

fn of_sessions(gateway: &mut GatewayProcess, field: &str) -> Vec<String> {
    let sessions = gateway.ask(async |client| client.list("sessions").await).unwrap();
    sessions.iter().map(|session| session[field].as_str().unwrap().to_owned()).collect()
}

/// Waits until the owner sees that its standby has all records.
pub(crate) fn await_replica(owner: &mut GatewayProcess) {
    wait_until("the standby has all records", || has_replica(owner));
}

/// Returns true if the standby has all records of this owner.
pub(crate) fn has_replica(owner: &mut GatewayProcess) -> bool {
    // A loaded machine may be late with the answer.
    let seen = owner.ask(async |client| client.read("/v1/gateways").await);
    let Ok(seen) = seen else { return false };
    let mut gateways = seen["gateways"].as_array().unwrap().iter();
    gateways.any(|gateway| gateway["role"] == "standby" && gateway["in_sync"] == true)
}

/// Waits until the standby takes over if the owner falls silent.
pub(crate) fn await_armed(owner: &GatewayProcess) {
    wait_until("the standby is armed", || {
        owner.process.log().contains("standby may take over by silence")
    });
}

/// Offers a session for this client with a key, and returns the answer's body.
pub(crate) fn offer_with_key(gateway: &mut GatewayProcess, key: &str, phone: &Phone) -> Value {
    try_offer_with_key(gateway, key, phone).unwrap()
}

pub(crate) fn try_offer_with_key(
    gateway: &mut GatewayProcess,
    key: &str,
    phone: &Phone,
) -> Result<Value, ClientError> {
    let ingress = OfferIngress::declared(phone.address());
    let offer = GatewayProcess::offer("room", ingress);
    let body = serde_json::to_vec(&offer).unwrap().into();
    let headers = [("idempotency-key", key)];
    let call = ApiCall { method: Method::POST, path: "/v1/sessions", headers: &headers, body };
    gateway.ask(async |client| client.ask(call).await?.accepted())
}
