//! The records of a gateway's decisions, which another process continues: the standby of its group, the next process of an
//! upgrade, or one that reads its disk after a restart.
//!
//! The gateways, the lives of revisions, their records and the list of operations in force are those of the product.
//! Promise I12: a decision that was acknowledged is never forgotten. A decision is acknowledged once it is on the disk of
//! the owner and, while a standby follows, at the standby. Then each process that continues the gateway has it or a later
//! one. After a hand-over or an upgrade it has the last one, acknowledged or not, and a reload changes none.
//!
//! A standby that lacks records takes nothing over. An operator who makes it the owner, as a disk that loses what it
//! confirmed, may cost decisions: then only an earlier state may come back.

mod journal;
mod operator;
mod process;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::Violation;
use world::World;

/// The duration of a world.
const LASTS: Duration = Duration::from_secs(12);

#[derive(Clone, PartialEq, Default, Debug)]
pub struct RecordsOutcome {
    pub violations: Vec<Violation>,
    pub acknowledged: u64,
    /// How processes were replaced.
    pub replaced: BTreeMap<&'static str, u64>,
}

/// Plays the gateway of a seed.
pub fn play(seed: u64, traced: bool) -> RecordsOutcome {
    World::draw(seed, traced).play(LASTS)
}

impl RecordsOutcome {
    pub(crate) fn add(&mut self, other: RecordsOutcome) {
        self.violations.extend(other.violations);
        self.acknowledged += other.acknowledged;
        for (how, times) in other.replaced {
            *self.replaced.entry(how).or_default() += times;
        }
    }
}
