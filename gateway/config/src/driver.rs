//! The keys of drivers, as the configuration reads them. The drivers are in `evenkeel-drivers`, which is above this crate: their table is
//! an argument of [`GatewayConfig::load`](crate::GatewayConfig::load).

#[cfg(test)]
pub(crate) mod samples;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use evenkeel_host::nearest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Spanned, Table, Value};

use super::check::{ConfigCheck, ConfigSource, InvalidSetting, SecretFile, from_parser_at, quoted};
use super::node::NodeSrtp;
use super::webhook::{WebhookTarget, hook_at};

/// A driver, as `[[node]]` names it.
pub trait DriverKind: Sync {
    /// The value of the key `driver`.
    fn name(&self) -> &'static str;

    /// The keys that it takes beside those of every node.
    fn keys(&self) -> &'static [DriverKey];

    /// The key of the node's address, and an example.
    fn address_key(&self) -> (&'static str, &'static str) {
        ("address", "10.0.1.11:4000")
    }

    /// The advice to a user who gives this key, which the driver does not take.
    fn instead_of(&self, _key: &str) -> Option<&'static str> {
        None
    }

    /// Its nodes send streams on with the SSRCs and sequence numbers of their senders: the default of `keeps_ssrc`.
    fn keeps_ssrc(&self) -> bool {
        false
    }

    /// It agrees with nodes on keys of SRTP.
    fn agrees_on_keys(&self) -> bool {
        false
    }

    /// Reads its keys of a node. `None` if one is refused.
    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings>;
}

/// A key of `[[node]]` for some drivers only.
#[derive(Clone, Copy, Debug)]
pub struct DriverKey {
    pub(super) name: &'static str,
    /// Why other drivers do not take it.
    pub(super) only: Option<&'static str>,
}

impl DriverKey {
    /// The key of this name.
    pub const fn new(name: &'static str) -> DriverKey {
        DriverKey { name, only: None }
    }

    /// The key of this name, and why other drivers do not take it.
    pub const fn only(name: &'static str, only: &'static str) -> DriverKey {
        DriverKey { name, only: Some(only) }
    }
}

/// How sessions are opened at a node, as its driver read it.
#[derive(Clone, PartialEq, Debug)]
pub struct DriverSettings {
    /// The value of the key `driver`.
    pub name: &'static str,
    /// How the node is probed.
    pub probe: NodeProbe,
    /// How the driver reaches the node.
    pub signalling: Signalling,
    /// The number of sessions of a room that the node joins; `None`: any.
    pub sessions_per_room: Option<usize>,
    /// Why nodes of the driver do not forward to each other, which the affinity `session` needs.
    pub unmeshed: Option<&'static str>,
    /// Keys of the driver with their values, written or not, as the effective configuration shows them. It has no secrets.
    pub keys: Table,
    /// Values of keys on which open sessions depend. With others a node is another one to the next process.
    pub session_facts: String,
}

impl DriverSettings {
    /// Settings of a driver for rooms of any number of sessions, without keys to show.
    pub fn new(name: &'static str, probe: NodeProbe, signalling: Signalling) -> DriverSettings {
        DriverSettings {
            name,
            probe,
            signalling,
            sessions_per_room: None,
            unmeshed: None,
            keys: Table::new(),
            session_facts: String::new(),
        }
    }

    /// Shows a key with its value.
    pub fn showing(mut self, key: &str, value: impl Into<Value>) -> DriverSettings {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    /// The facts on which sessions at the node depend. They contain its secret.
    pub fn facts(&self) -> Vec<u8> {
        let mut facts = match &self.signalling {
            Signalling::None | Signalling::Datagrams => Vec::new(),
            Signalling::Trunk { secret, encrypt } => {
                [secret.bytes(), &[u8::from(*encrypt)]].concat()
            }
            Signalling::Posts(hook) => hook.url.to_string().into_bytes(),
        };
        facts.extend_from_slice(self.session_facts.as_bytes());
        facts
    }
}

/// How a driver reaches a node.
#[derive(Clone, PartialEq, Debug)]
pub enum Signalling {
    /// Not at all: sessions are separated by the source of their packets.
    None,
    /// By signed messages on the node's trunk, which carries the packets of all sessions.
    Trunk {
        /// Shared with the node.
        secret: SecretFile,
        /// The trunk is encrypted.
        encrypt: bool,
    },
    /// By datagrams to the node's address.
    Datagrams,
    /// By POSTs of JSON.
    Posts(Arc<WebhookTarget>),
}

impl Signalling {
    /// The target of POSTs.
    pub fn hook(&self) -> Option<&Arc<WebhookTarget>> {
        match self {
            Signalling::Posts(hook) => Some(hook),
            Signalling::None | Signalling::Trunk { .. } | Signalling::Datagrams => None,
        }
    }

    /// Messages to the node describe sessions.
    pub fn describes_sessions(&self) -> bool {
        matches!(self, Signalling::Datagrams | Signalling::Posts(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeProbe {
    /// No probe: only kernel errors and silence show that the node is down.
    None,
    /// A STUN binding request (RFC 8489).
    Stun,
    /// A datagram that is returned unchanged.
    Echo,
    /// A ping of the NG protocol.
    Ping,
    /// A signed message on the trunk.
    Signed,
}

impl NodeProbe {
    /// The value of the key `probe`, for the probes that it names.
    pub fn name(self) -> &'static str {
        match self {
            NodeProbe::None => "none",
            NodeProbe::Stun => "stun",
            NodeProbe::Echo => "echo",
            NodeProbe::Ping => "ping",
            NodeProbe::Signed => "signed",
        }
    }
}

/// The values of the key `probe`.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeKey {
    Stun,
    Echo,
    None,
}

/// The keys of one `[[node]]` that only some drivers take.
pub(super) type NodeKeys = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The keys of one `[[node]]`, which its driver reads.
pub struct DriverKeys<'a> {
    pub(super) driver: &'a Spanned<String>,
    pub(super) keys: &'a NodeKeys,
    pub(super) address: Option<SocketAddr>,
    pub(super) secret_file: Option<&'a Spanned<String>>,
    pub(super) srtp: Option<&'a Spanned<NodeSrtp>>,
    pub(super) check: &'a mut ConfigCheck,
}

impl DriverKeys<'_> {
    /// The value of a key. A value of another type is refused.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str) -> Option<Spanned<T>> {
        self.keys.get(key).and_then(|value| read(value, self.check))
    }

    /// The value of a key that the driver requires.
    pub fn require<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Option<Spanned<T>> {
        if !self.keys.contains_key(key) {
            self.refuse_missing(key, expected);
        }
        self.get(key)
    }

    /// The node's address, unless it was refused.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The key `srtp`.
    pub fn srtp(&self) -> Option<&Spanned<NodeSrtp>> {
        self.srtp
    }

    /// The key `probe`; by default `stun`.
    pub fn probe(&mut self) -> NodeProbe {
        match self.get("probe").map_or(ProbeKey::Stun, Spanned::into_inner) {
            ProbeKey::Stun => NodeProbe::Stun,
            ProbeKey::Echo => NodeProbe::Echo,
            ProbeKey::None => NodeProbe::None,
        }
    }

    /// The secret in the file that `secret_file` names, which the driver requires.
    pub fn secret(&mut self) -> Option<SecretFile> {
        let Some(path) = self.secret_file else {
            self.refuse_missing(
                "secret_file",
                "`secret_file`, the file of the secret shared with the agent",
            );
            return None;
        };
        self.check.secret(path)
    }

    /// The target of POSTs that this key names, which the driver requires, with the token in `token_file`.
    pub fn hook(&mut self, key: &str, expected: &str) -> Option<WebhookTarget> {
        let (url, token_file) = (self.require(key, expected)?, self.get("token_file"));
        hook_at(&url, token_file.as_ref(), expected, self.check)
    }

    fn refuse_missing(&mut self, key: &str, expected: &str) {
        let found = format!("driver `{}` without `{key}`", self.driver.get_ref());
        self.check.refuse(self.driver.span(), found, expected);
    }

    /// Refuses a value.
    pub fn refuse(&mut self, place: Range<usize>, found: &str, expected: &str, help: Option<&str>) {
        self.check.refuse(place, found, expected).help = help.map(str::to_owned);
    }
}

/// A value of this type, or an error.
pub(super) fn read<T: DeserializeOwned>(
    value: &Spanned<Value>,
    check: &mut ConfigCheck,
) -> Option<Spanned<T>> {
    let span = value.span();
    match value.get_ref().clone().try_into() {
        Ok(read) => Some(Spanned::new(span, read)),
        Err(error) => {
            let error: toml::de::Error = error;
            check.invalid.push(from_parser_at(&check.source, span, error.message()));
            None
        }
    }
}

/// Keys that every node has.
const NODE_KEYS: [&str; 13] = [
    "name",
    "region",
    "zone",
    "carrier",
    "driver",
    "capacity",
    "standby",
    "keeps_ssrc",
    "start",
    "agent",
    "secret_file",
    "canary",
    "srtp",
];

#[derive(Deserialize)]
struct NodeTables {
    #[serde(default)]
    node: Vec<NodeKeys>,
}

/// For each `[[node]]` of the file the keys that only some drivers take. Refuses a key that neither all nodes nor any driver
/// take. If the file cannot be parsed, there are none.
pub(super) fn keys(
    source: &Arc<ConfigSource>,
    drivers: &[&dyn DriverKind],
) -> Result<Vec<NodeKeys>, Box<InvalidSetting>> {
    let Ok(NodeTables { mut node }) = toml::from_str(source.inner()) else { return Ok(Vec::new()) };
    let of_drivers = drivers.iter().flat_map(|driver| driver.keys());
    let mut known = NODE_KEYS.to_vec();
    for key in of_drivers {
        if !known.contains(&key.name) {
            known.push(key.name);
        }
    }
    let keys = node.iter().flat_map(BTreeMap::keys);
    let unknown = keys.filter(|key| !known.contains(&key.get_ref().as_str()));
    if let Some(first) = unknown.min_by_key(|key| key.span().start) {
        let found = format!("unknown key `{}`", first.get_ref());
        let expected = format!("one of {}", quoted(known.iter().copied()));
        let mut invalid = InvalidSetting::at(source, first.span(), found, expected);
        invalid.help = nearest(first.get_ref(), known);
        return Err(Box::new(invalid));
    }
    for keys in &mut node {
        keys.retain(|key, _| !NODE_KEYS.contains(&key.get_ref().as_str()));
    }
    Ok(node)
}
