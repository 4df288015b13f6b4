//! A group and four gateways alone, each with nodes, clients and what a fault needs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_contract::offers::{OfferIngress, OfferRequest};
use evenkeel_testkit::http::HttpSink;
use evenkeel_testkit::nats::NatsServer;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::callers::Callers;
use super::link::NodeLink;
use super::servers::ALERTMANAGER;
use crate::harness::{
    GatewayProcess, Hosts, NODE, Node, Phone, World, await_armed, await_replica, wait_until,
};
use crate::index::at;
use crate::revisions::start_with_small_disk;

/// The API of each gateway, which is its `instance` in alerts.
pub(super) const OWNER: &str = "10.77.0.1:7300";
pub(super) const STANDBY: &str = "10.77.0.2:7300";
pub(super) const REMOTE: &str = "10.77.0.3:7301";
pub(super) const BUSY: &str = "10.77.0.3:7302";
pub(super) const FULL: &str = "10.77.0.3:7303";

pub(super) const CALLS: &str = "10.77.0.3:7305";

/// That of a gateway that a fault starts.
pub(super) const LATER: &str = "10.77.0.3:7304";

/// The second address of the client's host, to which a route can be cut.
pub(super) const CUT_OFF: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

/// Ports of the client's host.
const STORE: u16 = 4_222;
const OTLP: u16 = 4_318;
const DEPENDENCY: u16 = 8_090;

/// Nodes of the remote gateway.
pub(super) const BEHIND_LINKS: [&str; 3] = ["east-a1", "east-j1", ALONE_IN_REGION];

pub(super) const ALONE_IN_REGION: &str = "west-a1";

/// A stall of a busy test machine is shorter, and those that the test causes are longer.
const DETECTOR: &str = "stall_threshold = \"25ms\"\n";

/// The numbers of clients in [`Callers`] whose uplinks lose packets: at the full gateway, and of one carrier at the busy one.
pub(super) const OF_FULL: usize = 0;
pub(super) const LOSSY: usize = 4;

/// MiB of the disk of the gateway with encrypted calls.
const DISK_MIB: u32 = 16;

/// Ended in this order.
pub(super) struct Fleet<'a> {
    pub(super) place: &'a Hosts,
    pub(super) callers: Callers,
    pub(super) group: [GatewayProcess; 2],
    pub(super) remote: GatewayProcess,
    /// Links to the nodes [`BEHIND_LINKS`].
    pub(super) links: [NodeLink; 3],
    /// With receivers, a dependency, an index and several nodes.
    pub(super) busy: GatewayProcess,
    pub(super) busy_nodes: Vec<Node>,
    /// A link to the last of them.
    pub(super) slow: NodeLink,
    /// Two nodes of little capacity, a policy and an index.
    pub(super) full: GatewayProcess,
    pub(super) full_nodes: [Node; 2],
    pub(super) full_began: Instant,
    /// With clients that encrypt, and a disk of its own.
    pub(super) calls: GatewayProcess,
    later: Option<GatewayProcess>,
    pub(super) otlp: Option<HttpSink>,
    pub(super) dependency: Option<HttpSink>,
    pub(super) store: NatsServer,
    _nodes: Vec<Node>,
    folder: TempDir,
}

/// A world alone on the third gateway's host.
fn world(place: &Hosts, api: &str, port: u16, nodes: &[&Node]) -> World {
    let mut world = World::of(nodes);
    let host = place.gateways[2].address();
    world.listens = format!("[[listen]]\nudp = \"{host}:{port}\"\nidentity = [\"declared\"]\n");
    prepare(&mut world, api);
    world
}

fn prepare(world: &mut World, api: &str) {
    world.admin = format!("tcp = \"{api}\"\ntoken_file = \"secret\"\n");
    world.detector = DETECTOR.to_owned();
    world.scenario += "close_after = \"10m\"\nslo = { objective = 0.99 }\n";
}

fn node(place: &Hosts, name: &str) -> Node {
    at(&place.node, || Node::with(name, &format!("{NODE}:0"), |_| {}))
}

fn start(place: &Hosts, world: &World) -> GatewayProcess {
    at(&place.gateways[2], || GatewayProcess::start(world))
}

fn phone(place: &Hosts, address: Ipv4Addr, number: u64) -> Phone {
    at(&place.client, || Phone::on(&format!("{address}:0"), number))
}

impl<'a> Fleet<'a> {
    /// Starts all gateways, and waits until they are healthy.
    pub(super) fn start(place: &'a Hosts) -> Fleet<'a> {
        let folder = tempdir().unwrap();
        let client = place.client.address();
        place.client.ip(&format!("addr add {CUT_OFF}/24 dev eth0")).unwrap();
        let mut store = NatsServer::new((client, STORE).into(), folder.path()).unwrap();
        at(&place.client, || store.start());
        let index =
            |name: &str| format!("[index]\nname = \"{name}\"\nservers = [\"{}\"]\n", store.url());
        let small = ["east-f1", "east-g1"].map(|name| node(place, name));
        let mut full = world(place, FULL, 7_030, &small.each_ref()).routed();
        full.nodes = full.nodes.replace("200 Mbit/s", "1 Mbit/s") + &index("full");
        let (mut full, full_began) = (start(place, &full), Instant::now());

        let behind = BEHIND_LINKS.map(|name| node(place, name));
        let links = behind.each_ref().map(|node| at(&place.node, || NodeLink::start(node.address)));
        let mut remote = world(place, REMOTE, 7_010, &behind.each_ref());
        for (node, link) in behind.iter().zip(&links) {
            let [node, link] = [node.address, link.address].map(|address| address.to_string());
            remote.nodes = remote.nodes.replace(&node, &link);
        }
        remote.nodes += "[breaker]\nmin_sessions = 1\n";
        remote.detector += "panic_for = \"10s\"\n";
        let mut remote = start(place, &remote);

        let [otlp, dependency] = [OTLP, DEPENDENCY]
            .map(|port| at(&place.client, || HttpSink::start((client, port).into())));
        let names = ["east-b1", "east-c1", "east-d1", "east-e1"];
        let busy_nodes: Vec<Node> = names.map(|name| node(place, name)).into();
        let mut busy = world(place, BUSY, 7_020, &busy_nodes.iter().collect::<Vec<_>>());
        let slow = at(&place.node, || NodeLink::start(busy_nodes[3].address));
        let [direct, slowed] = [busy_nodes[3].address, slow.address].map(|it| it.to_string());
        busy.nodes = busy.nodes.replace(&direct, &slowed);
        // Longer than the rule of its alert waits.
        busy.nodes += &format!(
            "[breaker.clients]\nmin_sessions = 1\nmax_open_for = \"20s\"\n\
             [telemetry]\notlp = \"http://{}\"\nprotocol = \"http\"\nsignals = [\"traces\", \"metrics\"]\n\
             metrics_interval = \"1s\"\n\
             [[dependency]]\nname = \"login\"\nurl = \"http://{}/health\"\nevery = \"1s\"\n\
             [[alert]]\nname = \"alertmanager\"\nkind = \"alertmanager\"\nurl = \"http://{client}:{ALERTMANAGER}\"\n{}",
            otlp.address(),
            dependency.address(),
            index("busy"),
        );
        let mut busy = start(place, &busy);

        let of_calls = node(place, "east-l1");
        let mut calls = world(place, CALLS, 7_050, &[&of_calls]);
        calls.listens = calls.listens.replace("[\"declared\"]", "[\"stun\", \"declared\"]");
        let mut calls = at(&place.gateways[2], || start_with_small_disk(&calls, DISK_MIB, "true"));

        let of_group = ["east-h1", "east-i1"].map(|name| node(place, name));
        let text: String = of_group.iter().map(Node::text).collect();
        let mut group = place.group_with(&text, |host, world| {
            prepare(world, &format!("{}:7300", host.address()));
        });

        let mut phones: Vec<Phone> = (1..=6).map(|number| phone(place, client, number)).collect();
        phones.push(phone(place, CUT_OFF, 7));
        phones.extend([8, 9].map(|number| phone(place, client, number)));
        let [of_full, of_remote, of_group_owner, first, lossy, sound, second, ann, bob] =
            &mut phones[..]
        else {
            unreachable!("nine phones")
        };
        full.open("room", of_full);
        remote.open("room", of_remote);
        group[0].open("room", of_group_owner);
        // Two clients that hear each other, and a client of each of two carriers.
        busy.open("pair", first);
        busy.open("pair", second);
        calls.open("pair", ann);
        calls.open("pair", bob);
        for (phone, carrier) in [(lossy, "telecom"), (sound, "unicom")] {
            let mut offer = offer(carrier, phone.address());
            offer.labels = [("carrier", carrier)].into_iter().collect();
            let opened = busy.ask(async |client| client.open(&offer).await).unwrap();
            phone.set_target(opened.udp.unwrap().addresses[0]);
        }
        let callers = Callers::start(phones);

        await_replica(&mut group[0]);
        await_armed(&group[0]);
        wait_until("the group has redundancy", || {
            group.iter_mut().all(|gateway| gateway.read("/v1/gateways")["warnings"] == json!([]))
        });
        let mut number = 0;
        // A busy machine may be late with the answer of a policy, which fails until the next one.
        wait_until("the policy answers", || {
            number += 1;
            let id = open_silent(&mut full, &format!("try-{number}"), number).unwrap();
            full.ask(async |client| client.close(&id).await).unwrap();
            full.read("/v1/status")["policies_failing"] == json!([])
        });
        for gateway in [&mut busy, &mut full] {
            wait_until("the index is current", || {
                gateway.read("/v1/status")["index"]["state"] == "current"
            });
        }
        let nodes = behind.into_iter().chain(of_group).chain([of_calls]).collect();
        Fleet {
            place,
            callers,
            group,
            remote,
            links,
            busy,
            busy_nodes,
            slow,
            full,
            full_nodes: small,
            full_began,
            calls,
            later: None,
            otlp: Some(otlp),
            dependency: Some(dependency),
            store,
            _nodes: nodes,
            folder,
        }
    }

    /// Starts another gateway. Its certificate ends within an hour, and a program that fails starts its only node.
    pub(super) fn start_another(&mut self) -> &GatewayProcess {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let mut parameters = CertificateParams::new(vec!["evenkeel".to_owned()]).unwrap();
        parameters.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3_600);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let files = [("later.pem", certificate.pem()), ("later.key", key.serialize_pem())];
        let [certificate, key] = files.map(|(name, text)| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let mut cold = node(self.place, "east-k1");
        cold.kill();
        let mut later = world(self.place, LATER, 7_040, &[&cold]);
        later.nodes += "start = { command = [\"/bin/false\"] }\n";
        later.listens += &format!(
            "[[listen]]\nquic = \"{}:7104\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            self.place.gateways[2].address(),
            certificate.display(),
            key.display(),
        );
        self.later.insert(start(self.place, &later))
    }

    pub(super) fn instances() -> Vec<SocketAddr> {
        [OWNER, STANDBY, REMOTE, BUSY, FULL, CALLS].map(|instance| instance.parse().unwrap()).into()
    }

    /// The health of a node of the busy gateway.
    pub(super) fn health(&mut self, node: usize) -> String {
        let listed = self.busy.read("/v1/nodes");
        let name = &self.busy_nodes[node].name;
        let mut nodes = listed["nodes"].as_array().unwrap().iter();
        let found = nodes.find(|listed| listed["node"] == name.as_str()).unwrap();
        found["health"].as_str().unwrap().to_owned()
    }
}

/// An offer of audio for a client at this address.
pub(super) fn offer(room: &str, address: SocketAddr) -> OfferRequest {
    let ingress = OfferIngress::declared(address);
    GatewayProcess::offer(room, ingress)
}

/// Opens a session of a client that sends nothing. Returns its id; `None` if it is refused.
pub(super) fn open_silent(gateway: &mut GatewayProcess, room: &str, port: u16) -> Option<String> {
    let offer = offer(room, (Ipv4Addr::new(10, 77, 0, 10), 10_000 + port).into());
    let opened = gateway.ask(async |client| client.open(&offer).await);
    opened.ok().map(|opened| opened.id)
}

/// Waits for a condition, at most for this time. Returns whether it came.
pub(super) fn came(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    true
}
