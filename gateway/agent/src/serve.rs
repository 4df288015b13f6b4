//! The loop: one thread that waits for gateways, the server, its process and time.

mod io;
mod signals;

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evenkeel_media::trunk::message::SKEW_MAX_US;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::agent::{Agent, Now, Rules};
use crate::check::Check;
use crate::config::Config;
use crate::counters::Counters;
use crate::load::{MEASURE_EVERY, Meter};
use crate::process::LOOK_EVERY;
use io::{About, Body};
use signals::{Signals, Word};

/// The largest datagram there is.
const DATAGRAM: usize = 65_535;
/// Datagrams read from a socket before the others have their turn.
const BATCH: usize = 64;
/// Sockets that are told of at once.
const EVENTS: usize = 256;
/// After the last word to gateways there is time to say it again.
const LAST_WORDS: Duration = Duration::from_millis(50);

const TRUNK: u64 = 0;
const PROCESS: u64 = 1;
const CHECK: u64 = 2;
const COMMANDS: u64 = 3;
const SIGNALS: u64 = 4;
/// Sockets towards the server come from here on.
const LEGS: u64 = 16;

/// How the process speaks on standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    /// Sentences.
    Plain,
    /// JSON: a line that says where it listens, and at the end a line of counters.
    Json,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The system has no more room for sockets, signals, threads or output.
    #[error("the agent ended: {0}")]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT, then says what it counted. SIGUSR1 drains the node, SIGUSR2 takes that back.
///
/// # Errors
/// Any [`Failed`].
pub fn run(config: Config, words: Words) -> Result<(), Failed> {
    let (address, mut serve) = Serve::new(config)?;
    let mut out = io::stdout();
    match words {
        Words::Plain => writeln!(out, "the agent listens at {address}")?,
        Words::Json => writeln!(out, "{}", serde_json::json!({"listening": address}))?,
    }
    out.flush()?;
    let counters = serve.run()?;
    match words {
        Words::Plain => writeln!(
            out,
            "the agent handed {} packets to the server and {} to gateways",
            counters.packets_to_server, counters.packets_to_gateway
        )?,
        Words::Json => {
            writeln!(out, "{}", serde_json::to_string(&counters).map_err(io::Error::from)?)?;
        }
    }
    Ok(())
}

/// A socket that knows no other peer, and does not block.
pub(crate) fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any(address.is_ipv4()))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn any(v4: bool) -> SocketAddr {
    if v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// One line for people, on standard error.
fn tell(line: &str) {
    // Who closed it does not want to know.
    let _ = writeln!(io::stderr(), "evenkeel agent: {line}");
}

struct Serve {
    agent: Agent,
    body: Body,
    check: Option<Check>,
    signals: Signals,
    meter: Meter,
    drain_within: Duration,
    look: Instant,
    measure: Instant,
    /// Ends once the sessions left, at the latest then.
    ending: Option<(Instant, Instant)>,
    told_us: u64,
    buffer: Vec<u8>,
}

impl Serve {
    fn new(config: Config) -> Result<(SocketAddr, Serve), Failed> {
        let address = config.listen;
        let bound = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let trunk = bound().map_err(|error| Failed::Listen { address, error })?;
        let address = trunk.local_addr()?;
        let now = Instant::now();
        let rules = Rules {
            secret: config.secret.clone(),
            drills: config.drills,
            drills_last: config.drills_last,
            sessions_max: config.media.as_ref().map_or(0, |media| media.sessions),
            watches: config.process.is_some(),
            checks: config.check.is_some(),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        let watch = |fd: &dyn AsFdDyn, token| fd.add_to(&epoll, token);
        watch(&trunk, TRUNK)?;
        let check =
            config.check.map(|check| Check::new(check.address, check.how, check.every, now));
        let check = check.transpose()?;
        if let Some(check) = &check {
            watch(&check.socket, CHECK)?;
        }
        let signals = Signals::new()?;
        watch(signals.reader(), SIGNALS)?;
        let meter = Meter::new(config.load.cpus, config.load.file.clone());
        let drain_within = config.drain_within;
        let body = Body::new(trunk, epoll, config, now)?;
        let serve = Serve {
            agent: Agent::new(rules, now),
            body,
            check,
            signals,
            meter,
            drain_within,
            look: now,
            measure: now,
            ending: None,
            told_us: 0,
            buffer: vec![0; DATAGRAM],
        };
        Ok((address, serve))
    }

    fn run(&mut self) -> io::Result<Counters> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let now = self.now();
            self.handle_timeouts(now);
            if self.is_over(now.instant) {
                self.agent.mend(&mut self.body);
                self.body.stop_ours();
                return Ok(self.agent.counters);
            }
            let count = match self.body.epoll.wait(&mut events, self.wait(now.instant)) {
                Err(Errno::EINTR) => 0,
                waited => waited?,
            };
            let tokens = || events[..count].iter().map(EpollEvent::data);
            // A death goes before packets.
            if tokens().any(|token| token == PROCESS) {
                self.process_ended();
            }
            for token in tokens() {
                match token {
                    TRUNK => self.read_trunk(),
                    PROCESS => {}
                    CHECK => self.read_check(),
                    COMMANDS => self.read_commands(),
                    SIGNALS => self.read_signals(),
                    leg => self.read_leg(leg - LEGS),
                }
            }
            self.agent.flush(&mut self.body);
        }
    }

    /// Both clocks. The wall clock is not followed backwards, but where it was set anew: gateways would not believe what
    /// was signed before what they heard last.
    fn now(&mut self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = unix.as_micros() as u64;
        let set_anew = self.told_us.saturating_sub(unix_us) > SKEW_MAX_US;
        self.told_us = if set_anew { unix_us } else { unix_us.max(self.told_us) };
        Now { instant: Instant::now(), unix_us: self.told_us }
    }

    fn wait(&self, now: Instant) -> EpollTimeout {
        let mut next = self.agent.poll_timeout().min(self.measure);
        if self.body.lacks_process() {
            next = next.min(self.look);
        }
        if let Some(check) = &self.check {
            next = next.min(check.poll_timeout());
        }
        // Rounded up, so that what is waited for is due then.
        let ms = next.saturating_duration_since(now).as_micros().div_ceil(1_000);
        EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
    }

    fn handle_timeouts(&mut self, now: Now) {
        if let Some(check) = &mut self.check {
            check.handle_timeout(now.instant);
            self.agent.handle_port(check.port(), now, &mut self.body);
        }
        if self.body.take_hurry() || (self.body.lacks_process() && now.instant >= self.look) {
            self.look = now.instant + LOOK_EVERY;
            if self.body.look(now.instant) {
                self.agent.handle_process(true, now, &mut self.body);
            }
        }
        if now.instant >= self.measure {
            self.measure = now.instant + MEASURE_EVERY;
            self.agent.handle_measured(self.meter.measure(self.body.pid(), now.instant));
        }
        self.agent.handle_timeout(now, &mut self.body);
    }

    fn process_ended(&mut self) {
        let now = self.now();
        if let Some(pid) = self.body.process_ended(now.instant) {
            self.agent.handle_process(false, now, &mut self.body);
            tell(&format!("process {pid} is gone"));
        }
    }

    fn read_trunk(&mut self) {
        let now = self.now();
        for _ in 0..BATCH {
            match self.body.trunk.recv_from(&mut self.buffer) {
                Ok((length, source)) => {
                    let datagram = &self.buffer[..length];
                    self.agent.handle_datagram(datagram, source, now, &mut self.body);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What was sent to somebody who has gone comes back as a refusal, which is not ours to mind.
                Err(_) => {}
            }
        }
    }

    fn read_leg(&mut self, leg: u64) {
        for _ in 0..BATCH {
            match self.body.receive(leg, &mut self.buffer) {
                Some((place, length)) => {
                    let packet = &self.buffer[..length];
                    self.agent.handle_from_server(place, packet, &mut self.body);
                }
                None => return,
            }
        }
    }

    fn read_check(&mut self) {
        let now = self.now();
        if let Some(check) = &mut self.check {
            check.read();
            self.agent.handle_port(check.port(), now, &mut self.body);
        }
    }

    fn read_commands(&mut self) {
        let now = self.now();
        for (about, outcome) in self.body.done() {
            if let Err(reason) = &outcome {
                tell(reason);
            }
            if let About::Opened { place, leg } = about
                && let Some(is_open) = self.body.opened(place, leg, outcome)
            {
                self.agent.handle_opened(place, is_open, now, &mut self.body);
            }
        }
    }

    fn read_signals(&mut self) {
        let now = self.now();
        for word in self.signals.read() {
            match (word, self.ending) {
                (Word::End, None) => {
                    // Where nothing ends with the agent, the node need not drain.
                    if self.body.is_needed() {
                        tell("draining, and ending then");
                        self.agent.handle_drain(true, now, &mut self.body);
                    }
                    self.ending = Some((now.instant + LAST_WORDS, now.instant + self.drain_within));
                }
                (Word::End, Some(_)) => self.ending = Some((now.instant, now.instant)),
                (Word::Drain, _) => self.agent.handle_drain(true, now, &mut self.body),
                (Word::Serve, None) => self.agent.handle_drain(false, now, &mut self.body),
                (Word::Serve, Some(_)) => {}
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let empty = self.agent.open_sessions() == 0;
        self.ending.is_some_and(|(earliest, latest)| now >= latest || (empty && now >= earliest))
    }
}

/// What an epoll watches for reading.
trait AsFdDyn {
    fn add_to(&self, epoll: &Epoll, token: u64) -> io::Result<()>;
}

impl<T: std::os::fd::AsFd> AsFdDyn for T {
    fn add_to(&self, epoll: &Epoll, token: u64) -> io::Result<()> {
        epoll.add(self, EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(io::Error::from)
    }
}
