use super::*;

#[test]
fn caught_panic_has_message_and_location() {
    capture_here();
    let line = line!() + 1;
    let panic = std::panic::catch_unwind(|| panic!("number {}", 7)).unwrap_err();
    let (place, text) = describe(&*panic);
    assert_eq!(text, "number 7");
    assert!(place.contains(&format!("tests.rs:{line}:")), "{place}");
    assert_eq!(describe(&*panic).0, "", "once");
}
