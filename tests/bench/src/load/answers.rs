//! The nodes' answers to the gateway: they are up, and accept every session.

use std::collections::HashMap;

use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{Answer, Load, Question, Secret, State, Status};

/// The gateway's sessions at a node by tag. They never expire during a load.
pub(super) struct Answers {
    /// Keys by node.
    secrets: Vec<Secret>,
    pub(super) opened: HashMap<Tag, u64>,
    answer: Vec<u8>,
}

impl Answers {
    pub(super) fn new(secrets: Vec<Secret>) -> Answers {
        Answers { secrets, opened: HashMap::new(), answer: Vec::new() }
    }

    /// The node's answer to a signed message; none if the signature is invalid.
    pub(super) fn answer(&mut self, node: usize, question: &[u8], now_us: u64) -> Option<&[u8]> {
        let asked = Question::read(question, &self.secrets[node], now_us).ok()?;
        let answer = match asked.message {
            Question::Probe => Answer::Probe(self.load()),
            Question::Open { session, tag, .. } => {
                self.opened.insert(tag, session);
                Answer::Open { tag, status: Status::Ok }
            }
            Question::Close { tag } => {
                let known = self.opened.remove(&tag).is_some();
                let status = if known { Status::Ok } else { Status::UnknownTag };
                Answer::Close { tag, status }
            }
            Question::Drain => Answer::Drain(self.load()),
            Question::Keep { tags, .. } => {
                let unknown = tags.iter().filter(|&tag| !self.opened.contains_key(tag));
                Answer::Keep { unknown: unknown.copied().collect() }
            }
            Question::Noted { .. }
            | Question::Start
            | Question::Break(_)
            | Question::Path { .. }
            | Question::Vote { .. } => return None,
        };
        self.answer.clear();
        answer.write(&self.secrets[node], asked.nonce, now_us, &mut self.answer);
        Some(&self.answer)
    }

    fn load(&self) -> Load {
        let sessions = u32::try_from(self.opened.len()).unwrap_or(u32::MAX);
        Load { permille: 100, state: State::Serving, sessions, vouched: true }
    }
}
