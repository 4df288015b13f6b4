//! `[[node]]`.

mod srtp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::nearest;
use evenkeel_model::{HookTerms, NodeProbing, NodeSettings, RegionRole, Starts, ZoneId};
use evenkeel_process::setting_text::{BitRateText, DurationText};
use serde::Deserialize;
pub use srtp::NodeSrtp;
use toml::{Spanned, Value};

use super::address::{self, ADDRESS_AND_PORT, InvalidHostAddress};
use super::check::{ConfigBitRate, ConfigCheck, SecretFile, quoted};
use super::driver::{
    self, DriverKeys, DriverKind, DriverSettings, NodeKeys, NodeProbe, Signalling,
};
use super::listen;
use super::webhook::{WebhookTarget, hook_at};

/// The board is an array with one cell per node.
pub const NODES_MAX: usize = 1_024;

/// The keys of every node. [`driver::keys`] refuses unknown ones.
#[derive(Deserialize)]
#[serde(expecting = "a table")]
pub(super) struct NodeEntry {
    name: Spanned<String>,
    pub(super) region: Spanned<String>,
    zone: Spanned<String>,
    carrier: Option<Spanned<String>>,
    driver: Spanned<String>,
    capacity: Spanned<BitRateText>,
    #[serde(default)]
    standby: bool,
    keeps_ssrc: Option<bool>,
    start: Option<Spanned<StartTable>>,
    agent: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    canary: Option<Spanned<bool>>,
    srtp: Option<Spanned<NodeSrtp>>,
    /// The keys that only some drivers take.
    #[serde(skip)]
    pub(super) keys: NodeKeys,
}

impl NodeEntry {
    fn kind<'a>(&self, drivers: &[&'a dyn DriverKind]) -> Option<&'a dyn DriverKind> {
        drivers.iter().copied().find(|kind| kind.name() == self.driver.get_ref())
    }

    /// The value of a key that the driver takes, if it is text.
    fn text(&self, key: &str) -> Option<Spanned<&str>> {
        let value = self.keys.get(key)?;
        Some(Spanned::new(value.span(), value.get_ref().as_str()?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `command` or `webhook`")]
struct StartTable {
    command: Option<Spanned<Vec<Spanned<String>>>>,
    webhook: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    timeout: Option<Spanned<DurationText>>,
    stop_with_gateway: Option<Spanned<bool>>,
    stop: Option<Spanned<Vec<Spanned<String>>>>,
    stop_after: Option<Spanned<DurationText>>,
    replace_after: Option<Spanned<DurationText>>,
    cost_per_hour: Option<Spanned<f64>>,
}

/// `[[node]]`: a media server.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeConfig {
    /// Unique among nodes.
    pub name: Arc<str>,
    /// The media port, the agent that ends its trunk legs, or rtpengine's NG port.
    pub address: SocketAddr,
    /// The region that the node belongs to.
    pub region: Arc<str>,
    /// A failure domain of the region; zones with the same name in two regions are different.
    pub zone: Arc<str>,
    /// The carrier of the node's network, if it is named.
    pub carrier: Option<Arc<str>>,
    /// The protocol by which sessions are opened.
    pub driver: DriverSettings,
    /// Capacity of both directions together.
    pub capacity: ConfigBitRate,
    /// Canary sessions check that the node forwards. By default true with driver `agent`.
    pub canary: bool,
    /// The node takes no first hop of hot and hitless scenarios while other nodes can. Default false.
    pub standby: bool,
    /// The node sends streams on with the SSRCs and sequence numbers of their senders. Default: as the driver states.
    pub keeps_ssrc: bool,
    /// Starts the node when rooms of cold scenarios need it.
    pub start: Option<StartHook>,
    /// The agent beside the node, unless the node is reached through that agent.
    pub agent: Option<WatchingAgent>,
    /// SRTP of legs to the node. Default off.
    pub srtp: NodeSrtp,
}

impl NodeConfig {
    /// A node without canary sessions, with the defaults of its other keys.
    pub fn new(
        name: Arc<str>,
        address: SocketAddr,
        region: Arc<str>,
        zone: Arc<str>,
        driver: DriverSettings,
        capacity: ConfigBitRate,
    ) -> NodeConfig {
        NodeConfig {
            name,
            address,
            region,
            zone,
            carrier: None,
            driver,
            capacity,
            canary: false,
            standby: false,
            keeps_ssrc: false,
            start: None,
            agent: None,
            srtp: NodeSrtp::default(),
        }
    }

    /// The address and the secret of the node's agent, or of the agent beside it.
    pub fn voter(&self) -> Option<(SocketAddr, &SecretFile)> {
        match (self.trunk(), &self.agent) {
            (Some((secret, _)), _) => Some((self.address, secret)),
            (None, Some(agent)) => Some((agent.address, &agent.secret)),
            (None, None) => None,
        }
    }

    /// The secret of the trunk that all sessions at the node share, and whether it is encrypted.
    pub fn trunk(&self) -> Option<(&SecretFile, bool)> {
        match &self.driver.signalling {
            Signalling::Trunk { secret, encrypt } => Some((secret, *encrypt)),
            Signalling::None | Signalling::Datagrams | Signalling::Posts(_) => None,
        }
    }

    /// Returns true if each session has ports of its own towards the node.
    pub fn has_port_legs(&self) -> bool {
        self.trunk().is_none()
    }

    /// The node's settings in the core, with its zone as a number.
    pub fn core(&self, zone: ZoneId) -> NodeSettings {
        let by_hook = |start: &StartHook| Starts::ByHook { within: start.within };
        NodeSettings {
            name: (*self.name).into(),
            zone,
            carrier: self.carrier.clone(),
            capacity_kbps: self.capacity.kbps(),
            probed: self.probed(),
            role: if self.standby { RegionRole::Standby } else { RegionRole::Active },
            starts: self.start.as_ref().map_or(Starts::ByItself, by_hook),
            hook: self.start.as_ref().map(|start| start.terms.clone()).unwrap_or_default(),
            canary: self.canary,
        }
    }

    pub(super) fn probed(&self) -> NodeProbing {
        match self.driver.probe {
            NodeProbe::None => NodeProbing::No,
            _ => NodeProbing::Yes,
        }
    }

    /// The secret shared with the node, or with the agent beside it.
    pub(super) fn secret(&self) -> Option<&SecretFile> {
        self.voter().map(|(_, secret)| secret)
    }
}

/// How a cold node is started.
#[derive(Clone, PartialEq, Debug)]
pub struct StartHook {
    /// The program or webhook that starts the node.
    pub by: StartBy,
    /// Time limit for the node to answer or, once it is told to stop, to be gone. Default 30 s.
    pub within: Duration,
    /// The program that stops the node, and its arguments. Default: the webhook is told to stop it, or the program that
    /// started it is ended.
    pub stop: Option<Vec<Arc<str>>>,
    /// When the node is stopped and replaced, and its cost.
    pub terms: HookTerms,
}

/// The means to start a node.
#[derive(Clone, PartialEq, Debug)]
pub enum StartBy {
    /// A program: the node itself, or a command that starts it. A program that is still
    /// running from an earlier call for this node is ended before the next.
    Command {
        /// The program and its arguments.
        words: Vec<Arc<str>>,
        /// The command ends with the gateway. Default false.
        stop_with_gateway: bool,
    },
    /// A POST of JSON.
    Webhook(Arc<WebhookTarget>),
}

/// An `evenkeel agent` that only watches: a gateway, or a node that ends its trunk itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchingAgent {
    /// The agent's `listen`.
    pub address: SocketAddr,
    /// Shared with the agent.
    pub secret: SecretFile,
}

pub(super) fn check(
    raw: &Spanned<NodeEntry>,
    drivers: &[&dyn DriverKind],
    check: &mut ConfigCheck,
) -> Option<NodeConfig> {
    let raw = raw.get_ref();
    let name = check.name(&raw.name);
    let region = check.name(&raw.region);
    let zone = check.name(&raw.zone);
    let carrier = raw.carrier.as_ref().map(|name| listen::carrier(name, check));
    let capacity = check.bit_rate(&raw.capacity);
    let Some(kind) = raw.kind(drivers) else {
        let known = drivers.iter().map(|kind| kind.name());
        let expected = format!("one of {}", quoted(known.clone()));
        check.refuse_text(&raw.driver, expected).help = nearest(raw.driver.get_ref(), known);
        return None;
    };
    misplaced(raw, kind, drivers, check);
    let address = address(raw, kind, check);
    let driver = kind.read(&mut DriverKeys {
        driver: &raw.driver,
        keys: &raw.keys,
        address,
        secret_file: raw.secret_file.as_ref(),
        srtp: raw.srtp.as_ref(),
        check,
    });
    let agent = agent(raw, kind, driver.as_ref(), check);
    let canary = canary(raw, kind, drivers, check);
    let srtp = srtp(raw.srtp.as_ref(), kind, drivers, check);
    let probe = driver.as_ref().map(|driver| driver.probe);
    let start = raw.start.as_ref().and_then(|start| self::start(start, probe, check));
    Some(NodeConfig {
        carrier,
        canary,
        standby: raw.standby,
        keeps_ssrc: raw.keeps_ssrc.unwrap_or_else(|| kind.keeps_ssrc()),
        start,
        agent,
        srtp,
        ..NodeConfig::new(name, address?, region, zone, driver?, capacity?)
    })
}

/// The address of the node; each driver has its own key for it.
fn address(raw: &NodeEntry, kind: &dyn DriverKind, check: &mut ConfigCheck) -> Option<SocketAddr> {
    let (key, example) = kind.address_key();
    let Some(given) = raw.keys.get(key) else {
        let found = format!("driver `{}` without `{key}`", kind.name());
        let expected = format!("`{key} = \"{example}\"`");
        check.refuse(raw.driver.span(), found, expected);
        return None;
    };
    reachable(&driver::read(given, check)?, example, check)
}

/// A unicast address and port.
pub(super) fn reachable(
    raw: &Spanned<String>,
    example: &str,
    check: &mut ConfigCheck,
) -> Option<SocketAddr> {
    let expected = format!("an address and port such as `{example}`");
    let address: SocketAddr = check.address(raw, &expected)?;
    if let Err(reason) = address::check(address) {
        let found = format!("`{address}`, {reason}");
        let invalid = check.refuse(raw.span(), found, ADDRESS_AND_PORT);
        invalid.help = (reason == InvalidHostAddress::NoScope).then(|| {
            "a link-local address needs the index of an interface: `[fe80::1%2]:4000`".to_owned()
        });
    }
    Some(address)
}

fn agent(
    raw: &NodeEntry,
    kind: &dyn DriverKind,
    driver: Option<&DriverSettings>,
    check: &mut ConfigCheck,
) -> Option<WatchingAgent> {
    let at = raw.agent.as_ref()?;
    if raw.text("address").is_some_and(|address| *address.get_ref() == at.get_ref()) {
        let found = format!("`{}`, the address of the node", at.get_ref());
        check.refuse(at.span(), found, "the agent's own address").help = Some(
            "if the agent ends the trunk of the node, use driver `agent` without the key `agent`"
                .to_owned(),
        );
    }
    let address = reachable(at, "10.0.1.11:4001", check);
    let secret = match (driver.map(|driver| &driver.signalling), &raw.secret_file) {
        (Some(Signalling::Trunk { secret, .. }), _) => Some(secret.clone()),
        // The missing secret was reported already.
        (_, _) if takes(kind, "secret_file") => None,
        (_, Some(path)) => check.secret(path),
        (_, None) => {
            let expected = "`secret_file`, the file of the secret shared with the agent";
            check.refuse(at.span(), "`agent` without `secret_file`", expected);
            None
        }
    };
    Some(WatchingAgent { address: address?, secret: secret? })
}

/// Canary sessions need a driver that can open them.
fn canary(
    raw: &NodeEntry,
    kind: &dyn DriverKind,
    drivers: &[&dyn DriverKind],
    check: &mut ConfigCheck,
) -> bool {
    let opens = takes(kind, "canary");
    if let Some(canary) = raw.canary.as_ref().filter(|_| !opens) {
        let able = quoted(drivers_with(drivers, "canary"));
        let expected = format!("`canary` with driver {able} only, which can open sessions");
        check.refuse(canary.span(), format!("`canary` without driver {able}"), expected);
    }
    raw.canary.as_ref().map_or(opens, |canary| *canary.get_ref())
}

fn takes(kind: &dyn DriverKind, key: &str) -> bool {
    kind.keys().iter().any(|known| known.name == key)
}

/// The names of the drivers that take this key.
fn drivers_with<'a>(drivers: &[&'a dyn DriverKind], key: &str) -> impl Iterator<Item = &'a str> {
    drivers.iter().filter(move |kind| takes(**kind, key)).map(|kind| kind.name())
}

/// Checks the key of a node with this driver.
fn srtp(
    raw: Option<&Spanned<NodeSrtp>>,
    kind: &dyn DriverKind,
    drivers: &[&dyn DriverKind],
    check: &mut ConfigCheck,
) -> NodeSrtp {
    let Some(raw) = raw else { return NodeSrtp::Off };
    let srtp = *raw.get_ref();
    if srtp == NodeSrtp::Sdes && !kind.agrees_on_keys() {
        let found = format!("`srtp = \"sdes\"` with driver `{}`", kind.name());
        let able = drivers.iter().filter(|kind| kind.agrees_on_keys()).map(|kind| kind.name());
        let able = quoted(able);
        let expected = format!("`srtp = \"sdes\"` with driver {able} only, which agrees on keys");
        let help = kind.instead_of("srtp").map(str::to_owned);
        check.refuse(raw.span(), found, expected).help = help;
    }
    srtp
}

/// Refuses keys of other drivers.
fn misplaced(
    raw: &NodeEntry,
    kind: &dyn DriverKind,
    drivers: &[&dyn DriverKind],
    check: &mut ConfigCheck,
) {
    // An option of another driver that is off does no harm.
    let given = raw.keys.iter().filter(|(_, value)| *value.get_ref() != Value::Boolean(false));
    let given = given.map(|(key, value)| (key.get_ref().as_str(), value.span()));
    // The agent beside the node also uses the secret.
    let secret = raw.secret_file.as_ref().filter(|_| raw.agent.is_none());
    let secret = secret.map(|path| ("secret_file", path.span()));
    for (key, place) in given.chain(secret).filter(|(key, _)| !takes(kind, key)) {
        let found = format!("`{key}` with driver `{}`", kind.name());
        let expected = format!("`{key}` with driver {} only", quoted(drivers_with(drivers, key)));
        let mut owners = drivers.iter().flat_map(|kind| kind.keys());
        let only = || owners.find(|known| known.name == key)?.only;
        let help = kind.instead_of(key).or_else(only);
        check.refuse(place, found, expected).help = help.map(str::to_owned);
    }
}

fn start(
    raw: &Spanned<StartTable>,
    probe: Option<NodeProbe>,
    check: &mut ConfigCheck,
) -> Option<StartHook> {
    if probe == Some(NodeProbe::None) {
        let found = "`start` with `probe = \"none\"`";
        let expected = "another `probe`: its answer shows that the node runs";
        check.refuse(raw.span(), found, expected);
    }
    let bounds = Duration::from_millis(100)..=Duration::from_secs(600);
    let within = check.duration(&raw.get_ref().timeout, Duration::from_secs(30), bounds);
    let by = start_by(raw, check)?;
    let StartTable { stop, stop_after, replace_after, cost_per_hour, .. } = raw.get_ref();
    let day = Duration::from_secs(24 * 3_600);
    let mut delay = |raw: &Option<Spanned<DurationText>>, least: Duration| {
        raw.as_ref().map(|_| check.duration(raw, least, least..=day))
    };
    let stop_after = delay(stop_after, Duration::from_secs(60));
    let replace_after = delay(replace_after, Duration::from_secs(1));
    let provider = match &by {
        StartBy::Command { words, .. } => Box::from(&*words[0]),
        StartBy::Webhook(hook) => Box::from(hook.url.host()),
    };
    let cost_milli = check.cost(cost_per_hour).unwrap_or_default();
    let stop = match stop {
        Some(command) => Some(words(command, check)?),
        None => None,
    };
    let terms = HookTerms { provider, cost_milli, stop_after, replace_after };
    Some(StartHook { by, within, stop, terms })
}

/// A program and its arguments.
fn words(
    command: &Spanned<Vec<Spanned<String>>>,
    check: &mut ConfigCheck,
) -> Option<Vec<Arc<str>>> {
    let words = command.get_ref();
    if words.first().is_none_or(|program| program.get_ref().is_empty()) {
        let expected =
            "a program and its arguments: `[\"/usr/bin/media-server\", \"--port\", \"4000\"]`";
        check.refuse(command.span(), "a command without a program", expected);
        return None;
    }
    Some(words.iter().map(|word| word.get_ref().as_str().into()).collect())
}

fn start_by(raw: &Spanned<StartTable>, check: &mut ConfigCheck) -> Option<StartBy> {
    let start = raw.get_ref();
    match (&start.command, &start.webhook) {
        (Some(command), None) => {
            if let Some(token) = &start.token_file {
                let expected = "`token_file` with `webhook` only";
                check.refuse(token.span(), "`token_file` with `command`", expected);
            }
            let words = words(command, check)?;
            let stops = start.stop_with_gateway.as_ref().is_some_and(|stops| *stops.get_ref());
            Some(StartBy::Command { words, stop_with_gateway: stops })
        }
        (None, Some(url)) => {
            if let Some(stops) = &start.stop_with_gateway {
                let expected =
                    "`stop_with_gateway` with `command` only: the gateway can end what it started";
                check.refuse(stops.span(), "`stop_with_gateway` with `webhook`", expected);
            }
            let expected = "a URL such as `http://10.0.1.11:8080/start`";
            let hook = hook_at(url, start.token_file.as_ref(), expected, check)?;
            Some(StartBy::Webhook(Arc::new(hook)))
        }
        (given, _) => {
            let found = match given {
                Some(_) => "`command` and `webhook`",
                None => "neither `command` nor `webhook`",
            };
            check.refuse(raw.span(), found, "one of them");
            None
        }
    }
}

/// Refuses names and addresses that two nodes share.
pub(super) fn duplicates(
    raw: &[Spanned<NodeEntry>],
    drivers: &[&dyn DriverKind],
    check: &mut ConfigCheck,
) {
    let (mut names, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for node in raw {
        let node = node.get_ref();
        let address = node.kind(drivers).and_then(|kind| node.text(kind.address_key().0));
        let at = address.map(|address| {
            let canonical = canonical(address.get_ref());
            (address, canonical)
        });
        let name = Spanned::new(node.name.span(), node.name.get_ref().as_str());
        let name = Some((name, node.name.get_ref().clone()));
        for (what, value, seen) in [("name", name, &mut names), ("address", at, &mut addresses)] {
            let Some((value, canonical)) = value else { continue };
            if let Some(first) = seen.insert(canonical, value.span()) {
                let help = format!("the first is at {}", check.place(&first));
                let found = format!("`{}` a second time", value.get_ref());
                check.refuse(value.span(), found, format!("a unique {what}")).help = Some(help);
            }
        }
    }
}

/// Refuses secrets that nodes share if the gateway may break nodes: the holder of one node's secret could break all.
pub(super) fn shared_secrets(
    raw: &[Spanned<NodeEntry>],
    nodes: &[NodeConfig],
    drills: bool,
    check: &mut ConfigCheck,
) {
    for (first, node) in sharing(nodes).filter(|_| drills) {
        let named = raw.iter().map(Spanned::get_ref).find(|raw| *raw.name.get_ref() == *node.name);
        let Some(file) = named.and_then(|raw| raw.secret_file.as_ref()) else { continue };
        let found = format!("`{}`, the secret of node `{first}`", file.get_ref());
        let expected = "a secret of its own, because `drills = true` lets its holder break nodes";
        check.refuse(file.span(), found, expected).help =
            Some(format!("create one: `(umask 077; openssl rand -hex 32 > {}.secret)`", node.name));
    }
}

/// A warning if nodes share a secret.
pub(super) fn note(nodes: &[NodeConfig]) -> Option<String> {
    let names = |(first, node): (&str, &NodeConfig)| format!("{first} and {}", node.name);
    let shared: Vec<String> = sharing(nodes).map(names).collect();
    (!shared.is_empty()).then(|| {
        format!(
            "nodes share a secret: {}; a host that knows it can pose as the gateway at each of them: \
             give each node a `secret_file` of its own",
            shared.join(", ")
        )
    })
}

/// Nodes with the secret of an earlier node, and the name of that one.
fn sharing(nodes: &[NodeConfig]) -> impl Iterator<Item = (&str, &NodeConfig)> {
    nodes.iter().enumerate().filter_map(|(place, node)| {
        let secret = node.secret()?;
        let first = nodes[..place].iter().find(|first| first.secret() == Some(secret))?;
        Some((&*first.name, node))
    })
}

fn canonical(address: &str) -> String {
    let parsed = address.parse().map(|mut address: SocketAddr| {
        address.set_ip(address.ip().to_canonical());
        address.to_string()
    });
    parsed.unwrap_or_else(|_| address.to_owned())
}
