//! Hosts of clients, nodes and gateways, and instruments in them that count and time media packets.

mod addresses;
mod meter;
mod tap;

use std::net::Ipv4Addr;

use evenkeel_lab::network::{Host, NamespaceNetwork};
use evenkeel_testkit::capture::Capture;

pub(crate) use addresses::Addresses;
use meter::Meter;
pub(crate) use tap::{Passed, longest_pauses};

/// The address that belongs to one of the gateways of the first group.
pub(crate) const SHARED: Ipv4Addr = shared_by(0);
/// The ports of the gateways' listeners.
pub(crate) const UDP: u16 = 7_000;
pub(crate) const QUIC: u16 = 7_443;
/// The port of members of the first group. Each further group has the next one, since a host may have members of several.
pub(crate) const MEMBER: u16 = 7_100;

pub(crate) const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const NODES: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
pub(crate) const GATEWAYS: [(&str, Ipv4Addr); 4] = [
    ("edge-1", Ipv4Addr::new(10, 77, 0, 1)),
    ("edge-2", Ipv4Addr::new(10, 77, 0, 2)),
    ("edge-3", Ipv4Addr::new(10, 77, 0, 3)),
    ("edge-4", Ipv4Addr::new(10, 77, 0, 4)),
];

/// The address that belongs to one of the gateways of this group.
pub(crate) const fn shared_by(group: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 100 + group)
}

/// Hosts for gateways, one for all nodes, and one for clients: the namespace of this process.
pub(crate) struct Hosts {
    tap: Capture<Passed>,
    /// At the clients and at the nodes.
    meters: [Meter; 2],
    pub(crate) gateways: Vec<Host>,
    pub(crate) nodes: Host,
    clients: Host,
    network: NamespaceNetwork,
}

impl Hosts {
    /// Joins hosts, this number of them for gateways.
    ///
    /// # Errors
    /// A tool is missing, or the kernel refuses.
    pub(crate) fn join(gateways: usize) -> Result<Hosts, String> {
        let network = NamespaceNetwork::lay()?;
        let clients = network.host_here("clients", CLIENTS)?;
        let nodes = network.host("nodes", NODES)?;
        let gateways = GATEWAYS.iter().take(gateways).map(|&(name, at)| network.host(name, at));
        let gateways = gateways.collect::<Result<Vec<Host>, String>>()?;
        let meters =
            [Meter::of_listeners(&clients, &gateways)?, Meter::of_media(&nodes, &gateways)?];
        let tap = tap::open(&nodes)?;
        Ok(Hosts { tap, meters, gateways, nodes, clients, network })
    }

    /// Cuts the link of a gateway's host, or restores it.
    pub(crate) fn set_link(&self, gateway: usize, is_up: bool) -> Result<(), String> {
        self.network.set_link(&self.gateways[gateway], is_up)
    }

    /// The media packets that reached the nodes since the last call.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.tap.take()
    }

    /// Media packets that each host of gateways sent to clients and to nodes since the last call.
    pub(crate) fn count_media(&self) -> Result<Vec<u64>, String> {
        let [at_clients, at_nodes] = &self.meters;
        let (at_clients, at_nodes) = (at_clients.read(&self.clients)?, at_nodes.read(&self.nodes)?);
        let count = |host: &Host| {
            let counters = [&at_clients, &at_nodes].map(|read| read.get(host.name()));
            let [Some(at_clients), Some(at_nodes)] = counters else {
                return Err(format!("nft has no counter {}", host.name()));
            };
            Ok(at_clients + at_nodes)
        };
        self.gateways.iter().map(count).collect()
    }
}
