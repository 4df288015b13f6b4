//! Repair of a path that loses packets.
//!
//! Retransmission: a [`cache`] keeps the packets that were sent, [`answers`] limits those that are sent again, and [`missing`]
//! finds those that a sender is asked for. Redundancy: [`red`] repeats earlier frames of voice, [`flexfec`] makes parity of video, and [`choice`]
//! says when. Trunk legs: [`window`] restores lost bundles from linear combinations of others.

pub mod answers;
pub mod cache;
pub mod choice;
pub mod flexfec;
mod gf256;
pub mod missing;
pub mod red;
pub mod window;

use std::time::Duration;

/// No packet is kept, or asked for, longer than this.
pub const KEPT_MAX: Duration = Duration::from_secs(1);

/// The times of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathTiming {
    pub round_trip: Duration,
    /// The round trip was measured. Otherwise it is assumed.
    pub is_measured: bool,
    /// The time that a packet waits at the receiver: its jitter buffer.
    pub latency: Duration,
}

impl PathTiming {
    /// The time after which a second request for a packet shows that the answer to the first was lost. Receivers repeat requests
    /// each round trip, and a measured round trip is longer than theirs: it includes the time for which a report waited.
    pub fn repeated_after(self) -> Duration {
        self.round_trip * 3 / 4
    }

    /// The age up to which a lost packet may still be sent again.
    pub fn kept_for(self) -> Duration {
        (self.latency + self.round_trip).min(KEPT_MAX)
    }
}

#[cfg(test)]
mod tests;
