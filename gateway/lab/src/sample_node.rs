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
use serde_json::json;

pub use counters::{IgnoredCounters, RefusalCounters, SampleNodeCounters};
pub use options::{NodeBehaviour, PlainRoom, SampleNodeOptions, WEBRTC_RETRANSMISSIONS, number_of};
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
    /// The file of the secret cannot be read, or has fewer bytes than a key of HMAC needs.
    #[error("{0}")]
    Secret(String),
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
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| format!("cannot read the secret {shown}: {error}"));
    let secret = bytes.and_then(|bytes| {
        NodeSecret::new(&bytes, node).map_err(|TooShort { length }| {
            format!("the secret {shown} has {length} bytes, at least 16 are needed")
        })
    });
    secret.map_err(SampleNodeError::Secret)
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
        let mut reflector = Reflector::new(options, fastrand::Rng::new());
        reflector.refuse_before(evenkeel_process::unix_us(std::time::SystemTime::now()));
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
            self.reflector.handle_timeout(now, &mut outbox);
            self.reflector.flush(&mut outbox);
            outbox.flush(&self.socket);
            if came > 0 {
                std::thread::sleep(GATHER);
            }
        }
        self.count_rest(&mut inbox)?;
        Ok(self.reflector.counters())
    }

    /// Counts the datagrams that arrived before the end, and answers none.
    fn count_rest(&mut self, inbox: &mut DatagramInbox) -> Result<(), SampleNodeError> {
        self.socket.set_nonblocking(true)?;
        let mut unsent = DatagramOutbox::default();
        for _ in 0..RECEIVE_BUFFER / DATAGRAM {
            let now = BatchClock { instant: Instant::now(), unix_us: clock::now_ns() / 1_000 };
            match inbox.receive(&self.socket) {
                Ok(0) => break,
                // The error of an earlier packet to a client that has gone.
                Err(_) => continue,
                Ok(_) => {}
            }
            for datagram in inbox.iter() {
                self.reflector.handle_datagram(&datagram, now, &mut unsent);
            }
        }
        Ok(())
    }
}

/// Runs the node as a process until SIGTERM or SIGINT. Prints its address and at the end its counters, as lines of JSON or
/// for a person.
pub fn run(
    options: SampleNodeOptions,
    conduct: Box<dyn NodeBehaviour>,
    json: bool,
) -> Result<(), SampleNodeError> {
    let node_name = options.name.clone();
    let mut node = SampleNode::bind(options)?;
    node.reflector.conduct = conduct;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, node.ending())?;
    }
    let mut out = io::stdout();
    let address = node.address();
    if json {
        let number = number_of(&node_name);
        let line = json!({"node": node_name, "number": number, "listening": address});
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{node_name} listens at {address}")?;
    }
    out.flush()?;
    let counters = node.run()?;
    if json {
        writeln!(out, "{}", serde_json::to_string(&counters).map_err(io::Error::from)?)?;
    } else {
        writeln!(out, "{node_name} reflected {} packets", counters.packets_out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
