//! The proof of a revision before it is used: it answers the questions that the policy answered last, and an instance that is
//! asked the same questions again answers like a fresh one.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::{BoundPlugin, PluginRefusal, answer_difference, processor_time};
use evenkeel_model::{Breach, PluginFault, PolicyQuestion, RevisionAnswer};

/// Calls of one instance that repeat questions: static state that matters shows after a thousand.
const REPEATED_MAX: usize = 1_024;

/// Maximum processor time of these calls, so that a slow plugin is proved soon.
pub(super) const REPEATED_FOR: Duration = Duration::from_millis(500);

/// The memory of an instance is read this often. A plugin that keeps what it needs again has it after the first quarter.
const QUARTERS: usize = 4;

/// A question with the time at which it was asked.
pub(super) type AskedQuestion = (Arc<PolicyQuestion>, u64);

/// The reason why a revision is not proved.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProofFailure {
    #[error(transparent)]
    NotStarted(#[from] PluginRefusal),
    /// The revision failed on a question that the policy had answered before.
    #[error("in one of the {questions} recorded questions, {fault}")]
    Replay { questions: usize, fault: PluginRefusal },
    #[error("in call {call} of a trial on copies of the nodes, {fault}")]
    Trial { call: usize, fault: PluginRefusal },
    #[error("in a trial on copies of the nodes, {0}")]
    Broke(Breach),
    #[error(
        "in a trial on copies of the nodes, it lowered and raised the bit rate of a session {times} times in {of:?}"
    )]
    Flaps { times: u32, of: Duration },
    #[error("in call {call} of an instance that answers the same questions in turn, {fault}")]
    Repeated { call: usize, fault: PluginRefusal },
    #[error(
        "it keeps state between calls: after {call} of them an instance and a fresh one differ in {differs}"
    )]
    HiddenState { call: usize, differs: &'static str },
    #[error(
        "it leaks memory: {from_kib} KiB grow to {to_kib} KiB as it answers the same questions"
    )]
    Leaks { from_kib: usize, to_kib: usize },
}

impl ProofFailure {
    /// The stable code in metrics, events and the API.
    pub(super) fn code(&self) -> &'static str {
        match self {
            ProofFailure::NotStarted(refused) => refused.code(),
            _ => "proof-failed",
        }
    }
}

/// Replays the recorded questions.
pub(super) fn replay(
    plugin: &mut BoundPlugin,
    questions: &[AskedQuestion],
) -> Result<(), ProofFailure> {
    for (question, now_us) in questions {
        let failed = |fault| ProofFailure::Replay { questions: questions.len(), fault };
        let answered = ask(plugin, question, *now_us).map_err(failed)?;
        let isolated = answered.isolated.filter(|isolated| !isolated.unasked.is_empty());
        if let Some(fault) = isolated.and_then(|isolated| isolated.fault) {
            return Err(failed(PluginRefusal::Faulted { call: plugin.calling(), fault }));
        }
    }
    Ok(())
}

/// Asks one instance the questions in turn for this time, and compares its answers with those of fresh instances.
pub(super) fn repeat(
    plugin: &BoundPlugin,
    questions: &[AskedQuestion],
    within: Duration,
) -> Result<(), ProofFailure> {
    let mut firsts = Vec::new();
    for (question, now_us) in questions {
        let first = ask(&mut plugin.another()?, question, *now_us);
        let first = first.map_err(|fault| ProofFailure::Repeated { call: 1, fault })?;
        firsts.push((question, *now_us, first));
    }
    let (mut used, mut memory) = (plugin.another()?, Vec::new());
    let until = processor_time().saturating_add(within);
    for (call, (question, now_us, first)) in (1..=REPEATED_MAX).zip(firsts.iter().cycle()) {
        let second = ask(&mut used, question, *now_us);
        let second = second.map_err(|fault| ProofFailure::Repeated { call, fault })?;
        // Answers in parts are not comparable. Memory that sufficed a fresh instance suffices a used one.
        if first.isolated.is_none() {
            let fault = second.isolated.as_ref().and_then(|isolated| isolated.fault.clone());
            if let Some(fault) = fault {
                let fault = PluginRefusal::Faulted { call: used.calling(), fault };
                return Err(ProofFailure::Repeated { call, fault });
            }
            let differs = answer_difference(first, &second);
            if let Some(differs) = differs.filter(|_| second.isolated.is_none()) {
                return Err(ProofFailure::HiddenState { call, differs });
            }
        }
        if call % (REPEATED_MAX / QUARTERS) == 0 {
            memory.push(used.memory_bytes());
        }
        if processor_time() >= until {
            break;
        }
    }
    let grows = memory.len() == QUARTERS && memory.windows(2).all(|of| of[0] < of[1]);
    match memory[..] {
        [from, .., to] if grows => {
            Err(ProofFailure::Leaks { from_kib: from / 1_024, to_kib: to / 1_024 })
        }
        _ => Ok(()),
    }
}

/// Asks as the gateway does, in smaller batches if the plugin's memory is too small for all rows.
pub(super) fn ask(
    plugin: &mut BoundPlugin,
    question: &PolicyQuestion,
    now_us: u64,
) -> Result<RevisionAnswer, PluginRefusal> {
    let asked = plugin.ask_within_memory(question, now_us);
    let fault = match &asked {
        Ok(answered) => answered.isolated.as_ref().and_then(|isolated| {
            let of_batch = isolated.fault.as_ref().filter(|it| **it != PluginFault::OutOfMemory);
            isolated.poisoned.first().map(|poisoned| &poisoned.fault).or(of_batch).cloned()
        }),
        Err(fault) => Some(fault.clone()),
    };
    let refused = |fault| PluginRefusal::Faulted { call: plugin.calling(), fault };
    match (fault, asked) {
        (None, Ok(answered)) => Ok(answered),
        (Some(fault), _) | (None, Err(fault)) => Err(refused(fault)),
    }
}

#[cfg(test)]
mod tests;
