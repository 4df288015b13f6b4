//! How nodes are reached, opened and probed.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use evenkeel_media::trunk::message::Secret;
use socket2::{Domain, Protocol, Socket, Type};

use super::Failure;
use super::sockets::SOCKET_BUFFER;
use crate::buffers;
use crate::control::{self, Driver, Family, ProbeWay};
use crate::settings::{self, Settings, StartBy};

/// Refuses a node to which no network can ever lead from here: an address of a kind this machine does not speak, a
/// broadcast, a link that is not named. A network that is not there yet may come.
pub(super) fn require_reachable(settings: &Settings) -> Result<(), Failure> {
    settings.nodes.iter().try_for_each(|node| match control::connected(node.address) {
        Err(error) if !may_pass(&error) => {
            Err(Failure::Node { node: (*node.name).into(), address: node.address, error })
        }
        Ok(_) | Err(_) => Ok(()),
    })
}

/// Whether a network that comes up, or an address that this machine gets, mends it.
fn may_pass(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(error.kind(), NetworkUnreachable | HostUnreachable | NetworkDown | AddrNotAvailable)
}

/// One connected socket per node with trunk legs.
pub(super) fn trunks(settings: &Settings) -> Result<Vec<Option<UdpSocket>>, Failure> {
    // A bundle carries packets of every kind; it travels as the most urgent of them does.
    let scenarios = settings.sets.iter().flat_map(|set| &set.scenarios);
    let dscp =
        scenarios.map(|scenario| scenario.dscp.voice.max(scenario.dscp.video)).max().unwrap_or(0);
    settings.nodes.iter().map(|node| trunk(node, dscp)).collect()
}

fn trunk(node: &settings::Node, dscp: u8) -> Result<Option<UdpSocket>, Failure> {
    if !matches!(node.driver, settings::Driver::Agent { .. }) {
        return Ok(None);
    }
    let connect = || -> std::io::Result<UdpSocket> {
        let socket =
            Socket::new(Domain::for_address(node.address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        buffers::hold(&socket, SOCKET_BUFFER);
        // The traffic class holds the code point in its upper six bits (RFC 2474, 3).
        let class = u32::from(dscp) << 2;
        if node.address.is_ipv4() {
            socket.set_tos_v4(class)?;
        } else {
            socket.set_tclass_v6(class)?;
        }
        socket.connect(&node.address.into())?;
        Ok(socket.into())
    };
    let unreachable =
        |error| Failure::Node { node: (*node.name).into(), address: node.address, error };
    connect().map(Some).map_err(unreachable)
}

/// The kind of addresses of nodes with port legs.
pub(super) fn port_legs(settings: &Settings) -> Option<Family> {
    let by_port = |node: &&settings::Node| !matches!(node.driver, settings::Driver::Agent { .. });
    let mut addresses = settings.nodes.iter().filter(by_port).map(|node| node.address);
    let first = addresses.next()?;
    let v6 = first.is_ipv6() || addresses.any(|address| address.is_ipv6());
    Some(if v6 { Family::V6 } else { Family::V4 })
}

fn secret(node: &settings::Node, secret: &settings::Secret) -> Result<Secret, Failure> {
    Secret::new(secret.bytes()).map_err(|_| Failure::Secret { node: (*node.name).into() })
}

pub(super) fn drivers(settings: &Settings) -> Result<Vec<Driver>, Failure> {
    let driver = |node: &settings::Node| match &node.driver {
        settings::Driver::Plain { .. } => Ok(Driver::Plain(node.address)),
        settings::Driver::Agent { secret: shared } => Ok(Driver::Agent(secret(node, shared)?)),
        settings::Driver::Rtpengine => Ok(Driver::Rtpengine(node.address)),
        settings::Driver::Webhook { hook, .. } => {
            let (name, hook) = (Arc::clone(&node.name), Arc::clone(hook));
            Ok(Driver::Webhook { name, address: node.address, hook })
        }
    };
    settings.nodes.iter().map(driver).collect()
}

/// Whether some nodes want to be told of sessions.
pub(super) fn briefs(settings: &Settings) -> bool {
    use settings::Driver::{Rtpengine, Webhook};
    settings.nodes.iter().any(|node| matches!(node.driver, Rtpengine | Webhook { .. }))
}

/// Whether there are webhooks.
pub(super) fn posts(settings: &Settings) -> bool {
    use settings::Driver::Webhook;
    let starts = |node: &settings::Node| {
        node.start.as_ref().is_some_and(|start| matches!(start.by, StartBy::Webhook(_)))
    };
    let opens = |node: &settings::Node| matches!(node.driver, Webhook { .. });
    settings.nodes.iter().any(|node| opens(node) || starts(node))
}

/// By node: where it takes the NG protocol, if it does.
pub(super) fn lines(settings: &Settings) -> Vec<Option<SocketAddr>> {
    let ng = |node: &settings::Node| match node.driver {
        settings::Driver::Rtpengine => Some(node.address),
        settings::Driver::Plain { .. }
        | settings::Driver::Agent { .. }
        | settings::Driver::Webhook { .. } => None,
    };
    settings.nodes.iter().map(ng).collect()
}

/// The address from which packets to another leave this machine, as things stand.
pub(super) fn towards(other: SocketAddr) -> Option<IpAddr> {
    let own = control::connected(other).and_then(|socket| socket.local_addr());
    own.ok().map(|own| own.ip())
}

pub(super) fn probes(settings: &Settings) -> Result<Vec<Option<(SocketAddr, ProbeWay)>>, Failure> {
    let way = |node: &settings::Node| {
        Ok(match &node.driver {
            settings::Driver::Plain { probe } | settings::Driver::Webhook { probe, .. } => {
                match probe {
                    settings::Probe::None => None,
                    settings::Probe::Stun => Some((node.address, ProbeWay::Stun)),
                    settings::Probe::Echo => Some((node.address, ProbeWay::Echo)),
                }
            }
            settings::Driver::Agent { secret: shared } => {
                Some((node.address, ProbeWay::Signed(secret(node, shared)?)))
            }
            settings::Driver::Rtpengine => Some((node.address, ProbeWay::Ping)),
        })
    };
    settings.nodes.iter().map(way).collect()
}

/// How and where the agents beside nodes are asked.
pub(super) fn agents(settings: &Settings) -> Result<Vec<Option<(SocketAddr, ProbeWay)>>, Failure> {
    let way = |node: &settings::Node| {
        let Some(agent) = &node.agent else { return Ok(None) };
        Ok(Some((agent.address, ProbeWay::Beside(secret(node, &agent.secret)?))))
    };
    settings.nodes.iter().map(way).collect()
}

/// Where canary sessions are opened, and with which secret.
pub(super) fn canaries(settings: &Settings) -> Result<Vec<Option<(SocketAddr, Secret)>>, Failure> {
    let canary = |node: &settings::Node| match &node.driver {
        settings::Driver::Agent { secret: shared } if node.canary => {
            Ok(Some((node.address, secret(node, shared)?)))
        }
        _ => Ok(None),
    };
    settings.nodes.iter().map(canary).collect()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_network_may_come_up_and_a_wrong_address_stays_wrong() {
        for kind in [ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable] {
            assert!(may_pass(&kind.into()), "{kind}");
        }
        let link_unnamed = control::connected("[fe80::1]:4000".parse().unwrap()).unwrap_err();
        assert!(!may_pass(&link_unnamed), "{link_unnamed}");
        let broadcast = control::connected("255.255.255.255:4000".parse().unwrap()).unwrap_err();
        assert!(!may_pass(&broadcast), "{broadcast}");
    }
}
