//! Whether the server's media port answers: asked all the time, and by count, so that our own lateness accuses nobody.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_media::{demux, stun};
use nix::errno::Errno;
use serde::Deserialize;

/// So many questions in a row without an answer, and the port is mute.
const UNANSWERED_MAX: u32 = 3;

/// So many refusals in a row, and it is closed: a server that binds its port anew refuses one.
const REFUSED_MAX: u32 = 2;

/// How the port is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A STUN binding request (RFC 8489), as ICE sends them.
    Stun,
    /// A datagram that comes back as it went.
    Echo,
    /// rtpengine's control protocol: `ping`, answered `pong`.
    NgPing,
}

/// What is known of the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    /// It answered lately.
    Answers,
    /// It does not answer.
    Mute,
    /// Nobody listens there.
    Closed,
}

/// Asks.
pub(crate) struct Check {
    how: How,
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
        how: How,
        every: Duration,
        now: Instant,
    ) -> io::Result<Check> {
        let socket = crate::serve::connected(address)?;
        Ok(Check { how, every, socket, due: now, asked: 0, unanswered: UNANSWERED_MAX, refused: 0 })
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// Asks again where it is time to. What came was read before.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        self.asked = self.asked.wrapping_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        let question = self.question();
        if let Err(error) = self.socket.send(&question) {
            self.note(&error);
        }
    }

    /// Reads what came.
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
            Port::Mute
        } else {
            Port::Answers
        }
    }

    /// Another one each time, so that a late answer to an old one counts for what it is: a sign of life.
    fn question(&self) -> Vec<u8> {
        let mut question = Vec::new();
        match self.how {
            How::Stun => stun::Binding::probe(stun::Transaction(self.token())).write(&mut question),
            How::Echo => {
                question.push(demux::ECHO);
                question.extend_from_slice(&self.token());
            }
            How::NgPing => {
                question.extend_from_slice(format!("{} d7:command4:pinge", self.asked).as_bytes());
            }
        }
        question
    }

    fn token(&self) -> [u8; 12] {
        let mut token = [0; 12];
        token[8..].copy_from_slice(&self.asked.to_be_bytes());
        token
    }

    fn is_answer(&self, datagram: &[u8]) -> bool {
        match self.how {
            How::Stun => stun::Response::parse(datagram).is_ok(),
            How::Echo => datagram.first() == Some(&demux::ECHO),
            How::NgPing => datagram.windows(4).any(|word| word == b"pong"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(10);

    /// A server's port, and who checks it.
    fn pair(how: How) -> (UdpSocket, Check, Instant) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let now = Instant::now();
        let check = Check::new(server.local_addr().unwrap(), how, EVERY, now).unwrap();
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
    fn each_kind_of_server_answers_in_its_way() {
        let (server, mut check, now) = pair(How::Echo);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        assert_eq!(check.port(), Port::Answers);

        let (server, mut check, now) = pair(How::NgPing);
        check.handle_timeout(now);
        answer(&server, &mut check, |question| {
            assert_eq!(question, b"1 d7:command4:pinge");
            b"1 d6:result4:ponge".to_vec()
        });
        assert_eq!(check.port(), Port::Answers);

        let (server, mut check, now) = pair(How::Stun);
        check.handle_timeout(now);
        answer(&server, &mut check, |question| {
            let request = stun::Request::parse(question).unwrap();
            let mut answer = Vec::new();
            let mapped = ([127, 0, 0, 1], 9).into();
            stun::write_success(request.transaction(), mapped, None, &mut answer);
            answer
        });
        assert_eq!(check.port(), Port::Answers);
    }

    #[test]
    fn a_port_is_mute_until_it_answers_and_after_three_questions_in_vain() {
        let (server, mut check, mut now) = pair(How::Echo);
        assert_eq!(check.port(), Port::Mute);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        for _ in 0..2 {
            now += EVERY;
            check.handle_timeout(now);
            check.handle_timeout(now);
            check.read();
            assert_eq!(check.port(), Port::Answers);
        }
        // However late we are ourselves, it is the questions that count.
        now += 100 * EVERY;
        assert_eq!(check.port(), Port::Answers);
        check.handle_timeout(now);
        assert_eq!(check.port(), Port::Mute);
    }

    #[test]
    fn a_port_that_nobody_listens_at_is_closed_after_two_refusals_and_until_it_answers() {
        let (server, mut check, mut now) = pair(How::Echo);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        let address = server.local_addr().unwrap();
        drop(server);
        let patience = Instant::now() + Duration::from_secs(10);
        for (refused, port) in [(1, Port::Answers), (2, Port::Closed)] {
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
        assert_eq!((check.port(), check.refused), (Port::Answers, 0));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let (server, mut check, now) = pair(How::Stun);
        check.handle_timeout(now);
        answer(&server, &mut check, <[u8]>::to_vec);
        assert_eq!(check.port(), Port::Mute, "its own question came back");
    }
}
