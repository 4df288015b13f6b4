//! The event loop: one thread waits for gateways, the server, its process and timers.

mod effects;

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use effects::{COMMANDS, LEGS, PROCESS, SystemIo, log, watch};
use evenkeel_media::trunk::message::SKEW_MAX_US;
use evenkeel_process::random::draw;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::agent::{AgentMachine, AgentSettings, BatchTime};
use crate::check::{PortState, ServerCheck};
use crate::config::Config;
use crate::counters::AgentCounters;
use crate::gateway_port::GatewayPort;
use crate::load::{MEASURE_EVERY, Meter};
use crate::process::{LOOK_EVERY, WatchedProcess};

const DATAGRAM: usize = 65_535;
/// Limit of datagrams read from one socket before the others are read.
const BATCH: usize = 64;
/// Events per epoll wait.
const EVENTS: usize = 256;
/// Time to retransmit the last notice before the agent exits.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Epoll tokens besides those of [`effects`].
const TRUNK: u64 = 0;
const CHECK: u64 = 2;
const SIGNALS: u64 = 4;

/// An agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeAgentError {
    /// The trunk port cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A system call failed.
    #[error("agent stopped: {0}")]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT. Prints its address and at the end its counters, as lines of JSON or for a person.
/// SIGUSR1 drains the node, SIGUSR2 ends draining.
///
/// # Errors
/// Any [`ServeAgentError`].
pub fn run(config: Config, json: bool) -> Result<(), ServeAgentError> {
    let is_witness = config.is_witness();
    let (address, mut serve) = Serve::new(config)?;
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::json!({"listening": address}))?;
    } else {
        let name = if is_witness { "witness" } else { "agent" };
        writeln!(out, "{name} listening on {address}")?;
    }
    out.flush()?;
    let counters = serve.run()?;
    if json {
        writeln!(out, "{}", serde_json::to_string(&counters).map_err(io::Error::from)?)?;
    } else if !is_witness {
        let (to_server, to_gateway) = (counters.packets_to_server, counters.packets_to_gateway);
        writeln!(
            out,
            "agent forwarded {to_server} packets to the server and {to_gateway} to gateways"
        )?;
    }
    Ok(())
}

struct Serve {
    agent: AgentMachine,
    io: SystemIo,
    check: Option<ServerCheck>,
    gateway: Option<GatewayPort>,
    /// Its pipe is readable when a signal has arrived.
    signals: SignalDelivery<UnixStream, SignalOnly>,
    meter: Meter,
    drain_timeout: Duration,
    look: Instant,
    measure: Instant,
    /// Earliest and latest exit time: in between, the agent exits once its sessions have left.
    ending: Option<(Instant, Instant)>,
    last_us: u64,
    buffer: Vec<u8>,
}

impl Serve {
    fn new(config: Config) -> Result<(SocketAddr, Serve), ServeAgentError> {
        let address = config.listen;
        let bound = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let trunk = bound().map_err(|error| ServeAgentError::Listen(address, error))?;
        let address = trunk.local_addr()?;
        let now = Instant::now();
        let settings = AgentSettings {
            secret: config.secret.clone(),
            salt: config.media.as_ref().filter(|media| media.encrypt).map(|_| draw()),
            instance: draw() as u32,
            drills: config.drills,
            drill_timeout: config.drill_timeout,
            sessions_max: config.media.as_ref().map_or(0, |media| media.sessions),
            has_process: config.process.is_some(),
            has_check: config.check.is_some() || config.gateway.is_some(),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        watch(&epoll, &trunk, TRUNK)?;
        let check =
            config.check.map(|check| ServerCheck::new(check.address, check.how, check.every, now));
        let check = check.transpose()?;
        if let Some(check) = &check {
            watch(&epoll, &check.socket, CHECK)?;
        }
        let gateway = config.gateway.map(|gateway| GatewayPort::new(gateway, now)).transpose()?;
        let (reader, writer) = UnixStream::pair()?;
        let caught = [SIGTERM, SIGINT, SIGUSR1, SIGUSR2];
        let signals = SignalDelivery::with_pipe(reader, writer, SignalOnly, caught)?;
        watch(&epoll, signals.get_read(), SIGNALS)?;
        let meter = Meter::new(config.load.cpus, config.load.file.clone());
        let drain_timeout = config.drain_timeout;
        let io = SystemIo::new(trunk, epoll, config, now)?;
        let mut agent = AgentMachine::new(settings, now);
        agent.refuse_before(evenkeel_process::unix_us(SystemTime::now()));
        let serve = Serve {
            agent,
            io,
            check,
            gateway,
            signals,
            meter,
            drain_timeout,
            look: now,
            measure: now,
            ending: None,
            last_us: 0,
            buffer: vec![0; DATAGRAM],
        };
        Ok((address, serve))
    }

    fn run(&mut self) -> io::Result<AgentCounters> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let now = self.now();
            self.handle_timeouts(now);
            if self.is_over(now.instant) {
                self.agent.faults.end(&mut self.io);
                self.io.stop_ours();
                return Ok(self.agent.counters);
            }
            let count = match self.io.epoll.wait(&mut events, self.wait(now.instant)) {
                Err(Errno::EINTR) => 0,
                waited => waited?,
            };
            let tokens = || events[..count].iter().map(EpollEvent::data);
            // The process's exit is handled before packets.
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
            self.agent.flush(&mut self.io);
        }
    }

    /// Reads both clocks. The wall time never decreases, unless it was set back by more than the allowed skew: gateways
    /// ignore messages signed before the last one.
    fn now(&mut self) -> BatchTime {
        let unix_us = evenkeel_process::unix_us(SystemTime::now());
        let set_anew = self.last_us.saturating_sub(unix_us) > SKEW_MAX_US;
        self.last_us = if set_anew { unix_us } else { unix_us.max(self.last_us) };
        BatchTime { instant: Instant::now(), unix_us: self.last_us }
    }

    fn wait(&self, now: Instant) -> EpollTimeout {
        let mut next = self.agent.poll_timeout().min(self.measure);
        if self.io.lacks_process() {
            next = next.min(self.look);
        }
        if let Some(check) = &self.check {
            next = next.min(check.due);
        }
        if let Some(gateway) = &self.gateway {
            next = next.min(gateway.due);
        }
        // Rounded up, so that the timer has expired when the wait ends.
        let ms = next.saturating_duration_since(now).as_micros().div_ceil(1_000);
        EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
    }

    fn handle_timeouts(&mut self, now: BatchTime) {
        if let Some(check) = &mut self.check {
            check.handle_timeout(now.instant);
            self.agent.handle_port(check.port(), now, &mut self.io);
        }
        if let Some(gateway) = &mut self.gateway
            && gateway.handle_timeout(now.instant)
        {
            let (address, port) = (gateway.gateway.address, gateway.port);
            match port {
                PortState::Closed => log(&format!("gateway's process ended: {address} is closed")),
                PortState::Up | PortState::Silent => {
                    log(&format!("watching gateway: {address} is open"));
                }
            }
            self.agent.handle_port(port, now, &mut self.io);
        }
        if std::mem::take(&mut self.io.look_now)
            || (self.io.lacks_process() && now.instant >= self.look)
        {
            self.look = now.instant + LOOK_EVERY;
            if self.io.look(now.instant) {
                self.agent.handle_process(true, now, &mut self.io);
            }
        }
        if now.instant >= self.measure {
            self.measure = now.instant + MEASURE_EVERY;
            let pid = self.io.process.as_ref().and_then(WatchedProcess::pid);
            self.agent.measured = self.meter.measure(pid, now.instant);
        }
        self.agent.handle_timeout(now, &mut self.io);
    }

    fn process_ended(&mut self) {
        let now = self.now();
        let process = self.io.process.as_mut();
        if let Some(pid) = process.and_then(|process| process.ended(now.instant)) {
            self.agent.handle_process(false, now, &mut self.io);
            log(&format!("process exited: pid={pid}"));
        }
    }

    fn read_trunk(&mut self) {
        let now = self.now();
        for _ in 0..BATCH {
            match self.io.trunk.recv_from(&mut self.buffer) {
                Ok((length, source)) => {
                    let datagram = &mut self.buffer[..length];
                    self.agent.handle_datagram(datagram, source, now, &mut self.io);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier datagram: its gateway is gone.
                Err(_) => {}
            }
        }
    }

    fn read_leg(&mut self, leg: u64) {
        for _ in 0..BATCH {
            match self.io.receive(leg, &mut self.buffer) {
                Some((slot, length)) => {
                    let packet = &self.buffer[..length];
                    self.agent.handle_from_server(slot, packet, &mut self.io);
                }
                None => return,
            }
        }
    }

    fn read_check(&mut self) {
        let now = self.now();
        if let Some(check) = &mut self.check {
            check.read();
            self.agent.handle_port(check.port(), now, &mut self.io);
        }
    }

    fn read_commands(&mut self) {
        let now = self.now();
        let done: Vec<_> = self.io.commands.results().collect();
        for (opening, outcome) in done {
            if let Err(reason) = &outcome {
                log(reason);
            }
            if let Some(opening) = opening
                && let Some(is_open) = self.io.opened(opening, outcome)
            {
                let slot = opening.slot;
                self.agent.handle_opened(slot, is_open, now, &mut self.io);
            }
        }
    }

    fn read_signals(&mut self) {
        let now = self.now();
        for signal in self.signals.pending() {
            match (signal, self.ending) {
                (SIGUSR1, _) => self.agent.handle_drain(true, now, &mut self.io),
                (SIGUSR2, None) => self.agent.handle_drain(false, now, &mut self.io),
                (SIGUSR2, Some(_)) => {}
                (_, None) => {
                    // Without trunk legs and without its own process, the agent can exit at once.
                    if self.io.is_needed() {
                        log("draining; exits once sessions have left");
                        self.agent.handle_drain(true, now, &mut self.io);
                    }
                    self.ending =
                        Some((now.instant + LAST_WORDS, now.instant + self.drain_timeout));
                }
                (_, Some(_)) => self.ending = Some((now.instant, now.instant)),
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let empty = self.agent.sessions.len() == 0;
        self.ending.is_some_and(|(earliest, latest)| now >= latest || (empty && now >= earliest))
    }
}
