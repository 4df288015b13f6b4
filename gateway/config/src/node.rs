//! `[[node]]`.

mod srtp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{HookTerms, NodeProbing, NodeSettings, RegionRole, Starts, ZoneId};
use evenkeel_process::setting_text::{BitRateText, DurationText};
use serde::Deserialize;
pub use srtp::NodeSrtp;
use toml::Spanned;

use super::address::{self, ADDRESS_AND_PORT, NotOneHost, Url};
use super::check::{ConfigBitRate, ConfigCheck, SecretFile, quoted};
use super::listen;

/// The board is an array with one cell per node.
pub const NODES_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct NodeEntry {
    name: Spanned<String>,
    address: Option<Spanned<String>>,
    pub(super) region: Spanned<String>,
    zone: Spanned<String>,
    carrier: Option<Spanned<String>>,
    driver: Spanned<DriverKind>,
    capacity: Spanned<BitRateText>,
    secret_file: Option<Spanned<String>>,
    probe: Option<Spanned<ProbeKind>>,
    #[serde(default)]
    standby: bool,
    start: Option<Spanned<StartTable>>,
    ng: Option<Spanned<String>>,
    webhook: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    agent: Option<Spanned<String>>,
    canary: Option<Spanned<bool>>,
    encrypt: Option<Spanned<bool>>,
    srtp: Option<Spanned<NodeSrtp>>,
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
    /// Canary sessions check that the node forwards. Default: true with driver `agent`.
    pub canary: bool,
    /// The node takes no first hop of hot and hitless scenarios while other nodes can. Default false.
    pub standby: bool,
    /// Starts the node when rooms of cold scenarios need it.
    pub start: Option<StartHook>,
    /// The agent beside the node, unless the node is reached through that agent.
    pub agent: Option<WatchingAgent>,
    /// SRTP of legs to the node. Default off.
    pub srtp: NodeSrtp,
}

impl NodeConfig {
    /// The address and the secret of the node's agent, or of the agent beside it.
    pub fn voter(&self) -> Option<(SocketAddr, &SecretFile)> {
        let address = match self.driver {
            DriverSettings::Agent { .. } => self.address,
            _ => self.agent.as_ref()?.address,
        };
        Some((address, self.secret()?))
    }

    /// Returns true if each session has ports of its own towards the node.
    pub fn has_port_legs(&self) -> bool {
        !matches!(self.driver, DriverSettings::Agent { .. })
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
        match self.driver {
            DriverSettings::Plain { probe: ProbeKind::None }
            | DriverSettings::Webhook { probe: ProbeKind::None, .. } => NodeProbing::No,
            _ => NodeProbing::Yes,
        }
    }

    /// The secret shared with the node, or with the agent beside it.
    pub(super) fn secret(&self) -> Option<&SecretFile> {
        match &self.driver {
            DriverSettings::Agent { secret, .. } => Some(secret),
            _ => self.agent.as_ref().map(|agent| &agent.secret),
        }
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

/// The protocol by which sessions are opened at a node.
#[derive(Clone, PartialEq, Debug)]
pub enum DriverSettings {
    /// No signalling: any media server; sessions are separated by address.
    Plain {
        /// Default `stun`.
        probe: ProbeKind,
    },
    /// Authenticated datagrams, to `evenkeel agent` or `evenkeel sample-node`.
    Agent {
        /// Shared with the node.
        secret: SecretFile,
        /// The trunk is encrypted. Default false.
        encrypt: bool,
    },
    /// rtpengine's NG protocol: rooms of two sessions, each on ports that rtpengine chooses.
    Rtpengine,
    /// POSTs of JSON: the media server answers with the address of a session.
    Webhook {
        /// The target of announcements of sessions.
        hook: Arc<WebhookTarget>,
        /// Default `stun`.
        probe: ProbeKind,
    },
}

impl DriverSettings {
    /// The number of sessions of a room that the node joins; `None`: any.
    pub fn sessions_per_room(&self) -> Option<usize> {
        (*self == DriverSettings::Rtpengine).then_some(2)
    }
}

/// The target of a node's webhooks.
#[derive(Clone, PartialEq, Debug)]
pub struct WebhookTarget {
    /// `http` or `https`.
    pub url: Url,
    /// Bearer token for the `Authorization` header.
    pub token: Option<SecretFile>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DriverKind {
    Plain,
    Agent,
    Rtpengine,
    Webhook,
}

impl DriverKind {
    fn name(self) -> &'static str {
        match self {
            DriverKind::Plain => "plain",
            DriverKind::Agent => "agent",
            DriverKind::Rtpengine => "rtpengine",
            DriverKind::Webhook => "webhook",
        }
    }
}

/// The probe of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// A STUN binding request (RFC 8489).
    Stun,
    /// A datagram that is returned unchanged.
    Echo,
    /// No probe: only kernel errors and silence show that the node is down.
    None,
}

pub(super) fn check(raw: &Spanned<NodeEntry>, check: &mut ConfigCheck) -> Option<NodeConfig> {
    let raw = raw.get_ref();
    let name = check.name(&raw.name);
    let region = check.name(&raw.region);
    let zone = check.name(&raw.zone);
    let carrier = raw.carrier.as_ref().map(|name| listen::carrier(name, check));
    let capacity = check.bit_rate(&raw.capacity);
    let driver = driver(raw, check);
    let address = address(raw, check);
    let agent = agent(raw, driver.as_ref(), check);
    let canary = canary(raw, check);
    let kind = *raw.driver.get_ref();
    let negotiates = kind == DriverKind::Rtpengine;
    let srtp = srtp::check(raw.srtp.as_ref(), kind.name(), negotiates, address, check);
    let start = raw.start.as_ref().and_then(|start| self::start(start, raw, check));
    Some(NodeConfig {
        name,
        address: address?,
        region,
        zone,
        carrier,
        driver: driver?,
        capacity: capacity?,
        canary,
        standby: raw.standby,
        start,
        agent,
        srtp,
    })
}

/// The address of the node; each driver has its own key for it.
fn address(raw: &NodeEntry, check: &mut ConfigCheck) -> Option<SocketAddr> {
    let kind = *raw.driver.get_ref();
    let (key, given, example) = match kind {
        DriverKind::Plain | DriverKind::Agent | DriverKind::Webhook => {
            ("address", &raw.address, "10.0.1.11:4000")
        }
        DriverKind::Rtpengine => ("ng", &raw.ng, "10.0.1.11:2223"),
    };
    let Some(given) = given else {
        let found = format!("driver `{}` without `{key}`", kind.name());
        let expected = format!("`{key} = \"{example}\"`");
        check.refuse(raw.driver.span(), found, expected);
        return None;
    };
    reachable(given, example, check)
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
        invalid.help = (reason == NotOneHost::NoScope).then(|| {
            "a link-local address needs the index of an interface: `[fe80::1%2]:4000`".to_owned()
        });
    }
    Some(address)
}

fn agent(
    raw: &NodeEntry,
    driver: Option<&DriverSettings>,
    check: &mut ConfigCheck,
) -> Option<WatchingAgent> {
    let at = raw.agent.as_ref()?;
    if raw.address.as_ref().is_some_and(|address| address.get_ref() == at.get_ref()) {
        let found = format!("`{}`, the address of the node", at.get_ref());
        check.refuse(at.span(), found, "the agent's own address").help = Some(
            "if the agent ends the trunk of the node, use driver `agent` without the key `agent`"
                .to_owned(),
        );
    }
    let address = reachable(at, "10.0.1.11:4001", check);
    let secret = match (driver, &raw.secret_file) {
        (Some(DriverSettings::Agent { secret, .. }), _) => Some(secret.clone()),
        // The missing secret was reported already.
        (_, _) if *raw.driver.get_ref() == DriverKind::Agent => None,
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
fn canary(raw: &NodeEntry, check: &mut ConfigCheck) -> bool {
    let opens = *raw.driver.get_ref() == DriverKind::Agent;
    if let Some(canary) = raw.canary.as_ref().filter(|_| !opens) {
        let expected = "`canary` with driver `agent` only, which can open sessions";
        check.refuse(canary.span(), "`canary` without driver `agent`", expected);
    }
    raw.canary.as_ref().map_or(opens, |canary| *canary.get_ref())
}

fn driver(raw: &NodeEntry, check: &mut ConfigCheck) -> Option<DriverSettings> {
    let kind = *raw.driver.get_ref();
    misplaced(raw, kind, check);
    let probe = raw.probe.as_ref().map_or(ProbeKind::Stun, |probe| *probe.get_ref());
    match kind {
        DriverKind::Plain => Some(DriverSettings::Plain { probe }),
        DriverKind::Agent => {
            let Some(path) = &raw.secret_file else {
                let found = "driver `agent` without `secret_file`";
                let expected = "`secret_file`, the file of the secret shared with the agent";
                check.refuse(raw.driver.span(), found, expected);
                return None;
            };
            let encrypt = raw.encrypt.as_ref().is_some_and(|encrypt| *encrypt.get_ref());
            Some(DriverSettings::Agent { secret: check.secret(path)?, encrypt })
        }
        DriverKind::Rtpengine => Some(DriverSettings::Rtpengine),
        DriverKind::Webhook => {
            Some(DriverSettings::Webhook { hook: Arc::new(hook(raw, check)?), probe })
        }
    }
}

/// The webhook that opens sessions.
fn hook(raw: &NodeEntry, check: &mut ConfigCheck) -> Option<WebhookTarget> {
    let expected = "a URL such as `http://10.0.1.11:8080/sessions`";
    let Some(url) = &raw.webhook else {
        check.refuse(raw.driver.span(), "driver `webhook` without `webhook`", expected);
        return None;
    };
    hook_at(url, raw.token_file.as_ref(), expected, check)
}

pub(super) fn hook_at(
    url: &Spanned<String>,
    token_file: Option<&Spanned<String>>,
    expected: &str,
    check: &mut ConfigCheck,
) -> Option<WebhookTarget> {
    let token = token_file.map(|path| check.secret(path));
    let (span, url): (_, Url) = (url.span(), check.parse(url, expected)?);
    if token.is_some() && url.crosses_in_clear_text() {
        let found = format!("`{url}`, to which `token_file` is sent in clear text");
        check.warn(span, found, "an `https` URL");
    }
    match token {
        Some(None) => None,
        token => Some(WebhookTarget { url, token: token.flatten() }),
    }
}

/// Refuses keys of other drivers.
fn misplaced(raw: &NodeEntry, kind: DriverKind, check: &mut ConfigCheck) {
    use DriverKind::{Agent, Plain, Rtpengine, Webhook};
    let span = |text: &Option<Spanned<String>>| text.as_ref().map(Spanned::span);
    let probe = raw.probe.as_ref().map(Spanned::span);
    // The agent beside the node also uses the secret.
    let secret = span(&raw.secret_file).filter(|_| raw.agent.is_none());
    let address = span(&raw.address);
    let encrypt = raw.encrypt.as_ref().filter(|encrypt| *encrypt.get_ref()).map(Spanned::span);
    let keys: [(&str, _, &[DriverKind], _); 7] = [
        ("address", address, &[Plain, Agent, Webhook], "its address is the key `ng`"),
        ("secret_file", secret, &[Agent], "or beside `agent`"),
        ("encrypt", encrypt, &[Agent], "only trunk legs can be encrypted"),
        ("probe", probe, &[Plain, Webhook], probed(kind)),
        ("ng", span(&raw.ng), &[Rtpengine], ""),
        ("webhook", span(&raw.webhook), &[Webhook], ""),
        ("token_file", span(&raw.token_file), &[Webhook], ""),
    ];
    for (key, given, takes, help) in keys {
        let Some(given) = given.filter(|_| !takes.contains(&kind)) else {
            continue;
        };
        let found = format!("`{key}` with driver `{}`", kind.name());
        let of = quoted(takes.iter().map(|kind| kind.name()));
        let expected = format!("`{key}` with driver {of} only");
        let invalid = check.refuse(given, found, expected);
        invalid.help = (!help.is_empty()).then(|| help.to_owned());
    }
}

fn probed(kind: DriverKind) -> &'static str {
    match kind {
        DriverKind::Plain | DriverKind::Webhook => "",
        DriverKind::Agent => "an agent is always probed, by signed datagrams",
        DriverKind::Rtpengine => "rtpengine is always probed, by pings of its NG protocol",
    }
}

fn start(
    raw: &Spanned<StartTable>,
    node: &NodeEntry,
    check: &mut ConfigCheck,
) -> Option<StartHook> {
    if node.probe.as_ref().is_some_and(|probe| *probe.get_ref() == ProbeKind::None) {
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
pub(super) fn duplicates(raw: &[Spanned<NodeEntry>], check: &mut ConfigCheck) {
    let (mut names, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for node in raw {
        let node = node.get_ref();
        let address = node.address.as_ref().or(node.ng.as_ref());
        let at = address.map(|address| (address, canonical(address.get_ref())));
        let name = Some((&node.name, node.name.get_ref().clone()));
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
