use super::Changes;

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
fn late_changes_wait_for_their_turn() {
    let mut changes = Changes::default();
    changes.follow([1, 2, 3].into_iter());
    changes.take(8);
    for (id, turn) in [(1, 0), (2, 1), (3, 1), (3, 1)] {
        changes.note_late(id, turn);
    }
    assert!(changes.is_empty());
    changes.hasten(1);
    assert_eq!(changes.take(8), [2, 3]);
    changes.note_late(2, 1);
    changes.hasten_all();
    assert_eq!(changes.take(8), [1, 2]);
    changes.hasten_all();
    assert!(changes.is_empty());
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
