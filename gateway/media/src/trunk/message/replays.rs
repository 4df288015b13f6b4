//! Messages that came before, so that a copy of one does nothing.

use super::{Refused, SKEW_MAX_US};
use std::collections::BTreeSet;

/// Messages that are remembered at most. They are those of [`SKEW_MAX_US`] at 13,000 a second; where more come, the
/// oldest are forgotten, and with them everything as old is refused.
pub const REPLAYS_MAX: usize = 65_536;

/// What was read within the time that messages count for. A copy is told by when it was signed, and its signature.
#[derive(Clone, Default, Debug)]
pub struct Replays {
    seen: BTreeSet<(u64, u64)>,
    /// Nothing signed before is believed any more.
    floor_us: u64,
}

impl Replays {
    /// Takes note of a verified message.
    ///
    /// # Errors
    /// [`Refused::Replayed`] where it came before, or may have.
    pub(super) fn note(
        &mut self,
        datagram: &[u8],
        sent_us: u64,
        now_us: u64,
    ) -> Result<(), Refused> {
        let stale_us = now_us.saturating_sub(SKEW_MAX_US);
        while self.seen.first().is_some_and(|(sent_us, _)| *sent_us < stale_us) {
            self.seen.pop_first();
        }
        let signature = datagram.last_chunk().map_or(0, |last| u64::from_be_bytes(*last));
        if sent_us < self.floor_us || !self.seen.insert((sent_us, signature)) {
            return Err(Refused::Replayed);
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
mod tests {
    use super::*;

    const NOW_US: u64 = 1_000_000_000;

    fn message(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    #[test]
    fn a_copy_is_refused_for_as_long_as_the_message_counts() {
        let mut replays = Replays::default();
        assert_eq!(replays.note(&message(1), NOW_US, NOW_US), Ok(()));
        for later_us in [0, 1, SKEW_MAX_US] {
            let copy = replays.note(&message(1), NOW_US, NOW_US + later_us);
            assert_eq!(copy, Err(Refused::Replayed));
        }
        assert_eq!(replays.note(&message(2), NOW_US, NOW_US), Ok(()), "another of the same moment");
        assert_eq!(replays.note(&message(1), NOW_US + 1, NOW_US), Ok(()), "the same, signed anew");
    }

    #[test]
    fn what_is_too_old_to_be_believed_is_not_remembered() {
        let mut replays = Replays::default();
        for number in 0..100 {
            replays.note(&message(number), NOW_US + number, NOW_US).unwrap();
        }
        replays.note(&message(100), NOW_US + 100, NOW_US + 90 + SKEW_MAX_US).unwrap();
        assert_eq!(replays.seen.len(), 11);
    }

    #[test]
    fn what_is_forgotten_for_want_of_room_is_refused_as_well() {
        let mut replays = Replays::default();
        let many = REPLAYS_MAX as u64 + 3;
        for number in 0..many {
            replays.note(&message(number), NOW_US + number, NOW_US).unwrap();
        }
        assert_eq!(replays.seen.len(), REPLAYS_MAX);
        for number in 0..many {
            let copy = replays.note(&message(number), NOW_US + number, NOW_US);
            assert_eq!(copy, Err(Refused::Replayed), "{number}");
        }
    }
}
