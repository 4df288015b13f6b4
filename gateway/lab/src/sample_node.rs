//! Behaves as a media server: reflects packets among the sessions of a room, on trunk legs and on port legs, with
//! streams of its own or untouched.
//!
//! One socket, one thread. What it decides is in `reflector`, which has no socket and no clock.

mod counters;
mod feedback;
mod outgoing;
mod reflector;
mod session;
mod vice;

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{Secret, TooShort};
use nix::sys::socket::{setsockopt, sockopt};

pub use counters::{Counters, Refusals};
use reflector::{Now, Reflector};
use vice::Conduct;
pub use vice::Vice;

use crate::clock;
use crate::datagrams::{Inbox, Outbox};

/// The largest datagram there is.
const DATAGRAM: usize = 65_535;
/// Datagrams read at once: a burst of a hundred sessions in two calls.
const BATCH: usize = 64;
/// How long a quiet node waits before it looks at its leases again, and so how late it ends.
const NAP: Duration = Duration::from_millis(50);
/// How long packets gather while they keep coming: a wake-up costs more than a packet, and nobody hears this.
const GATHER: Duration = Duration::from_micros(200);
/// What the kernel may hold for us while others have the processor.
const RECEIVE_BUFFER: usize = 4 * 1_024 * 1_024;

/// Whether it writes its number into the test headers of packets that it reflects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stamps {
    /// It does, so that a receiver knows which way they came.
    #[default]
    Yes,
    /// It leaves payloads as they are: two such nodes deliver copies.
    No,
}

/// What becomes of the numbers of the packets it reflects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Numbers {
    /// A stream of its own for each stream it gets: another SSRC, random first sequence number and timestamp.
    #[default]
    Rewritten,
    /// As they came; of the payload only the node's number in a test header is changed.
    Untouched,
}

/// Who hears whom on port legs, where nobody says what room a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PlainRoom {
    /// Every source is alone and gets its own packets back.
    #[default]
    Alone,
    /// All sources are in one room.
    Shared,
}

/// How a sample node behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its name; what it stamps is [`number_of`] it.
    pub name: String,
    /// What the gateway signs with; without it no signed message is believed and there are no trunk legs.
    pub secret: Option<Secret>,
    /// What becomes of the numbers.
    pub numbers: Numbers,
    /// Whether test headers tell that packets came by it.
    pub stamps: Stamps,
    /// Who hears whom on port legs.
    pub plain_room: PlainRoom,
    /// How many sessions it takes, port legs among them. Default 10,000.
    pub sessions_max: u32,
    /// What it does wrong, while [`SampleNode::unruly`] is set.
    pub vice: Vice,
    /// Whether who knows the secret may cut it off, as a link that is cut would.
    pub drills: bool,
}

impl Options {
    /// A rewriting node without trunk legs.
    pub fn new(listen: SocketAddr, name: &str) -> Self {
        Self {
            listen,
            name: name.to_owned(),
            secret: None,
            numbers: Numbers::default(),
            stamps: Stamps::default(),
            plain_room: PlainRoom::default(),
            sessions_max: 10_000,
            vice: Vice::default(),
            drills: false,
        }
    }
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The secret's file cannot be read.
    #[error("cannot read the secret {path}: {error}")]
    Secret {
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// The secret is too short.
    #[error("the secret {path} has {length} bytes, at least 16 are needed")]
    SecretTooShort {
        path: String,
        /// How long it is.
        length: usize,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The socket broke, or there is no more room for signals or output.
    #[error("the node ended: {0}")]
    Io(#[from] io::Error),
}

/// The number a node of this name stamps: the first four bytes of the name's SHA-256, never 0.
pub fn number_of(name: &str) -> u32 {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    digest.as_ref().first_chunk().map_or(1, |first| u32::from_be_bytes(*first).max(1))
}

/// Reads a secret's file.
///
/// # Errors
/// It cannot be read, or is too short.
pub fn read_secret(path: &Path) -> Result<Secret, Failed> {
    let shown = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => Secret::new(&bytes)
            .map_err(|TooShort { length }| Failed::SecretTooShort { path: shown, length }),
        Err(error) => Err(Failed::Secret { path: shown, error }),
    }
}

/// A sample node that has its socket.
pub struct SampleNode {
    socket: UdpSocket,
    address: SocketAddr,
    reflector: Reflector,
    ending: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    unruly: Arc<AtomicBool>,
}

impl SampleNode {
    /// Takes the socket.
    pub fn bind(options: Options) -> Result<Self, Failed> {
        let address = options.listen;
        let bound = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(NAP))?;
            // The kernel caps it at what the system allows; less is only less patient.
            let _as_much_as_allowed = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
            Ok(socket)
        };
        let socket = bound().map_err(|error| Failed::Listen { address, error })?;
        let address = socket.local_addr()?;
        let unruly = Arc::default();
        let conduct = Conduct::new(options.vice, Arc::clone(&unruly));
        let mut reflector = Reflector::new(options, fastrand::Rng::new());
        reflector.conduct = conduct;
        let (ending, stopped) = (Arc::default(), Arc::default());
        Ok(Self { socket, address, reflector, ending, stopped, unruly })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends [`run`](Self::run) within a moment when set.
    pub fn ending(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ending)
    }

    /// While set it reads and sends nothing, and its socket stays open: what a stopped process looks like.
    pub fn stopped(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    /// While set it indulges in its vice.
    pub fn unruly(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unruly)
    }

    /// Serves until told to end, and gives its counters.
    pub fn run(mut self) -> Result<Counters, Failed> {
        let (mut inbox, mut outbox) = (Inbox::new(DATAGRAM, BATCH), Outbox::default());
        while !self.ending.load(Ordering::Relaxed) {
            if self.stopped.load(Ordering::Relaxed) {
                std::thread::sleep(NAP);
                continue;
            }
            // What a node sent to somebody who has gone comes back as a refusal, which is not ours to mind.
            let came = match inbox.receive(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                came => came?,
            };
            let now = Now { instant: Instant::now(), unix_us: clock::now_ns() / 1_000 };
            for datagram in inbox.iter() {
                self.reflector.handle_datagram(&datagram, now, &mut outbox);
            }
            self.reflector.handle_timeout(now);
            self.reflector.flush(&mut outbox);
            outbox.flush(&self.socket);
            if came > 0 {
                std::thread::sleep(GATHER);
            }
        }
        Ok(self.reflector.counters())
    }
}

/// How the process speaks on standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    Plain,
    /// JSON: a line that says where it listens, and at the end a line of counters.
    Json,
}

/// The node as a process: serves until SIGTERM or SIGINT, then says what it counted. SIGUSR1 makes one that has a vice
/// indulge in it, SIGUSR2 ends that.
pub fn run(options: Options, words: Words) -> Result<(), Failed> {
    let node_name = options.name.clone();
    let node = SampleNode::bind(options)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, node.ending())?;
    }
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, node.unruly())?;
    let unruly = node.unruly();
    let mut reformed = signal_hook::iterator::Signals::new([signal_hook::consts::SIGUSR2])?;
    std::thread::spawn(move || {
        reformed.forever().for_each(|_| unruly.store(false, Ordering::Relaxed));
    });
    let mut out = io::stdout();
    match words {
        Words::Plain => writeln!(out, "{node_name} listens at {}", node.address())?,
        Words::Json => {
            let number = number_of(&node_name);
            let line = serde_json::json!({"node": node_name, "number": number, "listening": node.address()});
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    let counters = node.run()?;
    match words {
        Words::Plain => writeln!(out, "{node_name} reflected {} packets", counters.packets_out)?,
        Words::Json => {
            writeln!(out, "{}", serde_json::to_string(&counters).map_err(io::Error::from)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
