//! The agent's side effects: sockets towards gateways and the server, commands, and the process.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{NodeFault, ProcessReport};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;

use crate::agent::{Io, MediaPacket, OpeningState};
use crate::commands::{CommandJob, CommandResult, Commands};
use crate::config::{Config, MediaConfig, RtcpConfig, Server};
use crate::load;
use crate::process::WatchedProcess;
use crate::sessions::SessionSlot;

pub(super) const PROCESS: u64 = 1;
pub(super) const COMMANDS: u64 = 3;
/// First epoll token of the sockets towards the server; lower tokens are fixed.
pub(super) const LEGS: u64 = 16;

/// Time limit of the command that starts the server.
const START_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn log(line: &str) {
    // The agent continues if standard error is closed.
    let _ = writeln!(io::stderr(), "evenkeel agent: {line}");
}

/// Adds a descriptor to the loop.
pub(super) fn watch(epoll: &Epoll, fd: &impl AsFd, token: u64) -> io::Result<()> {
    Ok(epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
}

/// The session of a running `media.open`. `leg` distinguishes it from earlier ones in the same slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct LegOpening {
    pub(super) slot: SessionSlot,
    leg: u64,
}

struct ServerLeg {
    rtp: UdpSocket,
    /// The RTCP socket, if RTCP has a separate port.
    rtcp: Option<UdpSocket>,
    number: u64,
    environment: Vec<(&'static str, String)>,
}

pub(super) struct SystemIo {
    pub(super) trunk: UdpSocket,
    pub(super) epoll: Epoll,
    media: Option<MediaConfig>,
    legs: Vec<Option<ServerLeg>>,
    numbers: u64,
    pub(super) commands: Commands<Option<LegOpening>>,
    pub(super) process: Option<WatchedProcess>,
    start: Option<Vec<String>>,
    /// True if the loop must look for the process at once.
    pub(super) look_now: bool,
}

impl SystemIo {
    pub(super) fn new(
        trunk: UdpSocket,
        epoll: Epoll,
        config: Config,
        now: Instant,
    ) -> io::Result<SystemIo> {
        let commands = Commands::new()?;
        watch(&epoll, &commands.bell, COMMANDS)?;
        let Config { process, cold, start, media, .. } = config;
        let process = process.map(|found| WatchedProcess::new(found, cold, now));
        let (legs, numbers, look_now) = (Vec::new(), 0, true);
        Ok(SystemIo { trunk, epoll, media, legs, numbers, commands, process, start, look_now })
    }

    pub(super) fn lacks_process(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.pid().is_none())
    }

    /// Finds or starts the process. Returns whether a new one was found.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let Some(process) = self.process.as_mut().filter(|process| process.pid().is_none()) else {
            return false;
        };
        let found = process.find_or_start(now).and_then(|found| match process.fd() {
            Some(fd) if found => watch(&self.epoll, fd, PROCESS).map(|()| true),
            _ => Ok(false),
        });
        match &found {
            Ok(true) => {
                log(&format!("watching process: pid={}", process.pid().unwrap_or_default()));
            }
            Ok(false) => {}
            Err(error) => log(&format!("cannot start the process: {error}")),
        }
        found.unwrap_or(false)
    }

    /// Returns whether sessions, or a process started by the agent, end with the agent.
    pub(super) fn is_needed(&self) -> bool {
        self.media.is_some() || self.process.as_ref().is_some_and(WatchedProcess::is_ours)
    }

    /// Stops a process that the agent started.
    pub(super) fn stop_ours(&self) {
        if let Some(process) = self.process.as_ref().filter(|process| process.is_ours()) {
            process.signal(Signal::SIGTERM);
        }
    }

    /// Handles the result of `media.open`. Returns whether the session is open, or `None` if it has ended meanwhile.
    pub(super) fn opened(
        &mut self,
        LegOpening { slot, leg }: LegOpening,
        output: CommandResult,
    ) -> Option<bool> {
        let existing = self.legs.get(slot as usize)?.as_ref();
        existing.filter(|existing| existing.number == leg)?;
        let Ok(output) = output else { return Some(false) };
        let Ok(address) = output.lines().next().unwrap_or("").trim().parse() else {
            let shown: String = output.chars().take(64).collect();
            log(&format!("media.open printed {shown:?}, expected ADDRESS:PORT"));
            return Some(false);
        };
        let connected = self.connect(slot, address);
        if let Err(error) = &connected {
            log(&format!("cannot connect to {address}: {error}"));
        }
        Some(connected.is_ok())
    }

    fn connect(&self, slot: SessionSlot, address: SocketAddr) -> io::Result<()> {
        let Some(leg) = self.legs.get(slot as usize).and_then(Option::as_ref) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let token = LEGS + u64::from(slot) * 2;
        let address = reachable_from(&leg.rtp, address)?;
        leg.rtp.connect(address)?;
        watch(&self.epoll, &leg.rtp, token)?;
        if let Some(rtcp) = &leg.rtcp {
            rtcp.connect((address.ip(), address.port().wrapping_add(1)))?;
            watch(&self.epoll, rtcp, token + 1)?;
        }
        Ok(())
    }

    /// Receives the next packet of a server socket. Returns its session's slot and its length.
    pub(super) fn receive(&self, leg: u64, buffer: &mut [u8]) -> Option<(SessionSlot, usize)> {
        let slot = SessionSlot::try_from(leg / 2).ok()?;
        let sockets = self.legs.get(slot as usize)?.as_ref()?;
        let socket = if leg.is_multiple_of(2) { &sockets.rtp } else { sockets.rtcp.as_ref()? };
        loop {
            match socket.recv(buffer) {
                Ok(length) => return Some((slot, length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // The server's port is closed; the process watch reports the server's end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// Creates the unconnected sockets of a session.
    fn sockets(
        &mut self,
        v4: bool,
        rtcp: RtcpConfig,
        room: u64,
        session: u64,
    ) -> io::Result<ServerLeg> {
        let socket = || -> io::Result<UdpSocket> {
            // Falls back to IPv4 on a machine without IPv6.
            let bound = if v4 { None } else { UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok() };
            let socket = bound.map_or_else(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)), Ok)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let (rtp, rtcp) = match rtcp {
            RtcpConfig::Mux => (socket()?, None),
            RtcpConfig::NextPort => (socket()?, Some(socket()?)),
        };
        let mut environment = vec![
            ("EVENKEEL_ROOM", room.to_string()),
            ("EVENKEEL_SESSION", session.to_string()),
            ("EVENKEEL_PORT", rtp.local_addr()?.port().to_string()),
        ];
        if let Some(rtcp) = &rtcp {
            environment.push(("EVENKEEL_RTCP_PORT", rtcp.local_addr()?.port().to_string()));
        }
        self.numbers += 1;
        Ok(ServerLeg { rtp, rtcp, number: self.numbers, environment })
    }

    fn try_open(&mut self, slot: SessionSlot, room: u64, session: u64) -> io::Result<OpeningState> {
        let Some(MediaConfig { server, rtcp, .. }) = self.media.clone() else {
            return Ok(OpeningState::Failed);
        };
        let v4 = match &server {
            Server::Static(address) => address.is_ipv4(),
            // The socket is dual-stack, because a command may print either family.
            Server::Command { .. } => false,
        };
        let leg = self.sockets(v4, rtcp, room, session)?;
        let (number, environment) = (leg.number, leg.environment.clone());
        let at = slot as usize;
        if self.legs.len() <= at {
            self.legs.resize_with(at + 1, || None);
        }
        self.legs[at] = Some(leg);
        match server {
            Server::Static(address) => {
                self.connect(slot, address)?;
                Ok(OpeningState::Open)
            }
            Server::Command { open, within, .. } => {
                let context = Some(LegOpening { slot, leg: number });
                let job = CommandJob { command: open, environment, within, context };
                let is_queued = self.commands.run(job);
                Ok(if is_queued { OpeningState::Pending } else { OpeningState::Failed })
            }
        }
    }
}

/// Converts the address to the form that the socket needs: mapped on a dual-stack socket (RFC 4291, 2.5.5.2).
fn reachable_from(socket: &UdpSocket, address: SocketAddr) -> io::Result<SocketAddr> {
    Ok(match (socket.local_addr()?, address) {
        (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        _ => address,
    })
}

impl Io for SystemIo {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        // A failed send is packet loss.
        let _ = self.trunk.send_to(datagram, to);
    }

    fn forward(&mut self, slot: SessionSlot, kind: MediaPacket, packet: &[u8]) -> bool {
        let Some(leg) = self.legs.get(slot as usize).and_then(Option::as_ref) else {
            return false;
        };
        let socket = match kind {
            MediaPacket::Rtp => &leg.rtp,
            MediaPacket::Rtcp => leg.rtcp.as_ref().unwrap_or(&leg.rtp),
        };
        // The error may belong to an earlier packet, and then this packet was not sent.
        socket.send(packet).or_else(|_| socket.send(packet)).is_ok()
    }

    fn open(&mut self, slot: SessionSlot, room: u64, session: u64) -> OpeningState {
        self.try_open(slot, room, session).unwrap_or_else(|error| {
            log(&format!("cannot open a session: {error}"));
            OpeningState::Failed
        })
    }

    fn close(&mut self, slot: SessionSlot) {
        let Some(leg) = self.legs.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Some(MediaConfig {
            server: Server::Command { close: Some(close), within, .. },
            ..
        }) = &self.media
        {
            let (command, within, environment) = (close.clone(), *within, leg.environment);
            let job = CommandJob { command, environment, within, context: None };
            if !self.commands.run(job) {
                log("too many commands wait; media.close not run for a session");
            }
        }
    }

    fn start(&mut self, now: Instant) -> bool {
        self.look_now = true;
        if self.process.as_mut().is_some_and(|process| process.start(now)) {
            return true;
        }
        self.start.clone().is_some_and(|command| {
            let (environment, within) = (Vec::new(), START_WITHIN);
            self.commands.run(CommandJob { command, environment, within, context: None })
        })
    }

    fn signal(&mut self, how: NodeFault) -> bool {
        let signal = match how {
            NodeFault::Kill => Signal::SIGKILL,
            NodeFault::Hang => Signal::SIGSTOP,
            NodeFault::Wake => Signal::SIGCONT,
            NodeFault::Cut | NodeFault::Heal => return false,
        };
        let done = self.process.as_ref().is_some_and(|process| process.signal(signal));
        log(&format!("drill: {}{}", how.name(), if done { "" } else { " (no process)" }));
        done
    }

    fn process_report(&self) -> Option<ProcessReport> {
        load::process(self.process.as_ref()?.pid()?)
    }

    fn log(&mut self, line: &str) {
        log(line);
    }
}
