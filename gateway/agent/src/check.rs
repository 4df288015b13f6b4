//! Checks the server's media port. Silence is counted in probes, not in time, so that a delayed agent does not mistake
//! its own delay for a silent port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_media::{demux, stun};
use nix::errno::Errno;
use serde::Deserialize;

/// Number of consecutive unanswered probes after which the port is silent.
const UNANSWERED_MAX: u32 = 3;

/// Number of consecutive refusals after which the port is closed. A server that binds its port again causes one
/// refusal.
const REFUSED_MAX: u32 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CheckKind {
    /// A STUN binding request (RFC 8489), as in ICE.
    Stun,
    /// A datagram that the server echoes.
    Echo,
    /// rtpengine's control protocol: `ping`, answered `pong`.
    NgPing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortState {
    Up,
    Silent,
    /// The kernel reports that no process has it.
    Closed,
}

pub(crate) struct ServerCheck {
    kind: CheckKind,
    every: Duration,
    pub(crate) socket: UdpSocket,
    pub(crate) due: Instant,
    asked: u32,
    unanswered: u32,
    refused: u32,
}

impl ServerCheck {
    pub(crate) fn new(
        address: SocketAddr,
        kind: CheckKind,
        every: Duration,
        now: Instant,
    ) -> io::Result<ServerCheck> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(ServerCheck {
            kind,
            every,
            socket,
            due: now,
            asked: 0,
            unanswered: UNANSWERED_MAX,
            refused: 0,
        })
    }

    /// Sends a probe if one is due. Call [`read`](Check::read) first.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        self.asked = self.asked.wrapping_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        let probe = self.probe();
        // The kernel returns the error of an earlier probe instead of sending.
        if let Err(error) = self.socket.send(&probe) {
            self.note(&error);
            let _lost_at_worst = self.socket.send(&probe);
        }
    }

    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 256];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) if self.is_answer(&buffer[..length]) => {
                    (self.unanswered, self.refused) = (0, 0);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.note(&error),
            }
        }
    }

    /// Counts at most one refusal per unanswered probe: a port that answers is not closed, and ICMP may be forged.
    fn note(&mut self, error: &io::Error) {
        if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) {
            self.refused = self.refused.saturating_add(1).min(self.unanswered);
        }
    }

    pub(crate) fn port(&self) -> PortState {
        if self.refused >= REFUSED_MAX {
            PortState::Closed
        } else if self.unanswered >= UNANSWERED_MAX {
            PortState::Silent
        } else {
            PortState::Up
        }
    }

    /// Builds a probe with distinct content. A late answer to an earlier probe still counts as a sign of life.
    fn probe(&self) -> Vec<u8> {
        let mut probe = Vec::new();
        match self.kind {
            CheckKind::Stun => {
                stun::BindingBuilder::probe(stun::Transaction(self.token())).write(&mut probe);
            }
            CheckKind::Echo => {
                probe.push(demux::ECHO);
                probe.extend_from_slice(&self.token());
            }
            CheckKind::NgPing => {
                probe.extend_from_slice(format!("{} d7:command4:pinge", self.asked).as_bytes());
            }
        }
        probe
    }

    fn token(&self) -> [u8; 12] {
        let mut token = [0; 12];
        token[8..].copy_from_slice(&self.asked.to_be_bytes());
        token
    }

    fn is_answer(&self, datagram: &[u8]) -> bool {
        match self.kind {
            CheckKind::Stun => stun::Response::parse(datagram).is_ok(),
            CheckKind::Echo => datagram.first() == Some(&demux::ECHO),
            CheckKind::NgPing => datagram.windows(4).any(|word| word == b"pong"),
        }
    }
}

#[cfg(test)]
mod tests;
