use super::*;
use crate::messages::HandOverRefusal;

fn begin(group: &mut Group) {
    let now = group.now;
    group.member(0).handle_hand_over(now).unwrap();
    group.pass(3);
    assert!(group.happened(0, &ClusterOutput::Yield));
    assert_eq!(group.owner(), None, "the owner sends no more");
}

fn hand_over(group: &mut Group, records: u64) {
    begin(group);
    let now = group.now;
    group.member(0).handle_yielded(records, now);
}

#[test]
fn hand_over_waits_for_the_last_records() {
    let mut group = Group::standing(1);
    hand_over(&mut group, 9);
    group.pass(20);
    assert_eq!(group.owner(), None);
    let now = group.now;
    group.member(1).handle_replica(true, 9, now);
    group.pass(1);
    assert_eq!(group.took_over(1), Some(TakeoverCause::HandOver));
    assert!(group.happened(0, &ClusterOutput::StepDown(2)));
    group.pass(5_000);
    assert_eq!(group.owner(), Some(1));
    let failed = ClusterOutput::Event(ClusterEvent::HandOverFailed);
    assert!([0, 1].iter().all(|&at| !group.happened(at, &failed)));
}

#[test]
fn hand_over_needs_no_last_records() {
    let mut group = Group::standing(0);
    hand_over(&mut group, 9);
    let time = group.until(1_000, |group| group.owner() == Some(1));
    assert!(time <= Duration::from_millis(210), "{time:?}");
}

#[test]
fn hand_over_without_last_records_is_given_up() {
    let mut group = Group::standing(1);
    begin(&mut group);
    let time = group.until(2_000, |group| group.owner() == Some(0));
    assert!(time <= Duration::from_millis(510), "{time:?}");
    assert!(group.happened(0, &ClusterOutput::Event(ClusterEvent::HandOverFailed)));
}

#[test]
fn owner_that_cannot_yield_sends_again_at_once() {
    let mut group = Group::standing(1);
    begin(&mut group);
    let now = group.now;
    group.member(0).handle_not_yielded(now);
    group.pass(1);
    assert_eq!(group.owner(), Some(0));
    assert!(group.happened(0, &ClusterOutput::Event(ClusterEvent::HandOverFailed)));
    hand_over(&mut group, 9);
}

#[test]
fn hand_over_to_a_peer_that_ends_returns() {
    let mut group = Group::standing(1);
    hand_over(&mut group, 9);
    group.kill(1);
    group.pass(20);
    assert_eq!(group.took_over(0), Some(TakeoverCause::PeerEnded));
    assert_eq!(group.owner(), Some(0));
    let failed = ClusterOutput::Event(ClusterEvent::HandOverFailed);
    assert!(group.happened(0, &failed), "the operator is answered");
}

#[test]
fn hand_over_needs_a_ready_peer() {
    let mut group = Group::standing(1);
    let now = group.now;
    assert_eq!(group.member(1).handle_hand_over(now), Err(HandOverRefusal::NotOwner));
    group.member(1).handle_replica(false, 0, now);
    group.pass(10);
    let now = group.now;
    let incomplete = Err(HandOverRefusal::RecordsIncomplete);
    assert_eq!(group.member(0).handle_hand_over(now), incomplete);
    group.cut(&[Link::Beats(1)]);
    group.pass(50);
    let now = group.now;
    assert_eq!(group.member(0).handle_hand_over(now), Err(HandOverRefusal::PeerSilent));
    assert_eq!(group.owner(), Some(0));
}

#[test]
fn hand_over_to_a_restarted_peer_is_given_up() {
    let mut group = Group::standing(1);
    let now = group.now;
    group.member(0).handle_hand_over(now).unwrap();
    group.pass(3);
    group.kill(1);
    group.start(1);
    group.pass(10);
    let now = group.now;
    group.member(0).handle_yielded(9, now);
    group.pass(3);
    assert!(group.happened(0, &ClusterOutput::Event(ClusterEvent::HandOverFailed)));
    assert_eq!(group.owner(), Some(0));
    group.pass(1_000);
    assert_eq!(group.took_over(1), None, "it holds no records");
}

#[test]
fn yielding_owner_is_not_continued() {
    let mut group = Group::standing(0);
    let now = group.now;
    assert!(group.member(0).continued(now).is_some());
    group.member(0).handle_hand_over(now).unwrap();
    assert_eq!(group.member(0).continued(now), None);
}

#[test]
fn former_owner_claims_no_copy() {
    let mut group = Group::standing(1);
    group.kill(0);
    group.pass(50);
    group.start(0);
    group.pass(1_100);
    group.replicate(0);
    group.pass(50);
    let now = group.now;
    assert!(group.member(1).is_followed(now));
    group.member(1).handle_hand_over(now).unwrap();
    group.pass(3);
    let now = group.now;
    group.member(1).handle_yielded(1, now);
    group.pass(50);
    assert_eq!(group.owner(), Some(0));
    let now = group.now;
    assert!(!group.member(0).is_followed(now));
    // A copy of the new owner's records counts.
    group.replicate(1);
    group.pass(50);
    let now = group.now;
    assert!(group.member(0).is_followed(now));
}
