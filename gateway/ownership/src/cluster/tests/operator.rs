//! An operator confirms that the peer is down.

use super::*;

/// Member 0 owns and has vanished; member 1 holds its records and was not armed.
fn abandoned() -> Group {
    let mut group = Group::standing(0);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.kill(0);
    group
}

#[test]
fn heard_owner_is_not_replaced() {
    let mut group = Group::standing(1);
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::PeerOwns(PeerId(0))));
    assert_eq!(group.take_over(0), Err(TakeoverRefusal::OwnerAlready));
    assert_eq!(group.owner(), Some(0));
}

#[test]
fn vanished_owner_is_replaced_after_a_second() {
    let mut group = abandoned();
    group.pass(980);
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::PeerOwns(PeerId(0))));
    group.pass(30);
    assert_eq!(group.member(1).blocked(), Some(Blocked::NotArmed));
    assert_eq!(group.take_over(1), Ok(()));
    group.pass(10);
    assert_eq!(group.owner(), Some(1));
    assert_eq!((group.took_over(1), group.member(1).epoch()), (Some(TakeoverCause::Operator), 2));
    // The former owner returns as the standby.
    group.start(0);
    group.heal();
    group.pass(2_000);
    assert_eq!(group.owner(), Some(1));
}

#[test]
fn heard_standby_is_not_declared_down() {
    let mut group = Group::starting(0);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.pass(3_000);
    assert_eq!(group.member(1).blocked(), Some(Blocked::Unknown));
    // Member 1 hears its peer, which does not hear it: neither owns.
    group.heal();
    group.cut(&[Link::Beats(1)]);
    group.pass(3_000);
    assert_eq!((group.owner(), group.member(1).blocked()), (None, None));
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::PeerHeard(PeerId(0))));
    assert_eq!(group.take_over(0), Ok(()));
    group.pass(1_000);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::PeerOwns(PeerId(0))));
}

#[test]
fn owner_that_agents_hear_is_not_replaced() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.pass(5_000);
    assert_eq!(group.member(1).blocked(), Some(Blocked::OwnerHeard));
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::AgentsHearPeer));
    assert_eq!(group.owner(), Some(0));
    group.kill(0);
    group.pass(1_500);
    assert_eq!(group.take_over(1), Err(TakeoverRefusal::AgentsHearPeer));
    group.pass(1_000);
    assert_eq!(group.take_over(1), Ok(()), "the agent bars a takeover by silence");
    group.pass(10);
    assert_eq!(group.owner(), Some(1));
}

#[test]
fn agents_that_heard_this_member_do_not_count() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.kill(1);
    group.pass(1_500);
    // The owner restarts, and its agent has heard no other member.
    group.kill(0);
    group.start(0);
    group.pass(1_010);
    assert_eq!(group.take_over(0), Ok(()));
    group.pass(10);
    assert_eq!((group.owner(), group.member(0).epoch()), (Some(0), 3));
}

#[test]
fn owner_whose_lease_lapsed_sends_again() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Beats(0), Link::Beats(1), Link::Agent(0, 0), Link::Agent(1, 0)]);
    group.kill(1);
    group.pass(500);
    assert_eq!(group.take_over(0), Err(TakeoverRefusal::PeerHeard(PeerId(0))), "half a second ago");
    group.pass(5_000);
    assert_eq!(group.owner(), None, "its standby may have taken over");
    assert_eq!(group.take_over(0), Ok(()));
    group.pass(1_000);
    assert_eq!((group.owner(), group.member(0).epoch()), (Some(0), 3));
    assert_eq!(group.take_over(0), Err(TakeoverRefusal::OwnerAlready));
    group.heal();
    group.start(1);
    group.pass(500);
    group.replicate(1);
    group.pass(500);
    assert!(group.member(0).is_standby_armed());
    assert_eq!(group.owner(), Some(0));
}
