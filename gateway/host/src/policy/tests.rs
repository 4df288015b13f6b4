use super::*;

#[test]
fn first_four_answers_then_ever_fewer_are_checked() {
    let mut check = DeterminismCheck::default();
    let mut looked_at = Vec::new();
    for answer in 1..=6_000 {
        check.answers += 1;
        if check.is_due() {
            looked_at.push(answer);
            check.note_asked();
        }
    }
    assert_eq!(looked_at[..6], [1, 2, 3, 4, 68, 132]);
    assert_eq!(looked_at[66..], [4_036, 4_100, 5_124]);
}

#[test]
fn skipped_check_is_due_with_the_next_answer() {
    let mut check = DeterminismCheck::default();
    for _ in 0..9 {
        check.answers += 1;
    }
    assert!(check.is_due());
    check.note_asked();
    assert!(!check.is_due());
}

/// Answers before activation are not checked.
#[test]
fn four_answers_are_checked_after_activation() {
    let mut check = DeterminismCheck::default();
    (0..100).for_each(|_| check.answers += 1);
    for _ in 0..4 {
        assert!(check.is_due());
        check.note_asked();
        check.answers += 1;
    }
    assert!(!check.is_due());
}
