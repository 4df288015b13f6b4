//! The first frame of each end: the member, and the parts of its configuration on which a takeover depends.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_config::{
    GatewayConfig, GroupSettings, ListenIngress, ListenSettings, NodeConfig, NodeSrtp,
    PolicyBinding, PolicySet,
};
use evenkeel_ownership::PeerId;
use serde::{Deserialize, Serialize};

/// Version of frames and their order.
const PROTOCOL: u32 = 1;

/// Entries that a sentence names.
const NAMED_MAX: usize = 4;

/// The store of the index among the voters; no node has such a name.
const STORE: &str = "[index]";

/// The member to which this one is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkedPeer {
    /// The standby of an owner, of others the owner.
    pub(crate) id: PeerId,
    /// False for spares, which get no records.
    pub(crate) has_records: bool,
}

/// The name of the member that gets or has the records.
pub(super) fn record_peer(cluster: &GroupSettings, peer: LinkedPeer) -> &str {
    if peer.has_records { &cluster.peers[peer.id.0].name } else { "" }
}

/// The reason why two members do not connect. Both ends find it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LinkRefusal {
    #[error("the two ends have different secrets: both members need the same `secret_file`")]
    Secret,
    #[error("`{peer}` has version {there} of the connection, this gateway has version {here}")]
    Protocol { peer: String, here: u32, there: u32 },
    #[error("both members have the `name` `{name}`: each needs a name of its own")]
    SameName { name: String },
    #[error("the member `{found}` connected, the configured peer is `{expected}`")]
    UnknownPeer { found: String, expected: String },
    #[error("`{peer}` is configured with the peer `{found}`, and this member is `{here}`")]
    UnknownHere { peer: String, found: String, here: String },
    /// Between an owner and a spare, as long as one of them does not know it.
    #[error("`{peer}` is a member of the group, and no standby of this owner")]
    NotStandby { peer: String },
    #[error("{part} differs from that of `{peer}`: {difference}")]
    Differs { peer: String, part: &'static str, difference: String },
}

impl LinkRefusal {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            LinkRefusal::Secret => "secret",
            LinkRefusal::Protocol { .. } => "version",
            LinkRefusal::SameName { .. } => "same-name",
            LinkRefusal::UnknownPeer { .. } | LinkRefusal::UnknownHere { .. } => "unknown-peer",
            LinkRefusal::NotStandby { .. } => "not-standby",
            LinkRefusal::Differs { .. } => "configuration",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    protocol: u32,
    /// Version of the program.
    pub(super) version: String,
    pub(super) name: String,
    /// The name that the sender gives to the recipient; empty if a spare sends.
    peer: String,
    /// All of the group. Older versions do not tell.
    #[serde(default)]
    members: BTreeSet<String>,
    /// Random, so that a restart is noticed.
    pub(super) instance: u64,
    preferred: bool,
    workers: usize,
    addresses: BTreeSet<String>,
    /// Those on addresses of the group.
    listeners: BTreeSet<String>,
    nodes: BTreeMap<String, String>,
    /// With the policy set and the hooks of each. Older versions do not tell.
    #[serde(default)]
    scenarios: Option<BTreeMap<String, String>>,
    /// Agents and witnesses, each with its address. Older versions do not tell.
    #[serde(default)]
    voters: Option<BTreeMap<String, String>>,
    /// The sender reads [`LinkFrame::Announce`](super::LinkFrame::Announce). Older versions do not.
    #[serde(default)]
    pub(super) announces: bool,
}

impl Hello {
    pub(super) fn of(
        settings: &GatewayConfig,
        cluster: &GroupSettings,
        peer: &str,
        instance: u64,
    ) -> Hello {
        let moves = |listen: &&ListenSettings| {
            let ip = listen.address.ip();
            let ip_moves =
                || cluster.addresses.iter().any(|moved| moved.address == ip.to_canonical());
            ip.is_unspecified() || ip_moves()
        };
        let address = |at: &evenkeel_config::MovingAddress| {
            let port_legs = if at.port_legs { " with port_legs" } else { "" };
            format!("{}/{}{port_legs}", at.address, at.prefix)
        };
        Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: cluster.name.to_string(),
            peer: peer.to_owned(),
            members: cluster.members().into_iter().map(str::to_owned).collect(),
            instance,
            preferred: cluster.preferred,
            workers: settings.workers(),
            addresses: cluster.addresses.iter().map(address).collect(),
            listeners: settings.listens.iter().filter(moves).map(listener).collect(),
            nodes: nodes(&settings.nodes),
            scenarios: Some(scenarios(&settings.sets)),
            voters: Some(voters(settings)),
            announces: true,
        }
    }

    /// A reload does not change whether the store votes.
    pub(super) fn keep_store_vote(&mut self, before: &Hello) {
        let vote = before.voters.as_ref().and_then(|voters| voters.get(STORE)).cloned();
        if let Some(voters) = &mut self.voters {
            voters.remove(STORE);
            voters.extend(vote.map(|vote| (STORE.to_owned(), vote)));
        }
    }

    pub(super) fn set_peer(&mut self, peer: &str) {
        peer.clone_into(&mut self.peer);
    }

    /// The peer's hello, if a takeover between both is possible. Both ends come to the same result.
    pub(super) fn check(&self, theirs: &Hello) -> Result<(), LinkRefusal> {
        let peer = || theirs.name.clone();
        if theirs.protocol != self.protocol {
            let (here, there) = (self.protocol, theirs.protocol);
            return Err(LinkRefusal::Protocol { peer: peer(), here, there });
        }
        if theirs.name == self.name {
            return Err(LinkRefusal::SameName { name: peer() });
        }
        let is_larger = self.members.len().max(theirs.members.len()) > 2;
        if is_larger && !theirs.members.is_empty() && theirs.members != self.members {
            let names = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
            let difference =
                format!("{} here, {} there", names(&self.members), names(&theirs.members));
            let part = "[[cluster.peer]]";
            return Err(LinkRefusal::Differs { peer: peer(), part, difference });
        }
        let are_members = |hello: &Hello| {
            let two =
                |it: &Hello| it.members.contains(&self.name) && it.members.contains(&theirs.name);
            hello.members.len() > 2 && two(hello)
        };
        let is_pair = theirs.name == self.peer && theirs.peer == self.name;
        if are_members(self) && are_members(theirs) && !is_pair {
            return Err(LinkRefusal::NotStandby { peer: peer() });
        }
        if theirs.name != self.peer {
            return Err(LinkRefusal::UnknownPeer { found: peer(), expected: self.peer.clone() });
        }
        if theirs.peer != self.name {
            let (found, here) = (theirs.peer.clone(), self.name.clone());
            return Err(LinkRefusal::UnknownHere { peer: peer(), found, here });
        }
        let differ = |part, difference| LinkRefusal::Differs { peer: peer(), part, difference };
        if theirs.preferred == self.preferred && (self.preferred || self.members.len() == 2) {
            let both =
                if self.preferred { "true at both members" } else { "false at both members" };
            return Err(differ("`preferred` in [cluster]", both.to_owned()));
        }
        if theirs.workers != self.workers {
            let difference = format!("{} here, {} there", self.workers, theirs.workers);
            return Err(differ("`workers` in [limits]", difference));
        }
        for (part, here, there) in [
            ("[[cluster.address]]", &self.addresses, &theirs.addresses),
            ("[[listen]]", &self.listeners, &theirs.listeners),
        ] {
            let only = |of: &BTreeSet<String>, other, place: &'static str| {
                let only = of.difference(other).map(move |entry| format!("`{entry}` only {place}"));
                only.collect::<Vec<_>>()
            };
            let all = [only(here, there, "here"), only(there, here, "there")].concat();
            if let Some(difference) = sentence(&all) {
                return Err(differ(part, difference));
            }
        }
        Ok(())
    }

    /// How node lists, scenarios and voters differ. A takeover is possible: rooms at a node that is not listed move to another,
    /// and those of a scenario that is not configured are not moved any more.
    pub(super) fn differences(&self, theirs: &Hello) -> Option<String> {
        let lists = [
            ("node", Some(&self.nodes), Some(&theirs.nodes)),
            ("scenario", self.scenarios.as_ref(), theirs.scenarios.as_ref()),
            ("voter", self.voters.as_ref(), theirs.voters.as_ref()),
        ];
        let told = lists.into_iter().filter_map(|(kind, here, there)| Some((kind, here?, there?)));
        let all: Vec<_> =
            told.flat_map(|(kind, here, there)| differences(kind, here, there)).collect();
        sentence(&all)
    }
}

fn differences(
    kind: &str,
    here: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
) -> Vec<String> {
    let own = here.iter().filter_map(|(name, own)| match there.get(name) {
        Some(other) if other == own => None,
        Some(other) => Some(format!("{kind} `{name}` is {own} here and {other} there")),
        None => Some(format!("{kind} `{name}` only here")),
    });
    let others = there.keys().filter(|name| !here.contains_key(*name));
    own.chain(others.map(|name| format!("{kind} `{name}` only there"))).collect()
}

fn sentence(entries: &[String]) -> Option<String> {
    let named = entries.get(..NAMED_MAX).unwrap_or(entries);
    let more = entries.len() - named.len();
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named.join(", ")),
        (false, more) => Some(format!("{}, and {more} more", named.join(", "))),
    }
}

fn listener(listen: &ListenSettings) -> String {
    let sockets: Vec<_> = listen.sockets().map(|address| address.to_string()).collect();
    let kind = match listen.ingress {
        ListenIngress::Udp { .. } => "udp",
        ListenIngress::Quic { .. } => "quic",
    };
    format!("{kind} {}", sockets.join(" "))
}

fn nodes(nodes: &[NodeConfig]) -> BTreeMap<String, String> {
    let facts = |node: &NodeConfig| {
        let name = node.driver.name;
        let driver = match node.trunk() {
            Some((_, true)) => format!("{name}, encrypted,"),
            Some((_, false)) | None => name.to_owned(),
        };
        let srtp = match node.srtp {
            NodeSrtp::Off => String::new(),
            srtp => format!(" with `srtp = \"{}\"`", srtp.name()),
        };
        format!("{driver} {} in {}/{}{srtp}", node.address, node.region, node.zone)
    };
    nodes.iter().map(|node| (node.name.to_string(), facts(node))).collect()
}

fn voters(settings: &GatewayConfig) -> BTreeMap<String, String> {
    let agents = settings.nodes.iter();
    let agents = agents.filter_map(|node| Some((node.name.to_string(), node.voter()?.0)));
    let witnesses = settings.witnesses.iter().map(|it| (it.name.to_string(), it.address));
    let store = settings.index.as_ref().filter(|index| index.votes);
    let store = store.map(|index| (STORE.to_owned(), format!("in `{}`", index.bucket)));
    let others = agents.chain(witnesses).map(|(name, address)| (name, format!("at {address}")));
    others.chain(store).collect()
}

fn scenarios(sets: &[PolicySet]) -> BTreeMap<String, String> {
    let facts = |set: &PolicySet| {
        let hooks: Vec<&str> = set.bindings.iter().map(PolicyBinding::key).collect();
        match hooks.is_empty() {
            true => format!("of set `{}` without a policy", set.name),
            false => format!("of set `{}` with {}", set.name, hooks.join(", ")),
        }
    };
    let all =
        sets.iter().flat_map(|set| set.scenarios.iter().map(move |one| (&one.name, facts(set))));
    all.map(|(name, facts)| (name.to_string(), facts)).collect()
}
