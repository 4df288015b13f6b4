//! The knowledge of a standby about the owner of its copies.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::grant::FREE_AFTER;

/// An owner counts [`FREE_AFTER`] from the receipt of an acknowledgement, on a clock of its own. The standby counts from its
/// sending, and less by this: clocks that differ by a tenth.
const MARGIN: Duration = Duration::from_millis(200);
const _: () = assert!(MARGIN.as_millis() * 10 == FREE_AFTER.as_millis());

/// Tells whether an owner can have sent beyond the limits of its copies.
///
/// The standby acknowledges each batch of copies. The owner returns the newest acknowledgement that it had received before it
/// made the copies of a batch: the *echo*. It is not free of limits within [`FREE_AFTER`] after that acknowledgement.
#[derive(Clone, Default, Debug)]
pub struct CopyProof {
    /// Batches and the time at which each was acknowledged, oldest first. One that proves nothing any more is removed.
    acknowledged: VecDeque<(u64, Instant)>,
    /// The owner was limited from the first to the second time.
    limited: Option<(Instant, Instant)>,
}

impl CopyProof {
    /// Takes a batch with an echo, which the standby acknowledges next. Returns whether the limits of its copies have
    /// held since they were made.
    pub fn receive(&mut self, batch: u64, echo: u64, now: Instant) -> bool {
        let proves = |at: Instant| at + FREE_AFTER - MARGIN;
        while self.acknowledged.front().is_some_and(|(_, at)| proves(*at) <= now) {
            self.acknowledged.pop_front();
        }
        let place = self.acknowledged.binary_search_by_key(&echo, |(batch, _)| *batch);
        let until = place.ok().map(|place| proves(self.acknowledged[place].1));
        if let Some(until) = until {
            self.limited = Some(match self.limited {
                Some((since, before)) if before > now => (since, before.max(until)),
                _ => (now, until),
            });
        }
        self.acknowledged.push_back((batch, now));
        until.is_some()
    }

    /// Returns the time before which the owner has not sent beyond the limits of a copy that came at this time, with a
    /// batch that proved them. `None` if it may have done so.
    pub fn holds_until(&self, received: Instant) -> Option<Instant> {
        self.limited.filter(|(since, _)| *since <= received).map(|(_, until)| until)
    }
}

#[cfg(test)]
mod tests;
