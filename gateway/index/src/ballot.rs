//! The store's vote on the ownership of a group. [`StoreBallot`] decides; its steps are carried out here.

use std::time::{Duration, Instant};

use evenkeel_media::trunk::{Vote, Voted};
use evenkeel_ownership::{BallotEntry, BallotStep, StoreBallot};
use evenkeel_process::random::draw;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::entry::{VERSION, decode, encode};
use super::store::{Store, StoreEntry, StoreError};

/// Changes that wait for the end of a question. Others wait at the store.
const CHANGES_MAX: usize = 16;

/// Interval at which a store that reports no changes is asked to.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// `ballot.GROUP`.
#[derive(Serialize, Deserialize)]
struct BallotValue {
    v: u32,
    #[serde(flatten)]
    entry: BallotEntry,
}

impl BallotValue {
    fn is_plausible(&self) -> bool {
        self.entry.is_plausible()
    }
}

/// Returns the changes of the ballot. The store is asked for them until the receiver is gone.
pub(super) fn changes<S: Store>(store: S, key: String) -> mpsc::Receiver<StoreEntry> {
    let (sender, changes) = mpsc::channel(CHANGES_MAX);
    tokio::spawn(async move {
        // Questions report that the store does not answer.
        while store.watch(&key, sender.clone()).await.is_err() {
            tokio::select! {
                () = tokio::time::sleep(WATCHED_EVERY) => {}
                () = sender.closed() => return,
            }
        }
    });
    changes
}

/// Notes a change of the ballot.
pub(super) fn note(ballot: &mut StoreBallot, StoreEntry { value, revision, .. }: &StoreEntry) {
    if let Some(BallotValue { entry, .. }) = decode(value).filter(BallotValue::is_plausible) {
        ballot.handle_change(entry, *revision, Instant::now());
    }
}

/// Returns the answer to a member's question. May be cancelled; the vote may count then, and gives no lease.
pub(super) async fn ask<S: Store>(
    store: &S,
    key: &str,
    ballot: &mut StoreBallot,
    vote: Vote,
) -> Result<Voted, StoreError> {
    let mut step = ballot.handle_vote(vote, Instant::now());
    loop {
        step = match step {
            BallotStep::Read => {
                let found = store.get(key).await?;
                let now = Instant::now();
                let (value, revision) =
                    found.map_or_else(Default::default, |found| (found.value, found.revision));
                let value_read = decode(&value).filter(BallotValue::is_plausible);
                let entry = value_read.map(|value| value.entry);
                if entry.is_none() && !value.is_empty() {
                    return Err(StoreError(format!("`{key}` has a value of another program")));
                }
                ballot.handle_entry(entry, revision, draw() as u32, now)
            }
            BallotStep::Write(write) => {
                let value = encode(&BallotValue { v: VERSION, entry: write.entry });
                let revision = store.replace(key, Some(value), write.revision).await?;
                ballot.handle_written(write, revision, Instant::now())
            }
            BallotStep::Answer(voted) => return Ok(voted),
            BallotStep::Fail(error) => return Err(StoreError(error.to_string())),
        };
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_media::trunk::Hold;

    use super::*;
    use crate::tests::memory::{Contents, MemoryStore};

    const KEY: &str = "ballot.edge";

    fn owner(epoch: u64) -> Vote {
        Vote::Owner { epoch, hold: Hold::Epoch }
    }

    async fn ask(
        store: &MemoryStore,
        ballot: &mut StoreBallot,
        vote: Vote,
    ) -> Result<Voted, StoreError> {
        super::ask(store, KEY, ballot, vote).await
    }

    #[tokio::test]
    async fn vote_is_an_entry_of_the_store() {
        let store = MemoryStore::default();
        let mut ballots = [(); 2].map(|()| StoreBallot::default());
        let granted = ask(&store, &mut ballots[0], owner(2)).await.unwrap();
        let instance = granted.instance;
        let value = format!(
            r#"{{"v":1,"instance":{instance},"epoch":2,"promised":0,"is_barred":true,"renewals":1}}"#
        );
        assert_eq!(String::from_utf8(store.value(KEY).unwrap()).unwrap(), value);
        let read = ask(&store, &mut ballots[1], Vote::Standby).await.unwrap();
        assert_eq!((read.epoch, read.instance), (2, instance));
    }

    #[tokio::test]
    async fn members_that_write_at_the_same_time_are_answered() {
        let store = MemoryStore::default();
        let mut ballots = [(); 2].map(|()| StoreBallot::default());
        store.change(|contents| contents.refusals = 2);
        assert_eq!(ask(&store, &mut ballots[0], owner(2)).await.unwrap().epoch, 2);
        assert_eq!(ask(&store, &mut ballots[1], owner(3)).await.unwrap().epoch, 3);
        // Its revision is not the newest.
        assert_eq!(ask(&store, &mut ballots[0], owner(4)).await.unwrap().epoch, 4);
        store.change(|contents| contents.refusals = 20);
        assert!(ask(&store, &mut ballots[0], owner(5)).await.is_err());
    }

    #[tokio::test]
    async fn writes_of_another_member_are_noted() {
        let store = MemoryStore::default();
        let mut ballots = [(); 2].map(|()| StoreBallot::default());
        let mut changes = changes(store.clone(), KEY.to_owned());
        ask(&store, &mut ballots[0], owner(2)).await.unwrap();
        note(&mut ballots[1], &changes.recv().await.unwrap());
        store.put(KEY, b"of another program");
        ask(&store, &mut ballots[0], owner(2)).await.unwrap_err();
        note(&mut ballots[1], &changes.recv().await.unwrap());
        // A store that is down is asked again.
        store.change(|contents| contents.is_down = true);
        store.put(KEY, b"");
        tokio::time::pause();
        tokio::time::sleep(3 * WATCHED_EVERY).await;
        store.change(|contents| contents.is_down = false);
        assert!(changes.recv().await.is_some());
        // The claim is written without a read, for which the store would have to answer first.
        let step = ballots[1].handle_vote(Vote::Claim { base: 4, claim: 5 }, Instant::now());
        assert!(matches!(step, BallotStep::Write(_)), "{step:?}");
    }

    #[tokio::test]
    async fn store_that_does_not_answer_gives_no_vote() {
        let store = MemoryStore::default();
        let mut ballot = StoreBallot::default();
        ask(&store, &mut ballot, owner(2)).await.unwrap();
        store.change(|contents| contents.is_down = true);
        assert!(ask(&store, &mut ballot, owner(2)).await.is_err());
        store.change(|contents| contents.is_down = false);
        assert_eq!(ask(&store, &mut ballot, owner(2)).await.unwrap().epoch, 2);
        // Nor does an entry that a later release wrote.
        store.put(KEY, br#"{"v": 2}"#);
        assert!(ask(&store, &mut ballot, Vote::Standby).await.is_err());
        assert_eq!(store.value(KEY).unwrap(), br#"{"v": 2}"#);
        // Nor one that would end the numbers.
        let forged = r#"{"v":1,"instance":7,"epoch":18446744073709551615,"promised":0,"is_barred":false,"renewals":0}"#;
        store.put(KEY, forged.as_bytes());
        assert!(ask(&store, &mut ballot, owner(2)).await.is_err());
        // No member writes such a number either.
        store.change(Contents::empty);
        assert!(ask(&store, &mut ballot, owner(u64::MAX)).await.is_err());
        assert_eq!(ask(&store, &mut ballot, owner(2)).await.unwrap().epoch, 2);
    }
}
