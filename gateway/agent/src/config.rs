//! `agent.toml`.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_media::trunk::message::{NodeSecret, TooShort};
use evenkeel_process::file;
use evenkeel_process::setting_text::{DurationText, type_in_words};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::check::CheckKind;
use crate::process::ProcessSource;

/// Default of `sessions`.
const SESSIONS: u32 = 1_000;
/// Upper bound of `sessions`: no process can open more sockets.
const SESSIONS_MAX: u32 = 100_000;
/// Bytes of `agent.toml`.
const FILE_MAX: u64 = 1 << 20;
const SECRET_MAX: u64 = 4_096;
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
#[derive(Debug, thiserror::Error)]
#[error("invalid configuration {}:\n  {}", path.display(), wrong.join("\n  "))]
pub struct InvalidConfig {
    path: PathBuf,
    wrong: Vec<String>,
}

impl Config {
    /// Reads `agent.toml`. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// Returns all errors found, each with the expected value.
    pub fn load(path: &Path) -> Result<Config, InvalidConfig> {
        load(path, Config::parse)
    }

    /// Reads `witness.toml`: the configuration of an agent that watches nothing, and votes.
    ///
    /// # Errors
    /// Returns all errors found, each with the expected value.
    pub fn load_witness(path: &Path) -> Result<Config, InvalidConfig> {
        load(path, Config::parse_witness)
    }

    /// Returns true if only votes are asked for.
    pub(crate) fn is_witness(&self) -> bool {
        self.process.is_none() && self.check.is_none() && self.gateway.is_none()
    }

    fn parse(text: &str, folder: &Path) -> Result<Config, Wrong> {
        parse(text, |raw: AgentFile, wrong| raw.check(folder, wrong))
    }

    fn parse_witness(text: &str, folder: &Path) -> Result<Config, Wrong> {
        parse(text, |raw: WitnessFile, wrong| raw.check(folder, wrong))
    }
}

fn parse<T: DeserializeOwned>(
    text: &str,
    check: impl FnOnce(T, &mut Wrong) -> Option<Config>,
) -> Result<Config, Wrong> {
    let raw = toml::from_str(text).map_err(|error| vec![parser_error(&error)])?;
    let mut wrong = Vec::new();
    let config = check(raw, &mut wrong);
    config.filter(|_| wrong.is_empty()).ok_or(wrong)
}

/// The parser's error with its place, and the expected value in words.
fn parser_error(error: &toml::de::Error) -> String {
    let shown = error.to_string();
    let shown = shown.trim_end();
    if error.message().contains("socket address") {
        let expected = "an address and port such as `10.0.1.11:4001`";
        return format!("{shown}, expected {expected}; host names are not accepted");
    }
    match shown.rsplit_once(", expected ") {
        Some((found, expected)) => format!("{found}, expected {}", type_in_words(expected)),
        None => shown.to_owned(),
    }
}

fn load(
    path: &Path,
    parse: impl FnOnce(&str, &Path) -> Result<Config, Wrong>,
) -> Result<Config, InvalidConfig> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let read = file::read(path, FILE_MAX)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|error| vec![format!("cannot read the file: {error}")]);
    read.and_then(|text| parse(&text, folder))
        .map_err(|wrong| InvalidConfig { path: path.to_owned(), wrong })
}

fn secret(path: &Path, node: &str) -> Result<NodeSecret, String> {
    let shown = path.display();
    let bytes = file::read(path, SECRET_MAX).map_err(|error| {
        format!("secret_file: found `{shown}`: {error}; expected the file that [[node]], [cluster.peer] or [[cluster.witness]] of the gateways names")
    })?;
    NodeSecret::new(&bytes, node).map_err(|TooShort { length }| {
        format!("secret_file: found `{shown}` with {length} bytes, expected at least 16")
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    name: String,
    listen: SocketAddr,
    secret_file: PathBuf,
    #[serde(default)]
    drills: bool,
    drill_timeout: Option<DurationText>,
    drain_timeout: Option<DurationText>,
    process: Option<ProcessTable>,
    check: Option<RawCheck>,
    gateway: Option<RawGateway>,
    media: Option<RawMedia>,
    #[serde(default)]
    load: RawLoad,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessTable {
    pid_file: Option<PathBuf>,
    exe: Option<PathBuf>,
    command: Option<Vec<String>>,
    restart_after: Option<DurationText>,
    #[serde(default)]
    cold: bool,
    start: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    address: SocketAddr,
    probe: CheckKind,
    interval: Option<DurationText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGateway {
    address: SocketAddr,
    peer: SocketAddr,
    interval: Option<DurationText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMedia {
    server: Option<SocketAddr>,
    open: Option<Vec<String>>,
    close: Option<Vec<String>>,
    timeout: Option<DurationText>,
    #[serde(default)]
    rtcp: RtcpConfig,
    sessions: Option<u32>,
    #[serde(default)]
    encrypt: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLoad {
    cpus: Option<u32>,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessFile {
    name: String,
    listen: SocketAddr,
    secret_file: PathBuf,
}

type Wrong = Vec<String>;

impl WitnessFile {
    fn check(self, folder: &Path, wrong: &mut Wrong) -> Option<Config> {
        if self.name.is_empty() {
            let expected = "the name that [[cluster.witness]] of the gateways has";
            wrong.push(format!("name: found \"\", expected {expected}"));
        }
        let secret = secret(&folder.join(&self.secret_file), &self.name);
        Some(Config {
            listen: self.listen,
            secret: secret.map_err(|reason| wrong.push(reason)).ok()?,
            drills: false,
            drill_timeout: DRILL_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            process: None,
            cold: false,
            start: None,
            check: None,
            gateway: None,
            media: None,
            load: LoadConfig { cpus: 1, file: None },
        })
    }
}

impl AgentFile {
    fn check(self, folder: &Path, wrong: &mut Wrong) -> Option<Config> {
        if self.name.is_empty() {
            let expected = "the name of the node, or of the gateway that it watches";
            wrong.push(format!("name: found \"\", expected {expected}"));
        }
        let secret = secret(&folder.join(&self.secret_file), &self.name)
            .map_err(|reason| wrong.push(reason))
            .ok();
        let watches_server = self.process.is_some() || self.check.is_some();
        if self.gateway.is_none() && !watches_server {
            let expected = "expected at least one to watch";
            wrong.push(format!("found neither [process] nor [check] nor [gateway], {expected}"));
        }
        if self.gateway.is_some() && (watches_server || self.media.is_some()) {
            let expected = "expected an agent of its own for the server";
            wrong.push(format!("gateway: found beside [process], [check] or [media], {expected}"));
        }
        let (cold, start) = match &self.process {
            Some(process) => (process.cold, process.start.clone()),
            None => (false, None),
        };
        let range = Duration::from_millis(100)..=Duration::from_secs(3_600);
        let drain_timeout =
            duration("drain_timeout", self.drain_timeout.as_deref(), DRAIN_TIMEOUT, range, wrong);
        let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
        let drill_timeout =
            duration("drill_timeout", self.drill_timeout.as_deref(), DRILL_TIMEOUT, range, wrong);
        Some(Config {
            process: self.process.and_then(|process| process.check(folder, wrong)),
            check: self.check.map(|check| check.check(wrong)),
            gateway: self.gateway.map(|gateway| gateway.check(wrong)),
            media: self.media.and_then(|media| media.check(wrong)),
            load: self.load.check(folder, wrong),
            listen: self.listen,
            secret: secret?,
            drills: self.drills,
            drill_timeout,
            drain_timeout,
            cold,
            start: program("process.start", start, wrong),
        })
    }
}

impl ProcessTable {
    fn check(self, folder: &Path, wrong: &mut Wrong) -> Option<ProcessSource> {
        let ours = self.command.is_some();
        if ours && self.start.is_some() {
            wrong.push("process.start: found beside `command`, expected one of them".to_owned());
        }
        if !ours && (self.cold || self.restart_after.is_some()) {
            wrong.push(
                "process: found `cold` or `restart_after` without `command`, which they apply to"
                    .to_owned(),
            );
        }
        let exe = self.exe.map(|exe| folder.join(exe));
        if exe.as_ref().is_some_and(|exe| !exe.is_absolute()) {
            wrong.push(
                "process.exe: expected an absolute path, as /proc/PID/exe shows it".to_owned(),
            );
        }
        let restart_after = self.restart_after.as_deref().map(|text| {
            let range = Duration::from_millis(10)..=Duration::from_secs(3_600);
            duration("process.restart_after", Some(text), Duration::ZERO, range, wrong)
        });
        match (self.pid_file, exe, program("process.command", self.command, wrong)) {
            (None, None, Some(command)) => Some(ProcessSource::Command { command, restart_after }),
            (Some(path), exe, None) if !ours => {
                Some(ProcessSource::PidFile { path: folder.join(path), exe })
            }
            (None, Some(exe), None) if !ours => Some(ProcessSource::Exe(exe)),
            (None, None, None) if !ours => {
                wrong.push("process: expected `pid_file`, `exe` or `command`".to_owned());
                None
            }
            _ if ours => {
                wrong.push(
                    "process: found `command` beside `pid_file` or `exe`, expected one of them"
                        .to_owned(),
                );
                None
            }
            _ => None,
        }
    }
}

impl RawCheck {
    fn check(self, wrong: &mut Wrong) -> CheckConfig {
        let range = Duration::from_millis(1)..=Duration::from_secs(10);
        let every = duration("check.interval", self.interval.as_deref(), CHECK_EVERY, range, wrong);
        CheckConfig { address: self.address, how: self.probe, every }
    }
}

impl RawGateway {
    fn check(self, wrong: &mut Wrong) -> GatewayConfigEntry {
        let RawGateway { address, peer, interval } = self;
        let range = Duration::from_millis(1)..=Duration::from_secs(1);
        let every = duration("gateway.interval", interval.as_deref(), GATEWAY_EVERY, range, wrong);
        if address.is_ipv4() != peer.is_ipv4() {
            let expected = "expected two addresses of IPv4, or two of IPv6";
            wrong.push(format!("gateway.peer: found `{peer}` beside `{address}`, {expected}"));
        }
        GatewayConfigEntry { address, peer, every }
    }
}

impl RawMedia {
    fn check(self, wrong: &mut Wrong) -> Option<MediaConfig> {
        let sessions = self.sessions.unwrap_or(SESSIONS);
        if !(1..=SESSIONS_MAX).contains(&sessions) {
            wrong.push(format!("media.sessions: found {sessions}, expected 1 to {SESSIONS_MAX}"));
        }
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        let within = duration("media.timeout", self.timeout.as_deref(), WITHIN, range, wrong);
        let open = program("media.open", self.open, wrong);
        let close = program("media.close", self.close, wrong);
        let server = match (self.server, open) {
            (Some(address), None) if close.is_none() => Server::Static(address),
            (None, Some(open)) => Server::Command { open, close, within },
            _ => {
                wrong.push(
                    "media: expected either `server`, one address for all sessions, or `open`, a command that prints an address per session, optionally with `close`"
                        .to_owned(),
                );
                return None;
            }
        };
        Some(MediaConfig { server, rtcp: self.rtcp, sessions, encrypt: self.encrypt })
    }
}

impl RawLoad {
    fn check(self, folder: &Path, wrong: &mut Wrong) -> LoadConfig {
        if self.cpus == Some(0) {
            wrong.push("load.cpus: found 0, expected at least 1".to_owned());
        }
        let all = || std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let cpus = self.cpus.unwrap_or_else(all).max(1);
        LoadConfig { cpus, file: self.file.map(|file| folder.join(file)) }
    }
}

fn program(key: &str, command: Option<Vec<String>>, wrong: &mut Wrong) -> Option<Vec<String>> {
    let command = command?;
    if command.first().is_none_or(String::is_empty) {
        let found = format!("{key}: found {command:?}, expected a program and its arguments");
        wrong.push(found + ", such as [\"/usr/bin/server\", \"--foreground\"]");
        return None;
    }
    Some(command)
}

fn duration(
    key: &str,
    text: Option<&str>,
    default: Duration,
    allowed: RangeInclusive<Duration>,
    wrong: &mut Wrong,
) -> Duration {
    let Some(text) = text else { return default };
    let read = [("ms", 1), ("s", 1_000)].into_iter().find_map(|(unit, ms)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(ms).map(Duration::from_millis)
    });
    if let Some(read) = read.filter(|read| allowed.contains(read)) {
        return read;
    }
    let (least, most) = (allowed.start(), allowed.end());
    let expected = format!("expected `{least:?}` to `{most:?}`, such as `200ms` or `8s`");
    wrong.push(format!("{key}: found `{text}`, {expected}"));
    default
}

#[cfg(test)]
mod tests;
