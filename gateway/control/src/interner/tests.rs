use super::*;

#[test]
fn equal_parts_are_shared_and_bounded() {
    let mut kinds: Kinds<Arc<str>> = Kinds::default();
    let first = kinds.share("voice".into());
    assert!(Arc::ptr_eq(&kinds.share("voice".into()), &first));
    for number in 0..KINDS_MAX {
        kinds.share(number.to_string().into());
    }
    assert_eq!(kinds.0.len(), KINDS_MAX);
    assert!(!Arc::ptr_eq(&kinds.share("voice".into()), &first), "it gave way");
}
