use super::*;

#[test]
fn freed_slot_is_reused_and_its_tag_forgotten() {
    let mut sessions = TrunkSessions::default();
    let session = |tag| TrunkSession {
        tag: Tag(tag),
        room: 1,
        reply_to: ([192, 0, 2, 1], 9).into(),
        expires: Instant::now(),
        awaited: None,
    };
    let slots = [1, 2].map(|tag| sessions.begin(session(tag)));
    assert_ne!(slots[0], slots[1]);
    assert_eq!(sessions.end(slots[0]).unwrap().tag, Tag(1));
    assert!(sessions.end(slots[0]).is_none());
    assert_eq!(sessions.begin(session(3)), slots[0]);
    assert_eq!((sessions.slot(Tag(1)), sessions.slot(Tag(3))), (None, Some(slots[0])));
    assert_eq!((sessions.len(), sessions.all().count()), (2, 2));
}
