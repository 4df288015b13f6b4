use super::{Changes, TURNS};

#[test]
fn unfollowed_changes_are_not_kept() {
    let mut changes = Changes::default();
    changes.note(1);
    assert!(changes.is_empty() && !changes.is_whole());
    assert_eq!(changes.take(8), []);
}

#[test]
fn first_copy_is_whole_after_its_last_part() {
    let mut changes = Changes::default();
    changes.follow([1, 2, 3].into_iter());
    assert_eq!(changes.take(2), [1, 2]);
    assert!(!changes.is_whole());
    assert_eq!(changes.take(2), [3]);
    assert!(changes.is_whole() && changes.is_empty());
    changes.note(2);
    changes.note(2);
    assert_eq!(changes.take(2), [2], "once, and the copy stays whole");
    assert!(changes.is_whole());
    changes.unfollow();
    assert!(!changes.is_whole());
}

#[test]
fn deferred_changes_come_in_parts() {
    let mut changes = Changes::<u64>::default();
    changes.follow(0..100);
    changes.take_all();
    (0..100).for_each(|id| changes.defer(id));
    assert!(changes.is_empty());
    let mut released = Vec::new();
    for _ in 0..TURNS {
        changes.release();
        let part = changes.take(3);
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
    assert_eq!(changes.take(2), [1, 2]);
    changes.note(1);
    changes.defer(2);
    assert_eq!(changes.take_all(), [1, 2, 3]);
    assert!(changes.is_whole() && changes.take_all().is_empty());
}

#[test]
fn busy_low_numbers_do_not_starve_others() {
    let mut changes = Changes::default();
    changes.follow([1, 2, 3].into_iter());
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(changes.take(1));
        changes.note(1);
    }
    assert_eq!(taken, [1, 2, 3]);
}
