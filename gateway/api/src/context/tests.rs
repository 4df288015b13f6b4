use evenkeel_control::{ControlRequest, LastChange};

use super::*;

/// A decision that the standby confirms or not, while control answers with these numbers of batches.
async fn decide(batches: &[Option<u64>], confirms: bool) -> Result<bool, ApiError> {
    let (handle, mut requests) = Handle::new(Arc::default(), Arc::default());
    let confirming = is_confirmed(&handle, |number| async move {
        assert_eq!(number, 5);
        confirms
    });
    let answering = async {
        for batch in batches {
            let Some(ControlRequest::RecordsSent(reply)) = requests.recv().await else {
                panic!("another request")
            };
            let last = batch.map(|number| LastChange { number, is_for_standby: false });
            reply.send(last).unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = confirming => result,
        () = answering => unreachable!(),
    }
}

#[tokio::test]
async fn decision_that_a_standby_does_not_confirm_is_an_error() {
    let error = decide(&[Some(5), Some(9)], false).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unconfirmed);
}

#[tokio::test]
async fn standby_that_follows_no_more_need_not_confirm() {
    assert_eq!(decide(&[Some(5), None], false).await, Ok(false));
    assert_eq!(decide(&[None], false).await, Ok(false));
}

#[tokio::test]
async fn decision_of_a_gateway_that_ends_is_an_error() {
    let (handle, requests) = Handle::new(Arc::default(), Arc::default());
    drop(requests);
    let error = is_confirmed(&handle, async |_| true).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unconfirmed);
}

#[tokio::test]
async fn confirmed_decision_is_acknowledged() {
    assert_eq!(decide(&[Some(5)], true).await, Ok(true));
}

/// The end of an offer: control's answer, and whether the standby confirms and this gateway owns then.
async fn confirm(sent: Option<LastChange>, confirms: bool, owns: bool) -> Result<(), ApiError> {
    let (handle, mut requests) = Handle::new(Arc::default(), Arc::default());
    let confirming = confirm_sessions(&handle, |_| async move { confirms }, || owns);
    let answering = async {
        let Some(ControlRequest::RecordsSent(reply)) = requests.recv().await else {
            panic!("another request")
        };
        reply.send(sent).unwrap();
    };
    tokio::join!(confirming, answering).0
}

#[tokio::test]
async fn executed_offer_of_a_former_owner_is_unconfirmed() {
    let for_standby = Some(LastChange { number: 5, is_for_standby: true });
    assert_eq!(confirm(for_standby, true, false).await, Ok(()), "the standby has it");
    assert_eq!(confirm(for_standby, false, true).await, Ok(()), "no other gateway owns");
    // The relay would repeat a request of code `standby`, which was not executed.
    let error = confirm(for_standby, false, false).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unconfirmed);
}

#[tokio::test]
async fn offer_waits_for_no_standby_that_joins() {
    let joins = Some(LastChange { number: 5, is_for_standby: false });
    assert_eq!(confirm(joins, false, false).await, Ok(()));
    assert_eq!(confirm(None, false, false).await, Ok(()));
}

#[tokio::test]
async fn offer_of_a_gateway_that_ends_counts_if_it_was_handed_over() {
    for (is_handed_over, right) in [(true, true), (false, false)] {
        let (handle, requests) = Handle::new(Arc::default(), Arc::default());
        drop(requests);
        let confirmed = |number| async move { is_handed_over && number == u64::MAX };
        assert_eq!(confirm_sessions(&handle, confirmed, || false).await.is_ok(), right);
    }
}

#[test]
fn standby_names_the_owner() {
    assert_eq!(require_ownership(None), Ok(()));
    assert_eq!(require_ownership(Some(GroupOwnership::Here)), Ok(()));
    let error = require_ownership(Some(GroupOwnership::Peer("edge-1".into()))).unwrap_err();
    assert_eq!(error.code, ErrorCode::Standby);
    assert!(error.message.contains("ask `edge-1`"), "{}", error.message);
    let error = require_ownership(Some(GroupOwnership::Unknown)).unwrap_err();
    assert!(error.message.contains("no gateway of the group"), "{}", error.message);
}
