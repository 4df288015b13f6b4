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
    assert_eq!(map.extract(|key| *key == 1), [(1, 10)]);
    assert_eq!(map.extract(|key| *key == 1), []);
    assert_eq!(map.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_few_take_no_more_room_than_they_need() {
    let mut set = SmallSet::default();
    [5, 4, 5, 3].into_iter().for_each(|one| set.insert(one));
    assert_eq!((set.0.capacity(), set.iter().copied().collect::<Vec<_>>()), (3, vec![3, 4, 5]));
}

#[test]
fn equals_are_one_while_at_hand_and_few_are() {
    let mut alike = Interner::default();
    let first = alike.intern(0);
    assert!(Arc::ptr_eq(&alike.intern(0), &first));
    for other in 1..=AT_HAND {
        assert_eq!(*alike.intern(other), other);
    }
    assert_eq!(alike.0.len(), AT_HAND);
    assert!(!Arc::ptr_eq(&alike.intern(0), &first), "it gave way");
}

#[test]
fn unfollowed_changes_are_not_kept() {
    let mut changes = Changes::default();
    changes.note(1);
    assert!(changes.len() == 0 && !changes.is_whole());
    assert_eq!(changes.take(Some(8)), []);
}

#[test]
fn first_copy_is_whole_after_its_last_part() {
    let mut changes = Changes::default();
    changes.follow([1, 2, 3].into_iter());
    assert_eq!(changes.take(Some(2)), [1, 2]);
    assert!(!changes.is_whole());
    assert_eq!(changes.take(Some(2)), [3]);
    assert!(changes.is_whole() && changes.len() == 0);
    changes.note(2);
    changes.note(2);
    assert_eq!(changes.take(Some(2)), [2], "once, and the copy stays whole");
    assert!(changes.is_whole());
    changes.unfollow();
    assert!(!changes.is_whole());
}

#[test]
fn deferred_changes_come_in_parts() {
    let mut changes = Changes::<u64>::default();
    changes.follow(0..100);
    changes.take(None);
    (0..100).for_each(|id| changes.defer(id));
    assert!(changes.len() == 0);
    let mut released = Vec::new();
    for _ in 0..TURNS {
        changes.release();
        let part = changes.take(Some(3));
        assert_eq!(part.len(), 2);
        released.extend(part);
    }
    released.sort_unstable();
    assert!(released.into_iter().eq(0..100));
}

#[test]
fn all_changes_include_low_and_deferred_ones() {
    let mut changes = Changes::<u64>::default();
    changes.follow(1..4);
    assert_eq!(changes.take(Some(2)), [1, 2]);
    changes.note(1);
    changes.defer(2);
    assert_eq!(changes.take(None), [1, 2, 3]);
    assert!(changes.is_whole() && changes.take(None).is_empty());
}

#[test]
fn busy_low_numbers_do_not_starve_others() {
    let mut changes = Changes::default();
    changes.follow([1, 2, 3].into_iter());
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(changes.take(Some(1)));
        changes.note(1);
    }
    assert_eq!(taken, [1, 2, 3]);
}
