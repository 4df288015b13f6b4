//! Tables about the gateway itself: `[gateway]`, `[admin]`, `[limits]`, `[breaker]` and `[detector]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{Breakers, CircuitSettings, ClientBreakerSettings, NewcomerAction, Timings};
use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use toml::Spanned;

use super::address::NetworkPrefix;
use super::check::{ConfigCheck, SECRET_MIN, SecretFile, spell};

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct GatewayTable {
    pub(super) region: Option<Spanned<String>>,
    pub(super) policies: Option<Spanned<String>>,
    drain_timeout: Option<Spanned<DurationText>>,
    cache: Option<Spanned<String>>,
    node_networks: Option<Vec<Spanned<String>>>,
    sandbox: Option<bool>,
}

/// `[gateway]`.
#[derive(Clone, PartialEq, Debug)]
pub struct GatewaySettings {
    /// Default: the only configured region, or `local` without nodes.
    pub region: Arc<str>,
    /// The folder of policy sets. Default: the shipped sets only.
    pub policies: Option<PathBuf>,
    /// Time that sessions may continue after SIGTERM. Default 5 min.
    pub drain_timeout: Duration,
    /// The folder of compiled plugins.
    pub cache: CacheFolder,
    /// Networks in which offers may name addresses of `plain` nodes, beside a node's own IP address. Default: the
    /// private networks.
    pub node_networks: Vec<NetworkPrefix>,
    /// The process gives up capabilities and system calls at its start. Default true.
    pub sandbox: bool,
}

/// The folder of compiled plugins, quarantined revisions and version floors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CacheFolder {
    /// The default: the first usable of `$XDG_CACHE_HOME/evenkeel`, `~/.cache/evenkeel` and `/var/cache/evenkeel`. A
    /// gateway embedded in another program has no cache.
    Usual,
    /// A configured folder, created if missing, and accessible to its owner only.
    Folder(PathBuf),
    /// `cache = "none"`.
    None,
}

impl CacheFolder {
    /// Folders in the order of preference.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let of = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        match self {
            CacheFolder::Usual => {
                let usual = of("XDG_CACHE_HOME").map(PathBuf::from);
                let usual =
                    usual.or_else(|| of("HOME").map(|home| Path::new(&home).join(".cache")));
                let all = usual.into_iter().chain([PathBuf::from("/var/cache")]);
                all.map(|folder| folder.join("evenkeel")).collect()
            }
            CacheFolder::Folder(folder) => vec![folder.clone()],
            CacheFolder::None => Vec::new(),
        }
    }
}

impl GatewaySettings {
    pub(super) fn check(raw: &GatewayTable, check: &mut ConfigCheck) -> GatewaySettings {
        let hour = Duration::from_secs(3_600);
        let day = Duration::ZERO..=24 * hour;
        GatewaySettings {
            region: raw.region.as_ref().map_or_else(|| Arc::from("local"), |name| check.name(name)),
            policies: raw.policies.as_ref().map(|folder| check.path(folder.get_ref())),
            drain_timeout: check.duration(&raw.drain_timeout, hour / 12, day),
            cache: match raw.cache.as_ref().map(|word| word.get_ref().as_str()) {
                None => CacheFolder::Usual,
                Some("none") => CacheFolder::None,
                Some(folder) => CacheFolder::Folder(check.path(folder)),
            },
            node_networks: raw.node_networks.as_ref().map_or_else(
                NetworkPrefix::private,
                |networks| {
                    let expected = "a network such as `10.0.0.0/8` or `fd00::/8`";
                    networks.iter().filter_map(|network| check.parse(network, expected)).collect()
                },
            ),
            sandbox: raw.sandbox.unwrap_or(true),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct AdminTable {
    socket: Option<Spanned<String>>,
    tcp: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    read_token_file: Option<Spanned<String>>,
    traceparent: Option<Traceparent>,
    pub(super) drills: bool,
}

/// `[admin]`: where the API is served.
#[derive(Clone, PartialEq, Debug)]
pub struct AdminSettings {
    /// Default [`AdminSettings::default_socket`].
    pub socket: PathBuf,
    /// Default: none.
    pub tcp: Option<AdminTcp>,
    /// Treatment of the `traceparent` of a request. Default: a link.
    pub traceparent: Traceparent,
    /// Drills are allowed: stopping a policy, ending the API, breaking nodes. Default false.
    pub drills: bool,
}

/// The API over TCP; every request carries the token as `authorization: Bearer …`.
#[derive(Clone, PartialEq, Debug)]
pub struct AdminTcp {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Each grants full access. One token, or two while it is rotated.
    pub tokens: Vec<SecretFile>,
    /// Each grants GET requests. Default: none.
    pub read_tokens: Vec<SecretFile>,
}

/// Treatment of a caller's `traceparent` (W3C Trace Context).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traceparent {
    /// The request's span links to the caller's: an untrusted caller can neither join nor sample the gateway's traces.
    #[default]
    Link,
    /// The request's span is a child of the caller's and inherits its sampling decision. For trusted callers.
    Parent,
}

impl AdminSettings {
    /// `evenkeel.sock` in `$XDG_RUNTIME_DIR`, else in `/run/evenkeel` (root) or `/tmp/evenkeel-UID`. Commands use the same
    /// default.
    pub fn default_socket() -> PathBuf {
        let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        folder.map_or_else(AdminSettings::private_folder, PathBuf::from).join("evenkeel.sock")
    }

    fn private_folder() -> PathBuf {
        let user = nix::unistd::geteuid();
        if user.is_root() { "/run/evenkeel".into() } else { format!("/tmp/evenkeel-{user}").into() }
    }

    /// Creates the private folder if the socket belongs there, and requires that only this user may enter it.
    pub fn prepare_folder(socket: &Path) -> std::io::Result<()> {
        let folder = AdminSettings::private_folder();
        if socket.parent() != Some(&*folder) {
            return Ok(());
        }
        evenkeel_host::private_folder(&folder).map_err(|error| {
            let help = "set XDG_RUNTIME_DIR, or `socket` in [admin]";
            std::io::Error::new(error.kind(), format!("{}: {error}; {help}", folder.display()))
        })
    }

    pub(super) fn check(raw: &AdminTable, check: &mut ConfigCheck) -> AdminSettings {
        let socket = raw.socket.as_ref().map(|path| check.path(path.get_ref()));
        AdminSettings {
            socket: socket.unwrap_or_else(AdminSettings::default_socket),
            tcp: AdminSettings::tcp(raw, check),
            traceparent: raw.traceparent.unwrap_or_default(),
            drills: raw.drills,
        }
    }

    fn tcp(raw: &AdminTable, check: &mut ConfigCheck) -> Option<AdminTcp> {
        let secrets = |path: &Option<Spanned<String>>, check: &mut ConfigCheck| {
            path.as_ref().and_then(|path| check.secrets(path, SECRET_MIN))
        };
        let tokens = secrets(&raw.token_file, check);
        let read_tokens = secrets(&raw.read_token_file, check).unwrap_or_default();
        let Some(tcp) = &raw.tcp else {
            let keys = [("token_file", &raw.token_file), ("read_token_file", &raw.read_token_file)];
            for (key, path) in keys {
                if let Some(path) = path {
                    let expected = "`tcp`, where the token is required";
                    check.refuse(path.span(), format!("`{key}` without `tcp`"), expected);
                }
            }
            return None;
        };
        let is_operators =
            |token: &SecretFile| tokens.as_ref().is_some_and(|tokens| tokens.contains(token));
        if let Some(path) = &raw.read_token_file
            && read_tokens.iter().any(is_operators)
        {
            check.refuse(path.span(), "a token of `token_file`", "another token, which only reads");
        }
        if raw.token_file.is_none() {
            let expected = "`token_file`: each client of this port has full access";
            check.refuse(tcp.span(), "`tcp` without `token_file`", expected);
        }
        let expected = "an address and port such as `127.0.0.1:8080`";
        let address: SocketAddr = check.address(tcp, expected)?;
        if !address.ip().to_canonical().is_loopback() {
            let found = format!("`{address}`, where the token crosses the network in clear text");
            check.warn(tcp.span(), found, "a loopback address, behind a proxy that ends TLS");
        }
        Some(AdminTcp { address, tokens: tokens?, read_tokens })
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LimitsTable {
    sessions: Option<Spanned<i64>>,
    host_sessions: Option<Spanned<i64>>,
    session_data_mib: Option<Spanned<i64>>,
    repair_memory: Option<Spanned<i64>>,
    workers: Option<Spanned<i64>>,
    early_packets: Option<Spanned<i64>>,
    early_for: Option<Spanned<DurationText>>,
    batch_delay: Option<Spanned<DurationText>>,
    misses_per_prefix: Option<Spanned<i64>>,
    connections_max: Option<Spanned<i64>>,
    connections_per_source: Option<Spanned<i64>>,
    churn_percent: Option<Spanned<i64>>,
    moves_per_minute: Option<Spanned<i64>>,
    failbacks_per_second: Option<Spanned<i64>>,
}

/// `[limits]`: maxima of this gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct LimitSettings {
    /// Default 100,000.
    pub sessions: u32,
    /// Sessions that all processes of this host may serve after a takeover. Default: none, the host is not checked.
    pub host_sessions: Option<u32>,
    /// MiB of the sessions' own data: names, labels, media and addresses. Default 2.5 KiB per session.
    pub session_data_mib: u32,
    /// MiB of packets that are kept to repair sessions. Default 64.
    pub repair_memory: u32,
    /// Packet workers. Default: one less than the number of cores, which control and the QUIC endpoint need; at least
    /// one.
    pub workers: Option<u16>,
    /// Packets buffered until the node has opened their session. Default 16.
    pub early_packets: u16,
    /// Time for which early packets are buffered. Default 200 ms.
    pub early_for: Duration,
    /// Time for which incoming packets gather before they are read together, 0 to 250 µs. A longer time saves processor
    /// time and adds delay. The first packet after a pause never waits. Default 200 µs.
    pub batch_delay: Duration,
    /// Failed look-ups per second and source prefix (/24, /56), and failed STUN checks per second and address. Default
    /// 1,000.
    pub misses_per_prefix: u32,
    /// QUIC connections, including handshakes. Default 8,192.
    pub connections_max: u32,
    /// QUIC connections of one IPv4 address or IPv6 /56. Default a quarter of `connections_max`.
    pub connections_per_source: u32,
    /// Sessions that policies may move within a second, per cent of all, and at least one room. Default 25. Moves off
    /// a down node do not count.
    pub(crate) churn_percent: u32,
    /// Moves of one room within a minute, except off a down node. Default 3.
    pub(crate) moves_per_minute: u16,
    /// Rooms that return to their own region within a second. Default 20.
    pub(crate) failbacks_per_second: u16,
}

impl LimitSettings {
    pub(super) fn check(raw: &LimitsTable, check: &mut ConfigCheck) -> LimitSettings {
        let early = Duration::ZERO..=Duration::from_secs(5);
        let sessions = check.number(&raw.sessions, 100_000, 1..=10_000_000);
        let of_host = check.number(&raw.host_sessions, 0, 1..=10_000_000);
        let workers = check.number(&raw.workers, 0, 1..=256);
        let connections_max = check.number(&raw.connections_max, 8_192, 1..=1_000_000);
        let quarter = (connections_max / 4).max(1);
        let of_source = check.number(&raw.connections_per_source, quarter, 1..=1_000_000);
        if let Some(written) = &raw.connections_per_source
            && of_source > connections_max
        {
            let expected = format!("at most {connections_max}, the `connections_max`");
            check.refuse(written.span(), of_source.to_string(), expected);
        }
        LimitSettings {
            sessions,
            host_sessions: (of_host > 0).then_some(of_host),
            session_data_mib: check.number(
                &raw.session_data_mib,
                sessions * 5 / 2_048 + 1,
                1..=1_048_576,
            ),
            repair_memory: check.number(&raw.repair_memory, 64, 0..=1_048_576),
            workers: (workers > 0).then_some(workers),
            early_packets: check.number(&raw.early_packets, 16, 0..=1_024),
            early_for: check.duration(&raw.early_for, Duration::from_millis(200), early),
            batch_delay: check.duration(&raw.batch_delay, 200 * US, Duration::ZERO..=250 * US),
            misses_per_prefix: check.number(&raw.misses_per_prefix, 1_000, 1..=1_000_000),
            connections_max,
            connections_per_source: of_source,
            churn_percent: check.number(&raw.churn_percent, 25, 1..=100),
            moves_per_minute: check.number(&raw.moves_per_minute, 3, 1..=60),
            failbacks_per_second: check.number(&raw.failbacks_per_second, 20, 1..=1_000),
        }
    }
}

/// Declares a table with the keys of all breakers and its own.
macro_rules! breaker_table {
    ($name:ident { $($key:ident: $type:ty,)* }) => {
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields, default, expecting = "a table")]
        pub(super) struct $name {
            $(pub(super) $key: $type,)*
            failure_percent: Option<Spanned<i64>>,
            min_sessions: Option<Spanned<i64>>,
            open_for: Option<Spanned<DurationText>>,
            max_open_for: Option<Spanned<DurationText>>,
            half_open_percent: Option<Spanned<i64>>,
        }

        impl $name {
            fn circuit(&self, check: &mut ConfigCheck) -> CircuitSettings {
                let default = CircuitSettings::default();
                let day = Duration::from_secs(1)..=Duration::from_secs(86_400);
                let open_for = check.duration(&self.open_for, default.open_for, day.clone());
                let max_open_for = check.duration(&self.max_open_for, default.open_for_max, day);
                let mut percent = |raw, default| check.number(raw, default, 1..=100);
                CircuitSettings {
                    share_percent: percent(&self.failure_percent, default.share_percent),
                    half_open_percent: percent(&self.half_open_percent, default.half_open_percent),
                    sessions_min: check.number(&self.min_sessions, default.sessions_min, 1..=100_000),
                    open_for,
                    open_for_max: max_open_for.max(open_for),
                }
            }
        }
    };
}

breaker_table! {
    BreakerTable {
        loss_percent: Option<Spanned<i64>>,
        r_factor: Option<Spanned<i64>>,
        clients: ClientBreakerTable,
    }
}

breaker_table! {
    ClientBreakerTable {
        action: NewcomerAction,
    }
}

/// Checks `[breaker]`; missing keys keep the core's defaults.
pub(super) fn breakers(raw: &BreakerTable, check: &mut ConfigCheck) -> Breakers {
    let default = Breakers::default();
    Breakers {
        loss_ppm: check.number(&raw.loss_percent, default.loss_ppm / 10_000, 1..=100) * 10_000,
        r_factor_centi: check.number(&raw.r_factor, default.r_factor_centi / 100, 1..=100) * 100,
        circuit: raw.circuit(check),
    }
}

/// Checks `[breaker.clients]`.
pub(super) fn client_breakers(
    raw: &ClientBreakerTable,
    check: &mut ConfigCheck,
) -> ClientBreakerSettings {
    ClientBreakerSettings { action: raw.action, circuit: raw.circuit(check) }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct DetectorTable {
    in_region: ReachTable,
    cross_region: ReachTable,
    probe_slack: Option<Spanned<DurationText>>,
    silence: Option<Spanned<DurationText>>,
    silence_arrivals: Option<Spanned<i64>>,
    stall_threshold: Option<Spanned<DurationText>>,
    base_ejection_time: Option<Spanned<DurationText>>,
    max_ejection_time: Option<Spanned<DurationText>>,
    wary_for: Option<Spanned<DurationText>>,
    panic_percent: Option<Spanned<i64>>,
    panic_for: Option<Spanned<DurationText>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct ReachTable {
    probe_interval: Option<Spanned<DurationText>>,
    down_after: Option<Spanned<DurationText>>,
}

/// Checks `[detector]`; missing keys keep the core's defaults.
pub(super) fn timings(raw: &DetectorTable, check: &mut ConfigCheck) -> Timings {
    let default = Timings::default();
    let (near, far) = (&raw.in_region, &raw.cross_region);
    let every = 2 * MS..=10_000 * MS;
    let alone = 10 * MS..=MINUTE;
    let short = MS..=1_000 * MS;
    let long = Duration::ZERO..=60 * MINUTE;
    let mut time = |raw: &Option<_>, default, allowed| check.duration(raw, default, allowed);
    let ejection = time(&raw.base_ejection_time, default.ejection, long.clone());
    let ejection_max =
        time(&raw.max_ejection_time, default.ejection_max, Duration::ZERO..=24 * 60 * MINUTE);
    let timings = Timings {
        probe_every_near: time(&near.probe_interval, default.probe_every_near, every.clone()),
        probe_every_far: time(&far.probe_interval, default.probe_every_far, every),
        probe_slack: time(&raw.probe_slack, default.probe_slack, short.clone()),
        silence_min: time(&raw.silence, default.silence_min, short.clone()),
        down_after_near: time(&near.down_after, default.down_after_near, alone.clone()),
        down_after_far: time(&far.down_after, default.down_after_far, alone),
        own_stall: time(&raw.stall_threshold, default.own_stall, short),
        ejection,
        ejection_max: ejection_max.max(ejection),
        wary_for: time(&raw.wary_for, default.wary_for, long),
        panic_for: time(&raw.panic_for, default.panic_for, 100 * MS..=MINUTE),
        panic_percent: check.number(&raw.panic_percent, default.panic_percent, 1..=100),
        silence_arrivals: check.number(&raw.silence_arrivals, default.silence_arrivals, 1..=1_000),
    };
    let alone = [("in_region", timings.down_after_near), ("cross_region", timings.down_after_far)];
    let shortest = alone.into_iter().min_by_key(|(_, after)| *after);
    if let (Some(silence), Some((reach, after))) = (&raw.silence, shortest)
        && timings.silence_min > after
    {
        let most = spell(after);
        let expected = format!("at most {most}, the `down_after` of [detector.{reach}]");
        check.refuse(silence.span(), format!("`{}`", silence.get_ref()), expected).help =
            Some("silence has to be evidence before it can mark a node down alone".to_owned());
    }
    timings
}
