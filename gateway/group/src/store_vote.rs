//! The channel between a member and the ballot of its group in a store, which another thread keeps.

use std::time::Instant;

use evenkeel_media::trunk::{Vote, Voted};
use evenkeel_ownership::{AgentVote, WitnessId};
use tokio::sync::{mpsc, watch};

/// Answers that the member has not taken yet.
const ANSWERS_MAX: usize = 16;

/// The store votes with this number at all members.
const STORE: WitnessId = WitnessId(u64::from_be_bytes(*b"[index] "));

/// A question of the member to the ballot.
#[derive(Clone, Copy, Debug)]
pub struct StoreQuestion {
    /// The question.
    pub vote: Vote,
    asked: Instant,
}

/// The member's end.
pub(crate) struct StoreVoter {
    questions: watch::Sender<Option<StoreQuestion>>,
    answers: mpsc::Receiver<AgentVote>,
}

/// The questions of the member, for the thread that keeps the ballot.
pub struct StoreQuestions {
    questions: watch::Receiver<Option<StoreQuestion>>,
    answers: mpsc::Sender<AgentVote>,
}

impl StoreVoter {
    pub(crate) fn new() -> (StoreVoter, StoreQuestions) {
        let (asked, questions) = watch::channel(None);
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let voter = StoreVoter { questions: asked, answers: answered };
        (voter, StoreQuestions { questions, answers })
    }

    /// Asks, unless only another voter is asked. The question replaces one that waits.
    pub(crate) fn ask(&self, to: Option<WitnessId>, vote: Vote) {
        if to.is_none_or(|id| id == STORE) {
            self.questions.send_replace(Some(StoreQuestion { vote, asked: Instant::now() }));
        }
    }

    /// Returns the next answer. May be cancelled without a loss.
    pub(crate) async fn recv(&mut self) -> AgentVote {
        match self.answers.recv().await {
            Some(answer) => answer,
            // Nobody keeps the ballot any more.
            None => std::future::pending().await,
        }
    }
}

impl StoreQuestions {
    /// Returns the newest question that was not returned yet; `None` once the member has ended. May be cancelled without a loss.
    pub async fn next(&mut self) -> Option<StoreQuestion> {
        self.questions.changed().await.ok()?;
        *self.questions.borrow_and_update()
    }

    /// Answers a question. An answer beyond those that wait is lost, as on a network.
    pub fn answer(&self, question: StoreQuestion, voted: Voted) {
        let StoreQuestion { vote, asked } = question;
        // Fails too if the member has ended.
        let _ = self.answers.try_send(AgentVote { id: STORE, asked, vote, voted });
    }
}
