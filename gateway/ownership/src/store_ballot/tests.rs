use std::time::Duration;

use evenkeel_media::trunk::OwnershipBallot;

use super::*;

const MOMENT: Duration = Duration::from_millis(1);

/// A store that answers at once.
#[derive(Clone, Default)]
struct TestStore {
    entry: Option<BallotEntry>,
    revision: u64,
    instances: u32,
    now: Option<Instant>,
}

impl TestStore {
    fn pass(&mut self, time: Duration) {
        self.now = Some(self.now() + time);
    }

    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    fn write(&mut self, write: BallotWrite) -> Option<u64> {
        (write.revision == self.revision).then(|| {
            self.revision += 1;
            self.entry = Some(write.entry);
            self.revision
        })
    }

    fn try_ask(&mut self, member: &mut StoreBallot, vote: Vote) -> Result<Voted, BallotError> {
        let now = self.now();
        let mut step = member.handle_vote(vote, now);
        loop {
            step = match step {
                BallotStep::Read => {
                    self.instances += 1;
                    member.handle_entry(self.entry, self.revision, self.instances, now)
                }
                BallotStep::Write(write) => {
                    let revision = self.write(write);
                    member.handle_written(write, revision, now)
                }
                BallotStep::Answer(voted) => return Ok(voted),
                BallotStep::Fail(error) => return Err(error),
            };
        }
    }

    fn ask(&mut self, member: &mut StoreBallot, vote: Vote) -> Voted {
        self.try_ask(member, vote).unwrap()
    }
}

fn setup() -> (TestStore, StoreBallot, StoreBallot) {
    Default::default()
}

fn owner(epoch: u64) -> Vote {
    Vote::Owner { epoch, hold: Hold::For(HOLD) }
}

fn claim(base: u64, claim: u64) -> Vote {
    Vote::Claim { base, claim }
}

#[test]
fn claim_succeeds_once_the_owner_has_not_written_for_a_hold() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut second, Vote::Standby);
    let granted = store.ask(&mut first, owner(2));
    assert_eq!((granted.epoch, granted.promised), (2, 0));
    // The standby learns of the write by a claim that fails, and holds it for new.
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
    store.pass(HOLD - MOMENT);
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
    store.pass(MOMENT);
    let voted = store.ask(&mut second, claim(2, 3));
    assert_eq!((voted.epoch, voted.promised), (2, 3));
    // The owner gets no further lease.
    assert_eq!(store.ask(&mut first, owner(2)).promised, 3);
    assert_eq!(store.ask(&mut second, owner(3)).epoch, 3);
    assert_eq!(store.ask(&mut first, owner(2)).epoch, 3);
}

#[test]
fn owner_that_writes_keeps_its_lease() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, owner(2));
    for _ in 0..40 {
        store.pass(HOLD / 2);
        assert_eq!(store.ask(&mut first, owner(2)).promised, 0);
        store.pass(MOMENT);
        // The candidate has heard of no write since the last one that it knows.
        assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
    }
    // It learns of the last one, and waits for its end.
    store.pass(HOLD);
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
    store.pass(HOLD);
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 3);
}

#[test]
fn claim_of_a_member_that_knows_the_newest_write_needs_no_read() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut second, Vote::Standby);
    store.ask(&mut first, owner(2));
    second.handle_change(store.entry.unwrap(), store.revision, store.now());
    let claimed = |second: &mut StoreBallot, now| second.handle_vote(claim(2, 3), now);
    store.pass(HOLD - MOMENT);
    let BallotStep::Answer(voted) = claimed(&mut second, store.now()) else { panic!("a hold") };
    assert_eq!(voted.promised, 0);
    store.pass(MOMENT);
    let BallotStep::Write(write) = claimed(&mut second, store.now()) else { panic!("no write") };
    assert_eq!(write.revision, store.revision);
    // A write of the owner meanwhile refuses the claim.
    store.ask(&mut first, owner(2));
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
}

#[test]
fn late_report_of_a_change_is_no_news() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, owner(2));
    let (entry, revision) = (store.entry.unwrap(), store.revision);
    store.ask(&mut first, owner(2));
    store.ask(&mut second, Vote::Standby);
    store.pass(HOLD);
    second.handle_change(entry, revision, store.now());
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 3);
}

#[test]
fn claim_of_another_base_waits_for_no_hold() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, Vote::Owner { epoch: 2, hold: Hold::Epoch });
    store.ask(&mut second, Vote::Standby);
    // The candidate followed a newer owner, which did not write here.
    assert_eq!(store.ask(&mut second, claim(4, 7)).promised, 7);
    assert_eq!(store.ask(&mut second, claim(4, 5)).promised, 7, "an older claim");
}

/// An entry changes as the memory of an agent does once a hold has ended.
#[test]
fn entry_changes_as_the_ballot_of_an_agent() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let (mut agent, mut entry) = (OwnershipBallot::new(1, now), BallotEntry::new(1));
        for _ in 0..40 {
            let hold = if rng.bool() { Hold::Epoch } else { Hold::For(HOLD) };
            let (base, epoch) = (rng.u64(0..5), rng.u64(0..5));
            let vote = match rng.u8(0..4) {
                0 => Vote::Standby,
                1 => Vote::Owner { epoch, hold },
                _ => Vote::Claim { base, claim: epoch + 1 },
            };
            let voted = agent.handle_vote(vote, now);
            entry = entry.after(vote).unwrap_or(entry);
            let found = (entry.epoch, entry.promised);
            assert_eq!(found, (voted.epoch, voted.promised), "seed {seed}, after {vote:?}");
            now += HOLD;
        }
    }
}

#[test]
fn lasting_hold_bars_claims_of_its_epoch_only() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, Vote::Owner { epoch: 2, hold: Hold::Epoch });
    store.ask(&mut first, owner(2));
    store.pass(Duration::from_secs(60));
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
    // Another takeover raised the epoch.
    store.ask(&mut first, owner(4));
    store.ask(&mut second, Vote::Standby);
    store.pass(HOLD);
    assert_eq!(store.ask(&mut second, claim(4, 5)).promised, 5);
    // An older claim replaces no newer one.
    assert_eq!(store.ask(&mut first, claim(4, 5)).promised, 5);
    assert_eq!(store.ask(&mut first, claim(3, 4)).promised, 5);
}

#[test]
fn owner_is_heard_when_another_of_its_writes_is_seen() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, owner(2));
    assert_eq!(store.ask(&mut second, Vote::Standby).heard, None, "it may be years old");
    store.ask(&mut first, owner(2));
    assert_eq!(store.ask(&mut second, Vote::Standby).heard, Some(Duration::ZERO));
    // Its write may be as old as the member's last look.
    store.pass(Duration::from_secs(30));
    store.ask(&mut first, owner(2));
    assert_eq!(store.ask(&mut second, Vote::Standby).heard, Some(Duration::from_secs(30)));
    store.ask(&mut first, owner(2));
    assert_eq!(store.ask(&mut second, Vote::Standby).heard, Some(Duration::ZERO));
    store.pass(Duration::from_secs(3));
    assert_eq!(store.ask(&mut second, Vote::Standby).heard, Some(Duration::from_secs(3)));
    // A claim is no sign of the owner.
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 3);
    assert_eq!(store.ask(&mut second, Vote::Standby).heard, Some(Duration::from_secs(3)));
}

#[test]
fn ballot_that_a_store_forgot_is_another_voter() {
    let (mut store, mut first, mut second) = setup();
    let before = store.ask(&mut first, owner(2)).instance;
    let (entry, revision) = (store.entry, store.revision);
    store.ask(&mut first, Vote::Owner { epoch: 2, hold: Hold::Epoch });
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 0);
    // A backup without the last write.
    (store.entry, store.revision) = (entry, revision);
    let voted = store.ask(&mut second, claim(2, 3));
    assert_ne!(voted.instance, before, "this claim counts for nothing");
    let restored = store.ask(&mut first, owner(2));
    assert_eq!(restored.instance, store.ask(&mut second, Vote::Standby).instance);
    (store.entry, store.revision) = (None, 0);
    assert_ne!(store.ask(&mut first, owner(2)).instance, restored.instance);
}

#[test]
fn claim_without_its_result_counts_when_read() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, owner(2));
    store.ask(&mut second, Vote::Standby);
    store.pass(HOLD);
    let now = store.now();
    let BallotStep::Write(write) = second.handle_vote(claim(2, 3), now) else {
        panic!("no hold lasts");
    };
    store.write(write);
    // The result is lost, and the candidate asks again.
    assert_eq!(store.ask(&mut second, claim(2, 3)).promised, 3);
    assert_eq!(store.ask(&mut first, owner(2)).promised, 3);
}

#[test]
fn question_fails_if_others_write_at_each_attempt() {
    let (mut store, mut first, mut second) = setup();
    store.ask(&mut first, owner(2));
    let now = store.now();
    let mut step = first.handle_vote(owner(2), now);
    let mut writes = 0;
    while let BallotStep::Write(write) = step {
        writes += 1;
        store.ask(&mut second, owner(2));
        let revision = store.write(write);
        assert_eq!(first.handle_written(write, revision, now), BallotStep::Read);
        step = first.handle_entry(store.entry, store.revision, 9, now);
    }
    assert_eq!((step, writes), (BallotStep::Fail(BallotError::Contended), LATE_WRITES_MAX));
    // A vote that changes nothing is answered.
    assert_eq!(store.ask(&mut first, owner(1)).epoch, 2);
}

#[test]
fn vote_out_of_range_is_not_written() {
    let (mut store, mut first, _) = setup();
    let vote = owner(u64::MAX);
    assert_eq!(store.try_ask(&mut first, vote), Err(BallotError::OutOfRange(vote)));
    assert_eq!(store.ask(&mut first, owner(2)).epoch, 2);
}
