use super::*;
use crate::small_gateway::SmallGateway;

#[tokio::test]
async fn who_came_in_goes_again_where_one_cannot_come_in() {
    let gateway = SmallGateway::start(21).await;
    let entered = Crowd::enter(&Plan::new(40), || gateway.admin()).await;
    assert!(matches!(entered, Err(Failed::Gateway { what: "opening a session", .. })));
    let state = gateway.state();
    assert_eq!((state.opened_ever, state.open.len()), (21, 0));
}

#[tokio::test]
async fn who_came_in_goes_again_where_a_person_ends_it() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let go = pin!(gateway.wait(|state| state.opened_ever >= 9));
    let entered = Crowd::enter_unless(&Plan::new(2_000), || gateway.admin(), go).await;
    assert!(matches!(entered, Err(Failed::Interrupted)));
    let state = gateway.state();
    assert!((9..2_000).contains(&state.opened_ever), "{}", state.opened_ever);
    assert_eq!(state.open.len(), 0);
}

#[tokio::test]
async fn one_session_that_cannot_be_closed_keeps_no_other_open() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let crowd = Crowd::enter(&Plan::new(8), || gateway.admin()).await.unwrap();
    assert_eq!(gateway.state().open.len(), 8);
    gateway.state().open.remove("s3");
    crowd.leave(&mut gateway.admin()).await.unwrap();
    assert_eq!(gateway.state().open.len(), 0);
}
