//! `agent.toml`: what an agent watches, and what it may do.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_media::trunk::message::{Secret, TooShort};
use serde::Deserialize;

use crate::check::How;
use crate::process::Found;

mod raw;

/// Sessions where none are said.
const SESSIONS: u32 = 1_000;
/// More sockets than this no process has.
const SESSIONS_MAX: u32 = 100_000;
const WITHIN: Duration = Duration::from_secs(1);
const CHECK_EVERY: Duration = Duration::from_millis(10);
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
const DRILLS_LAST: Duration = Duration::from_secs(300);

/// What an agent is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gateways ask, and where trunk legs end.
    pub listen: SocketAddr,
    /// What gateways sign with.
    pub secret: Secret,
    /// Whether drills may break the server.
    pub drills: bool,
    /// After this, a cut or a stop ends by itself, since whoever made it may be gone. Default 300 s.
    pub drills_last: Duration,
    /// After SIGTERM, how long sessions may take to leave. Default 30 s.
    pub drain_within: Duration,
    /// The server's process, where one is named.
    pub process: Option<Found>,
    /// A process of ours waits until a gateway asks for it.
    pub cold: bool,
    /// What a gateway's asking to start runs, where the process is not ours.
    pub start: Option<Vec<String>>,
    /// The check of the media port, where there is one.
    pub check: Option<Check>,
    /// The server behind the trunk legs, where it ends any.
    pub media: Option<Media>,
    /// How load is measured.
    pub load: Load,
}

/// The check of the media port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check {
    /// Which port.
    pub address: SocketAddr,
    /// How it is asked.
    pub how: How,
    /// How often. Default 10 ms; three in a row without an answer, and it is mute.
    pub every: Duration,
}

/// The server behind the trunk legs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// Where its packets go.
    pub server: Server,
    /// Where RTCP goes.
    pub rtcp: Rtcp,
    /// Sessions at a time. Default 1,000.
    pub sessions: u32,
}

/// Where a session's packets go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// All to one address, each from a port of its own.
    Static(SocketAddr),
    /// To the address that a command prints for it.
    Command {
        /// Prints `ADDRESS:PORT`.
        open: Vec<String>,
        /// Is run when the session ends.
        close: Option<Vec<String>>,
        /// How long either may take. Default 1 s.
        within: Duration,
    },
}

/// Where RTCP goes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rtcp {
    /// To the port of RTP (RFC 5761).
    #[default]
    Mux,
    /// To the next port up, from a port of its own (RFC 3550, 11).
    NextPort,
}

/// How load is measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Processors that the server may use. Default: all there are.
    pub cpus: u32,
    /// Holds a figure of the server's own, in thousandths of what it can do.
    pub file: Option<PathBuf>,
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub struct Invalid {
    path: PathBuf,
    wrong: Vec<String>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used:", self.path.display())?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

impl std::error::Error for Invalid {}

impl Config {
    /// Reads a file. Paths in it that are not whole start at its folder.
    ///
    /// # Errors
    /// All that is wrong: what was found, and what would be right.
    pub fn load(path: &Path) -> Result<Config, Invalid> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("it cannot be read: {error}")]);
        read.and_then(|text| Config::parse(&text, folder))
            .map_err(|wrong| Invalid { path: path.to_owned(), wrong })
    }

    fn parse(text: &str, folder: &Path) -> Result<Config, Vec<String>> {
        let raw: raw::File =
            toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
        let mut wrong = Vec::new();
        let config = raw.check(folder, &mut wrong);
        config.filter(|_| wrong.is_empty()).ok_or(wrong)
    }
}

fn secret(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        format!("secret_file: found `{shown}`: {error}; expected the file that gateways name in [[node]]")
    })?;
    Secret::new(&bytes).map_err(|TooShort { length }| {
        format!("secret_file: found `{shown}` with {length} bytes, expected at least 16")
    })
}

#[cfg(test)]
mod tests;
