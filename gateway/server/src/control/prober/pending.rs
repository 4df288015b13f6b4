//! Questions that nobody signed: who repeats one saw it.

use std::cell::RefCell;
use std::collections::VecDeque;

/// What an answer repeats: random, so that only who saw the question can give it (RFC 8489, 5).
pub(super) type Token = [u8; 12];

/// Questions whose answers may still come; the oldest gives way. At one every 10 ms, two seconds and a half.
pub(super) const ASKED_MAX: usize = 256;

/// The tokens of the last questions, and the probes that they are of.
#[derive(Default)]
pub(super) struct Asked(RefCell<VecDeque<(Token, u64)>>);

impl Asked {
    pub(super) fn ask(&self, token: Token, sequence: u64) {
        let mut asked = self.0.borrow_mut();
        if asked.len() == ASKED_MAX {
            asked.pop_front();
        }
        asked.push_back((token, sequence));
    }

    /// The sequence of the probe that this token was of. It counts once.
    pub(super) fn answered(&self, token: &[u8]) -> Option<u64> {
        let mut asked = self.0.borrow_mut();
        let place = asked.iter().position(|(known, _)| known == token)?;
        asked.remove(place).map(|(_, sequence)| sequence)
    }
}
