//! Replay protection.

use super::{MessageError, SKEW_MAX_US};
use std::collections::BTreeSet;

/// Limit of remembered messages: [`SKEW_MAX_US`] at 13,000 per second. Above it the oldest are
/// forgotten, and every message of their age is refused.
pub(crate) const REPLAYS_MAX: usize = 65_536;

/// Messages accepted within the time window, by signing time and signature.
#[derive(Clone, Default, Debug)]
pub struct Replays {
    seen: BTreeSet<(u64, u64)>,
    /// Signing time before which messages are refused.
    floor_us: u64,
}

impl Replays {
    /// Remembers a verified message.
    ///
    /// # Errors
    /// Returns [`MessageError::Replayed`] if the message was, or may have been, accepted before.
    pub(super) fn note(
        &mut self,
        datagram: &[u8],
        sent_us: u64,
        now_us: u64,
    ) -> Result<(), MessageError> {
        let stale_us = now_us.saturating_sub(SKEW_MAX_US);
        while self.seen.first().is_some_and(|(sent_us, _)| *sent_us < stale_us) {
            self.seen.pop_first();
        }
        let signature = datagram.last_chunk().map_or(0, |last| u64::from_be_bytes(*last));
        if sent_us < self.floor_us || !self.seen.insert((sent_us, signature)) {
            return Err(MessageError::Replayed);
        }
        if self.seen.len() > REPLAYS_MAX
            && let Some((oldest_us, _)) = self.seen.pop_first()
        {
            self.floor_us = oldest_us + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
