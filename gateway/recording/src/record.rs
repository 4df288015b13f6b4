use std::sync::Arc;

use evenkeel_model::{AskId, DecisionOutcome, PluginFault, PolicyQuestion, RevisionAnswer};

use crate::revision::{RecordedCatalog, RecordedRevision};

/// A record. Records keep the order in which they were written.
#[derive(Clone, PartialEq, Debug)]
pub enum RecordingEntry {
    /// A question to a plugin, and its answer.
    Call(Box<RecordedCall>),
    /// The decision that followed an answer, which is known later.
    Decided(RecordedDecision),
    /// This number of calls is missing here, because they arrived faster than they could be written.
    Missed(u64),
}

/// A question to a plugin and its answer.
#[derive(Clone, PartialEq, Debug)]
pub struct RecordedCall {
    /// The asked revision.
    pub revision: Arc<RecordedRevision>,
    /// Nodes, zones and regions known to the plugin.
    pub catalog: Arc<RecordedCatalog>,
    /// Identifies the call in its [`RecordedDecision`].
    pub ask: AskId,
    /// Gateway time, microseconds since its start.
    pub now_us: u64,
    /// The question. Measures that were not granted are recorded as unmeasured.
    pub question: Arc<PolicyQuestion>,
    /// The answer with states, memo, notes and time, or the fault.
    pub result: Result<RevisionAnswer, PluginFault>,
    /// True if an address was removed from the call. A replay may then answer differently.
    pub redacted: bool,
}

/// The core's decision about an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedDecision {
    /// The question that the decision answers.
    pub ask: AskId,
    /// Name of the outcome in metrics and records: `applied`.
    pub(crate) outcome: Box<str>,
    /// The guard that rejected the answer, or the fault; empty for other outcomes.
    pub(crate) detail: Box<str>,
    /// For an applied answer: true if the native default differs from it. The default's answer is not recorded.
    pub(crate) differs: Option<bool>,
}

impl RecordedDecision {
    /// Takes name and reason of the outcome.
    pub fn of(ask: AskId, outcome: &DecisionOutcome) -> RecordedDecision {
        let (detail, differs) = match outcome {
            DecisionOutcome::Applied { differs } => ("", Some(*differs)),
            DecisionOutcome::Guarded(guard) => (guard.name(), None),
            DecisionOutcome::Faulted(fault) => (fault.name(), None),
            DecisionOutcome::Abstained | DecisionOutcome::Kept | DecisionOutcome::Stale => {
                ("", None)
            }
        };
        RecordedDecision { ask, outcome: outcome.name().into(), detail: detail.into(), differs }
    }
}
