//! Collections of tables with very many small parts: sorted maps and sets for few entries, shared equal values, and the
//! numbers of changed records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A map of few entries, ordered by key, in one exactly sized allocation. There is one per session; a B-tree would allocate
/// room for eleven entries where one to three are usual.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SmallMap<K, V>(Box<[(K, V)]>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap(Box::default())
    }
}

impl<K: Ord + Copy, V> SmallMap<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by_key(key, |(key, _)| *key)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|place| &mut self.0[place].1)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Vec<(K, V)>) -> T) -> T {
        let mut entries = std::mem::take(&mut self.0).into_vec();
        let result = change(&mut entries);
        self.0 = entries.into();
        result
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.change(|entries| {
                    entries.reserve_exact(1);
                    entries.insert(place, (key, value));
                });
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key).ok()?;
        Some(self.change(|entries| entries.remove(place).1))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Removes and returns the entries that match.
    pub(crate) fn extract(&mut self, is_meant: impl Fn(&K) -> bool) -> Vec<(K, V)> {
        if !self.0.iter().any(|(key, _)| is_meant(key)) {
            return Vec::new();
        }
        self.change(|entries| entries.extract_if(.., |(key, _)| is_meant(key)).collect())
    }
}

/// Up to this size the allocation of a [`SmallSet`] grows by one entry; beyond, as a `Vec` grows.
const FEW: usize = 8;

/// An ordered set that usually has few entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SmallSet<T>(Vec<T>);

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        SmallSet(Vec::new())
    }
}

impl<T: Ord + Copy> SmallSet<T> {
    pub(crate) fn insert(&mut self, one: T) {
        if let Err(place) = self.0.binary_search(&one) {
            if self.0.len() < FEW {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, one);
        }
    }

    pub(crate) fn remove(&mut self, one: &T) {
        if let Ok(place) = self.0.binary_search(one) {
            self.0.remove(place);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const AT_HAND: usize = 16;

/// The most recently used values.
#[derive(Debug)]
pub(crate) struct Interner<T>(VecDeque<Arc<T>>);

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner(VecDeque::new())
    }
}

impl<T: PartialEq> Interner<T> {
    /// Returns a shared equal value if one was used recently, else this one.
    pub(crate) fn intern(&mut self, one: T) -> Arc<T> {
        if let Some(same) = self.0.iter().find(|kept| ***kept == one) {
            return Arc::clone(same);
        }
        if self.0.len() == AT_HAND {
            self.0.pop_front();
        }
        let one = Arc::new(one);
        self.0.push_back(Arc::clone(&one));
        one
    }
}

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

    /// Takes up to this many changes that are not deferred, or all changes.
    pub(crate) fn take(&mut self, at_most: Option<usize>) -> Vec<Id> {
        let Some(Followed { changed, deferred, last, whole, .. }) = &mut self.followed else {
            return Vec::new();
        };
        let Some(at_most) = at_most else {
            changed.extend(std::mem::take(deferred).into_values().flatten());
            (*last, *whole) = (None, true);
            return std::mem::take(changed).into_iter().collect();
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

    /// The number of changes that are not deferred.
    pub(crate) fn len(&self) -> usize {
        self.followed.as_ref().map_or(0, |followed| followed.changed.len())
    }

    /// All records were taken at least once.
    pub(crate) fn is_whole(&self) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.whole)
    }
}

#[cfg(test)]
mod tests;
