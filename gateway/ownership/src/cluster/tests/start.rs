use super::*;

#[test]
fn preferred_member_owns_at_the_start() {
    let mut group = Group::starting(1);
    group.pass(900);
    assert_eq!(group.owner(), None);
    group.pass(200);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.took_over(0), Some(TakeoverCause::Start));
    assert_eq!(group.took_over(1), None);
    assert_eq!(group.member(1).epoch(), 1);
}

#[test]
fn owner_is_respected_by_the_preferred_member() {
    let mut group = Group::standing(1);
    group.kill(0);
    group.pass(100);
    group.start(0);
    group.pass(2_000);
    assert_eq!(group.owner(), Some(1));
}

#[test]
fn lone_member_owns_if_its_peer_does_not_run() {
    let mut group = Group::starting(0);
    group.kill(0);
    group.pass(900);
    assert_eq!(group.owner(), None);
    group.pass(200);
    assert_eq!(group.took_over(1), Some(TakeoverCause::PeerEnded));
    let blocked = ClusterOutput::Event(ClusterEvent::TakeoverBlocked(Blocked::Unknown));
    assert!(!group.happened(1, &blocked));
}

#[test]
fn lone_member_waits_for_a_silent_peer() {
    let mut group = Group::starting(3);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.pass(5_000);
    assert_eq!(group.owner(), None);
    let blocked = ClusterOutput::Event(ClusterEvent::TakeoverBlocked(Blocked::Unknown));
    assert!(group.happened(0, &blocked));
    assert_eq!(group.member(0).blocked(), Some(Blocked::Unknown));
    assert_eq!(group.take_over(0), Ok(()));
    group.pass(10);
    assert_eq!(group.took_over(0), Some(TakeoverCause::Operator));
    assert_eq!(group.member(0).blocked(), None);
    group.heal();
    group.pass(2_000);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.member(1).blocked(), None, "it hears its peer");
}

#[test]
fn member_that_listens_is_not_made_the_owner() {
    let mut group = Group::starting(0);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.pass(990);
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::Joining(PeerId(0))));
    group.pass(10);
    assert_eq!(group.take_over(1), Ok(()));
    group.pass(10);
    assert_eq!(group.took_over(1), Some(TakeoverCause::Operator));
}

#[test]
fn epochs_continue_those_that_agents_know() {
    let mut group = Group::standing(1);
    for _ in 0..3 {
        group.kill(0);
        group.kill(1);
        group.start(0);
        group.start(1);
        group.pass(1_500);
    }
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.member(0).epoch(), 7);
}

#[test]
fn epoch_exceeds_one_learned_later() {
    let mut group = Group::starting(1);
    let now = group.now;
    group.member(0).handle_refused_epoch(58, now);
    group.pass(1_500);
    assert_eq!(group.member(0).epoch(), 59);
    let now = group.now;
    group.member(0).handle_refused_epoch(80, now);
    group.pass(100);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.member(0).epoch(), 81);
    assert!(group.happened(0, &ClusterOutput::Raise(81)));
}
