//! Revisions that are remembered over a restart: revisions rolled back for harm, and revisions for the version floor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Revision, RevisionRefusal, Version};

/// Maximum quarantined revisions of a policy; the oldest is dropped first.
const QUARANTINED_MAX: usize = 16;

/// Maximum revisions kept for the version floor: two months with one release a day.
const ACCEPTED_MAX: usize = 64;

/// A revision that did harm. It is refused unless the push forces it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantinedRevision {
    pub revision: Arc<str>,
    pub since: SystemTime,
    pub reason: Box<str>,
}

/// A revision that became active and was not rolled back since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcceptedRevision {
    pub revision: Arc<str>,
    pub plugin: Arc<str>,
    pub version: Version,
}

/// Revisions of one policy that are remembered over a restart, the oldest first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Remembered {
    pub accepted: Vec<AcceptedRevision>,
    pub quarantined: Vec<QuarantinedRevision>,
}

#[derive(Default, Debug)]
pub(crate) struct RevisionQuarantine(VecDeque<QuarantinedRevision>);

impl RevisionQuarantine {
    pub(crate) fn of(mut list: Vec<QuarantinedRevision>) -> RevisionQuarantine {
        let beyond = list.len().saturating_sub(QUARANTINED_MAX);
        RevisionQuarantine(list.drain(beyond..).collect())
    }

    pub(crate) fn list(&self) -> Vec<QuarantinedRevision> {
        self.0.iter().cloned().collect()
    }

    pub(crate) fn get(&self, revision: &str) -> Option<&QuarantinedRevision> {
        self.0.iter().find(|it| *it.revision == *revision)
    }

    pub(crate) fn add(&mut self, quarantined: QuarantinedRevision) {
        self.remove(&quarantined.revision);
        if self.0.len() == QUARANTINED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(quarantined);
    }

    pub(crate) fn remove(&mut self, revision: &str) {
        self.0.retain(|it| *it.revision != *revision);
    }
}

/// The oldest version of each plugin that a push may bring: the newest that became active and was not rolled back.
#[derive(Default, Debug)]
pub(crate) struct VersionFloor(VecDeque<AcceptedRevision>);

impl VersionFloor {
    pub(crate) fn of(mut list: Vec<AcceptedRevision>) -> VersionFloor {
        let beyond = list.len().saturating_sub(ACCEPTED_MAX);
        VersionFloor(list.drain(beyond..).collect())
    }

    pub(crate) fn list(&self) -> Vec<AcceptedRevision> {
        self.0.iter().cloned().collect()
    }

    /// # Errors
    /// [`RevisionRefusal::Downgrade`] below the floor.
    pub(crate) fn check(&self, new: &Revision) -> Result<(), RevisionRefusal> {
        let newer = |it: &&AcceptedRevision| it.plugin == new.plugin && new.version < it.version;
        match self.0.iter().find(newer) {
            Some(newer) => Err(RevisionRefusal::Downgrade {
                plugin: Arc::clone(&new.plugin),
                found: Box::new(new.version.clone()),
                ran: Box::new(newer.version.clone()),
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn accept(&mut self, new: &Revision) {
        self.withdraw(&new.name);
        if self.0.len() == ACCEPTED_MAX {
            // A version does not set the floor if a later entry of its plugin is as new: drop it, else the oldest.
            let covers = |one: &AcceptedRevision, other: &AcceptedRevision| {
                one.plugin == other.plugin && one.version <= other.version
            };
            let covered = (0..self.0.len())
                .find(|at| self.0.range(at + 1..).any(|other| covers(&self.0[*at], other)));
            self.0.remove(covered.unwrap_or(0));
        }
        let Revision { name, plugin, version, .. } = new.clone();
        self.0.push_back(AcceptedRevision { revision: name, plugin, version });
    }

    /// Forgets a revision that was rolled back: an older version may be the fix.
    pub(crate) fn withdraw(&mut self, revision: &str) {
        self.0.retain(|it| *it.revision != *revision);
    }
}

#[cfg(test)]
mod tests;
