use super::*;

#[test]
fn unknown_name_is_a_wrong_command_line() {
    let refused = |status| {
        let (code, message) = ("bad-request".to_owned(), "no such scenario".to_owned());
        let error = evenkeel_client::Error::Refused { status, code, message };
        drill::Failed::Crowd(crowd::Failed::Gateway { what: "opening a session", error })
    };
    for wrong in [drill::Failed::Unknown("no such node".to_owned()), refused(400)] {
        assert!(matches!(failure(&wrong), Failure::Wrong(words) if words.contains("no such")));
    }
    for failed in [drill::Failed::Unfit("it is not up".to_owned()), refused(503)] {
        assert!(matches!(failure(&failed), Failure::Failed(_)));
    }
}
