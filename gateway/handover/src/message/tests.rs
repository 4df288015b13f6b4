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

#[test]
fn other_version_is_refused_by_both_names() {
    let version = |protocol| ProtocolVersion { protocol, program: format!("0.{protocol}.0") };
    version(3).require_same(&version(3)).unwrap();
    for other in [2, 4] {
        let reason = version(3).require_same(&version(other)).unwrap_err();
        for named in ["0.3.0", "version 3", &format!("0.{other}.0"), &format!("version {other}")] {
            assert!(reason.contains(named), "{reason}");
        }
    }
}
