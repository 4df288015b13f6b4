use evenkeel_fuzz::Corpus;

use super::*;

fn written(value: &Value<'_>) -> String {
    let mut out = Vec::new();
    value.write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn written_values_are_read_back() {
    let value = Value::dictionary(vec![
        ("command", "offer".into()),
        ("delete-delay", Value::Number(-3)),
        ("flags", Value::words(&["asymmetric", ""])),
    ]);
    let text = written(&value);
    assert_eq!(text, "d7:command5:offer12:delete-delayi-3e5:flagsl10:asymmetric0:ee");
    assert_eq!(Value::read(text.as_bytes()), Some(value));
}

#[test]
fn answer_has_its_keys() {
    let answer = Value::read(b"d6:result5:error12:error-reason4:why?e").unwrap();
    assert_eq!(answer.text("result"), Some("error"));
    assert_eq!(answer.text("error-reason"), Some("why?"));
    assert_eq!((answer.text("sdp"), Value::Number(1).get("sdp")), (None, None));
}

#[test]
fn keys_may_have_any_order() {
    let answer = Value::read(b"d3:sdp3:v=06:result2:oke").unwrap();
    assert_eq!((answer.text("sdp"), answer.text("result")), (Some("v=0"), Some("ok")));
}

#[test]
fn truncated_long_or_deep_values_are_rejected() {
    let whole = b"d3:keyl1:ai7eee";
    assert!(Value::read(whole).is_some());
    for length in 0..whole.len() {
        assert_eq!(Value::read(&whole[..length]), None, "{length}");
    }
    assert_eq!(Value::read(b"d3:keyl1:ai7eeee"), None);
    assert_eq!(Value::read(b"99999999999999999999:a"), None);
    assert_eq!(Value::read(b"9:a"), None);
    assert_eq!(Value::read(b"i7"), None);
    let nested = |depth| ["l".repeat(depth), "e".repeat(depth)].concat();
    assert!(Value::read(nested(DEPTH_MAX).as_bytes()).is_some());
    assert_eq!(Value::read(nested(DEPTH_MAX + 1).as_bytes()), None);
}

#[test]
fn fuzz_bencode() {
    Corpus::of("bencode").check(|bytes| {
        let Some(value) = Value::read(bytes) else { return };
        let mut written = Vec::new();
        value.write(&mut written);
        assert!(written.len() <= bytes.len());
        assert_eq!(Value::read(&written), Some(value));
    });
}
