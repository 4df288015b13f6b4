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

#[tokio::test]
async fn further_sessions_have_rooms_of_their_own() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let mut crowd = Crowd::enter(&CrowdPlan::new(8), || gateway.admin()).await.unwrap();
    crowd.enter_also(6, || gateway.admin()).await.unwrap();
    let numbers: BTreeSet<u64> = crowd.by_id().values().copied().collect();
    assert_eq!(numbers, (1..=14).collect());
    let mut members = BTreeMap::<String, usize>::new();
    for offer in &gateway.state().offers {
        *members.entry(offer["room"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((members.len(), members["drill-7"]), (7, 2));
    assert!(members.values().all(|&sessions| sessions == 2), "{members:?}");
}
