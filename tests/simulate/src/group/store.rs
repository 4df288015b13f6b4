//! A store that votes, and a member's questions to it.

use std::time::{Duration, Instant};

use evenkeel_media::trunk::Vote;
use evenkeel_ownership::{AgentVote, BallotEntry, BallotStep, BallotWrite, StoreBallot, WitnessId};
use fastrand::Rng;

/// The store votes with this number at all members. Agents have lower ones.
pub(super) const STORE: WitnessId = WitnessId(u64::MAX);

/// A question without an answer by then is given up, as in the product.
pub(super) const VOTES_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum StoreRequest {
    Read,
    Write(BallotWrite),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum StoreResult {
    /// `instance` is of a ballot that the reader may create.
    Entry {
        stored: StoredBallot,
        instance: u32,
    },
    Written {
        write: BallotWrite,
        revision: Option<u64>,
    },
    /// No result came in time.
    Late,
    /// No result of a question: another member wrote this.
    Changed(StoredBallot),
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct StoredBallot {
    pub(super) entry: Option<BallotEntry>,
    pub(super) revision: u64,
}

/// The key of the group's ballot.
pub(super) struct Store {
    /// Its former contents.
    history: Vec<StoredBallot>,
    stored: StoredBallot,
    /// The greatest time that a request waits in the store, and its result again.
    pub(super) latency: Duration,
}

impl Store {
    pub(super) fn new(latency: Duration) -> Store {
        Store { history: Vec::new(), stored: StoredBallot::default(), latency }
    }

    pub(super) fn stored(&self) -> StoredBallot {
        self.stored
    }

    pub(super) fn handle(
        &mut self,
        request: StoreRequest,
        instance: u32,
        rng: &mut Rng,
    ) -> StoreResult {
        match request {
            StoreRequest::Read => StoreResult::Entry { stored: self.stored, instance },
            StoreRequest::Write(write) => {
                let is_newest = write.revision == self.stored.revision;
                let revision = is_newest.then(|| {
                    self.history.push(self.stored);
                    // Other keys are written as well.
                    let revision = self.stored.revision + rng.u64(1..3);
                    self.stored = StoredBallot { entry: Some(write.entry), revision };
                    revision
                });
                StoreResult::Written { write, revision }
            }
        }
    }

    /// Goes back to former contents of a revision below `noticed`, and returns their revision.
    pub(super) fn forget_writes(&mut self, noticed: u64, rng: &mut Rng) -> Option<u64> {
        let former = self.history.iter().take_while(|stored| stored.revision < noticed).count();
        let kept = (former > 0).then(|| match rng.u8(0..4) {
            0 => 0,
            1 => rng.usize(0..former),
            _ => rng.usize(former.saturating_sub(8)..former),
        })?;
        self.stored = self.history[kept];
        self.history.truncate(kept);
        Some(self.stored.revision)
    }
}

/// The questions of one process to the store, one at a time.
#[derive(Default, Debug)]
pub(super) struct StoreVoter {
    ballot: StoreBallot,
    /// The newest question, while another one is under way.
    waiting: Option<Vote>,
    question: Option<StoreQuestion>,
    step: Option<BallotStep>,
    /// The revision that the store showed or took last.
    pub(super) newest: u64,
}

#[derive(Clone, Copy, Debug)]
struct StoreQuestion {
    number: u64,
    vote: Vote,
    asked: Instant,
}

pub(super) enum StoreVoterOutput {
    Request { number: u64, request: StoreRequest },
    Answer(AgentVote),
}

impl StoreVoter {
    /// Replaces a question that waits.
    pub(super) fn ask(&mut self, vote: Vote) {
        self.waiting = Some(vote);
    }

    /// Begins the question that waits once none is under way. `number` was given to no question before.
    pub(super) fn begin(&mut self, number: u64, now: Instant) -> bool {
        let Some(vote) = self.waiting.take_if(|_| self.question.is_none()) else { return false };
        self.question = Some(StoreQuestion { number, vote, asked: now });
        self.step = Some(self.ballot.handle_vote(vote, now));
        true
    }

    /// Takes the result of a request, unless the question was given up.
    pub(super) fn handle_result(&mut self, number: u64, result: StoreResult, now: Instant) {
        if let StoreResult::Changed(StoredBallot { entry, revision }) = result {
            // The product leaves them where they are during a question.
            if let Some(entry) = entry.filter(|_| self.question.is_none()) {
                self.newest = self.newest.max(revision);
                self.ballot.handle_change(entry, revision, now);
            }
            return;
        }
        if self.question.is_none_or(|question| question.number != number) {
            return;
        }
        match result {
            StoreResult::Changed(_) => {}
            StoreResult::Entry { stored: StoredBallot { entry, revision }, instance } => {
                self.newest = self.newest.max(revision);
                self.step = Some(self.ballot.handle_entry(entry, revision, instance, now));
            }
            StoreResult::Written { write, revision } => {
                self.newest = revision.unwrap_or(self.newest);
                self.step = Some(self.ballot.handle_written(write, revision, now));
            }
            StoreResult::Late => self.question = None,
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<StoreVoterOutput> {
        let StoreQuestion { number, vote, asked } = self.question?;
        let request = match self.step.take()? {
            BallotStep::Read => StoreRequest::Read,
            BallotStep::Write(write) => StoreRequest::Write(write),
            BallotStep::Answer(voted) => {
                self.question = None;
                return Some(StoreVoterOutput::Answer(AgentVote { id: STORE, asked, vote, voted }));
            }
            BallotStep::Fail(_) => {
                self.question = None;
                return None;
            }
        };
        Some(StoreVoterOutput::Request { number, request })
    }
}
