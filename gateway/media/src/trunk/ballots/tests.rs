use super::*;

#[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
fn new() -> (Ballots, Instant) {
    (Ballots::new(7), Instant::now())
}

#[test]
fn each_group_has_its_own_epoch() {
    let (mut ballots, now) = new();
    let owner = |group, epoch| GroupOwner { group, epoch };
    assert_eq!(ballots.handle_owner(owner(1, 5), now), Ok(()));
    assert_eq!(ballots.handle_owner(owner(2, 1), now), Ok(()));
    assert_eq!(ballots.handle_owner(owner(1, 4), now), Err(5));
    let voted = ballots.handle_vote(2, Vote::Standby, now).unwrap();
    assert_eq!((voted.epoch, voted.instance), (1, 7));
}

#[test]
fn number_of_groups_is_bounded() {
    let (mut ballots, now) = new();
    for group in 0..GROUPS_MAX as u32 {
        assert_eq!(ballots.handle_owner(GroupOwner { group, epoch: 2 }, now), Ok(()));
    }
    let beyond = GROUPS_MAX as u32;
    assert_eq!(ballots.handle_vote(beyond, Vote::Standby, now), None);
    assert_eq!(ballots.handle_owner(GroupOwner { group: beyond, epoch: 2 }, now), Ok(()));
    assert_eq!(ballots.handle_owner(GroupOwner { group: beyond, epoch: 1 }, now), Ok(()));
    assert_eq!(ballots.handle_owner(GroupOwner { group: 0, epoch: 1 }, now), Err(2));
}
