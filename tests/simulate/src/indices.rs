//! The indices of SRTP that an owner, its standby and the processes after them use for the same sessions.
//!
//! The leases, the grant of the standby, its proof and the numbers of streams are those of the product; links, clocks and
//! processes are simulated. Promise I13: no index is used twice under a key, whatever dies, stops or is cut off. All
//! packets have the same plain text, so that the cipher text shows the index.
//!
//! It is given that an owner sends nothing after another member has taken over, and that only a member with all records does.
//! Here also one that is no longer the standby may take over, which the product prevents as well.

mod link;
mod process;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::Violation;
use world::World;

/// The duration of a world.
const LASTS: Duration = Duration::from_secs(16);

/// Worlds of a seed: few of them have a takeover at the moment that counts.
const WORLDS: u64 = 4;

#[derive(Clone, PartialEq, Default, Debug)]
pub struct IndicesOutcome {
    pub violations: Vec<Violation>,
    pub sent: u64,
    /// Packets for which no index was leased.
    pub refused: u64,
    /// Sessions that a takeover continued, and those that it ended.
    pub continued: u64,
    pub ended: u64,
    /// How processes were replaced.
    pub replaced: BTreeMap<&'static str, u64>,
}

/// Plays the processes of a seed.
pub fn play(seed: u64, traced: bool) -> IndicesOutcome {
    let mut sum = IndicesOutcome::default();
    (0..WORLDS).for_each(|world| sum.add(World::draw(seed * WORLDS + world, traced).play(LASTS)));
    sum
}

impl IndicesOutcome {
    pub(crate) fn add(&mut self, other: IndicesOutcome) {
        self.violations.extend(other.violations);
        self.sent += other.sent;
        self.refused += other.refused;
        self.continued += other.continued;
        self.ended += other.ended;
        for (how, times) in other.replaced {
            *self.replaced.entry(how).or_default() += times;
        }
    }
}
