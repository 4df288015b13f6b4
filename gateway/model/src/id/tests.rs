//! Ids of sessions as text.

use super::*;

#[test]
fn id_of_a_session_names_its_group() {
    let first = SessionId::first_of_group(0x1234_5678_9abc_def0);
    assert_eq!(first.to_string(), "s14d2pf-1");
    assert_eq!(SessionId(first.0 + 16).to_string(), "s14d2pf-17");
    assert_eq!(SessionId(first.0 + 16).group(), first.group());
    assert_eq!(SessionId(17).to_string(), "s17", "of a trial or a recording");
    for random in [0, 1, u64::MAX, 1 << 35, u64::MAX >> 1] {
        let first = SessionId::first_of_group(random);
        assert!(first.0 < 1 << 63 && first.group().0 > 0);
        assert_eq!(SessionId::parse(&first.to_string()), Some(first));
    }
}

#[test]
fn other_spelling_is_no_session() {
    assert_eq!(SessionId::parse("s17"), Some(SessionId(17)));
    for text in [
        "",
        "s",
        "17",
        "r17",
        "s017",
        "s+17",
        "s-17",
        "s 17",
        "s14d2pf-017",
        "s14d2pf-",
        "s14D2PF-17",
        "s4d2pf-17",
        "s14d2pl-17",
        "s14d2pf-1-7",
        "s000000-17",
        "s00000014d2pf-17",
        "szzzzzzzzzzzzz-1",
        "s14d2pf-17179869184",
        "s17179869184",
        "s18446744073709551616",
        "szzzzzz-18446744073709551615",
    ] {
        assert_eq!(SessionId::parse(text), None, "{text}");
    }
}
