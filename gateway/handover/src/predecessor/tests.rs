use super::*;

fn version(protocol: u32) -> ProtocolVersion {
    ProtocolVersion { protocol, program: format!("0.{protocol}.0") }
}

fn ready(protocol: u32) -> PredecessorInput {
    PredecessorInput::Message(HandoverMessage::Ready {
        version: version(protocol),
        states: Some(7),
    })
}

/// The predecessor after these inputs.
fn after(inputs: impl IntoIterator<Item = PredecessorInput>) -> Predecessor {
    let mut predecessor = Predecessor::new(version(3));
    for input in inputs {
        predecessor.handle(input);
    }
    predecessor
}

const RESTORED: PredecessorInput =
    PredecessorInput::Message(HandoverMessage::Restored { sessions: 17 });
const CONTINUED: PredecessorInput = PredecessorInput::Message(HandoverMessage::Continued);

#[test]
fn steps_lead_to_go() {
    let mut predecessor = after([]);
    assert_eq!(predecessor.handle(ready(3)), PredecessorAction::Suspend);
    assert_eq!(predecessor.handle(PredecessorInput::Suspended), PredecessorAction::SendState);
    assert_eq!(predecessor.handle(RESTORED), PredecessorAction::SendMedia { layout: Some(7) });
    assert_eq!(predecessor.handle(CONTINUED), PredecessorAction::SendGo { sessions: 17 });
}

#[test]
fn failure_resumes_once_packets_may_have_stopped() {
    let steps = || [ready(3), PredecessorInput::Suspended, RESTORED, CONTINUED];
    for (done, resume) in [(0, false), (1, true), (2, true), (3, true), (4, true)] {
        for told in [true, false] {
            let reason = "out of memory".to_owned();
            let failed = PredecessorInput::Failed(reason.clone());
            let said =
                PredecessorInput::Message(HandoverMessage::Failed { reason: reason.clone() });
            let action =
                after(steps().into_iter().take(done)).handle(if told { said } else { failed });
            assert_eq!(action, PredecessorAction::Abandon { reason, resume }, "after {done} steps");
        }
    }
}

#[test]
fn other_version_is_refused_by_both_names() {
    for other in [2, 4] {
        let PredecessorAction::Abandon { reason, resume: false } = after([]).handle(ready(other))
        else {
            panic!("{other}")
        };
        for named in ["0.3.0", "version 3", &format!("0.{other}.0"), &format!("version {other}")] {
            assert!(reason.contains(named), "{reason}");
        }
    }
}

#[test]
fn message_out_of_turn_is_refused() {
    for inputs in [vec![], vec![ready(3)], vec![ready(3), PredecessorInput::Suspended]] {
        let wrong = if inputs.len() == 2 { ready(3) } else { RESTORED };
        assert!(matches!(after(inputs).handle(wrong), PredecessorAction::Abandon { .. }));
    }
}
