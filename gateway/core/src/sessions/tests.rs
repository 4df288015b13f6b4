use super::*;

#[test]
fn session_takes_168_bytes() {
    assert_eq!(size_of::<Session>(), 168, "a gateway has very many");
}
