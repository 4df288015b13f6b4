use super::*;

#[test]
fn every_reason_counts_in_its_own_place() {
    for (place, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, place);
    }
}
