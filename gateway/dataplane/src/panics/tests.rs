use super::*;

#[test]
fn caught_panic_has_message_and_location() {
    capture_here();
    let line = line!() + 1;
    let panic = std::panic::catch_unwind(|| panic!("number {}", 7)).unwrap_err();
    assert_eq!(message(&*panic), "number 7");
    let place = take_location().unwrap();
    assert!(place.contains(&format!("tests.rs:{line}:")), "{place}");
    assert_eq!(take_location(), None, "once");
}
