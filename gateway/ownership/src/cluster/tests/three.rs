//! Groups of three: one owner, one standby, one spare.

use super::*;

/// Member 0 owns, and a standby holds all records; returns the standby and the spare.
fn standing(agents: usize) -> (Group, usize, usize) {
    let mut group = Group::of(3, agents);
    group.pass(1_100);
    let standby = standby(&mut group, 0);
    group.replicate(standby);
    group.pass(50);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.member(0).is_standby_armed(), agents > 0);
    group.outputs.clear();
    (group, standby, 3 - standby)
}

/// The standby of an owner.
fn standby(group: &mut Group, owner: usize) -> usize {
    let PeerId(id) = group.member(owner).peer_id();
    id + usize::from(id >= owner)
}

#[test]
fn one_standby_is_named_and_one_is_spare() {
    let (mut group, standby, spare) = standing(3);
    assert!(!group.member(standby).is_spare());
    assert!(group.member(spare).is_spare());
}

#[test]
fn standby_alone_takes_over_an_ended_owner() {
    let (mut group, standby, spare) = standing(3);
    group.kill(0);
    group.pass(100);
    assert_eq!(group.took_over(standby), Some(TakeoverCause::PeerEnded));
    assert_eq!(group.took_over(spare), None);
    assert!(group.member(spare).is_spare(), "packets come first");
    group.pass(400);
    assert_eq!(self::standby(&mut group, standby), spare);
    group.replicate(spare);
    group.pass(50);
    assert!(group.member(standby).is_standby_armed());
    group.kill(standby);
    group.pass(100);
    assert_eq!(group.owner(), Some(spare));
}

#[test]
fn standby_takes_over_a_silent_owner() {
    let (mut group, standby, spare) = standing(3);
    group.stop(0);
    group.pass(100);
    assert_eq!(group.owner(), Some(standby));
    assert_eq!(group.took_over(standby), Some(TakeoverCause::Silence));
    group.resume(0);
    group.pass(100);
    assert_eq!(group.owner(), Some(standby));
    assert_eq!(group.took_over(spare), None);
}

#[test]
fn silent_standby_is_replaced_by_the_spare() {
    let (mut group, standby, spare) = standing(3);
    group.stop(standby);
    group.pass(1_000);
    assert!(group.member(spare).is_spare(), "the standby may take over until now");
    group.pass(1_000);
    assert!(!group.member(spare).is_spare());
    group.replicate(spare);
    group.pass(50);
    assert!(group.member(0).is_standby_armed());
    // The former standby learns it, whichever comes first: the end of the owner or its beats.
    group.kill(0);
    group.resume(standby);
    group.pass(100);
    assert_eq!(group.owner(), Some(spare));
    assert_eq!(group.took_over(standby), None);
}

#[test]
fn former_standby_that_was_cut_off_takes_nothing_over() {
    let (mut group, standby, spare) = standing(3);
    // Its own way to the owner fails: it hears that it is spare.
    group.cut(&[Link::Beats(standby)]);
    group.pass(2_000);
    assert!(group.member(standby).is_spare());
    group.replicate(spare);
    group.pass(50);
    group.kill(0);
    group.heal();
    group.pass(100);
    assert_eq!(group.took_over(standby), None);
    assert_eq!(group.owner(), Some(spare));
}

#[test]
fn standby_of_a_stopped_owner_keeps_its_copy() {
    // Without voters nothing is taken over by silence.
    let (mut group, standby, spare) = standing(0);
    group.stop(0);
    group.pass(3_000);
    group.kill(0);
    group.pass(100);
    assert_eq!(group.owner(), Some(standby));
    assert_eq!(group.took_over(spare), None);
}

#[test]
fn copy_is_continued_after_owner_and_process_ended() {
    let (mut group, standby, spare) = standing(0);
    group.cut(&[Link::Beats(0)]);
    group.stop(0);
    group.pass(3_000);
    group.kill(0);
    group.heal();
    group.start(0);
    group.pass(3_000);
    assert_eq!(group.took_over(standby), Some(TakeoverCause::Start));
    assert_eq!([group.took_over(0), group.took_over(spare)], [None, None]);
}

#[test]
fn yielded_owner_keeps_the_standby_from_being_spare() {
    let (mut group, standby, _) = standing(3);
    let now = group.now;
    assert_eq!(group.member(0).handle_hand_over(now), Ok(()));
    group.pass(1);
    let now = group.now;
    // The last batch is under way.
    group.member(0).handle_yielded(2, now);
    group.pass(20);
    assert_eq!(group.took_over(standby), None);
    assert!(!group.member(standby).is_spare());
}

#[test]
fn members_start_without_the_preferred_one() {
    let mut group = Group::of(3, 0);
    group.kill(0);
    group.pass(8_000);
    assert_eq!(group.owner(), Some(1), "the first by rank");
}

#[test]
fn operator_confirms_all_silent_members() {
    let (mut group, standby, spare) = standing(0);
    group.cut(&[Link::Beats(0), Link::Beats(standby)]);
    group.kill(0);
    group.pass(2_500);
    let [owner, other] = [0, standby].map(|of| Group::id(of, spare));
    let now = group.now;
    let refused = group.member(spare).handle_take_over(&[owner], now);
    assert_eq!(refused, Err(TakeoverRefusal::AlsoSilent(other)));
    group.kill(standby);
    let now = group.now;
    assert_eq!(group.member(spare).handle_take_over(&[owner, other], now), Ok(()));
}

#[test]
fn owner_that_returns_is_the_spare() {
    let (mut group, standby, spare) = standing(3);
    group.kill(0);
    group.pass(100);
    group.start(0);
    group.pass(1_500);
    assert_eq!(group.owner(), Some(standby));
    // Whichever of both is heard then.
    assert!(group.member(0).is_spare() != group.member(spare).is_spare());
}

#[test]
fn hand_over_goes_to_the_standby() {
    let (mut group, standby, _) = standing(3);
    let now = group.now;
    assert_eq!(group.member(0).handle_hand_over(now), Ok(()));
    group.pass(1);
    let now = group.now;
    group.member(0).handle_yielded(1, now);
    group.pass(50);
    assert_eq!(group.owner(), Some(standby));
    assert_eq!(group.took_over(standby), Some(TakeoverCause::HandOver));
}

#[test]
fn spare_is_not_made_the_owner_beside_the_records() {
    let (mut group, standby, spare) = standing(0);
    group.cut(&[Link::Beats(0)]);
    group.kill(0);
    group.pass(2_500);
    let holder = Group::id(standby, spare);
    assert_eq!(group.take_over(spare), Err(TakeoverRefusal::HeldElsewhere(holder)));
    assert_eq!(group.take_over(standby), Ok(()));
    group.pass(50);
    assert_eq!(group.took_over(standby), Some(TakeoverCause::Operator));
}

#[test]
fn lone_member_of_three_owns_if_no_other_one_runs() {
    let mut group = Group::of(3, 0);
    group.kill(0);
    group.cut(&[Link::Beats(1)]);
    group.pass(2_000);
    assert_eq!(group.owner(), None, "member 1 is silent and may own");
    group.kill(1);
    group.heal();
    group.pass(100);
    assert_eq!(group.took_over(2), Some(TakeoverCause::PeerEnded));
}

/// Member 0 has yielded to its standby while their links are cut; the standby has not heard it.
fn yielded_without_a_link() -> (Group, usize, usize) {
    let (mut group, standby, spare) = standing(0);
    let now = group.now;
    assert_eq!(group.member(0).handle_hand_over(now), Ok(()));
    group.cut(&[Link::Beats(0), Link::Beats(standby)]);
    let now = group.now;
    group.member(0).handle_yielded(2, now);
    (group, standby, spare)
}

#[test]
fn yielded_records_are_continued_if_the_successor_restarts() {
    for cut_for in [100, 3_000] {
        let (mut group, standby, spare) = yielded_without_a_link();
        group.kill(standby);
        group.pass(cut_for);
        group.start(standby);
        group.heal();
        group.pass(3_000);
        assert_eq!(group.owner(), Some(0), "cut for {cut_for} ms");
        let others = [standby, spare].map(|other| group.took_over(other));
        assert_eq!(others, [None, None], "they have no records; cut for {cut_for} ms");
    }
}

#[test]
fn successor_appoints_no_other_standby_while_the_yielded_owner_may_return() {
    let (mut group, standby, spare) = standing(0);
    let now = group.now;
    assert_eq!(group.member(0).handle_hand_over(now), Ok(()));
    group.pass(1);
    let now = group.now;
    group.member(0).handle_yielded(1, now);
    // The successor hears it, and is heard no more.
    group.cut(&[Link::Beats(standby)]);
    group.pass(600);
    assert_eq!(group.took_over(standby), Some(TakeoverCause::HandOver));
    group.replicate(spare);
    group.pass(50);
    group.kill(standby);
    group.start(standby);
    group.heal();
    group.pass(100);
    let owners = [0, spare].map(|member| group.took_over(member).is_some());
    assert_ne!(owners, [true, true]);
    group.pass(3_000);
    assert!(group.owner().is_some());
}

#[test]
fn yielded_records_are_continued_if_the_successor_ends() {
    let (mut group, standby, spare) = yielded_without_a_link();
    group.kill(standby);
    group.pass(3_000);
    assert_eq!(group.took_over(spare), None, "it has no records");
    group.heal();
    group.pass(3_000);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.took_over(spare), None);
}
