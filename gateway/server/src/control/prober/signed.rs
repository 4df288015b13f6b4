//! Signed questions to a node or to the agent beside it, with their answers and unsolicited notices.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use evenkeel_media::trunk::message::{
    Answer, Load, Outcome, Question, Refusal, Refused, Secret, State,
};

use super::super::driver::Clock;

/// Pending probes: at one every 10 ms those of 10 s, for as long as a node sends notices to a prober.
const ASKED_MAX: usize = 1_024;

/// The asked end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// The node: its answer is evidence that it is up.
    Node,
    /// The agent beside it: its answer is no evidence that the node is up.
    Beside,
}

/// One end of the conversation.
pub(crate) struct Signed {
    secret: Secret,
    who: Who,
    /// The first nonce; sequences count from here. Random, so that no answer to another sender matches.
    first: u64,
    asked: RefCell<VecDeque<u64>>,
    /// Signing time of the newest state report; older ones are outdated.
    newest_us: Cell<u64>,
}

/// A probe that was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answers {
    pub(super) sequence: u64,
    /// Whether the answer covers the media port.
    pub(super) vouched: bool,
}

/// Content of a message.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Heard {
    pub(super) answers: Option<Answers>,
    pub(super) load: Option<Load>,
    /// The answer to the order with this nonce.
    pub(super) obeyed: Option<(u64, Outcome)>,
    /// The receipt of a notice, to be sent back.
    pub(super) receipt: Option<Vec<u8>>,
    /// The two ends use different secrets, or their clocks differ by more than 5 s.
    pub(super) mismatch: Option<Mismatch>,
}

/// Why two ends refuse each other's messages; for the log and a metric only, as a [`Refusal`] is not signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mismatch {
    Clock,
    Secret,
}

impl Mismatch {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mismatch::Clock => "clock",
            Mismatch::Secret => "secret",
        }
    }
}

impl Signed {
    pub(super) fn new(secret: Secret, who: Who, first: u64) -> Signed {
        let (asked, newest_us) = (RefCell::default(), Cell::default());
        Signed { secret, who, first, asked, newest_us }
    }

    pub(super) fn who(&self) -> Who {
        self.who
    }

    /// The question of a probe.
    pub(super) fn probe(&self, sequence: u64, clock: Clock) -> Vec<u8> {
        let nonce = self.first.wrapping_add(sequence);
        let mut asked = self.asked.borrow_mut();
        if asked.len() == ASKED_MAX {
            asked.pop_front();
        }
        asked.push_back(nonce);
        self.write(&Question::Probe, nonce, clock)
    }

    pub(super) fn write(&self, question: &Question, nonce: u64, clock: Clock) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(128);
        question.write(&self.secret, nonce, clock.unix_us, &mut datagram);
        datagram
    }

    /// Content of a datagram; `None` if it is not authentic or answers nothing pending.
    pub(super) fn read(&self, datagram: &[u8], clock: Clock) -> Option<Heard> {
        let verified = match Answer::read(datagram, &self.secret, clock.unix_us) {
            Ok(verified) => verified,
            Err(refused) => {
                let mismatch = Some(mismatch(datagram, refused)?);
                return Some(Heard { mismatch, ..Heard::default() });
            }
        };
        let (nonce, sent_us) = (verified.nonce, verified.sent_us);
        match verified.message {
            Answer::Probe(load) if self.was_asked(nonce) => {
                let speaks = self.who == Who::Node && load.state != State::Gone;
                let sequence = nonce.wrapping_sub(self.first);
                let answers = speaks.then_some(Answers { sequence, vouched: load.vouched });
                Some(Heard { answers, load: self.newest(load, sent_us), ..Heard::default() })
            }
            Answer::Notice { number, load } if self.was_asked(nonce) => {
                let receipt = Some(self.write(&Question::Noted { number }, nonce, clock));
                Some(Heard { load: self.newest(load, sent_us), receipt, ..Heard::default() })
            }
            Answer::Start(outcome) | Answer::Break(outcome) => {
                Some(Heard { obeyed: Some((nonce, outcome)), ..Heard::default() })
            }
            _ => None,
        }
    }

    fn was_asked(&self, nonce: u64) -> bool {
        // Most answers are to the newest probes.
        self.asked.borrow().iter().rev().any(|asked| *asked == nonce)
    }

    /// The load, unless a newer one is known.
    fn newest(&self, load: Load, sent_us: u64) -> Option<Load> {
        (sent_us >= self.newest_us.get()).then(|| {
            self.newest_us.set(sent_us);
            load
        })
    }
}

fn mismatch(datagram: &[u8], refused: Refused) -> Option<Mismatch> {
    match refused {
        _ if Refusal::read(datagram).is_some() => Some(Mismatch::Clock),
        Refused::Time { .. } => Some(Mismatch::Clock),
        Refused::Key(_) => Some(Mismatch::Secret),
        Refused::Length
        | Refused::Version(_)
        | Refused::Unknown
        | Refused::Direction
        | Refused::Forged
        | Refused::Replayed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"a secret of some length").unwrap()
    }

    fn load(state: State) -> Load {
        Load { permille: 420, state, sessions: 3, vouched: true }
    }

    /// A conversation from nonce 100 on, with the probe of sequence 7 pending.
    fn asked(who: Who) -> (Signed, Clock) {
        let (signed, clock) = (Signed::new(secret(), who, 100), Clock::read());
        signed.probe(7, clock);
        (signed, clock)
    }

    fn say(answer: &Answer, nonce: u64, sent_us: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        answer.write(&secret(), nonce, sent_us, &mut bytes);
        bytes
    }

    #[test]
    fn answer_of_a_node_covers_that_node() {
        let (signed, clock) = asked(Who::Node);
        let heard =
            signed.read(&say(&Answer::Probe(load(State::Serving)), 107, clock.unix_us), clock);
        let heard = heard.unwrap();
        let answers = Some(Answers { sequence: 7, vouched: true });
        assert_eq!((heard.answers, heard.load), (answers, Some(load(State::Serving))));
        assert_eq!(heard.receipt, None);
    }

    #[test]
    fn agent_answer_is_no_evidence_for_the_node() {
        for (who, state) in [(Who::Beside, State::Serving), (Who::Node, State::Gone)] {
            let (signed, clock) = asked(who);
            let answer = say(&Answer::Probe(load(state)), 107, clock.unix_us);
            let heard = signed.read(&answer, clock).unwrap();
            assert_eq!((heard.answers, heard.load), (None, Some(load(state))));
        }
    }

    #[test]
    fn repeated_notice_is_confirmed_each_time() {
        let (signed, clock) = asked(Who::Beside);
        let notice = Answer::Notice { number: 9, load: load(State::Gone) };
        let bytes = say(&notice, 107, clock.unix_us);
        for _ in 0..2 {
            let heard = signed.read(&bytes, clock).unwrap();
            assert_eq!(heard.load, Some(load(State::Gone)));
            let receipt =
                Question::read(&heard.receipt.unwrap(), &secret(), clock.unix_us).unwrap();
            assert_eq!((receipt.message, receipt.nonce), (Question::Noted { number: 9 }, 107));
        }
    }

    #[test]
    fn unsolicited_answer_is_rejected() {
        let (signed, clock) = asked(Who::Node);
        let notice = Answer::Notice { number: 1, load: load(State::Gone) };
        for answer in [Answer::Probe(load(State::Gone)), notice] {
            assert_eq!(signed.read(&say(&answer, 108, clock.unix_us), clock), None);
        }
    }

    #[test]
    fn another_secret_or_clock_is_no_answer() {
        let other = Secret::new(b"another secret of some length").unwrap();
        let serving = Answer::Probe(load(State::Serving));
        let say_with = |secret: &Secret, sent_us| {
            let mut bytes = Vec::new();
            serving.write(secret, 107, sent_us, &mut bytes);
            bytes
        };
        let (signed, clock) = asked(Who::Node);
        let late = clock.unix_us - 6_200_000;
        let mut refusal = Vec::new();
        Refusal { nonce: 107, sent_us: late }.write(&mut refusal);
        for (datagram, mismatch) in [
            (say_with(&other, clock.unix_us), Mismatch::Secret),
            (say_with(&secret(), late), Mismatch::Clock),
            (refusal, Mismatch::Clock),
        ] {
            let heard = Heard { mismatch: Some(mismatch), ..Heard::default() };
            assert_eq!(signed.read(&datagram, clock), Some(heard), "{datagram:?}");
        }
        assert_eq!(signed.read(b"whatever else", clock), None);
        let heard = signed.read(&say_with(&secret(), clock.unix_us), clock).unwrap();
        assert_eq!(heard.mismatch, None);
    }

    #[test]
    fn outdated_state_report_is_ignored() {
        let (signed, clock) = asked(Who::Beside);
        let back = Answer::Notice { number: 2, load: load(State::Serving) };
        signed.read(&say(&back, 107, clock.unix_us), clock).unwrap();
        let gone = Answer::Notice { number: 1, load: load(State::Gone) };
        let heard = signed.read(&say(&gone, 107, clock.unix_us - 1), clock).unwrap();
        assert_eq!(heard.load, None);
        assert!(heard.receipt.is_some(), "it came, and need not come again");
    }

    #[test]
    fn probes_stay_pending_for_ten_seconds() {
        let (signed, clock) = (Signed::new(secret(), Who::Node, u64::MAX), Clock::read());
        (0..=ASKED_MAX as u64).for_each(|sequence| _ = signed.probe(sequence, clock));
        assert!(!signed.was_asked(u64::MAX), "the oldest gave way");
        assert!(signed.was_asked(0) && signed.was_asked(ASKED_MAX as u64 - 1));
    }
}
