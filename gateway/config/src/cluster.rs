//! `[cluster]`: the group of this gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::address;
use super::check::{ConfigCheck, SecretFile};
use super::listen::{LISTENS_MAX, ListenIngress, ListenSettings};
use super::node::{NodeConfig, WatchingAgent, reachable};

const ADDRESSES_MAX: usize = LISTENS_MAX;

/// Longest name of an interface in bytes (`IFNAMSIZ` less its zero byte).
const INTERFACE_MAX: usize = 15;

/// Other members: a majority of five survives two faults, which are rare enough.
const PEERS_MAX: usize = 4;

/// As many voters as an arming has; further ones never vote.
const WITNESSES_MAX: usize = 5;

/// Shortest secret of a group. Its holder can read the keys of every call.
const SECRET_MIN: usize = 32;

const HOLD_DOWN: Duration = Duration::from_secs(5);
const HOLD_DOWN_MAX: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(86_400);

const ADDRESS: &str = "an address and its prefix length such as `192.0.2.10/24`";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ClusterTable {
    pub(super) name: Spanned<String>,
    secret_file: Spanned<String>,
    listen: Spanned<String>,
    preferred: Option<bool>,
    hold_down: Option<Spanned<DurationText>>,
    hold_down_max: Option<Spanned<DurationText>>,
    #[serde(deserialize_with = "one_or_more")]
    pub(super) peer: Vec<PeerTable>,
    #[serde(default)]
    address: Vec<Spanned<ClusterAddressTable>>,
    #[serde(default)]
    witness: Vec<Spanned<WitnessTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name` and `address`")]
pub(super) struct PeerTable {
    pub(super) name: Spanned<String>,
    address: Spanned<String>,
    agent: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    fence: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name`, `address` and `secret_file`")]
struct WitnessTable {
    name: Spanned<String>,
    address: Spanned<String>,
    secret_file: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ClusterAddressTable {
    address: Spanned<String>,
    interface: Option<Spanned<String>>,
    hook: Option<Spanned<Vec<Spanned<String>>>>,
    port_legs: Option<Spanned<bool>>,
}

/// Accepts `[cluster.peer]` and `[[cluster.peer]]`.
fn one_or_more<'de, D: Deserializer<'de>>(raw: D) -> Result<Vec<PeerTable>, D::Error> {
    struct Peers;
    impl<'de> Visitor<'de> for Peers {
        type Value = Vec<PeerTable>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a table `[cluster.peer]`, or `[[cluster.peer]]` for each other member")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            PeerTable::deserialize(MapAccessDeserializer::new(map)).map(|peer| vec![peer])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }
    }
    raw.deserialize_any(Peers)
}

/// Gateways of which one owns the addresses.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupSettings {
    /// The name of this member.
    pub name: Arc<str>,
    /// One secret, or two while it is rotated. The first signs; both are accepted.
    pub secrets: Vec<SecretFile>,
    /// UDP: beats. TCP: records. Never an address of the group.
    pub listen: SocketAddr,
    /// Owns the addresses if no member does. Default false.
    pub preferred: bool,
    /// How long no takeover by silence follows a second one; it doubles with each. Default 5 s.
    pub hold_down: Duration,
    /// At most, and how long an ownership has to last until takeovers are counted anew. Default 5 min.
    pub hold_down_max: Duration,
    /// `[[cluster.peer]]`, at least one, by their names.
    pub peers: Vec<PeerSettings>,
    /// At least one.
    pub addresses: Vec<MovingAddress>,
}

/// Another member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    /// Its name; the members' names differ.
    pub name: Arc<str>,
    /// The `listen` of the peer.
    pub address: SocketAddr,
    /// The agent beside the peer, which reports the end of its process.
    pub agent: Option<WatchingAgent>,
    /// A program and its arguments, which makes sure that a silent peer is down. Default: none, an operator decides.
    pub fence: Option<Vec<String>>,
}

/// An `evenkeel witness`, which votes as the agents of nodes do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WitnessSettings {
    /// The `name` of the witness.
    pub name: Arc<str>,
    /// The `listen` of the witness.
    pub address: SocketAddr,
    /// Shared with the witness.
    pub secret: SecretFile,
}

/// An address that moves between the members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MovingAddress {
    pub address: IpAddr,
    /// Length of the network's prefix at the interface.
    pub prefix: u8,
    /// How the address moves.
    pub place: AddressPlace,
    /// Sessions' own ports are bound here, so that they stay at a takeover. Default false.
    pub port_legs: bool,
}

impl GroupSettings {
    /// The names of all members in their order; equal at each of them.
    pub fn members(&self) -> Vec<&str> {
        let peers = self.peers.iter().map(|peer| &*peer.name);
        let mut names: Vec<&str> = std::iter::once(&*self.name).chain(peers).collect();
        names.sort_unstable();
        names
    }

    /// The number of this member, from 0 on; each has another one.
    pub fn rank(&self) -> usize {
        let members = self.members();
        if members.len() == 2 {
            // Since the first version of beats.
            return usize::from(self.preferred);
        }
        members.iter().position(|name| **name == *self.name).expect("it is a member")
    }

    /// The address of sessions' own ports; `None` if they have all addresses of the host.
    pub fn port_legs(&self) -> Option<IpAddr> {
        self.addresses.iter().find(|moved| moved.port_legs).map(|moved| moved.address)
    }
}

/// How an address moves to the owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressPlace {
    /// The name of an interface, to which the owner adds the address.
    Interface(String),
    /// A program and its arguments, which moves the address.
    Hook(Vec<String>),
}

pub(super) fn check(
    raw: &Spanned<ClusterTable>,
    nodes: &[NodeConfig],
    listens: &[ListenSettings],
    check: &mut ConfigCheck,
) -> Option<GroupSettings> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let name = check.name(&raw.name);
    let secrets = secrets(&raw.secret_file, nodes, check);
    let listen = reachable(&raw.listen, "10.0.0.1:7100", check);
    if raw.address.is_empty() {
        let expected = "at least one `[[cluster.address]]`, which clients send to";
        check.refuse(span.clone(), "`[cluster]` without an address", expected);
    }
    check.at_most(&raw.address, ADDRESSES_MAX, "addresses");
    let addresses = addresses(&raw.address, nodes, listens, check);
    let has_port_legs = nodes.iter().any(NodeConfig::has_port_legs);
    if has_port_legs && !addresses.iter().any(|moved| moved.port_legs) {
        let found = "nodes with port legs, and no address of the group with `port_legs`";
        let expected = "`port_legs = true` at one that reaches them: a takeover opens their sessions again otherwise";
        check.warn(span.clone(), found, expected);
    }
    let alone = |listen: &ListenSettings| {
        matches!(listen.ingress, ListenIngress::Quic { certificate: None })
            && addresses.iter().any(|moved| moved.address == listen.address.ip())
    };
    if listens.iter().any(alone) {
        let found = "a QUIC listener on an address of the group with a self-signed certificate";
        check.warn(span.clone(), found, "`certificate` and `key`, the same at all members");
    }
    let peers = peers(raw, listen, secrets.as_deref().unwrap_or_default(), check);
    if peers.is_empty() {
        let expected = "`[cluster.peer]`, or `[[cluster.peer]]` for each other member";
        check.refuse(span, "`[cluster]` without another member", expected);
    }
    let others = raw.peer.iter().map(|raw| {
        let peer = peers.iter().find(|peer| *peer.name == **raw.name.get_ref());
        (&raw.address, peer.map(|peer| peer.address))
    });
    for (written, member) in std::iter::once((&raw.listen, listen)).chain(others) {
        let moves =
            |member: &SocketAddr| addresses.iter().any(|moved| moved.address == member.ip());
        if let Some(member) = member.filter(moves) {
            let found = format!("`{member}`, an address of the group");
            let expected = "an address of the member alone: those of the group move";
            check.refuse(written.span(), found, expected);
        }
    }
    let hold_down = check.duration(&raw.hold_down, HOLD_DOWN, Duration::ZERO..=DAY);
    let range = Duration::from_secs(1)..=DAY;
    let hold_down_max = check.duration(&raw.hold_down_max, HOLD_DOWN_MAX, range);
    Some(GroupSettings {
        name,
        secrets: secrets?,
        listen: listen?,
        preferred: raw.preferred.unwrap_or_default(),
        hold_down,
        hold_down_max,
        peers,
        addresses,
    })
}

/// The secrets of the file, none of which a node has.
fn secrets(
    raw: &Spanned<String>,
    nodes: &[NodeConfig],
    check: &mut ConfigCheck,
) -> Option<Vec<SecretFile>> {
    let secrets = check.secrets(raw, SECRET_MIN)?;
    let knows = |node: &&NodeConfig| node.secret().is_some_and(|secret| secrets.contains(secret));
    if let Some(node) = nodes.iter().find(knows) {
        let found = format!("`{}` with the secret of node `{}`", raw.get_ref(), node.name);
        let expected = "a secret of its own: its holder can read and take over every call";
        check.refuse(raw.span(), found, expected);
        return None;
    }
    Some(secrets)
}

fn peers(
    raw: &ClusterTable,
    listen: Option<SocketAddr>,
    secrets: &[SecretFile],
    check: &mut ConfigCheck,
) -> Vec<PeerSettings> {
    if let Some(beyond) = raw.peer.get(PEERS_MAX) {
        let found = format!("{} other members", raw.peer.len());
        check.refuse(beyond.name.span(), found, format!("at most {PEERS_MAX}"));
    }
    let mut peers: Vec<PeerSettings> = Vec::new();
    for table in &raw.peer {
        let Some(peer) = peer(table, raw, listen, secrets, check) else { continue };
        if peers.iter().any(|earlier| earlier.name == peer.name) {
            let found = format!("`{}` a second time", peer.name);
            check.refuse(table.name.span(), found, "each member once");
        }
        if peers.iter().any(|earlier| earlier.address == peer.address) {
            let found = format!("`{}` a second time", peer.address);
            check.refuse(table.address.span(), found, "the `listen` of each member once");
        }
        peers.push(peer);
    }
    // Members are numbered by their names.
    peers.sort_by(|one, other| one.name.cmp(&other.name));
    peers
}

fn peer(
    table: &PeerTable,
    raw: &ClusterTable,
    listen: Option<SocketAddr>,
    secrets: &[SecretFile],
    check: &mut ConfigCheck,
) -> Option<PeerSettings> {
    let PeerTable { name, address, .. } = table;
    if name.get_ref() == raw.name.get_ref() {
        let found = format!("`{}`, the name of this member", name.get_ref());
        check.refuse(name.span(), found, "the name of the other member");
    }
    let name = check.name(name);
    let at = reachable(address, "10.0.0.2:7100", check)?;
    if let Some(listen) = listen {
        if listen == at {
            let found = format!("`{at}`, the `listen` of this member");
            check.refuse(address.span(), found, "the `listen` of the other member");
        }
        if listen.is_ipv4() != at.is_ipv4() {
            let found = format!("`{at}` beside `{listen}`");
            check.refuse(address.span(), found, "two addresses of IPv4, or two of IPv6");
        }
    }
    let fence = table.fence.as_ref();
    let fence = fence.map(|words| program(words, "/usr/local/bin/power-off", check));
    Some(PeerSettings { name, address: at, agent: agent(table, secrets, check), fence })
}

fn agent(
    raw: &PeerTable,
    secrets: &[SecretFile],
    check: &mut ConfigCheck,
) -> Option<WatchingAgent> {
    let (agent, secret) = match (&raw.agent, &raw.secret_file) {
        (Some(agent), Some(secret)) => (agent, secret),
        (None, None) => return None,
        (Some(agent), None) => {
            let expected = "`secret_file`, the file of the secret shared with the agent";
            check.refuse(agent.span(), "`agent` without `secret_file`", expected);
            return None;
        }
        (None, Some(secret)) => {
            let expected = "`agent`, the address of the agent beside the other member";
            check.refuse(secret.span(), "`secret_file` without `agent`", expected);
            return None;
        }
    };
    let (file, address) = (secret, reachable(agent, "10.0.0.2:7200", check));
    let secret = foreign_secret(file, secrets, check);
    Some(WatchingAgent { address: address?, secret: secret? })
}

/// The secret of a process that is no member.
fn foreign_secret(
    file: &Spanned<String>,
    secrets: &[SecretFile],
    check: &mut ConfigCheck,
) -> Option<SecretFile> {
    let secret = check.secret(file)?;
    if secrets.contains(&secret) {
        let found = format!("`{}` with a secret of the group", file.get_ref());
        let expected = "a secret of its own: only the members need a key of the group";
        check.refuse(file.span(), found, expected);
    }
    Some(secret)
}

/// The `[[cluster.witness]]` tables, each with a name, an address and a secret that no node and no other witness has.
pub(super) fn witnesses(
    raw: &ClusterTable,
    group: Option<&GroupSettings>,
    nodes: &[NodeConfig],
    check: &mut ConfigCheck,
) -> Vec<WitnessSettings> {
    check.at_most(&raw.witness, WITNESSES_MAX, "witnesses");
    let names: Vec<&Spanned<String>> = raw.witness.iter().map(|raw| &raw.get_ref().name).collect();
    check.unique_names(&names);
    let secrets = group.map_or(&[][..], |group| &group.secrets);
    let mut witnesses: Vec<WitnessSettings> = Vec::new();
    for WitnessTable { name, address, secret_file } in raw.witness.iter().map(Spanned::get_ref) {
        let at = reachable(address, "10.0.3.1:7300", check);
        let secret = foreign_secret(secret_file, secrets, check);
        let (Some(at), Some(secret)) = (at, secret) else { continue };
        let witness = WitnessSettings { name: check.name(name), address: at, secret };
        let votes_already = |node: &NodeConfig| node.voter().is_some_and(|(agent, _)| agent == at);
        if witnesses.iter().any(|earlier| earlier.address == at) || nodes.iter().any(votes_already)
        {
            let expected = "an address of its own: two votes of one process decide alone";
            check.refuse(address.span(), format!("`{at}`, which votes already"), expected);
        }
        if let Some(node) = nodes.iter().find(|node| node.secret() == Some(&witness.secret)) {
            let found =
                format!("`{}` with the secret of node `{}`", secret_file.get_ref(), node.name);
            let expected = "a secret of its own: the node's host could vote for the witness";
            check.refuse(secret_file.span(), found, expected);
        }
        if witnesses.iter().any(|earlier| earlier.secret == witness.secret) {
            let found = format!("`{}` with the secret of another witness", secret_file.get_ref());
            check.refuse(
                secret_file.span(),
                found,
                "a secret of its own: one host could vote for both",
            );
        }
        witnesses.push(witness);
    }
    witnesses
}

fn addresses(
    raw: &[Spanned<ClusterAddressTable>],
    nodes: &[NodeConfig],
    listens: &[ListenSettings],
    check: &mut ConfigCheck,
) -> Vec<MovingAddress> {
    let mut addresses: Vec<MovingAddress> = Vec::new();
    for entry in raw {
        let written = &entry.get_ref().address;
        let place = place(entry, check);
        let Some((address, prefix)) = with_prefix(written, check) else { continue };
        if addresses.iter().any(|earlier| earlier.address == address) {
            check.refuse(written.span(), format!("`{address}` a second time"), "each address once");
        }
        let takes = |listen: &ListenSettings| {
            let bound = listen.address.ip();
            let any = bound.is_unspecified() && (bound.is_ipv6() || address.is_ipv4());
            any || bound.to_canonical() == address
        };
        let port_legs = entry.get_ref().port_legs.as_ref().filter(|it| *it.get_ref());
        if let Some(port_legs) = port_legs {
            let reaches = |node: &NodeConfig| node.address.is_ipv4() == address.is_ipv4();
            let unreached = nodes.iter().find(|node| node.has_port_legs() && !reaches(node));
            if let Some(NodeConfig { name, address: node, .. }) = unreached {
                let found = format!("`port_legs` at `{address}`, and node `{name}` at `{node}`");
                check.refuse(port_legs.span(), found, "two addresses of IPv4, or two of IPv6");
            }
            if addresses.iter().any(|earlier| earlier.port_legs) {
                let expected = "one: a session has the same port towards all nodes";
                check.refuse(port_legs.span(), "`port_legs` at a second address", expected);
            }
        }
        let port_legs = port_legs.is_some();
        if !port_legs && !listens.iter().any(takes) {
            let found = format!("`{address}`, on which nothing listens");
            check.warn(written.span(), found, "the address of a `[[listen]]`");
        }
        addresses.extend(place.map(|place| MovingAddress { address, prefix, place, port_legs }));
    }
    addresses
}

fn with_prefix(raw: &Spanned<String>, check: &mut ConfigCheck) -> Option<(IpAddr, u8)> {
    let parse = |text: &str| -> Option<(IpAddr, u8)> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        ((1..=bits).contains(&prefix) && address == address.to_canonical())
            .then_some((address, prefix))
    };
    let Some((address, prefix)) = parse(raw.get_ref()) else {
        check.refuse_text(raw, ADDRESS);
        return None;
    };
    if let Err(reason) = address::check_ip(address) {
        check.refuse(raw.span(), format!("`{}`, {reason}", raw.get_ref()), ADDRESS);
        return None;
    }
    Some((address, prefix))
}

fn place(raw: &Spanned<ClusterAddressTable>, check: &mut ConfigCheck) -> Option<AddressPlace> {
    let (span, raw) = (raw.span(), raw.get_ref());
    match (&raw.interface, &raw.hook) {
        (Some(interface), None) => {
            let name = interface.get_ref();
            let fits = (1..=INTERFACE_MAX).contains(&name.len());
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
            if !fits || !name.chars().all(plain) {
                let expected = "the name of an interface such as `eth0`, of at most 15 bytes";
                check.refuse_text(interface, expected);
            }
            Some(AddressPlace::Interface(name.clone()))
        }
        (None, Some(hook)) => {
            Some(AddressPlace::Hook(program(hook, "/usr/local/bin/move-address", check)))
        }
        (interface, _) => {
            let found = match interface {
                Some(_) => "`interface` and `hook`",
                None => "neither `interface` nor `hook`",
            };
            check.refuse(span, found, "one of them");
            None
        }
    }
}

fn program(
    raw: &Spanned<Vec<Spanned<String>>>,
    example: &str,
    check: &mut ConfigCheck,
) -> Vec<String> {
    let words: Vec<String> = raw.get_ref().iter().map(|word| word.get_ref().clone()).collect();
    if words.first().is_none_or(String::is_empty) {
        let expected = format!("a program and its arguments: `[\"{example}\"]`");
        check.refuse(raw.span(), "a command without a program", expected);
    }
    words
}
