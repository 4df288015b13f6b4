//! Pending NG requests by cookie. A retry has the same cookie, for which rtpengine
//! repeats its answer without acting twice.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::bencode::Value;
use crate::message::DriverMessage;
use crate::session::{mixed, plain_reason};

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
    Again(DriverMessage),
    Late(NgCommand),
}

#[derive(Debug)]
pub(super) struct NgRequest {
    about: NgCommand,
    datagram: DriverMessage,
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
    ) -> DriverMessage {
        self.count += 1;
        let cookie = mixed(self.drawn, self.count);
        let mut datagram = Vec::with_capacity(REQUEST_CAPACITY);
        datagram.extend(format!("{cookie:016x} ").into_bytes());
        question.write(&mut datagram);
        let datagram = DriverMessage::from(datagram);
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

#[cfg(test)]
mod tests;
