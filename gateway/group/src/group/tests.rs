use super::*;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);

fn copy(acknowledged: u64, is_alone: bool) -> CopyState {
    CopyState { acknowledged, is_alone, unconfirmed_since: None }
}

#[tokio::test]
async fn record_is_confirmed_by_the_batch_that_brings_it() {
    let (group, inbox) = Group::new();
    inbox.copy.send_replace(copy(4, false));
    assert!(!group.confirmed(5, SHORT).await);
    assert!(!group.confirmed_unless_alone(5, SHORT).await);
    let acknowledging = async {
        tokio::task::yield_now().await;
        inbox.copy.send_replace(copy(5, false));
    };
    let both =
        async { tokio::join!(group.confirmed(5, LONG), group.confirmed_unless_alone(5, LONG)) };
    assert_eq!(tokio::join!(both, acknowledging).0, (true, true));
}

#[tokio::test]
async fn offer_alone_does_not_wait_for_a_standby_that_cannot_take_over() {
    let (group, inbox) = Group::new();
    inbox.copy.send_replace(copy(4, false));
    let falls_silent = async {
        tokio::task::yield_now().await;
        inbox.copy.send_replace(copy(4, true));
    };
    assert!(tokio::join!(group.confirmed_unless_alone(5, LONG), falls_silent).0);
    assert!(!group.confirmed(5, SHORT).await);
}

#[test]
fn only_the_owner_has_unconfirmed_changes() {
    let (group, inbox) = Group::new();
    let now = Instant::now();
    inbox.copy.send_modify(|copy| copy.unconfirmed_since = now.checked_sub(LONG));
    assert_eq!(group.lag(), None);
    let here = |role| GatewayStanding {
        gateway: "edge-1".into(),
        here: true,
        role,
        epoch: 1,
        sessions: 0,
        in_sync: true,
        armed: false,
        heard_ms: None,
        addresses: Vec::new(),
        refused: None,
        blocked: None,
    };
    let shown = |role| GroupStatus { gateways: vec![here(role)], ..GroupStatus::default() };
    inbox.standing.send_replace(shown(GroupRole::Standby));
    assert_eq!(group.lag(), None);
    inbox.standing.send_replace(shown(GroupRole::Owner));
    assert!(group.lag().is_some_and(|lag| lag >= LONG));
    inbox.copy.send_modify(|copy| copy.unconfirmed_since = None);
    assert_eq!(group.lag(), Some(Duration::ZERO));
}
