use super::*;

#[test]
fn keys_are_in_order_and_stand_once() {
    let mut map = SmallMap::default();
    for key in [3, 1, 2] {
        assert_eq!(map.insert(key, key * 10), None);
    }
    assert_eq!(map.insert(2, 21), Some(20));
    assert_eq!(map.iter().collect::<Vec<_>>(), [(&1, &10), (&2, &21), (&3, &30)]);
    assert_eq!((map.get(&2), map.get(&4), map.contains_key(&1)), (Some(&21), None, true));
    assert_eq!(map.remove(&2), Some(21));
    assert_eq!(map.remove(&2), None);
    assert_eq!(map.extract_if(.., |key, _| *key == 1).collect::<Vec<_>>(), [(1, 10)]);
    assert_eq!(map.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_few_take_no_more_room_than_they_need() {
    let mut map = SmallMap::default();
    for key in 0..3 {
        map.insert(key, [0_u64; 4]);
    }
    assert_eq!(map.0.capacity(), 3);
    let set: SmallSet<u32> = [5, 4, 5].into_iter().collect();
    assert_eq!((set.0.0.capacity(), set.iter().copied().collect::<Vec<_>>()), (2, vec![4, 5]));
}
