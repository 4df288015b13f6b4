use super::*;

fn version(protocol: u32) -> ProtocolVersion {
    ProtocolVersion { protocol, program: format!("0.{protocol}.0") }
}

fn hello(protocol: u32) -> SuccessorInput {
    SuccessorInput::Message(HandoverMessage::Hello {
        version: version(protocol),
        offer: Value::Null,
    })
}

fn after(inputs: impl IntoIterator<Item = SuccessorInput>) -> Successor {
    let mut successor = Successor::new(version(3));
    for input in inputs {
        successor.handle(input);
    }
    successor
}

const STATE: SuccessorInput = SuccessorInput::Message(HandoverMessage::State);
const MEDIA: SuccessorInput = SuccessorInput::Message(HandoverMessage::Media);
const GO: SuccessorInput = SuccessorInput::Message(HandoverMessage::Go);

#[test]
fn steps_lead_to_serving() {
    let mut successor = after([]);
    assert_eq!(successor.handle(hello(3)), SuccessorAction::Start { offer: Value::Null });
    let ready =
        SuccessorAction::Send(HandoverMessage::Ready { version: version(3), states: Some(STATES) });
    assert_eq!(successor.handle(SuccessorInput::Started), ready);
    for _ in 0..3 {
        assert_eq!(
            successor.handle(SuccessorInput::Message(HandoverMessage::Records)),
            SuccessorAction::Keep
        );
    }
    assert_eq!(successor.handle(STATE), SuccessorAction::Restore);
    let restored = SuccessorAction::Send(HandoverMessage::Restored { sessions: 17 });
    assert_eq!(successor.handle(SuccessorInput::Restored { sessions: 17 }), restored);
    for _ in 0..3 {
        let part = successor.handle(SuccessorInput::Message(HandoverMessage::MediaPart));
        assert_eq!(part, SuccessorAction::Continue { is_last: false });
    }
    assert_eq!(successor.handle(MEDIA), SuccessorAction::Continue { is_last: true });
    assert_eq!(
        successor.handle(SuccessorInput::Continued),
        SuccessorAction::Send(HandoverMessage::Continued)
    );
    assert_eq!(successor.handle(GO), SuccessorAction::Serve);
}

/// The other end reads a protocol that this one may not know, so only the version is looked at.
#[test]
fn other_version_is_refused_by_both_names() {
    for other in [2, 4] {
        let SuccessorAction::Fail(reason) = after([]).handle(hello(other)) else {
            panic!("{other}")
        };
        for named in ["0.3.0", "version 3", &format!("0.{other}.0"), &format!("version {other}")] {
            assert!(reason.contains(named), "{reason}");
        }
    }
}

#[test]
fn serves_only_after_all_steps() {
    let restored = || SuccessorInput::Restored { sessions: 1 };
    let steps =
        || [hello(3), SuccessorInput::Started, STATE, restored(), MEDIA, SuccessorInput::Continued];
    for done in 0..6 {
        let action = after(steps().into_iter().take(done)).handle(GO);
        assert!(matches!(action, SuccessorAction::Fail(_)), "after {done} steps: {action:?}");
    }
}

#[test]
fn failure_is_told() {
    let reason = "no such file".to_owned();
    let action = after([hello(3)]).handle(SuccessorInput::Failed(reason.clone()));
    assert_eq!(action, SuccessorAction::Fail(reason));
}
