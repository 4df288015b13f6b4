use super::*;

#[test]
fn budget_is_shared_and_returned() {
    let budget = BodyBudget::new(10);
    let (one, other) = (budget.share(), budget.share());
    assert!(one.grow(4).is_ok() && other.grow(6).is_ok());
    assert_eq!(lock(&budget.state).bytes, 10);
    drop(one);
    assert!(other.grow(4).is_ok());
    drop(other);
    assert_eq!(lock(&budget.state).bytes, 0);
    assert_eq!(lock(&budget.state).shares.len(), 0);
}

#[test]
fn oldest_arriving_body_gives_way() {
    let budget = BodyBudget::new(10);
    let [complete, old, new] = [(); 3].map(|()| budget.share());
    for share in [&complete, &old, &new] {
        share.grow(3).unwrap();
    }
    complete.complete().unwrap();
    new.grow(4).unwrap();
    let refused = old.grow(1).unwrap_err();
    assert_eq!(
        old.complete().unwrap_err().code,
        ErrorCode::Unavailable,
        "its bytes are not counted"
    );
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::Unavailable, Some(RETRY_AFTER)));
    assert_eq!(lock(&budget.state).bytes, 10);
    new.grow(1).expect_err("no other body is arriving");
    drop(old);
    assert_eq!(lock(&budget.state).bytes, 10, "its share was returned before");
}

#[tokio::test]
async fn displaced_body_is_refused_while_it_waits() {
    let budget = BodyBudget::new(1 << 20);
    let (_sending, body) = stream();
    let held = budget.read(body, 1 << 20);
    let newer = async {
        tokio::task::yield_now().await;
        let share = budget.share();
        share.grow(1 << 20).unwrap();
        share
    };
    let (held, _newer) = tokio::join!(held, newer);
    assert_eq!(held.err().map(|error| error.code), Some(ErrorCode::Unavailable));
}

#[tokio::test]
async fn body_counts_until_it_is_dropped() {
    let budget = BodyBudget::new(1 << 20);
    let read = budget.read(Body::from(vec![7; 1_000]), 1_000).await;
    let (bytes, share) = read.unwrap_or_else(|_| panic!());
    assert_eq!((&*bytes, lock(&budget.state).bytes), (&[7; 1_000][..], 1_000));
    drop(bytes);
    assert_eq!(lock(&budget.state).bytes, 1_000);
    drop(share);
    assert_eq!(lock(&budget.state).bytes, 0);
    let refused = budget.read(Body::from(vec![7; 1_001]), 1_000).await;
    assert_eq!(refused.err().map(|error| error.code), Some(ErrorCode::TooLarge));
}

/// A body of one byte that does not end before the sender is dropped.
fn stream() -> (tokio::sync::mpsc::Sender<Result<Vec<u8>, std::io::Error>>, Body) {
    let (sending, pieces) = tokio::sync::mpsc::channel(1);
    sending.try_send(Ok(vec![7])).unwrap();
    (sending, Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(pieces)))
}
