use evenkeel_control::{ControlRequest, RecordBatch};
use tokio::sync::mpsc;

use super::*;

/// A control that notes its requests.
fn control() -> (Handle, mpsc::UnboundedReceiver<&'static str>) {
    let (handle, mut received) = Handle::new(Arc::default(), Arc::default());
    let (note, noted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(request) = received.recv().await {
            match request {
                ControlRequest::Prepare(_, reply) => {
                    note.send("prepare").unwrap();
                    reply.send(Ok(Restored { sessions: 6 })).unwrap();
                }
                ControlRequest::ForgetRestored(reply) => {
                    note.send("forget").unwrap();
                    reply.send(()).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    });
    (handle, noted)
}

/// The copy of an owner's records.
fn replica() -> Arc<Replica> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/tests/fixtures/snapshots/v2");
    let batch = RecordBatch::decode(&std::fs::read(file).unwrap(), Some(Instant::now())).unwrap();
    let mut replica = Replica::new();
    replica.apply(batch).unwrap();
    Arc::new(replica)
}

#[tokio::test]
async fn sessions_of_an_owner_that_is_heard_again_are_forgotten() {
    let ((handle, mut requests), replica) = (control(), replica());
    let (mut preparation, now) = (TakeoverPreparation::new(true), Instant::now());
    preparation.weigh(false, &replica, &handle, now);
    preparation.weigh(true, &replica, &handle, now);
    assert_eq!(requests.recv().await, Some("prepare"));
    preparation.weigh(false, &replica, &handle, now);
    assert_eq!(requests.recv().await, Some("forget"));
    preparation.weigh(true, &replica, &handle, now + EVERY / 2);
    assert_eq!(preparation.finish(&replica, &handle).await, None);
    assert!(requests.is_empty(), "one each second");
}

#[tokio::test]
async fn takeover_uses_the_sessions_of_the_last_batch_only() {
    let ((handle, mut requests), replica) = (control(), replica());
    for (changes, prepared) in [(false, Some(6)), (true, None)] {
        let (mut preparation, mut replica) = (TakeoverPreparation::new(true), Arc::clone(&replica));
        preparation.weigh(true, &replica, &handle, Instant::now());
        if changes {
            Arc::make_mut(&mut replica);
        }
        assert_eq!(preparation.finish(&replica, &handle).await, prepared);
        assert_eq!(requests.recv().await, Some("prepare"));
        assert_eq!(requests.try_recv().ok(), prepared.is_none().then_some("forget"));
    }
}
