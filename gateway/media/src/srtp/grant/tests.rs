use super::super::tests::start;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn batch(follower: u64, number: u64, copy: u64) -> SentBatch {
    SentBatch { follower, number, copies: vec![CopyNumber { worker: 1, number: copy }] }
}

#[test]
fn owner_is_limited_for_two_seconds_after_an_acknowledgement() {
    let start = start();
    let grant = IndexGrant::new(2, start);
    let at = |now| GrantView { grant: &grant, worker: 1, now };
    assert!(!at(start).is_limited(Some(0)), "no standby");
    let follower = grant.begin(start);
    let era = Some(at(start).era());
    assert!(at(start + FREE_AFTER / 2).is_limited(era));
    assert!(!at(start + FREE_AFTER / 2).is_limited(None), "never copied");
    assert!(!at(start + FREE_AFTER).is_limited(era));
    grant.acknowledge(&batch(follower, 1, 7), start + SECOND);
    assert!(at(start + FREE_AFTER).is_limited(era));
    assert!(!at(start + SECOND + FREE_AFTER).is_limited(era));
}

#[test]
fn limits_after_a_free_time_are_of_a_new_era() {
    let start = start();
    let grant = IndexGrant::new(2, start);
    let follower = grant.begin(start);
    let at = |now| GrantView { grant: &grant, worker: 1, now };
    let era = at(start).era();
    grant.acknowledge(&batch(follower, 1, 7), start + FREE_AFTER - Duration::from_nanos(1));
    assert_eq!(at(start).era(), era);
    grant.acknowledge(&batch(follower, 2, 8), start + FREE_AFTER * 2);
    assert_eq!(at(start).era(), era + 1);
}

#[test]
fn acknowledged_copies_are_those_of_their_worker() {
    let start = start();
    let grant = IndexGrant::new(2, start);
    let follower = grant.begin(start);
    grant.acknowledge(&batch(follower, 3, 7), start);
    for (worker, copy, is_there) in [(1, 7, true), (1, 8, false), (0, 1, false), (2, 1, false)] {
        let at = GrantView { grant: &grant, worker, now: start };
        assert_eq!(at.has_acknowledged(copy), is_there, "{copy} of {worker}");
    }
    assert_eq!(grant.batch(), 3);
}

#[test]
fn batch_of_an_earlier_follower_is_no_echo() {
    let start = start();
    let grant = IndexGrant::new(2, start);
    let first = grant.begin(start);
    grant.acknowledge(&batch(first, 9, 1), start);
    let second = grant.begin(start);
    assert_eq!(grant.batch(), 0);
    grant.acknowledge(&batch(first, 10, 2), start);
    assert_eq!(grant.batch(), 0);
    grant.acknowledge(&batch(second, 1, 3), start);
    assert_eq!(grant.batch(), 1);
}

#[test]
fn sessions_are_copied_again_once_a_standby_proves_limits_anew() {
    let start = start();
    let grant = IndexGrant::new(2, start);
    let follower = grant.begin(start);
    grant.acknowledge(&batch(follower, 1, 1), start);
    assert_eq!(grant.round(), 1, "copies before had no echo");
    grant.acknowledge(&batch(follower, 2, 2), start + FREE_AFTER / 4);
    assert_eq!(grant.round(), 1);
    grant.acknowledge(&batch(follower, 3, 3), start + FREE_AFTER);
    assert_eq!(grant.round(), 2, "the standby may have lost the proof");
}

#[test]
fn other_member_renews_no_lease_while_the_one_before_may_take_over() {
    let start = start();
    let grant = IndexGrant::new(2, start);
    let first = grant.begin(start);
    grant.acknowledge(&batch(first, 1, 1), start);
    grant.hold();
    let second = grant.begin(start + SECOND);
    let at = GrantView { grant: &grant, worker: 1, now: start };
    grant.acknowledge(&batch(second, 1, 2), start + SECOND);
    assert!(!at.has_acknowledged(2));
    grant.acknowledge(&batch(second, 2, 3), start + FREE_AFTER);
    assert!(at.has_acknowledged(2));
}
