//! The numbers of records that changed since their follower took them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Parts in which deferred changes are released, so that those of many records do not come at once.
const TURNS: u64 = 50;

/// Empty while no follower takes them. At most the number of sessions or rooms that there are or were since.
#[derive(Debug)]
pub(crate) struct Changes<Id> {
    followed: Option<Followed<Id>>,
}

#[derive(Debug)]
struct Followed<Id> {
    changed: BTreeSet<Id>,
    /// By the turn in which they are released.
    deferred: BTreeMap<u64, BTreeSet<Id>>,
    turn: u64,
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
        let (changed, deferred) = (all.collect(), BTreeMap::new());
        self.followed = Some(Followed { changed, deferred, turn: 0, last: None, whole: false });
    }

    pub(crate) fn unfollow(&mut self) {
        self.followed = None;
    }

    pub(crate) fn note(&mut self, id: Id) {
        if let Some(followed) = &mut self.followed {
            followed.changed.insert(id);
        }
    }

    /// Notes a change that is taken only once [`Changes::release`] was called up to [`TURNS`] times.
    pub(crate) fn defer(&mut self, id: Id)
    where
        Id: Into<u64>,
    {
        if let Some(followed) = &mut self.followed {
            followed.deferred.entry(id.into() % TURNS).or_default().insert(id);
        }
    }

    /// Has the deferred changes of the next turn taken.
    pub(crate) fn release(&mut self) {
        let Some(followed) = &mut self.followed else { return };
        followed.turn = (followed.turn + 1) % TURNS;
        if let Some(released) = followed.deferred.remove(&followed.turn) {
            followed.changed.extend(released);
        }
    }

    pub(crate) fn take_all(&mut self) -> Vec<Id> {
        let Some(Followed { changed, deferred, last, whole, .. }) = &mut self.followed else {
            return Vec::new();
        };
        changed.extend(std::mem::take(deferred).into_values().flatten());
        (*last, *whole) = (None, true);
        std::mem::take(changed).into_iter().collect()
    }

    /// Takes up to this many changes that are not deferred.
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
