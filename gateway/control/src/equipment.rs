//! The equipment of a node: sockets, driver and probe. It is installed when the node is added and released when it is
//! removed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use evenkeel_config::{GatewayConfig, GroupSettings, NodeConfig, NodeProbe, SecretFile, StartBy};
use evenkeel_dataplane::buffers;
use evenkeel_dataplane::worker::TrunkSocket;
use evenkeel_drivers::LocalSource;
use evenkeel_media::trunk::message::NodeSecret;
use evenkeel_media::trunk::seal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::canary::CanaryNode;
use crate::inherited::{Inherited, SocketName};
use crate::prober::{ProbeMethod, ProbedEnd};

/// Receive buffer in bytes, which the kernel doubles for its own overhead: about 1,300 voice packets, or 25 ms at
/// 50,000 packets a second. With a buffer eight times as large, packets of an overloaded port were 70 ms old.
pub const SOCKET_BUFFER: usize = 512 << 10;

/// Resources to reach a node.
pub struct Equipment {
    /// Address and method of health probes; `None` if the node is not probed.
    pub probe: Option<(SocketAddr, ProbeMethod)>,
    /// Address and method of probes of the agent beside the node; `None` without an agent.
    pub agent: Option<(SocketAddr, ProbeMethod)>,
    /// Set if the node has canary sessions.
    pub canary: Option<CanaryNode>,
    /// For trunk legs: a connected socket for each worker that has no socket to the node yet.
    pub trunks: Vec<TrunkSocket>,
    /// Duplicates of the trunks' sockets, by worker, for the process that replaces this one.
    pub duplicates: Vec<OwnedFd>,
}

/// The resources of the nodes that a new list adds or changes, in its order.
pub(crate) struct ListEquipment {
    pub(crate) added: Vec<Equipment>,
    pub(crate) changed: Vec<Equipment>,
}

/// Error while the connection to a node is built.
#[derive(Debug, thiserror::Error)]
pub enum EquipError {
    /// The socket towards the node could not be created or connected.
    #[error("node {node} at {address} cannot be reached from this machine: {error}")]
    Node {
        /// The name of the node.
        node: Box<str>,
        /// The address of the node.
        address: SocketAddr,
        /// The error of the system.
        error: std::io::Error,
    },
    /// A descriptor could not be created.
    #[error("cannot create a descriptor: {0}")]
    System(#[from] std::io::Error),
}

/// Builds the connection to a node, with a trunk per worker. Uses inherited sockets to this address.
pub fn equip(
    settings: &GatewayConfig,
    node: &NodeConfig,
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Equipment, EquipError> {
    require_reachable(node)?;
    let trunks = (0..workers).map(|worker| {
        let name =
            SocketName::Trunk { node: Arc::clone(&node.name), address: node.address, worker };
        trunk(node, dscp(settings), inherited.take(&name))
    });
    let trunks: Vec<TrunkSocket> =
        trunks.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let duplicates = trunks.iter().map(|trunk| trunk.socket.as_fd().try_clone_to_owned());
    let duplicates = duplicates.collect::<std::io::Result<_>>()?;
    let agent = node.agent.as_ref();
    Ok(Equipment {
        probe: probe(node),
        agent: agent.map(|agent| {
            (agent.address, ProbeMethod::Signed(secret(node, &agent.secret), ProbedEnd::Beside))
        }),
        canary: canary(node),
        trunks,
        duplicates,
    })
}

/// Refuses an address that can never be reached: an unsupported address family, a broadcast address, or a link-local
/// address without scope. A network that is down may come up later.
fn require_reachable(node: &NodeConfig) -> Result<(), EquipError> {
    match evenkeel_drivers::socket::connected(node.address) {
        Err(error) if !may_pass(&error) => {
            Err(EquipError::Node { node: (*node.name).into(), address: node.address, error })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A new network or local address may resolve the error.
fn may_pass(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(error.kind(), NetworkUnreachable | HostUnreachable | NetworkDown | AddrNotAvailable)
}

/// The code point of trunks. A bundle mixes packets, so it gets the most urgent class.
fn dscp(settings: &GatewayConfig) -> u8 {
    let scenarios = settings.sets.iter().flat_map(|set| &set.scenarios);
    scenarios.map(|scenario| scenario.dscp.voice.max(scenario.dscp.video)).max().unwrap_or(0)
}

/// A connected socket to a node with trunk legs.
fn trunk(
    node: &NodeConfig,
    dscp: u8,
    inherited: Option<OwnedFd>,
) -> Result<Option<TrunkSocket>, EquipError> {
    if node.trunk().is_none() {
        return Ok(None);
    }
    let connect = || -> std::io::Result<TrunkSocket> {
        let domain = Domain::for_address(node.address);
        let is_new = inherited.is_none();
        let socket = match inherited {
            Some(socket) => Socket::from(socket),
            None => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
        };
        socket.set_nonblocking(true)?;
        // The traffic class holds the code point in its upper six bits (RFC 2474, 3).
        let class = u32::from(dscp) << 2;
        if node.address.is_ipv4() {
            socket.set_tos_v4(class)?;
        } else {
            socket.set_tclass_v6(class)?;
        }
        // The process before may have had the privileges for larger buffers.
        if is_new {
            buffers::set_sizes(&socket, SOCKET_BUFFER);
            socket.connect(&node.address.into())?;
        }
        let first_number = evenkeel_process::random::draw() as u16;
        Ok(TrunkSocket { socket: socket.into(), seal: seal(node).map(Box::new), first_number })
    };
    let unreachable =
        |error| EquipError::Node { node: (*node.name).into(), address: node.address, error };
    connect().map(Some).map_err(unreachable)
}

/// The address of sessions' own ports. `None` if no node needs any.
pub fn port_legs(settings: &GatewayConfig) -> Option<IpAddr> {
    let nodes = settings.nodes.iter().filter(|node| node.has_port_legs());
    let any = nodes.map(|node| match node.address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    // Sockets of IPv6 reach IPv4 addresses as mapped ones.
    let any = any.reduce(|one, other| if one.is_ipv6() { one } else { other })?;
    Some(settings.cluster.as_ref().and_then(GroupSettings::port_legs).unwrap_or(any))
}

/// The source of packets from sessions' own ports.
pub fn source_of_ports(settings: &GatewayConfig) -> LocalSource {
    let bound = settings.cluster.as_ref().and_then(GroupSettings::port_legs);
    bound.map_or(LocalSource::Routed(towards), LocalSource::Bound)
}

fn secret(node: &NodeConfig, secret: &SecretFile) -> NodeSecret {
    NodeSecret::new(secret.bytes(), &node.name).expect("the settings refuse a shorter secret")
}

/// Returns true if a driver describes sessions to its nodes.
pub fn needs_session_facts(settings: &GatewayConfig) -> bool {
    settings.nodes.iter().any(node_needs_session_facts)
}

pub(crate) fn node_needs_session_facts(node: &NodeConfig) -> bool {
    node.driver.signalling.describes_sessions()
}

/// Returns true if a node uses a webhook.
pub fn posts(settings: &GatewayConfig) -> bool {
    settings.nodes.iter().any(has_webhooks)
}

pub(crate) fn has_webhooks(node: &NodeConfig) -> bool {
    let starts = node.start.as_ref().is_some_and(|start| matches!(start.by, StartBy::Webhook(_)));
    starts || node.driver.signalling.hook().is_some()
}

/// The local address from which packets to `other` leave.
fn towards(other: SocketAddr) -> Option<IpAddr> {
    let own = evenkeel_drivers::socket::connected(other).and_then(|socket| socket.local_addr());
    own.ok().map(|own| own.ip())
}

fn probe(node: &NodeConfig) -> Option<(SocketAddr, ProbeMethod)> {
    let method = match node.driver.probe {
        NodeProbe::None => return None,
        NodeProbe::Stun => ProbeMethod::Stun,
        NodeProbe::Echo => ProbeMethod::Echo,
        NodeProbe::Ping => ProbeMethod::Ping,
        NodeProbe::Signed => {
            let (shared, _) = node.trunk()?;
            ProbeMethod::Signed(secret(node, shared), ProbedEnd::Node)
        }
    };
    Some((node.address, method))
}

fn canary(node: &NodeConfig) -> Option<CanaryNode> {
    let (shared, _) = node.trunk().filter(|_| node.canary)?;
    Some(CanaryNode { address: node.address, secret: secret(node, shared), seal: seal(node) })
}

/// The gateway's end of an encrypted trunk. Each socket needs its own.
fn seal(node: &NodeConfig) -> Option<seal::GatewaySeal> {
    let (shared, _) = node.trunk().filter(|(_, encrypt)| *encrypt)?;
    let salt = evenkeel_process::random::draw();
    Some(seal::GatewaySeal::new(secret(node, shared), salt))
}

#[cfg(test)]
mod tests;
