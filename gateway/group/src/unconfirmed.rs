//! Changes that the standby of an owner has not confirmed.

use std::collections::VecDeque;
use std::time::Instant;

use evenkeel_media::srtp::SentBatch;

/// The number of the batch that completes a copy, until it is sent.
const COPY_NOT_SENT: u64 = u64::MAX;

/// Batches of records on their way to the standby, by number, and the times at which they were sent.
#[derive(Debug)]
pub(super) struct UnconfirmedBatches(VecDeque<(u64, Instant)>);

impl UnconfirmedBatches {
    /// No standby has the records, until it confirms the batch that completes a copy.
    pub(super) fn new(now: Instant) -> UnconfirmedBatches {
        UnconfirmedBatches([(COPY_NOT_SENT, now)].into())
    }

    /// `is_whole`: with this batch the standby has all records.
    pub(super) fn handle_sent(&mut self, number: u64, is_whole: bool, now: Instant) {
        if is_whole
            && let Some((first, _)) = self.0.front_mut()
            && *first == COPY_NOT_SENT
        {
            *first = number;
        }
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

/// Batches on a connection that the peer has not acknowledged, oldest first.
#[derive(Default, Debug)]
pub(super) struct SentBatches(VecDeque<SentBatch>);

impl SentBatches {
    pub(super) fn note(&mut self, batch: SentBatch) {
        self.0.push_back(batch);
    }

    /// Takes the acknowledged batch. The peer acknowledges batches in their order; their numbers begin again with each
    /// follower.
    pub(super) fn take_acknowledged(&mut self, number: u64) -> Option<SentBatch> {
        let place = self.0.iter().position(|batch| batch.number == number)?;
        self.0.drain(..=place).next_back()
    }
}

#[cfg(test)]
mod tests;
