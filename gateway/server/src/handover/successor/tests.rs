use super::*;

fn version(protocol: u32) -> Version {
    Version { protocol, program: format!("0.{protocol}.0") }
}

fn hello(protocol: u32) -> Input {
    Input::Message(Message::Hello { version: version(protocol), offer: Value::Null })
}

fn after(inputs: impl IntoIterator<Item = Input>) -> Successor {
    let mut successor = Successor::new(version(3));
    for input in inputs {
        successor.handle(input);
    }
    successor
}

const STATE: Input = Input::Message(Message::State);
const MEDIA: Input = Input::Message(Message::Media);
const GO: Input = Input::Message(Message::Go);

#[test]
fn steps_lead_to_serving() {
    let mut successor = after([]);
    assert_eq!(successor.handle(hello(3)), Action::Start { offer: Value::Null });
    let ready = Action::Send(Message::Ready { version: version(3), states: Some(STATES) });
    assert_eq!(successor.handle(Input::Started), ready);
    for _ in 0..3 {
        assert_eq!(successor.handle(Input::Message(Message::Records)), Action::Keep);
    }
    assert_eq!(successor.handle(STATE), Action::Restore);
    let restored = Action::Send(Message::Restored { sessions: 17 });
    assert_eq!(successor.handle(Input::Restored { sessions: 17 }), restored);
    for _ in 0..3 {
        let part = successor.handle(Input::Message(Message::MediaPart));
        assert_eq!(part, Action::Continue { is_last: false });
    }
    assert_eq!(successor.handle(MEDIA), Action::Continue { is_last: true });
    assert_eq!(successor.handle(Input::Continued), Action::Send(Message::Continued));
    assert_eq!(successor.handle(GO), Action::Serve);
}

/// The other end reads a protocol that this one may not know, so only the version is looked at.
#[test]
fn other_version_is_refused_by_both_names() {
    for other in [2, 4] {
        let Action::Fail(reason) = after([]).handle(hello(other)) else { panic!("{other}") };
        for named in ["0.3.0", "version 3", &format!("0.{other}.0"), &format!("version {other}")] {
            assert!(reason.contains(named), "{reason}");
        }
    }
}

#[test]
fn serves_only_after_all_steps() {
    let restored = || Input::Restored { sessions: 1 };
    let steps = || [hello(3), Input::Started, STATE, restored(), MEDIA, Input::Continued];
    for done in 0..6 {
        let action = after(steps().into_iter().take(done)).handle(GO);
        assert!(matches!(action, Action::Fail(_)), "after {done} steps: {action:?}");
    }
}

#[test]
fn failure_is_told() {
    let reason = "no such file".to_owned();
    let action = after([hello(3)]).handle(Input::Failed(reason.clone()));
    assert_eq!(action, Action::Fail(reason));
}
