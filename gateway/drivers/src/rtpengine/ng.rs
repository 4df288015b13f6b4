//! The socket of an rtpengine, and pending NG requests by cookie. A retry has the same cookie, for which rtpengine
//! repeats its answer without acting twice.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel_model::NodeId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::bencode::Value;
use super::datagram::NgDatagram;
use crate::session::{mixed, plain_reason};
use crate::socket::{self, LocalTask, Received};

/// Buffer size, longer than any answer of rtpengine.
const ANSWER_MAX: usize = 65_535;

/// First retry interval; it doubles with each retry. An idle daemon answers within 1 ms, a busy one within some tens.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Capacity of requests, longer than one with keys: a buffer that grows would leave a copy.
const REQUEST_CAPACITY: usize = 4_096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NgCommand {
    /// The first side of this call.
    Offer(u64),
    /// The second side of this call.
    Answer(u64),
    /// The end of this call.
    Delete(u64),
}

impl NgCommand {
    pub(super) fn call(self) -> u64 {
        let (NgCommand::Offer(call) | NgCommand::Answer(call) | NgCommand::Delete(call)) = self;
        call
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum NgAnswer {
    /// Carries the SDP, if there is one.
    Done(Option<Zeroizing<String>>),
    /// `busy`: rtpengine accepts no new calls at all.
    Refused { busy: bool, reason: String },
}

impl fmt::Debug for NgAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NgAnswer::Done(None) => f.write_str("Done"),
            NgAnswer::Done(Some(sdp)) => write!(f, "Done({} bytes of SDP)", sdp.len()),
            NgAnswer::Refused { busy, reason } => write!(f, "Refused({busy}, {reason:?})"),
        }
    }
}

/// Result of a timeout.
#[derive(Debug)]
pub(super) enum NgTimeout {
    Again(NgDatagram),
    Late(NgCommand),
}

#[derive(Debug)]
pub(super) struct NgRequest {
    about: NgCommand,
    datagram: NgDatagram,
    again: Instant,
    wait: Duration,
    by: Instant,
}

/// Pending requests. Few, because the driver limits requests in flight.
#[derive(Default, Debug)]
pub(super) struct NgRequests {
    pub(super) unanswered: BTreeMap<u64, NgRequest>,
    /// Seeds the cookies. Random, so that no other sender can answer for rtpengine.
    pub(super) drawn: u64,
    count: u64,
}

impl NgRequests {
    /// `by`: the deadline of the answer.
    pub(super) fn ask(
        &mut self,
        about: NgCommand,
        question: &Value<'_>,
        by: Instant,
        now: Instant,
    ) -> NgDatagram {
        self.count += 1;
        let cookie = mixed(self.drawn, self.count);
        let mut datagram = Vec::with_capacity(REQUEST_CAPACITY);
        datagram.extend(format!("{cookie:016x} ").into_bytes());
        question.write(&mut datagram);
        let datagram = NgDatagram::from(datagram);
        let (again, wait) = (now + ASK_AGAIN, ASK_AGAIN);
        self.unanswered
            .insert(cookie, NgRequest { about, datagram: datagram.clone(), again, wait, by });
        datagram
    }

    /// Matches an answer to its request. `None` if no request waits for it.
    pub(super) fn answered(&mut self, datagram: &[u8]) -> Option<(NgCommand, NgAnswer)> {
        let (cookie, message) = split(datagram)?;
        let answer = read(&Value::read(message)?)?;
        self.unanswered.remove(&cookie).map(|asked| (asked.about, answer))
    }

    /// Returns whether these are the first bytes of a pending request.
    pub(super) fn is_pending(&self, start: &[u8]) -> bool {
        let asked = split(start).and_then(|(cookie, _)| self.unanswered.get(&cookie));
        asked.is_some_and(|asked| asked.datagram.starts_with(start))
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<NgTimeout> {
        let is_due = |asked: &NgRequest| asked.by <= now || asked.again <= now;
        let (&cookie, asked) = self.unanswered.iter_mut().find(|(_, asked)| is_due(asked))?;
        if asked.by <= now {
            return self.unanswered.remove(&cookie).map(|asked| NgTimeout::Late(asked.about));
        }
        asked.wait *= 2;
        asked.again = now + asked.wait;
        Some(NgTimeout::Again(asked.datagram.clone()))
    }

    pub(super) fn give_up(&mut self) -> Vec<NgCommand> {
        std::mem::take(&mut self.unanswered).into_values().map(|asked| asked.about).collect()
    }
}

/// Splits a datagram into its cookie and its message.
fn split(datagram: &[u8]) -> Option<(u64, &[u8])> {
    let space = datagram.iter().position(|byte| *byte == b' ')?;
    let cookie = std::str::from_utf8(&datagram[..space]).ok()?;
    Some((u64::from_str_radix(cookie, 16).ok()?, &datagram[space + 1..]))
}

fn read(answer: &Value<'_>) -> Option<NgAnswer> {
    let text = |key| answer.text(key).map(str::to_owned);
    Some(match answer.text("result")? {
        "ok" => NgAnswer::Done(text("sdp").map(Zeroizing::new)),
        // Reasons in answers of an rtpengine that reached a limit of calls, load or bandwidth.
        "load limit" => {
            let reason = plain_reason(answer.text("message").unwrap_or("load limit"));
            NgAnswer::Refused { busy: true, reason }
        }
        other => {
            let reason =
                text("error-reason").unwrap_or_else(|| format!("unexpected result `{other}`"));
            NgAnswer::Refused { busy: false, reason: plain_reason(&reason) }
        }
    })
}

/// What the socket of an rtpengine returned.
#[derive(PartialEq, Eq)]
pub enum Ng {
    /// A message of rtpengine.
    Datagram(Box<[u8]>),
    /// ICMP reports that no process listens for the datagrams that begin with these bytes.
    Refused(Vec<Box<[u8]>>),
}

impl fmt::Debug for Ng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ng::Datagram(datagram) => write!(f, "Datagram({} bytes)", datagram.len()),
            Ng::Refused(quotes) => write!(f, "Refused({} quotes)", quotes.len()),
        }
    }
}

/// A connected socket to one rtpengine.
pub struct NgSocket {
    _reading: LocalTask,
    /// Set once the system has a route to the address.
    socket: Rc<OnceCell<UdpSocket>>,
}

impl NgSocket {
    /// Starts a task that connects as soon as a route exists and forwards answers to control. Must be called on
    /// control's runtime.
    pub fn start(
        node: NodeId,
        told: mpsc::Sender<(NodeId, Ng)>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> NgSocket {
        let socket = Rc::new(OnceCell::new());
        socket::fill(&socket, node, connect());
        let connected = Rc::clone(&socket);
        let reading = LocalTask::spawn(async move {
            let socket = socket::connect_in_time(&connected, node, connect).await;
            forward(socket, node, &told).await;
        });
        NgSocket { _reading: reading, socket }
    }

    /// Sends a request. A request that cannot be sent is retried as if unanswered.
    pub fn send(&self, datagram: &[u8]) {
        if let Some(socket) = self.socket.get() {
            let _lost_at_worst = socket::send(socket, datagram);
        }
    }
}

async fn forward(socket: &UdpSocket, node: NodeId, told: &mpsc::Sender<(NodeId, Ng)>) {
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let word = match socket::receive(socket, &mut buffer).await {
            Ok(Received::Datagram(length, _)) => Ng::Datagram(buffer[..length].into()),
            Ok(Received::Refused(quotes)) => Ng::Refused(quotes),
            Err(_) => continue,
        };
        if told.send((node, word)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
