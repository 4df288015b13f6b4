//! The numbers of records that changed since their follower took them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Turns in which late changes are taken.
pub const LATE_TURNS: u64 = 50;

/// Empty while no follower takes them. At most the number of sessions or rooms that there are or were since.
#[derive(Debug)]
pub(crate) struct Changes<Id> {
    followed: Option<Followed<Id>>,
}

#[derive(Debug)]
struct Followed<Id> {
    changed: BTreeSet<Id>,
    /// Changes that the follower may get late, by the turn in which they are taken.
    late: BTreeMap<u64, BTreeSet<Id>>,
    /// The last number that was taken: those after it come next, so that none waits for ever.
    last: Option<Id>,
    /// All records were taken at least once.
    whole: bool,
}

impl<Id> Default for Changes<Id> {
    fn default() -> Self {
        Changes { followed: None }
    }
}

impl<Id: Copy + Ord> Changes<Id> {
    /// Begins with all records.
    pub(crate) fn follow(&mut self, all: impl Iterator<Item = Id>) {
        let (changed, late) = (all.collect(), BTreeMap::new());
        self.followed = Some(Followed { changed, late, last: None, whole: false });
    }

    pub(crate) fn unfollow(&mut self) {
        self.followed = None;
    }

    pub(crate) fn note(&mut self, id: Id) {
        if let Some(followed) = &mut self.followed {
            followed.changed.insert(id);
        }
    }

    /// Notes a change that is taken after [`Changes::hasten`] for this turn.
    pub(crate) fn note_late(&mut self, id: Id, turn: u64) {
        if let Some(followed) = &mut self.followed {
            followed.late.entry(turn).or_default().insert(id);
        }
    }

    pub(crate) fn hasten(&mut self, turn: u64) {
        if let Some(followed) = &mut self.followed
            && let Some(late) = followed.late.remove(&turn)
        {
            followed.changed.extend(late);
        }
    }

    pub(crate) fn hasten_all(&mut self) {
        if let Some(followed) = &mut self.followed {
            followed.changed.extend(std::mem::take(&mut followed.late).into_values().flatten());
        }
    }

    pub(crate) fn take(&mut self, at_most: usize) -> Vec<Id> {
        let Some(Followed { changed, last, whole, .. }) = &mut self.followed else {
            return Vec::new();
        };
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let taken: Vec<Id> =
            changed.range((after, Bound::Unbounded)).take(at_most).copied().collect();
        for id in &taken {
            changed.remove(id);
        }
        let goes_on = taken.len() == at_most;
        *whole |= !goes_on;
        *last = taken.last().copied().filter(|_| goes_on);
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.followed.as_ref().is_none_or(|followed| followed.changed.is_empty())
    }

    /// All records were taken at least once.
    pub(crate) fn is_whole(&self) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.whole)
    }
}

#[cfg(test)]
mod tests;
