use super::*;

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
