//! Changes that the standby of an owner has not confirmed.

use std::collections::VecDeque;
use std::time::Instant;

/// Batches of records on their way to the standby, by number, and the times at which they were sent.
#[derive(Debug)]
pub(super) struct UnconfirmedBatches(VecDeque<(u64, Instant)>);

impl UnconfirmedBatches {
    /// No standby has any records. The first batch that it confirms has all.
    pub(super) fn new(now: Instant) -> UnconfirmedBatches {
        UnconfirmedBatches([(0, now)].into())
    }

    pub(super) fn handle_sent(&mut self, number: u64, now: Instant) {
        self.0.push_back((number, now));
    }

    /// The standby has the batches up to this one.
    pub(super) fn handle_confirmed(&mut self, number: u64) {
        while self.0.front().is_some_and(|(oldest, _)| *oldest <= number) {
            self.0.pop_front();
        }
    }

    /// The standby is gone, and no other one has the changes.
    pub(super) fn handle_disconnected(&mut self, now: Instant) {
        *self = UnconfirmedBatches::new(self.oldest().unwrap_or(now));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the oldest one was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|(_, sent)| *sent)
    }
}

#[cfg(test)]
mod tests;
