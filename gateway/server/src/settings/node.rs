//! Machines media is forwarded to, and where they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::check::Check;
use super::invalid::nearest;
use super::raw;
use super::secret::Secret;
use super::unit::BitRate;

/// The board is a fixed array, one cell per node.
pub(super) const NODES_MAX: usize = 1_024;

/// `[[node]]`.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Unique among nodes.
    pub name: Arc<str>,
    /// Its media port, or where an agent answers for it.
    pub address: SocketAddr,
    /// Where it is.
    pub region: Arc<str>,
    /// The part of the region that fails by itself; zones of two regions are different even by the same name.
    pub zone: Arc<str>,
    /// How sessions are opened there.
    pub driver: Driver,
    /// What it can carry, both directions together.
    pub capacity: BitRate,
    /// The agent beside it, where it is not the agent that the node is reached through.
    pub agent: Option<Agent>,
}

/// An `evenkeel agent` that watches a node's process from beside it and ends no trunk: the node speaks for itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Agent {
    /// Where it listens.
    pub address: SocketAddr,
    /// What both ends know.
    pub secret: Secret,
}

/// How sessions are opened at a node.
#[derive(Clone, PartialEq, Debug)]
pub enum Driver {
    /// Not at all: any media server, told apart by addresses.
    Plain {
        /// How we ask whether it lives. Default `stun`.
        probe: Probe,
    },
    /// By authenticated datagrams, to an agent, as `evenkeel sample-node` is.
    Agent {
        /// What both ends know.
        secret: Secret,
    },
}

/// The word for a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DriverKind {
    Plain,
    Agent,
}

/// How a `plain` node is asked whether it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// A STUN binding request (RFC 8489).
    Stun,
    /// A datagram that it returns as it came.
    Echo,
    /// It answers nothing: kernel errors and silence are all there is.
    None,
}

pub(super) fn check(raw: &Spanned<raw::Node>, check: &mut Check) -> Option<Node> {
    let raw = raw.get_ref();
    let name = check.name(&raw.name);
    let region = check.name(&raw.region);
    let zone = check.name(&raw.zone);
    let capacity = check.bit_rate(&raw.capacity);
    let driver = driver(raw, check);
    let agent = agent(raw, check);
    let address = address(&raw.address, check);
    Some(Node {
        name,
        address: address?,
        region,
        zone,
        driver: driver?,
        capacity: capacity?,
        agent,
    })
}

/// An address and port that packets can be sent to.
fn address(raw: &Spanned<String>, check: &mut Check) -> Option<SocketAddr> {
    let address: SocketAddr = check.parse(raw, "an address and port such as `10.0.1.11:4000`")?;
    if !is_of_one_machine(&address) {
        let expected = "an address and port that packets can be sent to";
        let invalid = check.refuse(raw.span(), format!("`{address}`"), expected);
        invalid.help = lacks_link(&address).then(|| {
            "an address of a link names the interface by its number: `[fe80::1%2]:4000`".to_owned()
        });
    }
    Some(address)
}

/// The agent beside the node, if one is named.
fn agent(raw: &raw::Node, check: &mut Check) -> Option<Agent> {
    let at = raw.agent.as_ref()?;
    if at.get_ref() == raw.address.get_ref() {
        let found = format!("`{}`, the address of the node", at.get_ref());
        check.refuse(at.span(), found, "the agent's own address").help =
            Some("a node whose trunk the agent ends has driver `agent`, and no `agent`".to_owned());
    }
    let address = address(at, check);
    let Some(path) = &raw.secret_file else {
        if *raw.driver.get_ref() != DriverKind::Agent {
            let found = "`agent` without `secret_file`";
            check.refuse(at.span(), found, "the file with the secret that both ends know");
        }
        return None;
    };
    Some(Agent { address: address?, secret: check.secret(path)? })
}

/// Whether packets to it can arrive at one machine, and at a port of it.
fn is_of_one_machine(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let many = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    address.port() != 0 && !ip.is_unspecified() && !many && !lacks_link(address)
}

/// An address that every link has for itself (RFC 4007, 6), without saying which link.
fn lacks_link(address: &SocketAddr) -> bool {
    let SocketAddr::V6(v6) = address else { return false };
    v6.ip().is_unicast_link_local() && v6.scope_id() == 0
}

fn driver(raw: &raw::Node, check: &mut Check) -> Option<Driver> {
    match raw.driver.get_ref() {
        DriverKind::Plain => {
            if let Some(path) = raw.secret_file.as_ref().filter(|_| raw.agent.is_none()) {
                let found = "a secret for driver `plain`";
                check.refuse(
                    path.span(),
                    found,
                    "`secret_file` with driver `agent`, or beside `agent`",
                );
            }
            Some(Driver::Plain { probe: raw.probe.as_ref().map_or(Probe::Stun, |p| *p.get_ref()) })
        }
        DriverKind::Agent => {
            if let Some(probe) = &raw.probe {
                let found = "a probe for driver `agent`";
                check.refuse(probe.span(), found, "`probe` with driver `plain`").help =
                    Some("an agent is always probed, by signed datagrams".to_owned());
            }
            let Some(path) = &raw.secret_file else {
                let found = "driver `agent` without `secret_file`";
                let expected = "the file with the secret that both ends know";
                check.refuse(raw.driver.span(), found, expected);
                return None;
            };
            Some(Driver::Agent { secret: check.secret(path)? })
        }
    }
}

/// Names and addresses that two nodes share.
pub(super) fn duplicates(raw: &[Spanned<raw::Node>], check: &mut Check) {
    let (mut names, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for node in raw {
        let node = node.get_ref();
        for (what, value, seen) in
            [("a name", &node.name, &mut names), ("an address", &node.address, &mut addresses)]
        {
            if let Some(first) = seen.insert(value.get_ref().clone(), value.span()) {
                let help = format!("the first is at {}", check.place(&first));
                let found = format!("`{}` a second time", value.get_ref());
                check.refuse(value.span(), found, format!("{what} of its own")).help = Some(help);
            }
        }
    }
}

/// The regions there are, in the order of the file: those declared by `[[region]]` or, without any, those of nodes.
pub(super) fn regions(raw: &raw::File, check: &mut Check) -> Vec<Arc<str>> {
    let mut regions: Vec<Arc<str>> = Vec::new();
    for region in &raw.region {
        let name = check.name(&region.name);
        if regions.contains(&name) {
            let found = format!("region `{name}` a second time");
            check.refuse(region.name.span(), found, "each region once");
        } else {
            regions.push(name);
        }
    }
    let declared = !regions.is_empty();
    for node in &raw.node {
        let region = &node.get_ref().region;
        if declared {
            known(region, &regions, check);
        } else if !regions.iter().any(|known| **known == **region.get_ref()) {
            regions.push(Arc::from(region.get_ref().as_str()));
        }
    }
    regions
}

/// Refuses the name of a region that there is not.
pub(super) fn known(name: &Spanned<String>, regions: &[Arc<str>], check: &mut Check) {
    if regions.is_empty() || regions.iter().any(|known| **known == **name.get_ref()) {
        return;
    }
    let list = regions.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let found = format!("unknown region `{}`", name.get_ref());
    let help = nearest(name.get_ref(), regions.iter().map(|name| &**name))
        .unwrap_or_else(|| "a region without nodes is declared by `[[region]]`".to_owned());
    check.refuse(name.span(), found, format!("one of {list}")).help = Some(help);
}
