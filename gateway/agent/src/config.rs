//! `agent.toml`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_media::trunk::message::{NodeSecret, TooShort};
use serde::Deserialize;

use crate::check::CheckKind;
use crate::process::ProcessSource;

mod raw;

/// Default of `sessions`.
const SESSIONS: u32 = 1_000;
/// Upper bound of `sessions`: no process can open more sockets.
const SESSIONS_MAX: u32 = 100_000;
const WITHIN: Duration = Duration::from_secs(1);
const CHECK_EVERY: Duration = Duration::from_millis(10);
const GATEWAY_EVERY: Duration = Duration::from_millis(5);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const DRILL_TIMEOUT: Duration = Duration::from_secs(300);

/// The checked configuration of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address for gateways' probes and for trunk legs.
    pub(crate) listen: SocketAddr,
    /// Keys of this node, from its name and the secret shared with the gateways.
    pub(crate) secret: NodeSecret,
    /// True if drills may break the server.
    pub(crate) drills: bool,
    /// Time after which a cut link or stopped process recovers, because its drill may have died. Default 300 s.
    pub(crate) drill_timeout: Duration,
    /// Maximum time after SIGTERM for sessions to leave. Default 30 s.
    pub(crate) drain_timeout: Duration,
    /// The server's process to watch.
    pub(crate) process: Option<ProcessSource>,
    /// True if the process starts only when a gateway requests it.
    pub(crate) cold: bool,
    /// Command that starts a server which is not the agent's own process.
    pub(crate) start: Option<Vec<String>>,
    pub(crate) check: Option<CheckConfig>,
    /// The gateway to watch, alone: without a server.
    pub(crate) gateway: Option<GatewayConfigEntry>,
    /// The server behind the trunk legs; `None` if it terminates trunks itself.
    pub(crate) media: Option<MediaConfig>,
    pub(crate) load: LoadConfig,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CheckConfig {
    pub(crate) address: SocketAddr,
    pub(crate) how: CheckKind,
    /// Interval of checks. Default 10 ms; after three consecutive misses the port is silent.
    pub(crate) every: Duration,
}

/// A gateway of a group on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GatewayConfigEntry {
    /// `listen` of its `[cluster]`.
    pub(crate) address: SocketAddr,
    /// `address` of its `[cluster.peer]`.
    pub(crate) peer: SocketAddr,
    /// Interval of looks at its port. Default 5 ms.
    pub(crate) every: Duration,
}

/// The server behind the trunk legs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MediaConfig {
    pub(crate) server: Server,
    pub(crate) rtcp: RtcpConfig,
    /// Limit of concurrent sessions. Default 1,000.
    pub(crate) sessions: u32,
    /// True if trunk legs are encrypted.
    pub(crate) encrypt: bool,
}

/// Destination of a session's packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Server {
    /// All sessions use one address, each from a separate local port.
    Static(SocketAddr),
    /// A command prints the address for each session.
    Command {
        /// Command that prints `ADDRESS:PORT`.
        open: Vec<String>,
        /// Command that runs when the session ends.
        close: Option<Vec<String>>,
        /// Time limit of either command. Default 1 s.
        within: Duration,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RtcpConfig {
    /// The same port as RTP (RFC 5761).
    #[default]
    Mux,
    /// The next higher port, from a separate local port (RFC 3550, 11).
    NextPort,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LoadConfig {
    /// Number of processors that the server may use. Default: all.
    pub(crate) cpus: u32,
    /// File with the server's own load figure, in thousandths of its capacity.
    pub(crate) file: Option<PathBuf>,
}

/// A key of the configuration is invalid; says where and why.
#[derive(Debug)]
pub struct InvalidConfig {
    path: PathBuf,
    wrong: Vec<String>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid configuration {}:", self.path.display())?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

impl std::error::Error for InvalidConfig {}

impl Config {
    /// Reads a configuration file. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// Returns all errors found, each with the expected value.
    pub fn load(path: &Path) -> Result<Config, InvalidConfig> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("cannot read the file: {error}")]);
        read.and_then(|text| Config::parse(&text, folder))
            .map_err(|wrong| InvalidConfig { path: path.to_owned(), wrong })
    }

    fn parse(text: &str, folder: &Path) -> Result<Config, Vec<String>> {
        let raw: raw::AgentFile =
            toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
        let mut wrong = Vec::new();
        let config = raw.check(folder, &mut wrong);
        config.filter(|_| wrong.is_empty()).ok_or(wrong)
    }
}

fn secret(path: &Path, node: &str) -> Result<NodeSecret, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        format!("secret_file: found `{shown}`: {error}; expected the file that [[node]] or [cluster.peer] of the gateways names")
    })?;
    NodeSecret::new(&bytes, node).map_err(|TooShort { length }| {
        format!("secret_file: found `{shown}` with {length} bytes, expected at least 16")
    })
}

#[cfg(test)]
mod tests;
