//! A question to a policy, and its answer.

use std::time::Instant;

use evenkeel_model::{Decider, HookAnswer, NodeId, PluginFault};

use crate::gateway::Gateway;
use crate::policy::questions::{AnswerDetails, BatchOutcome, PendingQuestion};

/// A question to a policy about a session, a room or a batch of them.
pub(super) trait Question {
    /// Asks the policy, or decides natively if the scenario binds none.
    fn ask(self, gateway: &mut Gateway, now: Instant);

    /// Applies the answer, as far as it holds in the state of now.
    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome;
}

/// The answer to a question, and its author.
pub(super) struct Answer<'a> {
    pub(super) asked: &'a PendingQuestion,
    pub(super) answer: Result<HookAnswer, PluginFault>,
    pub(super) by: &'a Decider,
    pub(super) beside: &'a AnswerDetails,
    /// For a question about a placement: the native default.
    pub(super) native: &'a [NodeId],
}
