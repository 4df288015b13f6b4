//! The numbers of records that changed since their follower took them.

use std::collections::BTreeSet;
use std::ops::Bound;

/// Empty while no follower takes them. At most the number of sessions or rooms that there are or were since.
#[derive(Debug)]
pub(crate) struct Changes<Id> {
    followed: Option<Followed<Id>>,
}

#[derive(Debug)]
struct Followed<Id> {
    changed: BTreeSet<Id>,
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
        self.followed = Some(Followed { changed: all.collect(), last: None, whole: false });
    }

    pub(crate) fn unfollow(&mut self) {
        self.followed = None;
    }

    pub(crate) fn note(&mut self, id: Id) {
        if let Some(followed) = &mut self.followed {
            followed.changed.insert(id);
        }
    }

    pub(crate) fn take(&mut self, at_most: usize) -> Vec<Id> {
        let Some(Followed { changed, last, whole }) = &mut self.followed else {
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
