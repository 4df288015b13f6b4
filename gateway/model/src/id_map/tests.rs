use super::*;

/// Numbers at the edges of blocks, in no order.
const NUMBERS: [u64; 10] = [64, 0, 1_000, 63, 65, u64::MAX, 127, 128, 1, 5];

fn map() -> (IdMap<u64, u64>, BTreeMap<u64, u64>) {
    let (mut map, mut model) = (IdMap::default(), BTreeMap::new());
    for number in NUMBERS {
        assert_eq!(map.insert(number, !number), model.insert(number, !number));
    }
    (map, model)
}

#[test]
fn map_agrees_with_a_tree() {
    let (mut map, mut model) = map();
    assert_eq!(map.insert(65, 7), model.insert(65, 7), "the value before");
    *map.get_mut(63).unwrap() = 8;
    *model.get_mut(&63).unwrap() = 8;
    let mut gone = NUMBERS.to_vec();
    gone.extend([2, 66, 999]);
    for number in gone {
        assert_eq!(map.len(), model.len());
        assert!(map.keys().eq(model.keys().copied()), "{model:?}");
        assert!(map.values().eq(model.values()), "{model:?}");
        assert_eq!(map.get(number), model.get(&number));
        assert_eq!(map.contains_key(number), model.contains_key(&number));
        assert_eq!(map.remove(number), model.remove(&number), "{number}");
    }
    assert!(map.is_empty() && map.blocks.is_empty());
}

#[test]
fn range_agrees_with_a_tree() {
    let (mut map, mut model) = map();
    let edges = [0, 1, 2, 63, 64, 65, 129, 1_000, u64::MAX];
    for first in edges {
        for last in edges.into_iter().filter(|last| first <= *last) {
            let found: Vec<_> = map.range(first..=last).collect();
            let wanted: Vec<_> = model.range(first..=last).map(|(key, it)| (*key, it)).collect();
            assert_eq!(found, wanted, "{first}..={last}");
            let found: Vec<_> = map.range_mut(first..last).collect();
            let wanted: Vec<_> = model.range_mut(first..last).map(|(key, it)| (*key, it)).collect();
            assert_eq!(found, wanted, "{first}..{last}");
        }
        let after = (Bound::Excluded(first), Bound::Unbounded);
        let found: Vec<_> = map.range(after).map(|(key, _)| key).collect();
        assert_eq!(found, model.range(after).map(|(key, _)| *key).collect::<Vec<_>>(), "{first}");
    }
    assert_eq!(map.range(..0).count(), 0);
}

#[test]
fn block_with_few_values_gives_memory_back() {
    let mut map: IdMap<u64, u64> = IdMap::default();
    for number in 0..BLOCK {
        map.insert(number, number);
    }
    assert_eq!(map.blocks[&0].values.capacity(), 64);
    for number in 1..BLOCK {
        assert_eq!(map.remove(number), Some(number));
        let values = &map.blocks[&0].values;
        assert!(values.capacity() < values.len() * 4, "{number}");
    }
    assert_eq!(map[0], 0);
}

#[test]
fn set_is_ordered_and_has_each_number_once() {
    let mut set: IdSet<u64> = NUMBERS.into_iter().chain(NUMBERS).collect();
    let mut sorted = NUMBERS;
    sorted.sort_unstable();
    assert!(set.iter().eq(sorted));
    assert_eq!(set.range(63..=65).collect::<Vec<_>>(), [63, 64, 65]);
    assert!(!set.insert(63) && set.remove(63) && !set.remove(63));
    assert_eq!((set.len(), set.contains(63), set.contains(64)), (9, false, true));
}
