use super::*;

#[test]
fn batch_size_grows_back_after_a_while() {
    let mut portion = Portion { most: 512, answered: 0 };
    for answered in 1..GROW_AFTER {
        portion = portion.answered();
        assert_eq!(portion, Portion { most: 512, answered });
    }
    assert_eq!(portion.answered(), Portion { most: 1_024, answered: 0 });
}
