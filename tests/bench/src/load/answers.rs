//! The nodes' answers to the gateway: they are up, and accept every session.

use std::collections::HashMap;

use evenkeel_media::trunk::Tag;
use evenkeel_media::trunk::message::{
    NodeLoad, NodeSecret, OpenStatus, ServingState, TrunkAnswer, TrunkQuestion,
};

/// The gateway's sessions at a node by tag. They never expire during a load.
pub(super) struct Answers {
    /// Keys by node.
    secrets: Vec<NodeSecret>,
    pub(super) opened: HashMap<Tag, u64>,
    answer: Vec<u8>,
}

impl Answers {
    pub(super) fn new(secrets: Vec<NodeSecret>) -> Answers {
        Answers { secrets, opened: HashMap::new(), answer: Vec::new() }
    }

    /// The node's answer to a signed message; none if the signature is invalid.
    pub(super) fn answer(&mut self, node: usize, question: &[u8], now_us: u64) -> Option<&[u8]> {
        let asked = TrunkQuestion::read(question, &self.secrets[node], now_us).ok()?;
        let answer = match asked.message {
            TrunkQuestion::Probe => TrunkAnswer::Probe(self.load()),
            TrunkQuestion::Open { session, tag, .. } => {
                self.opened.insert(tag, session);
                TrunkAnswer::Open { tag, status: OpenStatus::Ok }
            }
            TrunkQuestion::Close { tag } => {
                let known = self.opened.remove(&tag).is_some();
                let status = if known { OpenStatus::Ok } else { OpenStatus::UnknownTag };
                TrunkAnswer::Close { tag, status }
            }
            TrunkQuestion::Drain => TrunkAnswer::Drain(self.load()),
            TrunkQuestion::Keep { tags, .. } => {
                let unknown = tags.iter().filter(|&tag| !self.opened.contains_key(tag));
                TrunkAnswer::Keep { unknown: unknown.copied().collect() }
            }
            TrunkQuestion::Noted { .. }
            | TrunkQuestion::Start
            | TrunkQuestion::Break(_)
            | TrunkQuestion::Path { .. }
            | TrunkQuestion::Vote { .. }
            | TrunkQuestion::Process => return None,
        };
        self.answer.clear();
        answer.write(&self.secrets[node], asked.nonce, now_us, &mut self.answer);
        Some(&self.answer)
    }

    fn load(&self) -> NodeLoad {
        let sessions = u32::try_from(self.opened.len()).unwrap_or(u32::MAX);
        NodeLoad { permille: 100, state: ServingState::Serving, sessions, vouched: true }
    }
}
