use serde_json::json;

use super::*;
use crate::handover::SocketName;

/// Greets as an old process with these versions would.
async fn greet(
    protocol: u32,
    offer: serde_json::Value,
) -> (Channel, Result<(Heir, Inherited), String>) {
    let (mut old, theirs) = Channel::pair().unwrap();
    let version = Version { protocol, program: "9.9.9".to_owned() };
    let hello = Message::Hello { version, offer }.encode();
    let (pipe, _) = io::pipe().unwrap();
    old.send(&hello, &[], &[pipe.as_fd()]).await.unwrap();
    let heir = Heir::greeted(Channel::of(theirs.into()).unwrap()).await;
    (old, heir)
}

fn offer() -> serde_json::Value {
    json!({"confined": true, "workers": 2, "sockets": ["init"]})
}

#[tokio::test]
async fn greeted_process_has_the_sockets() {
    let (_old, heir) = greet(Version::own().protocol, offer()).await;
    let (heir, mut inherited) = heir.unwrap();
    assert!(heir.is_confined());
    heir.require_workers(2).unwrap();
    assert!(heir.require_workers(3).unwrap_err().contains("`workers = 2`"));
    assert!(inherited.take(&SocketName::Init).is_some());
    assert!(inherited.take(&SocketName::Init).is_none());
}

#[tokio::test]
async fn unreadable_hello_is_answered_with_the_reason() {
    let own = Version::own().protocol;
    for (protocol, offer, told) in [
        (own + 1, json!("of a later version"), "9.9.9"),
        (own, json!({"confined": true}), "not understood"),
        (own, json!({"confined": true, "workers": 1, "sockets": []}), "0 sockets are named"),
    ] {
        let (mut old, heir) = greet(protocol, offer).await;
        let reason = heir.map(|_| ()).unwrap_err();
        assert!(reason.contains(told), "{reason}");
        let answer = old.receive(Limits::FROM_NEW).await.unwrap().unwrap();
        assert_eq!(Message::decode(&answer.message), Ok(Message::Failed { reason }));
    }
}
