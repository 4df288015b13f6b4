use super::*;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn record_is_confirmed_by_the_batch_that_brings_it() {
    let (group, inbox) = Group::new();
    inbox.acknowledged.send_replace(Some(4));
    assert!(!group.confirmed(5, SHORT).await);
    assert!(!group.confirmed_if_heard(5, SHORT).await);
    let acknowledging = async {
        tokio::task::yield_now().await;
        inbox.acknowledged.send_replace(Some(5));
    };
    let both = async { tokio::join!(group.confirmed(5, LONG), group.confirmed_if_heard(5, LONG)) };
    assert_eq!(tokio::join!(both, acknowledging).0, (true, true));
}

#[tokio::test]
async fn offer_alone_does_not_wait_for_a_standby_that_is_not_heard() {
    let (group, inbox) = Group::new();
    assert!(group.confirmed_if_heard(5, LONG).await);
    assert!(!group.confirmed(5, SHORT).await);
    inbox.acknowledged.send_replace(Some(4));
    let falls_silent = async {
        tokio::task::yield_now().await;
        inbox.acknowledged.send_replace(None);
    };
    assert!(tokio::join!(group.confirmed_if_heard(5, LONG), falls_silent).0);
}
