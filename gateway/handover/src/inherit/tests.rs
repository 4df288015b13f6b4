use evenkeel_control::{ControlRequest, Restored, SocketName};
use serde_json::json;

use super::*;

/// Greets as an old process with these versions would.
async fn greet(
    protocol: u32,
    offer: serde_json::Value,
) -> (Channel, Result<(Successor, Inherited), String>) {
    let (mut old, theirs) = Channel::pair().unwrap();
    let version = ProtocolVersion { protocol, program: "9.9.9".to_owned() };
    let hello = HandoverMessage::Hello { version, offer }.encode();
    let (pipe, _) = io::pipe().unwrap();
    old.send(&hello, &[], &[pipe.as_fd()]).await.unwrap();
    let successor = Successor::greeted(Channel::of(theirs.into()).unwrap()).await;
    (old, successor)
}

fn offer() -> serde_json::Value {
    json!({"confined": true, "workers": 2, "sockets": ["init"]})
}

#[tokio::test]
async fn greeted_process_has_the_sockets() {
    let (_old, successor) = greet(ProtocolVersion::own().protocol, offer()).await;
    let (successor, mut inherited) = successor.unwrap();
    assert!(successor.is_confined());
    successor.require_workers(2).unwrap();
    assert!(successor.require_workers(3).unwrap_err().contains("`workers = 2`"));
    assert!(inherited.take(&SocketName::Init).is_some());
    assert!(inherited.take(&SocketName::Init).is_none());
}

#[tokio::test]
async fn unreadable_hello_is_answered_with_the_reason() {
    let own = ProtocolVersion::own().protocol;
    for (protocol, offer, told) in [
        (own + 1, json!("of a later version"), "9.9.9"),
        (own, json!({"confined": true}), "not understood"),
        (own, json!({"confined": true, "workers": 1, "sockets": []}), "0 sockets are named"),
    ] {
        let (mut old, successor) = greet(protocol, offer).await;
        let reason = successor.map(|_| ()).unwrap_err();
        assert!(reason.contains(told), "{reason}");
        let answer = old.receive(ReceiveLimits::FROM_NEW).await.unwrap().unwrap();
        assert_eq!(
            HandoverMessage::decode(&answer.message),
            Ok(HandoverMessage::Failed { reason })
        );
    }
}

/// A control that restores every state.
fn control() -> Handle {
    let (handle, mut received) = Handle::new(Arc::default(), Arc::default());
    tokio::spawn(async move {
        while let Some(request) = received.recv().await {
            match request {
                ControlRequest::Restore { reply, .. } => {
                    reply.send(Ok(Restored { sessions: 6 })).unwrap();
                }
                ControlRequest::ContinueMedia { last: Some(reply), .. } => {
                    reply.send(Ok(())).unwrap();
                }
                ControlRequest::ContinueMedia { last: None, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    handle
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/tests/fixtures");
    std::fs::read(format!("{folder}/{name}")).unwrap()
}

fn records() -> Vec<u8> {
    fixture("snapshots/v2")
}

fn states() -> Vec<u8> {
    fixture("states/full")
}

async fn send(old: &mut Channel, message: HandoverMessage, state: &[u8]) -> io::Result<()> {
    old.send(&message.encode(), state, &[]).await
}

async fn answer(old: &mut Channel) -> HandoverMessage {
    let frame = old.receive(ReceiveLimits::FROM_NEW).await.unwrap().unwrap();
    HandoverMessage::decode(&frame.message).unwrap()
}

/// Leads both processes to the last message before `go`.
async fn continued(old: &mut Channel) {
    assert!(matches!(answer(old).await, HandoverMessage::Ready { .. }));
    send(old, HandoverMessage::State, &records()).await.unwrap();
    assert_eq!(answer(old).await, HandoverMessage::Restored { sessions: 6 });
    send(old, HandoverMessage::MediaPart, &states()).await.unwrap();
    send(old, HandoverMessage::Media, &states()).await.unwrap();
    assert_eq!(answer(old).await, HandoverMessage::Continued);
}

#[tokio::test]
async fn go_brings_links_to_quic_connections() {
    let (mut old, successor) = greet(ProtocolVersion::own().protocol, offer()).await;
    let mut successor = successor.unwrap().0;
    let handle = control();
    let leading = async {
        continued(&mut old).await;
        let (link, _) = io::pipe().unwrap();
        let go = HandoverMessage::Go.encode();
        // Of the process with number 7, without sessions.
        old.send(&go, &[1, 1, 7], &[link.as_fd()]).await.unwrap();
    };
    let (taken, ()) = tokio::join!(successor.take_over(&handle), leading);
    assert_eq!(taken, Ok(6));
    drop(old);
    assert_eq!(successor.left().await.unwrap().links().count(), 1);
}

#[tokio::test]
async fn withdrawal_counts_unless_go_was_sent() {
    for is_sent in [true, false] {
        let (mut old, successor) = greet(ProtocolVersion::own().protocol, offer()).await;
        let mut successor = successor.unwrap().0;
        let (handle, withdrawal) = (control(), successor.withdrawal());
        // The new process does not run meanwhile.
        let (mut taking, mut leading) =
            (Box::pin(successor.take_over(&handle)), Box::pin(continued(&mut old)));
        tokio::select! {
            early = &mut taking => panic!("{early:?}"),
            () = &mut leading => {}
        }
        drop(leading);
        if is_sent {
            send(&mut old, HandoverMessage::Go, &[]).await.unwrap();
        }
        withdrawal.withdraw();
        if !is_sent {
            let unsent = send(&mut old, HandoverMessage::Go, &[]).await.unwrap_err();
            assert_eq!(unsent.kind(), io::ErrorKind::BrokenPipe);
        }
        let taken = taking.await;
        assert_eq!(taken.ok(), is_sent.then_some(6));
        if !is_sent {
            successor.fail("told to end".to_owned()).await;
            let reason = "told to end".to_owned();
            assert_eq!(answer(&mut old).await, HandoverMessage::Failed { reason });
        }
    }
}

#[tokio::test]
async fn serves_only_after_all_steps() {
    let steps = [HandoverMessage::State, HandoverMessage::MediaPart, HandoverMessage::MediaPart];
    for done in 0..=steps.len() {
        let (mut old, successor) = greet(ProtocolVersion::own().protocol, offer()).await;
        let mut successor = successor.unwrap().0;
        for step in &steps[..done] {
            let state = if *step == HandoverMessage::State { records() } else { states() };
            send(&mut old, step.clone(), &state).await.unwrap();
        }
        send(&mut old, HandoverMessage::Go, &[]).await.unwrap();
        let refused = successor.take_over(&control()).await.unwrap_err();
        assert!(refused.contains("unexpected `go`"), "after {done} steps: {refused}");
    }
}

#[tokio::test]
async fn withdrawal_ends_every_wait() {
    let (_old, successor) = greet(ProtocolVersion::own().protocol, offer()).await;
    let (successor, _) = successor.unwrap();
    successor.withdrawal().withdraw();
    successor.abandoned().await;
}
