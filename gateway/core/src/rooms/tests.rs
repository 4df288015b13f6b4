use super::*;

#[test]
fn session_room_name_is_recognised() {
    assert!(is_session_room_name(&session_room_name("conf", SessionId(7))));
    for room in ["conf", "conf~", "conf~s", "conf~7", "conf~s7x", "~", "conf~s7~a"] {
        assert!(!is_session_room_name(room), "{room}");
        assert_eq!(requested_room_name(room), room);
    }
    assert_eq!(requested_room_name("conf~s7"), "conf");
}

#[test]
fn room_takes_232_bytes() {
    assert_eq!(size_of::<Room>(), 232, "a gateway has very many");
}
