//! Signed questions to a node or to the agent beside it, with their answers and unsolicited notices.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use evenkeel_drivers::{Clock, Fencing};
use evenkeel_media::trunk::message::{
    ClockRefusal, MessageError, NodeLoad, NodeSecret, OrderOutcome, ServingState, TrunkAnswer,
    TrunkQuestion,
};

/// Maximum pending probes: 10 s of one probe every 10 ms. For the same time a node sends notices to a prober.
const ASKED_MAX: usize = 1_024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// The answer is evidence that the node is up.
    Node,
    /// The agent beside the node. The answer is no evidence that the node is up.
    Beside,
}

pub(super) struct SignedProbe {
    secret: NodeSecret,
    who: Who,
    fencing: Arc<Fencing>,
    /// The first nonce; sequences count from here. Random, so that no answer to another sender matches.
    first: u64,
    asked: RefCell<VecDeque<u64>>,
    /// Signing time of the newest state report. Older reports are ignored.
    newest_us: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answers {
    pub(super) sequence: u64,
    /// The answer is evidence that the media port works.
    pub(super) vouched: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct SignedReply {
    pub(super) answers: Option<Answers>,
    pub(super) load: Option<NodeLoad>,
    /// Nonce and outcome of an answered order.
    pub(super) obeyed: Option<(u64, OrderOutcome)>,
    /// The receipt of a notice, to be sent back.
    pub(super) receipt: Option<Vec<u8>>,
    /// The two ends use different secrets, or their clocks differ by more than 5 s.
    pub(super) mismatch: Option<Mismatch>,
    /// The newer epoch because of which the node refused a question.
    pub(super) fenced: Option<u64>,
}

/// Why two ends refuse each other's datagrams. It is used only in logs and a metric, because a [`ClockRefusal`] is not
/// signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mismatch {
    Clock,
    Secret,
    Encryption,
}

impl Mismatch {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mismatch::Clock => "clock",
            Mismatch::Secret => "secret",
            Mismatch::Encryption => "encryption",
        }
    }
}

impl SignedProbe {
    pub(super) fn new(
        secret: NodeSecret,
        who: Who,
        fencing: Arc<Fencing>,
        first: u64,
    ) -> SignedProbe {
        let (asked, newest_us) = (RefCell::default(), Cell::default());
        SignedProbe { secret, who, fencing, first, asked, newest_us }
    }

    pub(super) fn who(&self) -> Who {
        self.who
    }

    pub(super) fn probe(&self, sequence: u64, clock: Clock) -> Vec<u8> {
        let nonce = self.first.wrapping_add(sequence);
        let mut asked = self.asked.borrow_mut();
        if asked.len() == ASKED_MAX {
            asked.pop_front();
        }
        asked.push_back(nonce);
        self.write(&TrunkQuestion::Probe, nonce, clock)
    }

    pub(super) fn write(&self, question: &TrunkQuestion, nonce: u64, clock: Clock) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(128);
        let owner = self.fencing.owner();
        question.write_for(owner, &self.secret, nonce, clock.unix_us, &mut datagram);
        datagram
    }

    /// Returns `None` if the datagram is not authentic or answers no pending question.
    pub(super) fn read(&self, datagram: &[u8], clock: Clock) -> Option<SignedReply> {
        let verified = match TrunkAnswer::read(datagram, &self.secret, clock.unix_us) {
            Ok(verified) => verified,
            Err(refused) => {
                let mismatch = Some(mismatch(datagram, refused)?);
                return Some(SignedReply { mismatch, ..SignedReply::default() });
            }
        };
        let (nonce, sent_us) = (verified.nonce, verified.sent_us);
        match verified.message {
            TrunkAnswer::Probe(load) if self.was_asked(nonce) => {
                let speaks = self.who == Who::Node && load.state != ServingState::Gone;
                let sequence = nonce.wrapping_sub(self.first);
                let answers = speaks.then_some(Answers { sequence, vouched: load.vouched });
                Some(SignedReply {
                    answers,
                    load: self.newest(load, sent_us),
                    ..SignedReply::default()
                })
            }
            TrunkAnswer::Notice { number, load } if self.was_asked(nonce) => {
                let receipt = Some(self.write(&TrunkQuestion::Noted { number }, nonce, clock));
                Some(SignedReply {
                    load: self.newest(load, sent_us),
                    receipt,
                    ..SignedReply::default()
                })
            }
            TrunkAnswer::Start(outcome) | TrunkAnswer::Break(outcome) => {
                Some(SignedReply { obeyed: Some((nonce, outcome)), ..SignedReply::default() })
            }
            TrunkAnswer::Superseded { epoch } => {
                Some(SignedReply { fenced: Some(epoch), ..SignedReply::default() })
            }
            _ => None,
        }
    }

    /// Returns the sequence of the probe of the node that a kernel error quotes.
    pub(super) fn refused(&self, quoted: &[u8], clock: Clock) -> Option<u64> {
        let verified = TrunkQuestion::read(quoted, &self.secret, clock.unix_us).ok()?;
        let is_probe = verified.message == TrunkQuestion::Probe && self.who == Who::Node;
        is_probe.then(|| verified.nonce.wrapping_sub(self.first))
    }

    fn was_asked(&self, nonce: u64) -> bool {
        // Most answers are to the newest probes.
        self.asked.borrow().iter().rev().any(|asked| *asked == nonce)
    }

    /// Returns the load, unless a newer report has come.
    fn newest(&self, load: NodeLoad, sent_us: u64) -> Option<NodeLoad> {
        (sent_us >= self.newest_us.get()).then(|| {
            self.newest_us.set(sent_us);
            load
        })
    }
}

fn mismatch(datagram: &[u8], refused: MessageError) -> Option<Mismatch> {
    match refused {
        _ if ClockRefusal::read(datagram).is_some() => Some(Mismatch::Clock),
        MessageError::Time { .. } => Some(Mismatch::Clock),
        MessageError::Key(_) => Some(Mismatch::Secret),
        MessageError::Length
        | MessageError::Version(_)
        | MessageError::Unknown
        | MessageError::Direction
        | MessageError::Forged
        | MessageError::Replayed => None,
    }
}

#[cfg(test)]
mod tests;
