use super::*;

#[test]
fn used_numbers_are_remembered_within_the_window() {
    let mut recent = Recent::new(10, 0);
    recent.advance(12, 2, 1_920);
    assert_eq!(recent.at(12, 0, 1_920), Use::Same);
    assert_eq!(recent.at(11, 1, 960), Use::Free);
    assert_eq!(recent.at(10, 2, 0), Use::Same);
    assert_eq!(recent.at(10, 2, 960), Use::Other);
    recent.fill(11, 1, 960);
    assert_eq!(recent.at(11, 1, 960), Use::Same);
    recent.advance(73, 61, 9);
    assert_eq!(recent.at(10, 63, 0), Use::Same);
    recent.advance(74, 1, 10);
    assert_eq!(recent.at(10, 64, 0), Use::Free);
    recent.advance(138, 64, 11);
    assert_eq!(recent.at(74, 64, 10), Use::Free);
    assert_eq!(recent.at(137, 1, 10), Use::Free);
}
