//! Revisions for tests.

use std::time::{Duration, Instant};

use crate::lifecycle::Lifecycle;
use crate::progress::{RolloutProgress, Strategy};
use crate::revision::{CandidateRevision, Previous, Revision, Revisions, Version};

pub const HOUR: Duration = Duration::from_secs(3_600);

pub fn revision(name: &str, plugin: &str, schema: u32) -> Revision {
    let version = Version::read("1.0.0");
    Revision { name: name.into(), plugin: plugin.into(), version, schema }
}

/// A strategy with one share, for an hour.
pub fn strategy(percent: u8) -> Strategy {
    let (steps, shadow) = (vec![percent], Duration::ZERO);
    Strategy { steps, each: HOUR, shadow, stays_in_shadow: false, held: false }
}

pub fn active(active: &Revision) -> Revisions {
    Revisions { active: Some(active.clone()), ..Revisions::default() }
}

pub fn with_canary(active: &Revision, canary: &Revision, percent: u8) -> Revisions {
    let (revision, arrived) = (canary.clone(), Instant::now());
    let progress = RolloutProgress::begin(strategy(percent), arrived);
    let candidate = Some(CandidateRevision { revision, progress, arrived });
    Revisions { candidate, ..self::active(active) }
}

pub fn with_previous(active: &Revision, previous: &Revision) -> Revisions {
    let previous = Previous { revision: previous.clone(), until: Instant::now() + HOUR };
    Revisions { previous: Some(previous), ..self::active(active) }
}

impl Lifecycle {
    pub fn set_revisions(&mut self, revisions: Revisions) {
        self.revisions = revisions;
    }
}
