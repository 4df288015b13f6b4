use super::*;

#[test]
fn long_reason_is_cut_between_characters() {
    let decoded = |reason: &str| {
        let failed = HandoverMessage::Failed { reason: reason.to_owned() };
        match HandoverMessage::decode(&failed.encode()).unwrap() {
            HandoverMessage::Failed { reason } => reason,
            other => panic!("{other:?}"),
        }
    };
    let longest = "x".repeat(REASON_MAX);
    assert_eq!(decoded(&longest), longest);
    assert_eq!(decoded(&format!("{longest}y")), longest);
    // The last character would take two bytes.
    assert_eq!(decoded(&format!("{}\u{fc}", &longest[1..])), longest[1..]);
}
