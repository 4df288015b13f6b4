//! The agent's hands: its socket towards gateways, those towards the server, commands, and the process.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::Break;
use nix::sys::epoll::Epoll;
use nix::sys::signal::Signal;

use super::{AsFdDyn, COMMANDS, LEGS, PROCESS, any, tell};
use crate::agent::{Hands, Opening, Packet};
use crate::commands::{Commands, Job, Outcome};
use crate::config::{Config, Media, Rtcp, Server};
use crate::process::Process;
use crate::sessions::Place;

/// How long a command that starts the server may take.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What a command was run for.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    /// A session is to be opened at the server; `leg` tells it from others that had its place.
    Opened { place: Place, leg: u64 },
    /// One was closed there.
    Closed,
    /// The server is to be started.
    Started,
}

/// The sockets of one session towards the server.
struct Leg {
    rtp: UdpSocket,
    /// Where RTCP has a port of its own.
    rtcp: Option<UdpSocket>,
    number: u64,
    environment: Vec<(&'static str, String)>,
}

pub(super) struct Body {
    pub(super) trunk: UdpSocket,
    pub(super) epoll: Epoll,
    media: Option<Media>,
    legs: Vec<Option<Leg>>,
    numbers: u64,
    commands: Commands<About>,
    process: Option<Process>,
    start: Option<Vec<String>>,
    /// The process is to be looked for at once.
    hurry: bool,
}

impl Body {
    pub(super) fn new(
        trunk: UdpSocket,
        epoll: Epoll,
        config: Config,
        now: Instant,
    ) -> io::Result<Body> {
        let commands = Commands::new()?;
        commands.bell().add_to(&epoll, COMMANDS)?;
        let Config { process, cold, start, media, .. } = config;
        let process = process.map(|found| Process::new(found, cold, now));
        let (legs, numbers, hurry) = (Vec::new(), 0, true);
        Ok(Body { trunk, epoll, media, legs, numbers, commands, process, start, hurry })
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_ref()?.pid()
    }

    pub(super) fn lacks_process(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.pid().is_none())
    }

    pub(super) fn take_hurry(&mut self) -> bool {
        std::mem::take(&mut self.hurry)
    }

    /// Looks for the process, or starts it. Whether there is one now that there was not before.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let Some(process) = self.process.as_mut().filter(|process| process.pid().is_none()) else {
            return false;
        };
        let found = process.look(now).and_then(|found| match process.fd() {
            Some(fd) if found => fd.add_to(&self.epoll, PROCESS).map(|()| true),
            _ => Ok(false),
        });
        match found {
            Ok(true) => {
                tell(&format!("watching process {}", process.pid().unwrap_or_default()));
                true
            }
            Ok(false) => false,
            Err(error) => {
                tell(&format!("the process cannot be started: {error}"));
                false
            }
        }
    }

    pub(super) fn process_ended(&mut self, now: Instant) -> Option<i32> {
        self.process.as_mut()?.ended(now)
    }

    /// Whether something ends with the agent: trunk legs, or a process that it started.
    pub(super) fn is_needed(&self) -> bool {
        self.media.is_some() || self.process.as_ref().is_some_and(Process::is_ours)
    }

    /// A process that the agent started ends with it.
    pub(super) fn stop_ours(&self) {
        if let Some(process) = self.process.as_ref().filter(|process| process.is_ours()) {
            process.signal(Signal::SIGTERM);
        }
    }

    pub(super) fn done(&mut self) -> Vec<(About, Outcome)> {
        self.commands.done().collect()
    }

    /// The command for a session ended. Whether the session is open now; nothing where it ended meanwhile.
    pub(super) fn opened(&mut self, place: Place, leg: u64, said: Outcome) -> Option<bool> {
        let standing = self.legs.get(place as usize)?.as_ref();
        standing.filter(|standing| standing.number == leg)?;
        let Ok(said) = said else { return Some(false) };
        let Ok(address) = said.lines().next().unwrap_or("").trim().parse() else {
            let shown: String = said.chars().take(64).collect();
            tell(&format!("found {shown:?} from `media.open`, expected ADDRESS:PORT"));
            return Some(false);
        };
        let connected = self.connect(place, address);
        if let Err(error) = &connected {
            tell(&format!("no network leads to {address}: {error}"));
        }
        Some(connected.is_ok())
    }

    fn connect(&self, place: Place, address: SocketAddr) -> io::Result<()> {
        let Some(leg) = self.legs.get(place as usize).and_then(Option::as_ref) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let token = LEGS + u64::from(place) * 2;
        let address = reachable_from(&leg.rtp, address)?;
        leg.rtp.connect(address)?;
        leg.rtp.add_to(&self.epoll, token)?;
        if let Some(rtcp) = &leg.rtcp {
            rtcp.connect((address.ip(), address.port().wrapping_add(1)))?;
            rtcp.add_to(&self.epoll, token + 1)?;
        }
        Ok(())
    }

    /// The next packet of a socket towards the server, and whose it is.
    pub(super) fn receive(&self, leg: u64, buffer: &mut [u8]) -> Option<(Place, usize)> {
        let place = Place::try_from(leg / 2).ok()?;
        let sockets = self.legs.get(place as usize)?.as_ref()?;
        let socket = if leg.is_multiple_of(2) { &sockets.rtp } else { sockets.rtcp.as_ref()? };
        loop {
            match socket.recv(buffer) {
                Ok(length) => return Some((place, length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // The server's port is closed: what watches the process says more of that.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// Sockets of a session, that lead nowhere yet.
    fn sockets(&mut self, v4: bool, rtcp: Rtcp, room: u64, session: u64) -> io::Result<Leg> {
        let socket = || -> io::Result<UdpSocket> {
            // A machine without IPv6 has sockets of the other family.
            let socket = UdpSocket::bind(any(v4)).or_else(|_| UdpSocket::bind(any(true)))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let (rtp, rtcp) = match rtcp {
            Rtcp::Mux => (socket()?, None),
            Rtcp::NextPort => (socket()?, Some(socket()?)),
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
        Ok(Leg { rtp, rtcp, number: self.numbers, environment })
    }

    fn try_open(&mut self, place: Place, room: u64, session: u64) -> io::Result<Opening> {
        let Some(Media { server, rtcp, .. }) = self.media.clone() else {
            return Ok(Opening::Failed);
        };
        let v4 = match &server {
            Server::Static(address) => address.is_ipv4(),
            // Two families at one socket: a command may print either.
            Server::Command { .. } => false,
        };
        let leg = self.sockets(v4, rtcp, room, session)?;
        let (number, environment) = (leg.number, leg.environment.clone());
        let at = place as usize;
        if self.legs.len() <= at {
            self.legs.resize_with(at + 1, || None);
        }
        self.legs[at] = Some(leg);
        match server {
            Server::Static(address) => {
                self.connect(place, address)?;
                Ok(Opening::Open)
            }
            Server::Command { open, within, .. } => {
                let about = About::Opened { place, leg: number };
                let job = Job { command: open, environment, within, about };
                Ok(if self.commands.run(job) { Opening::Waits } else { Opening::Failed })
            }
        }
    }
}

/// The address as a socket of both families knows it (RFC 4291, 2.5.5.2).
fn reachable_from(socket: &UdpSocket, address: SocketAddr) -> io::Result<SocketAddr> {
    Ok(match (socket.local_addr()?, address) {
        (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        _ => address,
    })
}

impl Hands for Body {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        // What the network does not take is lost like any datagram.
        let _ = self.trunk.send_to(datagram, to);
    }

    fn hand(&mut self, place: Place, kind: Packet, packet: &[u8]) -> bool {
        let Some(leg) = self.legs.get(place as usize).and_then(Option::as_ref) else {
            return false;
        };
        let socket = match kind {
            Packet::Rtp => &leg.rtp,
            Packet::Rtcp => leg.rtcp.as_ref().unwrap_or(&leg.rtp),
        };
        // An error may be that of a packet before, and this one was not sent.
        socket.send(packet).or_else(|_| socket.send(packet)).is_ok()
    }

    fn open(&mut self, place: Place, room: u64, session: u64) -> Opening {
        self.try_open(place, room, session).unwrap_or_else(|error| {
            tell(&format!("a session cannot be opened: {error}"));
            Opening::Failed
        })
    }

    fn close(&mut self, place: Place) {
        let Some(leg) = self.legs.get_mut(place as usize).and_then(Option::take) else { return };
        if let Some(Media { server: Server::Command { close: Some(close), within, .. }, .. }) =
            &self.media
        {
            let (command, within) = (close.clone(), *within);
            let job = Job { command, environment: leg.environment, within, about: About::Closed };
            if !self.commands.run(job) {
                tell("too many commands wait: one that closes a session was left out");
            }
        }
    }

    fn start(&mut self, now: Instant) -> bool {
        self.hurry = true;
        if self.process.as_mut().is_some_and(|process| process.start(now)) {
            return true;
        }
        self.start.clone().is_some_and(|command| {
            let (environment, within, about) = (Vec::new(), START_WITHIN, About::Started);
            self.commands.run(Job { command, environment, within, about })
        })
    }

    fn signal(&mut self, how: Break) -> bool {
        let signal = match how {
            Break::Kill => Signal::SIGKILL,
            Break::Hang => Signal::SIGSTOP,
            Break::Wake => Signal::SIGCONT,
            Break::Cut | Break::Heal => return false,
        };
        let done = self.process.as_ref().is_some_and(|process| process.signal(signal));
        tell(&format!("drill: {}{}", how.name(), if done { "" } else { ", but nothing runs" }));
        done
    }

    fn tell(&mut self, words: &str) {
        tell(words);
    }
}
