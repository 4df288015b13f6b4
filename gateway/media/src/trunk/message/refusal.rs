//! Refusal of a question outside the time window, so that an operator can distinguish clock skew
//! from a dead node.

use super::signature::{ANSWER, HEAD_LEN, MessageBody, QUESTION};
use super::{MessageError, OWNED, PATH_LEN_MIN, REFUSAL, VERSION};
use crate::demux;

/// Reason code: the question's time differs by more than [`SKEW_MAX_US`](super::SKEW_MAX_US).
const CLOCK: u8 = 1;

/// An unsigned answer to a question signed with the node's secret but outside the time window.
/// Questions with other secrets get no answer.
///
/// Use it only as a hint for logs and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockRefusal {
    /// The nonce of the refused question.
    pub nonce: u64,
    /// The node's clock: microseconds since the Unix epoch.
    pub sent_us: u64,
}

impl ClockRefusal {
    /// Returns the refusal of this datagram; `None` unless it is a complete question outside the
    /// time window. A refusal is shorter than any question. Send it at a bounded rate: the source
    /// may be spoofed.
    pub fn of(datagram: &[u8], refused: MessageError, now_us: u64) -> Option<Self> {
        match refused {
            MessageError::Time { .. } => {}
            MessageError::Key(_)
            | MessageError::Length
            | MessageError::Version(_)
            | MessageError::Unknown
            | MessageError::Direction
            | MessageError::Forged
            | MessageError::Replayed => return None,
        }
        if datagram.len() < PATH_LEN_MIN {
            return None;
        }
        let (head, _) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let [demux::SIGNED, VERSION | OWNED, _, QUESTION, _, _, _, _, nonce @ ..] = head else {
            return None;
        };
        Some(Self { nonce: MessageBody(nonce).u64().ok()?, sent_us: now_us })
    }

    /// Appends the message; it is not signed.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[demux::SIGNED, VERSION, REFUSAL, ANSWER]);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        out.extend_from_slice(&self.sent_us.to_be_bytes());
        out.push(CLOCK);
    }

    /// Returns `None` if the datagram is no refusal.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (head, body) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let [demux::SIGNED, VERSION, REFUSAL, ANSWER, numbers @ ..] = head else { return None };
        let mut numbers = MessageBody(numbers);
        let (_, nonce, sent_us) = (numbers.u32().ok()?, numbers.u64().ok()?, numbers.u64().ok()?);
        (body == [CLOCK]).then_some(Self { nonce, sent_us })
    }
}

#[cfg(test)]
mod tests;
