use std::sync::Arc;

use evenkeel_core::{Answered, AskId, Fault, Outcome, Question};

use crate::revision::{Catalog, Revision};

/// A record. Records keep the order in which they were written.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    Call(Box<Call>),
    Decided(Decided),
    /// This number of calls is missing here, because they arrived faster than they could be written.
    Missed(u64),
}

/// A question to a plugin and its answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    pub revision: Arc<Revision>,
    /// Nodes, zones and regions known to the plugin.
    pub catalog: Arc<Catalog>,
    /// Identifies the call in its [`Decided`].
    pub ask: AskId,
    /// Gateway time, microseconds since its start.
    pub now_us: u64,
    /// The question. Measures that were not granted are recorded as unmeasured.
    pub question: Arc<Question>,
    /// The answer with states, memo, notes and time, or the fault.
    pub result: Result<Answered, Fault>,
    /// True if an address was removed from the call. A replay may then answer differently.
    pub redacted: bool,
}

/// The core's decision about an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    pub ask: AskId,
    /// Name of the outcome in metrics and records: `applied`.
    pub outcome: Box<str>,
    /// The guard that rejected the answer, or the fault; empty for other outcomes.
    pub detail: Box<str>,
    /// For an applied answer: true if the native default differs from it. The default's answer is not recorded.
    pub differs: Option<bool>,
}

impl Decided {
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
