//! Detects plugins with hidden state: now and then a fresh instance is asked the same question.

use std::time::{Duration, Instant};

use evenkeel_model::{HookAnswer, PluginFault, PolicyQuestion, RevisionAnswer};

use crate::guest::Guest;
use crate::log::PluginLog;
use crate::policy::BoundPlugin;

/// The first answers of a revision are all checked, since hidden state shows soon.
const FIRST: u64 = 4;

/// Of later answers one in this number is checked, which finds permanent hidden state within minutes, at a
/// thousandth of the cost.
const ONE_IN: u64 = 1_024;

/// Counts the answers of one revision, and the checked ones among them.
#[derive(Default, Debug)]
pub(crate) struct DeterminismCheck {
    answers: u64,
    /// Number of the next answer to check, at the earliest.
    next: u64,
    looked: u64,
    asked: u64,
    differed: u64,
    /// Startup time of the current instance.
    pub(crate) started_in: Duration,
}

impl DeterminismCheck {
    pub(crate) fn note_answer(&mut self) {
        self.answers += 1;
    }

    pub(crate) fn new(started_in: Duration) -> DeterminismCheck {
        DeterminismCheck { started_in, ..DeterminismCheck::default() }
    }

    fn is_due(&self) -> bool {
        self.answers > self.next
    }

    fn note_asked(&mut self) {
        self.looked += 1;
        self.next = if self.looked < FIRST { self.answers } else { self.answers + ONE_IN - 1 };
    }

    /// The machine was too slow for a check, which does not count among the first ones.
    fn note_skipped(&mut self) {
        if self.looked <= FIRST {
            (self.looked, self.next) = (self.looked - 1, self.answers);
        }
    }
}

impl BoundPlugin {
    /// True if the last answer is due for a check: the first four of a revision, then one in 1,024.
    /// If there is no time, the next one is due.
    pub fn is_check_due(&self) -> bool {
        self.determinism.is_due()
    }

    /// Asks a fresh instance the same question and describes the first difference from this answer, which remains
    /// valid. A deterministic plugin has no difference.
    ///
    /// The check is skipped if starting and asking would exceed the question's budget, and so delay the next question,
    /// or if the answer came in parts.
    pub fn check_determinism(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
        first: &RevisionAnswer,
    ) -> Option<Box<str>> {
        self.determinism.note_asked();
        let takes = self.determinism.started_in + first.took;
        if takes > self.budget(question) || first.apart.is_some() {
            return None;
        }
        let Ok(differs) = self.compare_with_fresh(question, now_us, first) else {
            self.determinism.note_skipped();
            return None;
        };
        self.determinism.asked += 1;
        self.determinism.differed += u64::from(differs.is_some());
        differs
    }

    /// Number of answers that differed, and number of answers checked.
    pub fn hidden_state(&self) -> (u64, u64) {
        (self.determinism.differed, self.determinism.asked)
    }

    /// # Errors
    /// No instance started, or the machine was too slow.
    fn compare_with_fresh(
        &self,
        question: &PolicyQuestion,
        now_us: u64,
        first: &RevisionAnswer,
    ) -> Result<Option<Box<str>>, PluginFault> {
        let mut log = PluginLog::default();
        let Ok(mut fresh) = Guest::start(self.recipe(), &mut log) else {
            return Err(PluginFault::Absent);
        };
        let until = Instant::now().checked_add(self.budget(question));
        match fresh.ask(now_us, until, |guest| guest.answer(question, now_us)) {
            Ok(second) if second.answer != first.answer => {
                Ok(Some(difference(&first.answer, &second.answer).into()))
            }
            Ok(second) if second.notes != first.notes => Ok(Some("its notes".into())),
            Ok(_) => Ok(None),
            Err(fault @ (PluginFault::Deadline | PluginFault::Late | PluginFault::Absent)) => {
                Err(fault)
            }
            Err(
                fault @ (PluginFault::Trap(_)
                | PluginFault::OutOfMemory
                | PluginFault::Malformed(_)),
            ) => Ok(Some(format!("a fresh instance fails: {fault}").into())),
        }
    }
}

fn difference(first: &HookAnswer, second: &HookAnswer) -> &'static str {
    match (first, second) {
        (
            HookAnswer::Actions { actions, states, .. },
            HookAnswer::Actions { actions: a, states: s, .. },
        ) => match () {
            () if actions != a => "its actions",
            () if states != s => "states that it wrote",
            () => "its memo",
        },
        (
            HookAnswer::Moves { moves, states, .. },
            HookAnswer::Moves { moves: m, states: s, .. },
        ) => match () {
            () if moves != m => "its moves",
            () if states != s => "states that it wrote",
            () => "its memo",
        },
        (HookAnswer::Placed { state, .. }, HookAnswer::Placed { state: other, .. })
            if state != other =>
        {
            "the state that it wrote"
        }
        (
            HookAnswer::Actions { .. }
            | HookAnswer::Moves { .. }
            | HookAnswer::Placed { .. }
            | HookAnswer::Admit { .. }
            | HookAnswer::Params(_),
            _,
        ) => "its decision",
    }
}

#[cfg(test)]
mod tests;
