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

fn member(name: &str, role: GroupRole) -> GatewayStanding {
    GatewayStanding {
        gateway: name.into(),
        here: name == "gw-a",
        role,
        epoch: 3,
        sessions: 7,
        in_sync: true,
        armed: true,
        heard_ms: None,
        addresses: Vec::new(),
        refused: None,
        blocked: None,
    }
}

fn group(standby: GatewayStanding) -> GroupStatus {
    let gateways =
        vec![member("gw-a", GroupRole::Owner), standby, member("gw-c", GroupRole::Spare)];
    GroupStatus { gateways, warnings: vec!["the host is full".into()], ..GroupStatus::default() }
}

#[test]
fn loss_of_the_owner_names_its_successor() {
    let sound = group(member("gw-b", GroupRole::Standby));
    let loss = sound.loss_of("").unwrap();
    assert_eq!((loss.gateway.as_deref(), loss.successor.as_deref()), (Some("gw-a"), Some("gw-b")));
    assert_eq!((loss.sessions, loss.copied_sessions, loss.continues), (7, 7, true));
    assert_eq!((loss.reasons.len(), loss.warnings.len()), (0, 1));
    assert_eq!(sound.loss_of("gw-a"), Some(loss));
    assert_eq!(sound.loss_of("gw-d"), None);
}

#[test]
fn sessions_end_without_a_standby_that_may_take_over() {
    let standby = || member("gw-b", GroupRole::Standby);
    for (standby, reason) in [
        (GatewayStanding { in_sync: false, ..standby() }, "does not hold all records"),
        (GatewayStanding { armed: false, ..standby() }, "only if the process of gw-a ends"),
        (GatewayStanding { blocked: Some("barred".into()), ..standby() }, "barred"),
        (member("gw-b", GroupRole::Silent), "no standby follows it"),
    ] {
        let loss = group(standby).loss_of("gw-a").unwrap();
        assert!(!loss.continues && loss.reasons[0].contains(reason), "{loss:?}");
    }
    let mut idle = group(member("gw-b", GroupRole::Silent));
    idle.gateways[0].sessions = 0;
    assert!(idle.loss_of("gw-a").unwrap().continues);
}

#[test]
fn loss_of_a_standby_ends_no_session() {
    let loss = group(member("gw-b", GroupRole::Standby)).loss_of("gw-b").unwrap();
    assert_eq!((&*loss.role, loss.sessions, loss.continues), ("standby", 0, true));
    // A silent member served the sessions if no other is known to.
    let mut silent = group(member("gw-b", GroupRole::Silent));
    assert!(silent.loss_of("gw-b").unwrap().continues);
    silent.gateways[0].role = GroupRole::Standby;
    silent.gateways[0].blocked = Some("an agent hears it".into());
    let loss = silent.loss_of("gw-b").unwrap();
    assert_eq!((loss.successor.as_deref(), loss.continues), (Some("gw-a"), false));
}

#[test]
fn only_the_owner_has_unconfirmed_changes() {
    let (group, inbox) = Group::new();
    let now = Instant::now();
    inbox.copy.send_modify(|copy| copy.unconfirmed_since = now.checked_sub(LONG));
    assert_eq!(group.lag(), None);
    let shown =
        |role| GroupStatus { gateways: vec![member("gw-a", role)], ..GroupStatus::default() };
    inbox.standing.send_replace(shown(GroupRole::Standby));
    assert_eq!(group.lag(), None);
    for role in [GroupRole::Owner, GroupRole::Doubting] {
        inbox.standing.send_replace(shown(role));
        assert!(group.lag().is_some_and(|lag| lag >= LONG), "{role:?}");
    }
    inbox.copy.send_modify(|copy| copy.unconfirmed_since = None);
    assert_eq!(group.lag(), Some(Duration::ZERO));
}
