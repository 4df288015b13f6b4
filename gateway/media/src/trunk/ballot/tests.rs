use super::*;

const HOLD: Hold = Hold::For(Duration::from_millis(25));

struct World {
    ballot: OwnershipBallot,
    now: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    fn new() -> World {
        let now = Instant::now();
        World { ballot: OwnershipBallot::new(7, now), now }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn own(&mut self, epoch: u64, hold: Hold) -> bool {
        let voted = self.ballot.handle_vote(Vote::Owner { epoch, hold }, self.now);
        voted.epoch == epoch && voted.promised <= epoch
    }

    fn claim(&mut self, base: u64, claim: u64) -> bool {
        self.ballot.handle_vote(Vote::Claim { base, claim }, self.now).promised == claim
    }
}

#[test]
fn claim_waits_for_the_end_of_the_hold() {
    let mut world = World::new();
    assert!(world.own(1, HOLD));
    world.pass(24);
    assert!(!world.claim(1, 2));
    world.pass(1);
    assert!(world.claim(1, 2));
    assert!(world.claim(1, 2), "a repeated claim is accepted");
    assert!(!world.own(1, HOLD), "no hold after the promise");
}

#[test]
fn promise_refuses_no_message_of_the_owner() {
    let mut world = World::new();
    assert_eq!(world.ballot.handle_owner(1, world.now), Ok(()));
    assert!(world.claim(1, 2));
    assert_eq!(world.ballot.handle_owner(1, world.now), Ok(()));
    assert_eq!(world.ballot.handle_owner(2, world.now), Ok(()));
    assert_eq!(world.ballot.handle_owner(1, world.now), Err(2));
}

#[test]
fn shorter_hold_does_not_shorten() {
    let mut world = World::new();
    assert!(world.own(1, HOLD));
    assert!(world.own(1, Hold::For(Duration::ZERO)));
    world.pass(20);
    assert!(!world.claim(1, 2));
}

#[test]
fn hold_of_an_epoch_ends_with_it() {
    let mut world = World::new();
    assert!(world.own(1, Hold::Epoch));
    world.pass(1_000_000);
    assert!(!world.claim(1, 2));
    assert!(world.own(3, HOLD));
    world.pass(25);
    assert!(!world.claim(1, 4), "the standby of an older epoch claims nothing");
    assert!(world.claim(3, 4));
}

#[test]
fn claim_of_a_newer_base_voids_older_holds() {
    let mut world = World::new();
    assert!(world.own(1, Hold::Epoch));
    assert!(world.claim(3, 4));
    assert!(!world.own(3, HOLD));
}

#[test]
fn older_claim_is_not_accepted_any_more() {
    let mut world = World::new();
    assert!(world.claim(1, 4));
    assert!(!world.claim(1, 2));
}

#[test]
fn standby_learns_when_the_owner_was_heard() {
    let mut world = World::new();
    assert_eq!(world.ballot.handle_vote(Vote::Standby, world.now).heard, None);
    assert!(world.own(1, HOLD));
    world.pass(12);
    let voted = world.ballot.handle_vote(Vote::Standby, world.now);
    assert_eq!(voted.heard, Some(Duration::from_millis(12)));
    assert_eq!((voted.epoch, voted.promised, voted.instance), (1, 0, 7));
}

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
