//! Pending unsigned probes: an answer must repeat the token.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Random, so that only a node that saw the probe can answer it (RFC 8489, 5).
pub(super) type Token = [u8; 12];

/// Probes that may still be answered; at one every 10 ms, 2.5 seconds. The oldest is replaced.
pub(super) const ASKED_MAX: usize = 256;

/// Tokens of pending probes with their sequences.
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

    /// The sequence of the probe with this token. It counts once.
    pub(super) fn answered(&self, token: &[u8]) -> Option<u64> {
        let mut asked = self.0.borrow_mut();
        let place = asked.iter().position(|(known, _)| known == token)?;
        asked.remove(place).map(|(_, sequence)| sequence)
    }
}
