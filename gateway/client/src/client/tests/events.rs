use super::super::*;

fn events(text: &str) -> Vec<ServerEvent> {
    let mut lines = EventLines::default();
    let mut events = Vec::new();
    // One byte at a time: a frame may end anywhere.
    for byte in text.as_bytes() {
        lines.bytes.extend_from_slice(&[*byte]);
        events.extend(lines.next().unwrap());
    }
    events
}

#[test]
fn event_is_parsed_across_frames() {
    let text = ": hello\n\nevent: moved\nid: 7\ndata: {\"room\":\ndata: \"r1\"}\n\ndata: 1\r\n\r\n";
    let [moved, plain] = &events(text)[..] else { panic!() };
    assert_eq!(moved.name, "moved");
    assert_eq!(moved.data["room"], "r1");
    assert_eq!((plain.name.as_str(), &plain.data), ("message", &Value::from(1)));
}

#[test]
fn comment_and_unfinished_event_are_skipped() {
    assert_eq!(events(": keep-alive\n\nevent: moved\ndata: 1\n"), []);
}

#[test]
fn data_that_is_not_json_is_an_error() {
    let mut lines = EventLines { bytes: BytesMut::from("data: {\n\n"), ..EventLines::default() };
    assert!(lines.next().is_err());
}
