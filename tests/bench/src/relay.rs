//! The measured relays, and how each is started with its sessions.

mod bare;
mod envoy;
mod nginx;
mod ours;
mod quilkin;
mod rtpengine;

pub(crate) use ours::{forget_compiled, offer, ready};

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::load::Rig;

use crate::row::{Leg, Suite};
use evenkeel_lab::process::ChildProcess;
use evenkeel_media::srtp::{CryptoAttribute, SrtpKey};

/// Time limit for every session to send a packet through the relay.
const GREETED_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Ours,
    Floor,
    Limit,
    Nginx,
    Envoy,
    Rtpengine,
    Quilkin,
}

impl Kind {
    /// All relays, in the order of measurement and output.
    pub(crate) const ALL: [Kind; 7] = [
        Kind::Ours,
        Kind::Floor,
        Kind::Limit,
        Kind::Nginx,
        Kind::Envoy,
        Kind::Rtpengine,
        Kind::Quilkin,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Floor => "floor",
            Kind::Limit => "limit",
            Kind::Nginx => "nginx",
            Kind::Envoy => "envoy",
            Kind::Rtpengine => "rtpengine",
            Kind::Quilkin => "quilkin",
        }
    }

    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Kind::Ours | Kind::Floor | Kind::Limit)
    }

    /// True if SRTP of clients can end at this relay.
    pub(crate) fn has_srtp(self) -> bool {
        matches!(self, Kind::Ours | Kind::Rtpengine)
    }

    /// True if `quick` measures this relay.
    pub(crate) fn is_quick(self) -> bool {
        !self.is_peer() || self == Kind::Nginx
    }

    /// The reason why this relay cannot be measured here, if any.
    pub(crate) fn missing(self, places: &Places) -> Option<String> {
        match self {
            Kind::Ours | Kind::Floor | Kind::Limit => None,
            Kind::Nginx => nginx::missing(),
            Kind::Envoy => envoy::missing(places),
            Kind::Rtpengine => rtpengine::missing(),
            Kind::Quilkin => quilkin::missing(places),
        }
    }
}

/// The setup of a relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stage {
    pub(crate) leg: Leg,
    pub(crate) destinations: usize,
    pub(crate) sessions: usize,
    /// `None`: clients send plain RTP.
    pub(crate) srtp: Option<Suite>,
    /// Clients declare that they obey REMB; a cap without such clients is ignored.
    pub(crate) obeys_caps: bool,
}

/// Paths of a run.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) evenkeel: PathBuf,
    /// The folder of configurations and logs.
    pub(crate) folder: PathBuf,
    /// The folder of peers that are not packaged.
    pub(crate) peers: PathBuf,
}

/// A relay that forwards, and the load around it.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) process: ChildProcess,
    pub(crate) rig: Rig,
    /// The relay's API socket, if any.
    pub(crate) api: Option<PathBuf>,
}

impl Running {
    /// True if the relay is a peer that has ended.
    pub(crate) fn is_dead_peer(&mut self) -> bool {
        self.kind.is_peer() && !self.process.is_running()
    }
}

/// Starts a relay for this stage. Every session has sent a packet through it when this returns.
///
/// # Errors
/// The relay or its sessions cannot be started.
pub(crate) fn start(kind: Kind, stage: Stage, places: &Places) -> Result<Running, String> {
    let mut running = match kind {
        Kind::Ours => ours::start(stage, places),
        Kind::Floor => bare::start(crate::bare::Manner::Floor, stage, places),
        Kind::Limit => bare::start(crate::bare::Manner::Limit, stage, places),
        Kind::Nginx => nginx::start(stage, places),
        Kind::Envoy => envoy::start(stage, places),
        Kind::Rtpengine => rtpengine::start(stage, places),
        Kind::Quilkin => quilkin::start(stage, places),
    }?;
    let name = kind.name();
    let shares = running
        .rig
        .greet(GREETED_WITHIN)
        .map_err(|error| running.process.error(format!("({name}): {error}")))?;
    if stage.sessions >= 10 * stage.destinations && shares.contains(&0) {
        return Err(format!("{name} leaves nodes without sessions: {shares:?}"));
    }
    Ok(running)
}

/// The load generator of a stage.
fn rig(
    stage: Stage,
    wire: crate::load::Wire,
    secrets: Vec<evenkeel_media::trunk::message::NodeSecret>,
) -> Result<Rig, String> {
    use crate::namespace::{CLIENTS, NODES};
    let at = |ip: [u8; 4]| std::net::SocketAddrV4::new(ip.into(), 0);
    Rig::bind(crate::load::Plan {
        sessions: stage.sessions,
        clients_at: at(CLIENTS),
        nodes_at: vec![at(NODES); stage.destinations],
        wire,
        secrets,
    })
    .map_err(|error| format!("cannot have {} clients: {error}", stage.sessions))
}

/// The value of a client's `a=crypto` line, with a key of its own (RFC 4568).
fn client_line(suite: Suite, session: u32) -> CryptoAttribute {
    let key = SrtpKey::generate(suite.profile(), |bytes| {
        let number = session.to_be_bytes();
        bytes.iter_mut().zip(number.iter().cycle()).for_each(|(byte, digit)| *byte = *digit);
    });
    CryptoAttribute { tag: 1, key }
}

/// The key of a relay that answered with this value of an `a=crypto` line.
fn relay_key(line: &str, client: &CryptoAttribute) -> Result<SrtpKey, String> {
    let answered = line.parse::<CryptoAttribute>().map_err(|error| error.to_string())?;
    let [found, expected] = [&answered, client].map(|line| (line.tag, line.key.profile().name()));
    match found == expected {
        true => Ok(answered.key),
        false => Err(format!("answered tag and crypto suite {found:?}, expected {expected:?}")),
    }
}

/// A runtime for requests to an API.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no runtime for requests: {error}"))
}

/// A file of the bench's folder.
fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    std::fs::write(&path, text)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is that of map_err")]
fn system(error: std::io::Error) -> String {
    error.to_string()
}
