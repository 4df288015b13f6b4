//! Ordered maps and sets of numbers that are given out in sequence.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::marker::PhantomData;
use std::ops::{Bound, Index, RangeBounds, RangeInclusive};

/// Numbers that share an entry of the tree, one bit of a word each.
const BLOCK: u64 = 64;

/// A map ordered by key, for keys that are numbered in sequence. A key takes about one byte beside its value, and up to 110
/// if no other key is near. In a `BTreeMap` it takes 28, because leaves stay half empty while keys only grow.
#[derive(Clone, Debug)]
pub struct IdMap<K, V> {
    /// By number, divided by [`BLOCK`].
    blocks: BTreeMap<u64, IdBlock<V>>,
    length: usize,
    keys: PhantomData<K>,
}

#[derive(Clone, Debug)]
struct IdBlock<V> {
    /// The numbers with a value, as a bit set.
    used: u64,
    /// In the order of the numbers.
    values: Vec<V>,
}

impl<V> Default for IdBlock<V> {
    fn default() -> Self {
        IdBlock { used: 0, values: Vec::new() }
    }
}

impl<V> IdBlock<V> {
    /// The index of a number's value, or the index at which it would be inserted.
    fn place(&self, bit: u32) -> Result<usize, usize> {
        let before = (self.used & ((1 << bit) - 1)).count_ones() as usize;
        if self.used >> bit & 1 == 1 { Ok(before) } else { Err(before) }
    }

    fn numbers(&self, block: u64) -> impl Iterator<Item = u64> + use<V> {
        let used = self.used;
        (0..BLOCK).filter(move |bit| used >> bit & 1 == 1).map(move |bit| block * BLOCK + bit)
    }
}

fn split(number: u64) -> (u64, u32) {
    (number / BLOCK, (number % BLOCK) as u32)
}

/// The first and the last number in these bounds; the first is the larger one if there are none.
fn numbers<K: Copy + Into<u64>>(bounds: &impl RangeBounds<K>) -> (u64, u64) {
    let first = match bounds.start_bound() {
        Bound::Included(first) => Some((*first).into()),
        Bound::Excluded(before) => (*before).into().checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let last = match bounds.end_bound() {
        Bound::Included(last) => Some((*last).into()),
        Bound::Excluded(after) => (*after).into().checked_sub(1),
        Bound::Unbounded => Some(u64::MAX),
    };
    first.zip(last).unwrap_or((1, 0))
}

/// The blocks that contain these numbers, as bounds that `BTreeMap` accepts.
fn blocks((first, last): (u64, u64)) -> RangeInclusive<u64> {
    first / BLOCK..=last.max(first) / BLOCK
}

impl<K, V> Default for IdMap<K, V> {
    fn default() -> Self {
        IdMap { blocks: BTreeMap::new(), length: 0, keys: PhantomData }
    }
}

impl<K: Copy + From<u64> + Into<u64>, V> IdMap<K, V> {
    /// The value of a key, if present.
    pub fn get(&self, key: K) -> Option<&V> {
        let (block, bit) = split(key.into());
        let block = self.blocks.get(&block)?;
        block.place(bit).ok().map(|place| &block.values[place])
    }

    /// The mutable value of a key, if present.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (block, bit) = split(key.into());
        let block = self.blocks.get_mut(&block)?;
        block.place(bit).ok().map(|place| &mut block.values[place])
    }

    /// Returns true if the key has a value.
    pub fn contains_key(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key, and returns the one before it.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (block, bit) = split(key.into());
        let block = self.blocks.entry(block).or_default();
        match block.place(bit) {
            Ok(place) => Some(std::mem::replace(&mut block.values[place], value)),
            Err(place) => {
                block.used |= 1 << bit;
                block.values.insert(place, value);
                self.length += 1;
                None
            }
        }
    }

    /// Removes a key, and returns its value.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let (block, bit) = split(key.into());
        let Entry::Occupied(mut entry) = self.blocks.entry(block) else { return None };
        let block = entry.get_mut();
        let value = block.values.remove(block.place(bit).ok()?);
        block.used &= !(1 << bit);
        self.length -= 1;
        let left = block.values.len();
        if left == 0 {
            entry.remove();
        } else if left * 4 <= block.values.capacity() {
            block.values.shrink_to(left * 2);
        }
        Some(value)
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.length = 0;
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns true if no key has a value.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.blocks.iter().flat_map(|(at, block)| block.numbers(*at)).map(K::from)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.blocks.values().flat_map(|block| &block.values)
    }

    /// The mutable values in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.blocks.values_mut().flat_map(|block| &mut block.values)
    }

    /// The values in the order of their keys, and nothing remains.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.blocks.into_values().flat_map(|block| block.values)
    }

    /// The keys within bounds in order, with their values.
    pub fn range(&self, bounds: impl RangeBounds<K>) -> impl Iterator<Item = (K, &V)> {
        let (first, last) = numbers(&bounds);
        let blocks = self.blocks.range(blocks((first, last)));
        let all = blocks.flat_map(|(at, block)| block.numbers(*at).zip(&block.values));
        all.filter(move |(number, _)| (first..=last).contains(number))
            .map(|(number, value)| (K::from(number), value))
    }

    /// The keys within bounds in order, with their mutable values.
    pub fn range_mut(&mut self, bounds: impl RangeBounds<K>) -> impl Iterator<Item = (K, &mut V)> {
        let (first, last) = numbers(&bounds);
        let blocks = self.blocks.range_mut(blocks((first, last)));
        let all = blocks.flat_map(|(at, block)| block.numbers(*at).zip(&mut block.values));
        all.filter(move |(number, _)| (first..=last).contains(number))
            .map(|(number, value)| (K::from(number), value))
    }
}

impl<K: Copy + From<u64> + Into<u64>, V> Index<K> for IdMap<K, V> {
    type Output = V;

    fn index(&self, key: K) -> &V {
        self.get(key).expect("the key has a value")
    }
}

/// An ordered set of numbers that are given out in sequence.
#[derive(Clone, Debug)]
pub struct IdSet<K>(IdMap<K, ()>);

impl<K> Default for IdSet<K> {
    fn default() -> Self {
        IdSet(IdMap::default())
    }
}

impl<K: Copy + From<u64> + Into<u64>> IdSet<K> {
    /// Adds a number. Returns false if it was there.
    pub fn insert(&mut self, one: K) -> bool {
        self.0.insert(one, ()).is_none()
    }

    /// Removes a number. Returns true if it was there.
    pub fn remove(&mut self, one: K) -> bool {
        self.0.remove(one).is_some()
    }

    /// Returns true if the number is there.
    pub fn contains(&self, one: K) -> bool {
        self.0.contains_key(one)
    }

    /// The count of numbers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there is no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = K> {
        self.0.keys()
    }

    /// The numbers within bounds in order.
    pub fn range(&self, bounds: impl RangeBounds<K>) -> impl Iterator<Item = K> {
        self.0.range(bounds).map(|(one, ())| one)
    }
}

impl<K: Copy + From<u64> + Into<u64>> FromIterator<K> for IdSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(all: I) -> Self {
        let mut set = IdSet::default();
        all.into_iter().for_each(|one| _ = set.insert(one));
        set
    }
}

#[cfg(test)]
mod tests;
