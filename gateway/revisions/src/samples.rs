//! Revisions for tests.

use std::time::{Duration, Instant};

use crate::progress::{RolloutProgress, Strategy};
use crate::revision::{CandidateRevision, Previous, Revision, Revisions, Version};

/// One hour, longer than any stage.
pub const HOUR: Duration = Duration::from_secs(3_600);

/// A revision of version 1 with this name.
pub fn revision(name: &str, plugin: &str, schema: u32) -> Revision {
    let version = Version::read("1.0.0");
    Revision { name: name.into(), plugin: plugin.into(), version, schema }
}

/// A strategy with one share, for an hour.
pub fn strategy(percent: u8) -> Strategy {
    let (steps, shadow) = (vec![percent], Duration::ZERO);
    Strategy { steps, each: HOUR, shadow, stays_in_shadow: false, held: false }
}

/// Only an active revision.
pub fn active(active: &Revision) -> Revisions {
    Revisions { active: Some(active.clone()), ..Revisions::default() }
}

/// An active revision, and a canary at this share in per cent.
pub fn with_canary(active: &Revision, canary: &Revision, percent: u8) -> Revisions {
    let (revision, arrived) = (canary.clone(), Instant::now());
    let progress = RolloutProgress::begin(strategy(percent), arrived);
    let candidate = Some(CandidateRevision { revision, progress, arrived });
    Revisions { candidate, ..self::active(active) }
}

/// An active revision, and the one to which a rollback returns.
pub fn with_previous(active: &Revision, previous: &Revision) -> Revisions {
    let previous = Previous { revision: previous.clone(), until: Instant::now() + HOUR };
    Revisions { previous: Some(previous), ..self::active(active) }
}
