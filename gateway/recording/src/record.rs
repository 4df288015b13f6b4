//! What a recording is made of.

use std::sync::Arc;

use evenkeel_core::{Answered, AskId, Fault, Outcome, Question};

use crate::revision::{Catalog, Revision};

/// What a recording is made of, in the order in which it was written down.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// A question that a plugin was asked, and what it said.
    Call(Box<Call>),
    /// What became of it in the core.
    Decided(Decided),
    /// So many calls were made here that are not in the recording: more came than could be written down.
    Missed(u64),
}

/// A question that a plugin was asked, and what it said.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// Who answered.
    pub revision: Arc<Revision>,
    /// What it knew of nodes, zones and regions.
    pub catalog: Arc<Catalog>,
    /// By which [`Decided`] speaks of it.
    pub ask: AskId,
    /// Gateway time, microseconds since it started.
    pub now_us: u64,
    /// The whole question. Of measures those that were granted; all others are unmeasured once it is read.
    pub question: Arc<Question>,
    /// What the plugin said: decision, states, memo, notes and the time it took; or how it failed.
    pub result: Result<Answered, Fault>,
    /// An address was taken out of what the plugin was given or gave: asked again, it may answer something else.
    pub redacted: bool,
}

/// What became of a question in the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// The question.
    pub ask: AskId,
    /// The word in metrics and records: `applied`.
    pub outcome: Box<str>,
    /// The rule that refused it, or how it failed; empty for other outcomes.
    pub detail: Box<str>,
    /// Where it was applied: whether the native default would have done something else. What that is the core does not
    /// keep, so it is not here either.
    pub differs: Option<bool>,
}

impl Decided {
    /// As the core tells of it.
    pub fn of(ask: AskId, outcome: &Outcome) -> Decided {
        let (detail, differs) = match outcome {
            Outcome::Applied { differs } => ("", Some(*differs)),
            Outcome::Guarded(guard) => (guard.name(), None),
            Outcome::Faulted(fault) => (fault.name(), None),
            Outcome::Abstained | Outcome::Kept | Outcome::Stale => ("", None),
        };
        Decided { ask, outcome: outcome.name().into(), detail: detail.into(), differs }
    }
}
