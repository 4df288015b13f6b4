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
    /// Before the ballot changes: a lease counts from here.
    asked: Instant,
}

/// The member's end.
pub(crate) struct StoreVoter {
    questions: watch::Sender<Option<Vote>>,
    answers: mpsc::Receiver<AgentVote>,
}

/// The questions of the member, for the thread that keeps the ballot.
pub struct StoreQuestions {
    questions: watch::Receiver<Option<Vote>>,
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
            self.questions.send_replace(Some(vote));
        }
    }

    /// Returns the next answer. May be cancelled without a loss.
    pub(crate) async fn recv(&mut self) -> AgentVote {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The thread of the ballot has ended.
            None => std::future::pending().await,
        }
    }
}

impl StoreQuestions {
    /// Returns the newest question that was not returned yet; `None` once the member has ended. May be cancelled without a loss.
    pub async fn next(&mut self) -> Option<StoreQuestion> {
        self.questions.changed().await.ok()?;
        let vote = (*self.questions.borrow_and_update())?;
        Some(StoreQuestion { vote, asked: Instant::now() })
    }

    /// Answers a question. An answer beyond those that wait is lost, as on a network.
    pub fn answer(&self, question: StoreQuestion, voted: Voted) {
        let StoreQuestion { vote, asked } = question;
        // Fails too if the member has ended.
        let _ = self.answers.try_send(AgentVote { id: STORE, asked, vote, voted });
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_media::trunk::Hold;

    use super::*;

    const VOTED: Voted = Voted { epoch: 2, promised: 0, heard: None, instance: 7 };

    #[tokio::test]
    async fn newest_question_is_answered_with_the_time_before_its_vote() {
        let (mut voter, mut store) = StoreVoter::new();
        voter.ask(None, Vote::Standby);
        voter.ask(Some(STORE), Vote::Owner { epoch: 2, hold: Hold::Epoch });
        voter.ask(Some(WitnessId(1)), Vote::Claim { base: 2, claim: 3 });
        let question = store.next().await.unwrap();
        assert_eq!(question.vote, Vote::Owner { epoch: 2, hold: Hold::Epoch });
        let before_vote = Instant::now();
        store.answer(question, VOTED);
        let answer = voter.recv().await;
        assert_eq!((answer.id, answer.vote, answer.voted), (STORE, question.vote, VOTED));
        assert!(answer.asked <= before_vote);
    }

    #[tokio::test]
    async fn questions_end_with_the_member() {
        let (voter, mut store) = StoreVoter::new();
        drop(voter);
        assert!(store.next().await.is_none());
    }
}
