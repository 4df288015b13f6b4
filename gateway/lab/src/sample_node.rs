//! A sample media server: reflects packets among the sessions of a room, on trunk legs and port legs, with rewritten or
//! unchanged headers.
//!
//! One socket, one thread. The decisions are in `reflector`, which has no socket and no clock.

mod counters;
mod feedback;
mod options;
mod reflector;
mod session;

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{NodeSecret, TooShort};
use nix::sys::socket::{setsockopt, sockopt};

pub use counters::{RefusalCounters, SampleNodeCounters};
pub use options::{
    NodeBehaviour, NumberTreatment, PlainRoom, SampleNodeOptions, Stamps, number_of,
};
use reflector::{BatchClock, Reflector};

use crate::clock;
use crate::datagrams::{DatagramInbox, DatagramOutbox};

/// The maximum size of a datagram.
const DATAGRAM: usize = 65_535;
/// Datagrams per read: a burst of a hundred sessions takes two.
const BATCH: usize = 64;
/// Maximum wait for packets. It bounds the delay of lease checks and of the end of the node.
const NAP: Duration = Duration::from_millis(50);
/// Under load, packets are gathered for this time, because a wake-up costs more than a packet.
const GATHER: Duration = Duration::from_micros(200);
/// Receive buffer, large enough for the time in which other processes have the processor.
const RECEIVE_BUFFER: usize = 4 * 1_024 * 1_024;

/// A sample node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SampleNodeError {
    /// The file of the secret cannot be read.
    #[error("cannot read the secret {0}: {1}")]
    Secret(String, io::Error),
    /// The secret has fewer bytes than a key of HMAC needs.
    #[error("the secret {path} has {length} bytes, at least 16 are needed")]
    SecretTooShort {
        /// The file.
        path: String,
        /// Its length in bytes.
        length: usize,
    },
    /// The media port cannot be bound.
    #[error("cannot listen at {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// Reading or waiting failed while the node ran.
    #[error("the node ended: {0}")]
    Io(#[from] io::Error),
}

/// Reads the secret of the node with this name from a file.
///
/// # Errors
/// The file cannot be read, or is too short.
pub fn read_secret(path: &Path, node: &str) -> Result<NodeSecret, SampleNodeError> {
    let shown = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => NodeSecret::new(&bytes, node)
            .map_err(|TooShort { length }| SampleNodeError::SecretTooShort { path: shown, length }),
        Err(error) => Err(SampleNodeError::Secret(shown, error)),
    }
}

/// A media node that returns packets to the other sessions of their room.
pub struct SampleNode {
    socket: UdpSocket,
    address: SocketAddr,
    reflector: Reflector,
    ending: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl SampleNode {
    /// Binds the socket.
    pub fn bind(options: SampleNodeOptions) -> Result<Self, SampleNodeError> {
        let address = options.listen;
        let bound = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(NAP))?;
            // The kernel limits the size to `net.core.rmem_max`.
            let _as_much_as_allowed = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
            Ok(socket)
        };
        let socket = bound().map_err(|error| SampleNodeError::Listen(address, error))?;
        let address = socket.local_addr()?;
        let reflector = Reflector::new(options, fastrand::Rng::new());
        let (ending, stopped) = (Arc::default(), Arc::default());
        Ok(Self { socket, address, reflector, ending, stopped })
    }

    /// The bound address, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Set it to end [`run`](Self::run).
    pub fn ending(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ending)
    }

    /// While set, the node reads and sends nothing and keeps its socket open, like a stopped process.
    pub fn stopped(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    /// Serves until told to end, and returns the counters.
    pub fn run(mut self) -> Result<SampleNodeCounters, SampleNodeError> {
        let (mut inbox, mut outbox) =
            (DatagramInbox::new(DATAGRAM, BATCH), DatagramOutbox::default());
        while !self.ending.load(Ordering::Relaxed) {
            if self.stopped.load(Ordering::Relaxed) {
                std::thread::sleep(NAP);
                continue;
            }
            // ICMP errors for packets to clients that have gone are ignored.
            let came = match inbox.receive(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                came => came?,
            };
            let now = BatchClock { instant: Instant::now(), unix_us: clock::now_ns() / 1_000 };
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

/// The format of standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    /// A line for a person.
    Plain,
    /// One line of JSON with the listen address, and one with counters at the end.
    Json,
}

/// Runs the node as a process until SIGTERM or SIGINT, then prints its counters.
pub fn run(
    options: SampleNodeOptions,
    conduct: Box<dyn NodeBehaviour>,
    words: Words,
) -> Result<(), SampleNodeError> {
    let node_name = options.name.clone();
    let mut node = SampleNode::bind(options)?;
    node.reflector.conduct = conduct;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, node.ending())?;
    }
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
