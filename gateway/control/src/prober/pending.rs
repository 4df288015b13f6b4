//! Pending unsigned probes: an answer must repeat the token.

use std::cell::RefCell;
use std::collections::VecDeque;

/// Random, so that only a node that saw the probe can answer it (RFC 8489, 5).
pub(super) type Token = [u8; 12];

/// Maximum pending probes: 2.5 s of one probe every 10 ms. The oldest is replaced.
pub(super) const ASKED_MAX: usize = 256;

#[derive(Default)]
pub(super) struct ProbeTokens(RefCell<VecDeque<(Token, u64)>>);

impl ProbeTokens {
    pub(super) fn ask(&self, token: Token, sequence: u64) {
        let mut asked = self.0.borrow_mut();
        if asked.len() == ASKED_MAX {
            asked.pop_front();
        }
        asked.push_back((token, sequence));
    }

    /// Returns the sequence of the pending probe with this token.
    pub(super) fn sequence(&self, token: &[u8]) -> Option<u64> {
        let asked = self.0.borrow();
        // Most errors are about the newest probes.
        asked.iter().rev().find(|(known, _)| known == token).map(|(_, sequence)| *sequence)
    }

    /// Returns the sequence of the probe with this token, and forgets the probe.
    pub(super) fn answered(&self, token: &[u8]) -> Option<u64> {
        let mut asked = self.0.borrow_mut();
        let place = asked.iter().position(|(known, _)| known == token)?;
        asked.remove(place).map(|(_, sequence)| sequence)
    }
}
