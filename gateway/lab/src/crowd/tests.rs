use super::*;
use crate::tests::small_gateway::SmallGateway;

#[tokio::test]
async fn failed_opening_closes_the_others() {
    let gateway = SmallGateway::start(21).await;
    let entered = Crowd::enter(&CrowdPlan::new(40), || gateway.admin()).await;
    assert!(matches!(entered, Err(LabError::Gateway(what, _)) if what == "opening a session"));
    let state = gateway.state();
    assert_eq!((state.opened_ever, state.open.len()), (21, 0));
}

#[tokio::test]
async fn interrupted_opening_closes_the_others() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let go = pin!(gateway.wait(|state| state.opened_ever >= 9));
    let entered = Crowd::enter_unless(&CrowdPlan::new(2_000), || gateway.admin(), go).await;
    assert!(matches!(entered, Err(LabError::Interrupted)));
    let state = gateway.state();
    assert!((9..2_000).contains(&state.opened_ever), "{}", state.opened_ever);
    assert_eq!(state.open.len(), 0);
}

#[tokio::test]
async fn failed_close_does_not_stop_the_others() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let crowd = Crowd::enter(&CrowdPlan::new(8), || gateway.admin()).await.unwrap();
    assert_eq!(gateway.state().open.len(), 8);
    gateway.state().open.remove("s3");
    crowd.leave(&mut gateway.admin()).await.unwrap();
    assert_eq!(gateway.state().open.len(), 0);
}
