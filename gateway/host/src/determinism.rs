//! Catches plugins that keep something to themselves between questions: now and then a fresh instance is asked the same.

use std::time::{Duration, Instant};

use evenkeel_core::{Answer, Answered, Fault, Question};

use crate::log::Diary;
use crate::guest::Guest;
use crate::policy::Policy;

/// So many answers of a revision are looked at one after the other: what it hides shows soon, and a bad one is to be known
/// early.
const FIRST: u64 = 4;

/// Later it is one in so many: a plugin that hides something at every question is found within minutes, at a thousandth of
/// the work.
const ONE_IN: u64 = 1_024;

/// Answers of one revision, and those that a fresh instance was asked for too.
#[derive(Default, Debug)]
pub(crate) struct Twice {
    answers: u64,
    /// The number of the answer that is looked at next, or of one after it.
    next: u64,
    looked: u64,
    asked: u64,
    differed: u64,
    /// How long the living instance took to start.
    pub(crate) started_in: Duration,
}

impl Twice {
    pub(crate) fn note_answer(&mut self) {
        self.answers += 1;
    }

    pub(crate) fn new(started_in: Duration) -> Twice {
        Twice { started_in, ..Twice::default() }
    }

    fn is_due(&self) -> bool {
        self.answers > self.next
    }

    fn note_asked(&mut self) {
        self.looked += 1;
        self.next = if self.looked < FIRST { self.answers } else { self.answers + ONE_IN - 1 };
    }

    /// The machine was too slow to tell: of the first ones it does not count.
    fn note_untold(&mut self) {
        if self.looked <= FIRST {
            (self.looked, self.next) = (self.looked - 1, self.answers);
        }
    }
}

impl Policy {
    /// Whether its last answer is one for which a fresh instance is to be asked as well: the first four of a revision, and
    /// then one in 1,024. Where nobody has the time, it is the next one.
    pub fn is_due_twice(&self) -> bool {
        self.twice.is_due()
    }

    /// Asks a fresh instance the same, and says in what its answer differs from this first one, which stands. A plugin
    /// that depends on nothing but what it is told differs in nothing.
    ///
    /// Where starting one and asking it would take longer than a question may, nobody is asked: the next one would wait for
    /// it. And neither where the first answer came in parts.
    pub fn ask_twice(
        &mut self,
        question: &Question,
        now_us: u64,
        first: &Answered,
    ) -> Option<Box<str>> {
        self.twice.note_asked();
        let takes = self.twice.started_in + first.took;
        if takes > self.budget(question) || first.apart.is_some() {
            return None;
        }
        let Ok(differs) = self.second_opinion(question, now_us, first) else {
            self.twice.note_untold();
            return None;
        };
        self.twice.asked += 1;
        self.twice.differed += u64::from(differs.is_some());
        differs
    }

    /// How many answers differed from those of a fresh instance, of how many.
    pub fn hidden_state(&self) -> (u64, u64) {
        (self.twice.differed, self.twice.asked)
    }

    /// # Errors
    /// Where nothing can be said: no instance was started, or the machine was too slow for it.
    fn second_opinion(
        &self,
        question: &Question,
        now_us: u64,
        first: &Answered,
    ) -> Result<Option<Box<str>>, Fault> {
        let mut diary = Diary::default();
        let Ok(mut fresh) = Guest::start(self.recipe(), &mut diary) else {
            return Err(Fault::Absent);
        };
        let until = Instant::now().checked_add(self.budget(question));
        match fresh.hear(now_us, until, |guest| guest.answer(question, now_us)) {
            Ok(second) if second.answer != first.answer => {
                Ok(Some(difference(&first.answer, &second.answer).into()))
            }
            Ok(second) if second.notes != first.notes => Ok(Some("its notes".into())),
            Ok(_) => Ok(None),
            Err(fault @ (Fault::Deadline | Fault::Late | Fault::Absent)) => Err(fault),
            Err(fault @ (Fault::Trap(_) | Fault::OutOfMemory | Fault::Malformed(_))) => {
                Ok(Some(format!("a fresh instance fails: {fault}").into()))
            }
        }
    }
}

/// In what two answers to one question differ first.
fn difference(first: &Answer, second: &Answer) -> &'static str {
    match (first, second) {
        (
            Answer::Actions { actions, states, .. },
            Answer::Actions { actions: a, states: s, .. },
        ) => match () {
            () if actions != a => "its actions",
            () if states != s => "states that it wrote",
            () => "its memo",
        },
        (Answer::Moves { moves, states, .. }, Answer::Moves { moves: m, states: s, .. }) => {
            match () {
                () if moves != m => "its moves",
                () if states != s => "states that it wrote",
                () => "its memo",
            }
        }
        (Answer::Placed { state, .. }, Answer::Placed { state: other, .. }) if state != other => {
            "the state that it wrote"
        }
        (
            Answer::Actions { .. }
            | Answer::Moves { .. }
            | Answer::Placed { .. }
            | Answer::Admit { .. }
            | Answer::Params(_),
            _,
        ) => "its decision",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_answers_are_looked_at_and_then_one_in_1024() {
        let mut twice = Twice::default();
        let mut looked_at = Vec::new();
        for answer in 1..=5_000 {
            twice.note_answer();
            if twice.is_due() {
                looked_at.push(answer);
                twice.note_asked();
            }
        }
        assert_eq!(looked_at, [1, 2, 3, 4, 1_028, 2_052, 3_076, 4_100]);
    }

    #[test]
    fn where_nobody_has_the_time_it_is_the_next_one() {
        let mut twice = Twice::default();
        for _ in 0..9 {
            twice.note_answer();
        }
        assert!(twice.is_due());
        twice.note_asked();
        assert!(!twice.is_due());
    }

    /// A revision is asked before it is in force, when nobody compares.
    #[test]
    fn four_are_looked_at_however_much_was_asked_before() {
        let mut twice = Twice::default();
        (0..100).for_each(|_| twice.note_answer());
        for _ in 0..4 {
            assert!(twice.is_due());
            twice.note_asked();
            twice.note_answer();
        }
        assert!(!twice.is_due());
    }
}
