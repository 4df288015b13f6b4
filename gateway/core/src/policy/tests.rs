//! Revisions for the tests of this module and of the gateway.

use std::time::{Duration, Instant};

use super::*;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn revision(name: &str, plugin: &str, schema: u32) -> Revision {
    let version = Version::read("1.0.0");
    Revision { name: name.into(), plugin: plugin.into(), version, schema }
}

/// A strategy with one share, for an hour.
pub(crate) fn strategy(percent: u8) -> Strategy {
    let (steps, shadow) = (vec![percent], Duration::ZERO);
    Strategy { steps, each: HOUR, shadow, stays_in_shadow: false, held: false }
}

pub(crate) fn active(active: &Revision) -> Revisions {
    Revisions { active: Some(active.clone()), ..Revisions::default() }
}

pub(crate) fn with_canary(active: &Revision, canary: &Revision, percent: u8) -> Revisions {
    let (revision, arrived) = (canary.clone(), Instant::now());
    let progress = RolloutProgress::begin(strategy(percent), arrived);
    let candidate = Some(CandidateRevision { revision, progress, arrived });
    Revisions { candidate, ..self::active(active) }
}

pub(crate) fn with_previous(active: &Revision, previous: &Revision) -> Revisions {
    let previous = Previous { revision: previous.clone(), until: Instant::now() + HOUR };
    Revisions { previous: Some(previous), ..self::active(active) }
}
