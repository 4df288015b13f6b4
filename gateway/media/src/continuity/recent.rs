//! Which numbers a stream has used of late.

/// How far back numbers are remembered: more than a second of voice, and any reordering of video
/// that a jitter buffer would still wait for.
const WINDOW: u32 = 64;

/// The last numbers passed on, each with a trace of its packet's timestamp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    /// Bit n: the number n below the highest is used.
    used: u64,
    traces: [u8; WINDOW as usize],
}

/// Whether a number is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Nothing was passed on under it, or it is too far back to know.
    Free,
    /// The same packet was passed on under it.
    Same,
    /// Another packet was.
    Other,
}

impl Recent {
    /// Nothing but the first packet.
    pub(super) fn new(number: u32, timestamp: u32) -> Self {
        let mut recent = Self { used: 1, traces: [0; WINDOW as usize] };
        recent.traces[place(number)] = trace(timestamp);
        recent
    }

    /// The highest number is now `number`, `ahead` above the one before, and used.
    pub(super) fn advance(&mut self, number: u32, ahead: u32, timestamp: u32) {
        self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
        self.traces[place(number)] = trace(timestamp);
    }

    /// Whether the number that lies `behind` the highest is free.
    pub(super) fn at(&self, number: u32, behind: u32, timestamp: u32) -> Use {
        if behind >= WINDOW || self.used >> behind & 1 == 0 {
            Use::Free
        } else if self.traces[place(number)] == trace(timestamp) {
            Use::Same
        } else {
            Use::Other
        }
    }

    /// The number that lies `behind` the highest is used.
    pub(super) fn fill(&mut self, number: u32, behind: u32, timestamp: u32) {
        if behind < WINDOW {
            self.used |= 1 << behind;
            self.traces[place(number)] = trace(timestamp);
        }
    }
}

fn place(number: u32) -> usize {
    (number % WINDOW) as usize
}

/// Eight bits that differ between neighbouring frames: steps are often round in binary or decimal.
fn trace(timestamp: u32) -> u8 {
    (timestamp.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_numbers_are_remembered_until_the_window_leaves_them() {
        let mut recent = Recent::new(10, 0);
        recent.advance(12, 2, 1_920);
        assert_eq!(recent.at(12, 0, 1_920), Use::Same);
        assert_eq!(recent.at(11, 1, 960), Use::Free);
        assert_eq!(recent.at(10, 2, 0), Use::Same);
        assert_eq!(recent.at(10, 2, 960), Use::Other);
        recent.fill(11, 1, 960);
        assert_eq!(recent.at(11, 1, 960), Use::Same);
        recent.advance(73, 61, 9);
        assert_eq!(recent.at(10, 63, 0), Use::Same);
        recent.advance(74, 1, 10);
        assert_eq!(recent.at(10, 64, 0), Use::Free);
        recent.advance(138, 64, 11);
        assert_eq!(recent.at(74, 64, 10), Use::Free);
        assert_eq!(recent.at(137, 1, 10), Use::Free);
    }
}
