use std::time::Duration;

use evenkeel_media::trunk::OwnershipBallot;

use super::*;
use crate::tests::memory::{Contents, MemoryStore};

const KEY: &str = "ballot.edge";
const MOMENT: Duration = Duration::from_millis(1);

fn member(store: &MemoryStore) -> StoreBallot<MemoryStore> {
    StoreBallot::new(store.clone(), KEY.to_owned())
}

async fn ask(member: &mut StoreBallot<MemoryStore>, vote: Vote) -> Voted {
    member.handle(vote).await.unwrap()
}

fn owner(epoch: u64) -> Vote {
    Vote::Owner { epoch, hold: Hold::For(HOLD) }
}

fn claim(base: u64, claim: u64) -> Vote {
    Vote::Claim { base, claim }
}

#[tokio::test(start_paused = true)]
async fn claim_succeeds_once_the_owner_has_not_written_for_a_hold() {
    let store = MemoryStore::default();
    let [mut first, mut second] = [(); 2].map(|()| member(&store));
    ask(&mut second, Vote::Standby).await;
    let granted = ask(&mut first, owner(2)).await;
    assert_eq!((granted.epoch, granted.promised), (2, 0));
    // The standby learns of the write by a claim that fails, and holds it for new.
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 0);
    tokio::time::sleep(HOLD - MOMENT).await;
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 0);
    tokio::time::sleep(MOMENT).await;
    let voted = ask(&mut second, claim(2, 3)).await;
    assert_eq!((voted.epoch, voted.promised), (2, 3));
    // The owner gets no further lease.
    assert_eq!(ask(&mut first, owner(2)).await.promised, 3);
    assert_eq!(ask(&mut second, owner(3)).await.epoch, 3);
    assert_eq!(ask(&mut first, owner(2)).await.epoch, 3);
}

#[tokio::test(start_paused = true)]
async fn owner_that_writes_keeps_its_lease() {
    let store = MemoryStore::default();
    let [mut first, mut second] = [(); 2].map(|()| member(&store));
    ask(&mut first, owner(2)).await;
    for _ in 0..40 {
        tokio::time::sleep(HOLD / 2).await;
        assert_eq!(ask(&mut first, owner(2)).await.promised, 0);
        tokio::time::sleep(MOMENT).await;
        // The candidate has heard of no write since the last one that it knows.
        assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 0);
    }
    // It learns of the last one, and waits for its end.
    tokio::time::sleep(HOLD).await;
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 0);
    tokio::time::sleep(HOLD).await;
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 3);
}

#[tokio::test(start_paused = true)]
async fn claim_of_another_base_waits_for_no_hold() {
    let store = MemoryStore::default();
    let [mut first, mut second] = [(); 2].map(|()| member(&store));
    ask(&mut first, Vote::Owner { epoch: 2, hold: Hold::Epoch }).await;
    ask(&mut second, Vote::Standby).await;
    // The candidate followed a newer owner, which did not write here.
    assert_eq!(ask(&mut second, claim(4, 7)).await.promised, 7);
    assert_eq!(ask(&mut second, claim(4, 5)).await.promised, 7, "an older claim");
}

/// An entry changes as the memory of an agent does once a hold has ended.
#[test]
fn entry_changes_as_the_ballot_of_an_agent() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut now = std::time::Instant::now();
        let (mut agent, mut entry) = (OwnershipBallot::new(1, now), BallotEntry::new());
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

#[tokio::test(start_paused = true)]
async fn lasting_hold_bars_claims_of_its_epoch_only() {
    let store = MemoryStore::default();
    let [mut first, mut second] = [(); 2].map(|()| member(&store));
    ask(&mut first, Vote::Owner { epoch: 2, hold: Hold::Epoch }).await;
    ask(&mut first, owner(2)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 0);
    // Another takeover raised the epoch.
    ask(&mut first, owner(4)).await;
    ask(&mut second, Vote::Standby).await;
    tokio::time::sleep(HOLD).await;
    assert_eq!(ask(&mut second, claim(4, 5)).await.promised, 5);
    // An older claim replaces no newer one.
    assert_eq!(ask(&mut first, claim(4, 5)).await.promised, 5);
    assert_eq!(ask(&mut first, claim(3, 4)).await.promised, 5);
}

#[tokio::test(start_paused = true)]
async fn owner_is_heard_when_another_of_its_writes_is_seen() {
    let store = MemoryStore::default();
    let [mut first, mut second] = [(); 2].map(|()| member(&store));
    ask(&mut first, owner(2)).await;
    assert_eq!(ask(&mut second, Vote::Standby).await.heard, None, "it may be years old");
    ask(&mut first, owner(2)).await;
    assert_eq!(ask(&mut second, Vote::Standby).await.heard, Some(Duration::ZERO));
    // Its write may be as old as the member's last look.
    tokio::time::sleep(Duration::from_secs(30)).await;
    ask(&mut first, owner(2)).await;
    assert_eq!(ask(&mut second, Vote::Standby).await.heard, Some(Duration::from_secs(30)));
    ask(&mut first, owner(2)).await;
    assert_eq!(ask(&mut second, Vote::Standby).await.heard, Some(Duration::ZERO));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ask(&mut second, Vote::Standby).await.heard, Some(Duration::from_secs(3)));
    // A claim is no sign of the owner.
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 3);
    assert_eq!(ask(&mut second, Vote::Standby).await.heard, Some(Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn ballot_that_a_store_forgot_is_another_voter() {
    let store = MemoryStore::default();
    let [mut first, mut second] = [(); 2].map(|()| member(&store));
    let before = ask(&mut first, owner(2)).await.instance;
    let snapshot = store.change(|contents| contents.clone());
    ask(&mut first, Vote::Owner { epoch: 2, hold: Hold::Epoch }).await;
    assert_eq!(ask(&mut second, claim(2, 3)).await.promised, 0);
    // A backup without the last write.
    store.change(|contents| *contents = snapshot);
    let voted = ask(&mut second, claim(2, 3)).await;
    assert_ne!(voted.instance, before, "this claim counts for nothing");
    let restored = ask(&mut first, owner(2)).await;
    assert_eq!(restored.instance, ask(&mut second, Vote::Standby).await.instance);
    store.change(Contents::empty);
    assert_ne!(ask(&mut first, owner(2)).await.instance, restored.instance);
}

#[tokio::test(start_paused = true)]
async fn store_that_does_not_answer_gives_no_vote() {
    let store = MemoryStore::default();
    let mut first = member(&store);
    ask(&mut first, owner(2)).await;
    store.change(|contents| contents.is_down = true);
    assert!(first.handle(owner(2)).await.is_err());
    store.change(|contents| contents.is_down = false);
    assert_eq!(ask(&mut first, owner(2)).await.epoch, 2);
    // Nor does an entry that a later release wrote.
    store.put(KEY, br#"{"v": 2}"#);
    assert!(first.handle(Vote::Standby).await.is_err());
    assert_eq!(store.value(KEY).unwrap(), br#"{"v": 2}"#);
    // Nor one that would end the numbers.
    let forged = BallotEntry { epoch: u64::MAX, ..BallotEntry::new() };
    store.put(KEY, &encode(&forged));
    assert!(first.handle(owner(2)).await.is_err());
    // No member writes such a number either.
    store.change(Contents::empty);
    assert!(first.handle(owner(u64::MAX)).await.is_err());
    assert_eq!(ask(&mut first, owner(2)).await.epoch, 2);
}
