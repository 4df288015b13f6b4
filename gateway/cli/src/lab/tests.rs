use super::*;

#[test]
fn unknown_name_is_a_wrong_command_line() {
    let refused = |status| {
        let (code, message) = ("bad-request".to_owned(), "no such scenario".to_owned());
        let error = ClientError::Refused { status, code, message };
        DrillError::Lab(LabError::Gateway("opening a session".to_owned(), error))
    };
    for wrong in [DrillError::Unknown("no such node".to_owned()), refused(400)] {
        assert!(matches!(failure(&wrong), CommandError::Wrong(words) if words.contains("no such")));
    }
    for failed in [DrillError::Unfit("it is not up".to_owned()), refused(503)] {
        assert!(matches!(failure(&failed), CommandError::Failed(_)));
    }
}
