//! What a node says to whom it does not believe, so that a wrong clock is not mistaken for a death.

use super::signature::{ANSWER, Body, HEAD_LEN, QUESTION};
use super::{PATH_LEN_MIN, REFUSAL, Refused, VERSION};
use crate::demux;

/// Why: by its clock the question was signed too long ago, or is signed in the future ([`SKEW_MAX_US`](super::SKEW_MAX_US)).
const CLOCK: u8 = 1;

/// A node's word that it does not believe a question, though it was signed with its secret: their clocks differ. Whoever has
/// another secret is told nothing at all.
///
/// Nobody signed it, so it is a hint for people and evidence of nothing: that it echoes the nonce shows only that whoever
/// says so saw the question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// That of the question.
    pub nonce: u64,
    /// The node's clock: microseconds since the Unix epoch.
    pub sent_us: u64,
}

impl Refusal {
    /// The word to this datagram, which was refused so; none where it is no whole question, or the sender would learn
    /// nothing of use. Shorter than any question. Whoever says it says so seldom: anybody can ask.
    #[must_use]
    pub fn of(datagram: &[u8], refused: Refused, now_us: u64) -> Option<Self> {
        match refused {
            Refused::Time { .. } => {}
            Refused::Key(_)
            | Refused::Length
            | Refused::Version(_)
            | Refused::Unknown
            | Refused::Direction
            | Refused::Forged
            | Refused::Replayed => return None,
        }
        if datagram.len() < PATH_LEN_MIN {
            return None;
        }
        let (head, _) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let [demux::SIGNED, VERSION, _, QUESTION, _, _, _, _, nonce @ ..] = head else {
            return None;
        };
        Some(Self { nonce: Body(nonce).u64().ok()?, sent_us: now_us })
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[demux::SIGNED, VERSION, REFUSAL, ANSWER]);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        out.extend_from_slice(&self.sent_us.to_be_bytes());
        out.push(CLOCK);
    }

    /// Reads one; none where it is something else.
    #[must_use]
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (head, body) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let [demux::SIGNED, VERSION, REFUSAL, ANSWER, numbers @ ..] = head else { return None };
        let mut numbers = Body(numbers);
        let (_, nonce, sent_us) = (numbers.u32().ok()?, numbers.u64().ok()?, numbers.u64().ok()?);
        (body == [CLOCK]).then_some(Self { nonce, sent_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trunk::message::{KeyId, Question, Secret};

    const NOW_US: u64 = 1_000_000_000;

    fn probe() -> Vec<u8> {
        let mut bytes = Vec::new();
        let secret = Secret::new(b"a secret of some length").unwrap();
        Question::Probe.write(&secret, 77, NOW_US, &mut bytes);
        bytes
    }

    #[test]
    fn a_refusal_echoes_the_question_and_is_shorter() {
        let refused = Refused::Time { ahead_us: -6_000_000 };
        let refusal = Refusal::of(&probe(), refused, NOW_US).unwrap();
        let mut bytes = Vec::new();
        refusal.write(&mut bytes);
        assert!(bytes.len() < probe().len());
        assert_eq!(Refusal::read(&bytes), Some(Refusal { nonce: 77, sent_us: NOW_US }));
        for length in 0..bytes.len() {
            assert_eq!(Refusal::read(&bytes[..length]), None);
        }
        assert_eq!(Refusal::of(&bytes, refused, NOW_US), None, "two would never stop");
    }

    #[test]
    fn what_is_no_question_or_tells_nothing_is_not_refused_aloud() {
        let key = Refused::Key(KeyId(1));
        for refused in
            [key, Refused::Forged, Refused::Replayed, Refused::Length, Refused::Version(9)]
        {
            assert_eq!(Refusal::of(&probe(), refused, NOW_US), None, "{refused:?}");
        }
        let refused = Refused::Time { ahead_us: -6_000_000 };
        assert_eq!(Refusal::of(&probe()[..71], refused, NOW_US), None, "it would be amplified");
        assert_eq!(Refusal::read(&probe()), None);
    }
}
