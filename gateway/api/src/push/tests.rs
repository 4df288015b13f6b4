use serde_json::json;

use super::*;

fn refused(body: &str) -> (Option<String>, String) {
    let Err(error) = PushedParts::read(body.as_bytes()) else { panic!("{}", &body[..60]) };
    (error.field, error.message)
}

#[test]
fn values_are_read_as_they_stand() {
    let value = json!({"a": [null, true, -1, 2, 0.5, "text", {}, []], "b": {"c": u64::MAX}});
    let body = json!({"settings": value, "documents": {"one": value, "two": {}}});
    let parts = PushedParts::read(body.to_string().as_bytes()).unwrap();
    assert_eq!(parts.settings, Some(value.clone()));
    assert_eq!(parts.documents["one"], DataDocument::of("one", &value).unwrap());
    let names: Vec<&str> = parts.documents.keys().map(|name| &**name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(
        PushedParts::read(br#"{"settings": null, "plugin": "AA=="}"#).unwrap().settings,
        None
    );
}

#[test]
fn parts_are_limited_on_both_sides_of_their_limit() {
    let values = |count| format!("[{}0]", "0,".repeat(count - 1));
    let settings = |count| format!("{{\"settings\": {}}}", values(count));
    // One byte each, with a comma or bracket, behind the first bracket.
    let count = (SETTINGS_BYTES_MAX - 1) / 2;
    assert!(PushedParts::read(settings(count).as_bytes()).is_ok());
    let (field, said) = refused(&settings(count + 1));
    assert_eq!(field.as_deref(), Some("settings"), "{said}");
    assert!(said.contains("expected at most 1048576 bytes"), "{said}");
    let documents = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("\"d{number}\": {{}}")).collect();
        format!("{{\"documents\": {{{}}}}}", all.join(","))
    };
    assert!(PushedParts::read(documents(DOCUMENTS_MAX).as_bytes()).is_ok());
    let (_, said) = refused(&documents(DOCUMENTS_MAX + 1));
    assert!(said.contains("expected at most 8 documents"), "{said}");
    let plugin = |bytes| format!("{{\"plugin\": \"{}\"}}", BASE64.encode(&vec![0; bytes]));
    assert!(PushedParts::read(plugin(BINARY_BYTES_MAX).as_bytes()).is_ok());
    for bytes in [BINARY_BYTES_MAX + 1, BINARY_BYTES_MAX + 3] {
        assert!(refused(&plugin(bytes)).1.starts_with("the plugin is larger than"));
    }
}

#[test]
fn plugin_with_escapes_is_decoded() {
    let parts = PushedParts::read(br#"{"plugin": "\/\/8="}"#).unwrap();
    assert_eq!(parts.plugin.as_deref(), Some(&[0xff, 0xff][..]));
    assert_eq!(refused(r#"{"plugin": "?"}"#).0.as_deref(), Some("plugin"));
    assert_eq!(refused(r#"{"plugin": 7}"#).0.as_deref(), Some("plugin"));
}
