//! Machines media is forwarded to, and where they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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
    /// Whether it takes no first hop of hot and hitless scenarios while others can. Default false.
    pub standby: bool,
    /// What starts it, if it does not run until rooms of cold scenarios need it.
    pub start: Option<Start>,
}

/// `start` of a node: what is done so that it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// What is called.
    pub hook: Hook,
    /// How long the node may take until it answers. Default 30 s.
    pub within: Duration,
    /// Whether what was started ends with the gateway. Default false.
    pub stop_with_gateway: bool,
}

/// What starts a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hook {
    /// A program and its arguments: the node itself, or what has somebody else start it.
    Command(Vec<Arc<str>>),
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
    let address: Option<SocketAddr> =
        check.parse(&raw.address, "an address and port such as `10.0.1.11:4000`");
    if let Some(address) = address.filter(|address| !is_of_one_machine(address)) {
        let expected = "an address and port that packets can be sent to";
        let invalid = check.refuse(raw.address.span(), format!("`{address}`"), expected);
        invalid.help = lacks_link(&address).then(|| {
            "an address of a link names the interface by its number: `[fe80::1%2]:4000`".to_owned()
        });
    }
    let start = raw.start.as_ref().and_then(|start| self::start(start, raw, check));
    Some(Node {
        name,
        address: address?,
        region,
        zone,
        driver: driver?,
        capacity: capacity?,
        standby: raw.standby,
        start,
    })
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
            if let Some(path) = &raw.secret_file {
                let found = "a secret for driver `plain`";
                check.refuse(path.span(), found, "`secret_file` with driver `agent`");
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

fn start(raw: &Spanned<raw::Start>, node: &raw::Node, check: &mut Check) -> Option<Start> {
    if node.probe.as_ref().is_some_and(|probe| *probe.get_ref() == Probe::None) {
        let found = "a node that is started, and answers no probe";
        let expected = "`probe` with it: that it answers is how we know that it runs";
        check.refuse(raw.span(), found, expected);
        return None;
    }
    let start = raw.get_ref();
    let words = start.command.get_ref();
    if words.first().is_none_or(|program| program.get_ref().is_empty()) {
        let expected =
            "a program and its arguments: `[\"/usr/bin/media-server\", \"--port\", \"4000\"]`";
        check.refuse(start.command.span(), "a command without a program", expected);
        return None;
    }
    let bounds = Duration::from_millis(100)..=Duration::from_secs(600);
    Some(Start {
        hook: Hook::Command(words.iter().map(|word| word.get_ref().as_str().into()).collect()),
        within: check.duration(start.within.as_ref(), Duration::from_secs(30), bounds),
        stop_with_gateway: start.stop_with_gateway,
    })
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
