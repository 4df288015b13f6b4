use super::*;

#[test]
fn session_room_name_is_recognised() {
    assert!(names_one_apart(&apart("conf", SessionId(7))));
    for room in ["conf", "conf~", "conf~s", "conf~7", "conf~s7x", "~", "conf~s7~a"] {
        assert!(!names_one_apart(room), "{room}");
    }
}
