use super::*;

#[test]
fn control_characters_are_escaped() {
    for (text, safe) in [
        ("\u{1b}[2J", "\\u001b[2J"),
        ("\u{1b}]52;c;cm0gLXJm\u{7}", "\\u001b]52;c;cm0gLXJm\\u0007"),
        ("a\u{7f}\u{8}b", "a\\u007f\\u0008b"),
        ("\u{9b}31m\u{85}", "\\u009b31m\\u0085"),
        ("room\nnode east-a1 up\r\t", "room\\nnode east-a1 up\\r\\t"),
        ("\0", "\\u0000"),
        ("room\u{202e}drawkcab", "room\\u202edrawkcab"),
        ("\u{2066}a\u{2069}\u{61c}\u{2028}", "\\u2066a\\u2069\\u061c\\u2028"),
    ] {
        assert_eq!(escape(text), safe);
    }
}

#[test]
fn printable_text_is_unchanged() {
    let text = "Zimmer 7 · größer, 会议室 🎧, حجرة 👩\u{200d}🚀, \\u001b";
    assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
    assert_eq!(escape_lines("one\ntwo\u{1b}\n"), "one\ntwo\\u001b\n");
}

#[test]
fn escaped_json_has_the_same_value() {
    let value = serde_json::json!({"room": "\u{1b}[2J\u{7f}\u{9b}\n"});
    let text = value.to_string();
    let safe = escape(&text);
    assert!(!safe.contains(char::is_control), "{safe}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
}
