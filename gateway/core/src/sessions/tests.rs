use super::*;

#[test]
fn session_takes_184_bytes() {
    assert_eq!(size_of::<Session>(), 184, "a gateway has very many");
}
