//! Maps and sets for few entries: sorted, in one exactly sized allocation. There is one per session and room; a B-tree
//! would allocate room for eleven entries where one to three are usual.

use std::collections::BTreeSet;
use std::ops::RangeFull;

/// Up to this size the allocation grows by one entry; beyond, as a `Vec` grows.
const FEW: usize = 8;

/// A map of few entries, ordered by key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SmallMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap(Vec::new())
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

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                if self.0.len() < FEW {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, (key, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).ok().map(|place| self.0.remove(place).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Removes and returns the entries that match.
    pub(crate) fn extract_if(
        &mut self,
        all: RangeFull,
        mut is_meant: impl FnMut(&K, &mut V) -> bool,
    ) -> impl Iterator<Item = (K, V)> {
        self.0.extract_if(all, move |(key, value)| is_meant(key, value))
    }
}

/// An ordered set of few entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SmallSet<T>(SmallMap<T, ()>);

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        SmallSet(SmallMap::default())
    }
}

impl<T: Ord + Copy> SmallSet<T> {
    pub(crate) fn insert(&mut self, one: T) {
        self.0.insert(one, ());
    }

    pub(crate) fn remove(&mut self, one: &T) {
        self.0.remove(one);
    }

    pub(crate) fn contains(&self, one: &T) -> bool {
        self.0.contains_key(one)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.0.iter().map(|(one, ())| one)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl<T: Ord + Copy> FromIterator<T> for SmallSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let all: BTreeSet<T> = all.into_iter().collect();
        let mut sorted = Vec::with_capacity(all.len());
        sorted.extend(all.into_iter().map(|one| (one, ())));
        SmallSet(SmallMap(sorted))
    }
}

#[cfg(test)]
mod tests;
