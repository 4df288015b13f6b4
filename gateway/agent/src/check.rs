//! Checks the server's media port. Counts probes rather than time, so that a late agent does not
//! find the port silent.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_media::{demux, stun};
use nix::errno::Errno;
use serde::Deserialize;

/// After so many unanswered probes in a row the port is silent.
const UNANSWERED_MAX: u32 = 3;

/// After so many refusals in a row the port is closed: a server that binds its port anew refuses
/// one.
const REFUSED_MAX: u32 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A STUN binding request (RFC 8489), as in ICE.
    Stun,
    /// A datagram that the server echoes.
    Echo,
    /// rtpengine's control protocol: `ping`, answered `pong`.
    NgPing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    Up,
    Silent,
    /// The kernel reports ECONNREFUSED.
    Closed,
}

pub(crate) struct Check {
    kind: CheckKind,
    every: Duration,
    pub(crate) socket: UdpSocket,
    due: Instant,
    asked: u32,
    unanswered: u32,
    refused: u32,
}

impl Check {
    pub(crate) fn new(
        address: SocketAddr,
        kind: CheckKind,
        every: Duration,
        now: Instant,
    ) -> io::Result<Check> {
        let socket = crate::serve::connected(address)?;
        Ok(Check {
            kind,
            every,
            socket,
            due: now,
            asked: 0,
            unanswered: UNANSWERED_MAX,
            refused: 0,
        })
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
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
        if let Err(error) = self.socket.send(&probe) {
            self.note(&error);
        }
    }

    /// Reads what arrived.
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

    fn note(&mut self, error: &io::Error) {
        if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) {
            self.refused = self.refused.saturating_add(1);
        }
    }

    pub(crate) fn port(&self) -> Port {
        if self.refused >= REFUSED_MAX {
            Port::Closed
        } else if self.unanswered >= UNANSWERED_MAX {
            Port::Silent
        } else {
            Port::Up
        }
    }

    /// Each probe differs; a late answer to an earlier one still counts as a sign of life.
    fn probe(&self) -> Vec<u8> {
        let mut probe = Vec::new();
        match self.kind {
            CheckKind::Stun => {
                stun::Binding::probe(stun::Transaction(self.token())).write(&mut probe)
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
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(10);

    fn pair(kind: CheckKind) -> (UdpSocket, Check, Instant) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let now = Instant::now();
        let check = Check::new(server.local_addr().unwrap(), kind, EVERY, now).unwrap();
        (server, check, now)
    }

    /// The server answers what was asked last like this.
    fn answer(server: &UdpSocket, check: &mut Check, answer: impl FnOnce(&[u8]) -> Vec<u8>) {
        let mut buffer = [0; 256];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&answer(&buffer[..length]), from).unwrap();
        check.read();
    }

    #[test]
    fn each_check_kind_accepts_its_answer() {
        let (server, mut check, now) = pair(CheckKind::Echo);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        assert_eq!(check.port(), Port::Up);

        let (server, mut check, now) = pair(CheckKind::NgPing);
        check.handle_timeout(now);
        answer(&server, &mut check, |question| {
            assert_eq!(question, b"1 d7:command4:pinge");
            b"1 d6:result4:ponge".to_vec()
        });
        assert_eq!(check.port(), Port::Up);

        let (server, mut check, now) = pair(CheckKind::Stun);
        check.handle_timeout(now);
        answer(&server, &mut check, |question| {
            let request = stun::Request::parse(question).unwrap();
            let mut answer = Vec::new();
            let mapped = ([127, 0, 0, 1], 9).into();
            stun::write_success(request.transaction(), mapped, None, &mut answer);
            answer
        });
        assert_eq!(check.port(), Port::Up);
    }

    #[test]
    fn port_is_silent_initially_and_after_three_misses() {
        let (server, mut check, mut now) = pair(CheckKind::Echo);
        assert_eq!(check.port(), Port::Silent);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        for _ in 0..2 {
            now += EVERY;
            check.handle_timeout(now);
            check.handle_timeout(now);
            check.read();
            assert_eq!(check.port(), Port::Up);
        }
        // Silence is counted in probes, not in time.
        now += 100 * EVERY;
        assert_eq!(check.port(), Port::Up);
        check.handle_timeout(now);
        assert_eq!(check.port(), Port::Silent);
    }

    #[test]
    fn port_is_closed_from_two_refusals_to_an_answer() {
        let (server, mut check, mut now) = pair(CheckKind::Echo);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        let address = server.local_addr().unwrap();
        drop(server);
        let patience = Instant::now() + Duration::from_secs(10);
        for (refused, port) in [(1, Port::Up), (2, Port::Closed)] {
            now += EVERY;
            check.handle_timeout(now);
            while check.refused < refused {
                assert!(Instant::now() < patience);
                check.read();
            }
            assert_eq!(check.port(), port);
        }
        let server = UdpSocket::bind(address).unwrap();
        now += EVERY;
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        assert_eq!((check.port(), check.refused), (Port::Up, 0));
    }

    #[test]
    fn echoed_question_is_no_answer() {
        let (server, mut check, now) = pair(CheckKind::Stun);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        assert_eq!(check.port(), Port::Silent, "its own question came back");
    }
}
