//! Asks around the rows over which a plugin fails: the batch is halved until each of them is alone.
//!
//! Parts are asked one after the other, each with the memo that the part before it left; within one question they come in
//! the order of its rows, those that were suspected before behind all others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_core::{Answer, Answered, Apart, Fault, Note, Poisoned, Question, State};

use crate::guest::Said;
use crate::limits::NOTES_MAX;
use crate::policy::Policy;
use crate::quarantine::HELD_MAX;

/// Parts of one question that are asked about: two rows among thousands are found within it. A plugin that fails over
/// many is not asked on until the next question.
const ASKS_MAX: usize = 64;

/// A part has its share of the batch's budget, and this at least: the engine counts by it.
const SHARE_MIN: Duration = Duration::from_millis(1);

/// Questions that a plugin answers in portions before it is tried with twice as many at a time: at one in a second, in a
/// quarter of an hour.
const TRY_MORE_AFTER: u32 = 1_000;

/// How many a plugin is asked about at once whose memory was too small for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Portion {
    pub(crate) most: usize,
    /// Questions since, none of which was too large.
    answered: u32,
}

impl Portion {
    fn answered(self) -> Portion {
        match self.answered + 1 {
            TRY_MORE_AFTER => Portion { most: self.most.saturating_mul(2), answered: 0 },
            answered => Portion { answered, ..self },
        }
    }
}

/// Rows that are asked about together.
struct Part {
    /// In their order; never none.
    rows: Vec<u32>,
    fails: Fails,
    /// Whether rows in it were suspected before this question.
    suspected: bool,
}

/// What is known of a part before it is asked about.
enum Fails {
    Unknown,
    /// It was asked about, and the plugin failed so.
    Surely(Fault),
    /// The plugin failed so over this and the part before it; if it failed over none of that, it does over this.
    Unless {
        faults: usize,
        fault: Fault,
    },
}

/// One question in parts.
pub(crate) struct Halving<'a> {
    policy: &'a mut Policy,
    question: &'a Question,
    ids: Vec<u64>,
    now_us: u64,
    began: Instant,
    /// None: there is no end to it.
    until: Option<Instant>,
    /// The next part last.
    waiting: Vec<Part>,
    asks: usize,
    faults: usize,
    answers: usize,
    /// Rows of the smallest part for which its memory was too small.
    smallest_hungry: Option<usize>,
    /// Over which the plugin fails alone.
    found: Vec<(u32, Fault)>,
    last: Option<Fault>,
    apart: Apart,
    answer: Answer,
    memo: Option<State>,
    notes: Vec<Note>,
    ungranted: u32,
}

impl<'a> Halving<'a> {
    /// A batch of the sessions or rooms `ids`, over which the plugin failed so as a whole, or which is too large for it, or
    /// holds some that are left out or suspected.
    pub(crate) fn new(
        policy: &'a mut Policy,
        question: &'a Question,
        ids: Vec<u64>,
        failed: Option<Fault>,
        now_us: u64,
        (began, until): (Instant, Option<Instant>),
    ) -> Halving<'a> {
        let (answer, memo) = match question {
            Question::Reroute { memo, .. } => {
                (Answer::Moves { moves: Vec::new(), states: Vec::new(), memo: None }, memo.clone())
            }
            Question::Tick { memo, .. } => {
                let (actions, states) = (Vec::new(), Vec::new());
                (Answer::Actions { actions, states, memo: None }, memo.clone())
            }
            Question::Resolve { .. } | Question::Admit { .. } | Question::Place { .. } => {
                (Answer::Params(Vec::new()), None)
            }
        };
        let smallest_hungry = (failed == Some(Fault::OutOfMemory)).then_some(ids.len());
        let mut halving = Halving {
            policy,
            question,
            ids,
            now_us,
            began,
            until,
            waiting: Vec::new(),
            asks: 0,
            faults: usize::from(failed.is_some()),
            answers: 0,
            smallest_hungry,
            found: Vec::new(),
            last: failed.clone(),
            apart: Apart { fault: failed.clone(), ..Apart::default() },
            answer,
            memo,
            notes: Vec::new(),
            ungranted: 0,
        };
        halving.sort_rows(failed);
        halving
    }

    /// Who is left out, who is suspected, and the others, who are asked about first.
    fn sort_rows(&mut self, failed: Option<Fault>) {
        let (mut others, mut suspects, mut of) = (Vec::new(), Vec::new(), None);
        let quarantine = &mut self.policy.quarantine;
        for (row, &id) in (0..).zip(&self.ids) {
            if let Some(fault) = quarantine.meets(id, self.now_us) {
                self.apart.poisoned.push(Poisoned { row, fault });
            } else if let Some(fault) = quarantine.suspects(id) {
                of = Some(fault.clone());
                suspects.push(row);
            } else {
                others.push(row);
            }
        }
        if let Some(fault) = of {
            let fails = Fails::Surely(fault);
            self.waiting.push(Part { rows: suspects, fails, suspected: true });
        }
        match (&others[..], failed) {
            ([], _) => {}
            // It was just asked about, with all the time that there is.
            (&[row], Some(fault)) => self.found.push((row, fault)),
            (_, Some(fault)) => {
                let fails = Fails::Surely(fault);
                self.waiting.push(Part { rows: others, fails, suspected: false });
            }
            (_, None) => {
                // Whom there was no time for is asked about first.
                let first = self.policy.first.take();
                let begin = first.and_then(|first| {
                    others.iter().position(|row| self.ids[*row as usize] == first)
                });
                others.rotate_left(begin.unwrap_or(0));
                let most =
                    self.policy.portion.as_ref().map_or(others.len(), |portion| portion.most);
                let parts = others.chunks(most).rev();
                self.waiting.extend(parts.map(|rows| Part {
                    rows: rows.to_vec(),
                    fails: Fails::Unknown,
                    suspected: false,
                }));
            }
        }
    }

    /// Asks until everybody was asked about, or it has taken all the time, or asks, that there are.
    pub(crate) fn seek(mut self) -> Result<Answered, Fault> {
        while let Some(part) = self.waiting.pop() {
            let Part { rows, fails, suspected } = part;
            let fails = match fails {
                Fails::Unless { faults, fault } if faults == self.faults => Fails::Surely(fault),
                Fails::Unless { .. } => Fails::Unknown,
                fails => fails,
            };
            if let (Fails::Surely(fault), 2..) = (&fails, rows.len()) {
                let fault = fault.clone();
                self.halve(rows, fault, suspected);
                continue;
            }
            let nobody_suspects = !suspected && matches!(fails, Fails::Unknown);
            let budget = if self.is_first() && nobody_suspects {
                // As if there were nobody else in the question.
                self.policy.budget(self.question)
            } else {
                self.share(rows.len())
            };
            if !self.may_ask(budget) {
                self.waiting.push(Part { rows, fails, suspected });
                break;
            }
            let until = self.until.filter(|_| !self.is_first());
            let cut = |fault: &Fault| {
                *fault == Fault::Deadline && until.is_some_and(|until| Instant::now() >= until)
            };
            match self.ask(&rows, budget, until) {
                Ok(said) => self.take(&rows, said),
                Err(fault) if !fault.is_of_question() || cut(&fault) => {
                    // Nothing is said about these rows by that.
                    self.last.get_or_insert(fault);
                    self.waiting.push(Part { rows, fails, suspected });
                    break;
                }
                Err(fault) => self.note_fault(rows, fault, suspected)?,
            }
        }
        self.conclude()
    }

    fn halve(&mut self, mut rows: Vec<u32>, fault: Fault, suspected: bool) {
        let rest = rows.split_off(rows.len().div_ceil(2));
        let fails = match fault {
            // Fewer may be few enough.
            Fault::OutOfMemory => Fails::Unknown,
            fault => Fails::Unless { faults: self.faults, fault },
        };
        self.waiting.push(Part { rows: rest, fails, suspected });
        self.waiting.push(Part { rows, fails: Fails::Unknown, suspected });
    }

    /// Who is alone has the time of a whole batch, or half of what this question has, where that is less; but half of a
    /// batch's at least, since nobody is to be left out because a machine was slow.
    fn share(&self, rows: usize) -> Duration {
        let batch = self.policy.budget(self.question);
        let within = self.until.map_or(Duration::MAX, |until| until - self.began);
        let whole = (within / 2).clamp(batch / 2, batch);
        if rows == 1 {
            return whole;
        }
        let (rows, all) = (rows as u32, self.ids.len() as u32);
        (whole.saturating_mul(rows) / all.max(1)).max(SHARE_MIN).min(whole)
    }

    /// What a question begins with is asked however late it is, as others are.
    fn is_first(&self) -> bool {
        self.faults + self.asks == 0
    }

    fn may_ask(&self, budget: Duration) -> bool {
        // A call is stopped by a clock that ticks so often.
        let ends = || Instant::now().checked_add(budget + SHARE_MIN);
        let fits = |until: Instant| ends().is_some_and(|ends| ends <= until);
        self.asks < ASKS_MAX && (self.is_first() || self.until.is_none_or(fits))
    }

    fn ask(
        &mut self,
        rows: &[u32],
        budget: Duration,
        until: Option<Instant>,
    ) -> Result<Said, Fault> {
        self.asks += 1;
        let (question, now_us, memo) = (self.question, self.now_us, self.memo.as_ref());
        self.policy.act(|guest| {
            guest.hear(now_us, until, |guest| {
                guest.answer_part(question, rows, memo, budget, now_us)
            })
        })
    }

    /// # Errors
    /// Where nobody else can be left out: then the plugin fails as a whole.
    fn note_fault(&mut self, rows: Vec<u32>, fault: Fault, suspected: bool) -> Result<(), Fault> {
        self.faults += 1;
        if fault == Fault::OutOfMemory {
            let rows = rows.len();
            self.smallest_hungry = Some(self.smallest_hungry.map_or(rows, |least| least.min(rows)));
        }
        self.last = Some(fault.clone());
        if !suspected {
            self.apart.fault.get_or_insert_with(|| fault.clone());
        }
        if self.policy.quarantine.is_full(self.now_us) {
            self.policy.say(&format!("{HELD_MAX} are quarantined: it is not asked around more"));
            return Err(fault);
        }
        match rows[..] {
            [row] => self.found.push((row, fault)),
            _ => self.waiting.push(Part { rows, fails: Fails::Surely(fault), suspected }),
        }
        Ok(())
    }

    /// An answer about some rows joins the others, with the rows as they are counted in the whole question.
    fn take(&mut self, rows: &[u32], said: Said) {
        self.answers += 1;
        self.ungranted += said.ungranted;
        // A row that nobody asked about is none in the whole question either.
        let whole = |row: u32| rows.get(row as usize).copied().unwrap_or(u32::MAX);
        let room = NOTES_MAX.saturating_sub(self.notes.len());
        let notes = said.notes.into_iter().take(room);
        self.notes.extend(notes.map(|note| Note { row: whole(note.row), ..note }));
        let new_memo = match (&mut self.answer, said.answer) {
            (
                Answer::Actions { actions, states, memo },
                Answer::Actions { actions: more, states: written, memo: new },
            ) => {
                actions.extend(more.into_iter().map(|mut action| {
                    action.row = whole(action.row);
                    action
                }));
                states.extend(written.into_iter().map(|(row, state)| (whole(row), state)));
                new.inspect(|new| *memo = Some(new.clone()))
            }
            (
                Answer::Moves { moves, states, memo },
                Answer::Moves { moves: more, states: written, memo: new },
            ) => {
                moves.extend(more.into_iter().map(|mut step| {
                    step.row = whole(step.row);
                    step
                }));
                states.extend(written.into_iter().map(|(row, state)| (whole(row), state)));
                new.inspect(|new| *memo = Some(new.clone()))
            }
            (whole, answer) => {
                *whole = answer;
                None
            }
        };
        self.memo = new_memo.or(self.memo.take());
    }

    /// Where nobody was answered it may be the plugin that is ill, and not who was asked about.
    fn conclude(mut self) -> Result<Answered, Fault> {
        let mut alone = BTreeSet::new();
        let left_out_before = self.apart.poisoned.len();
        for (row, fault) in std::mem::take(&mut self.found) {
            let id = self.ids[row as usize];
            let quarantine = &mut self.policy.quarantine;
            if self.answers > 0 || quarantine.accuse(id) {
                quarantine.hold(id, fault.clone(), self.now_us);
                self.apart.poisoned.push(Poisoned { row, fault });
            } else {
                self.apart.unasked.push(row);
                alone.insert(id);
            }
        }
        let suspects = self.suspects().unwrap_or((alone, self.last.clone()));
        self.policy.quarantine.suspect(suspects);
        let found_some = self.apart.poisoned.len() > left_out_before;
        self.learn_how_many(found_some);
        if let Some(fault) = self.last.filter(|_| self.answers == 0 && !found_some) {
            return Err(fault);
        }
        if self.answers > 0 {
            self.policy.quarantine.note_answer();
        }
        let in_order = |part: &&Part| !part.suspected && matches!(part.fails, Fails::Unknown);
        let next = self.waiting.iter().rev().find(in_order).and_then(|part| part.rows.first());
        self.policy.first = next.map(|row| self.ids[*row as usize]);
        let left = self.waiting.iter().flat_map(|part| &part.rows);
        self.apart.unasked.extend(left);
        self.apart.unasked.sort_unstable();
        self.apart.poisoned.sort_unstable_by_key(|poisoned| poisoned.row);
        let said = Said {
            answer: self.answer,
            notes: self.notes,
            took: self.began.elapsed(),
            ungranted: self.ungranted,
        };
        let apart = Apart { in_parts: self.asks > 1, ..self.apart };
        let apart = Some(apart).filter(|apart| *apart != Apart::default()).map(Box::new);
        Ok(Answered { apart, ..self.policy.answered(said) })
    }

    /// A plugin that ran out of memory, and over nobody alone, was asked about too many at once: it is asked about half of what
    /// it failed over from now on. Where somebody was found it was not that.
    fn learn_how_many(&mut self, found_some: bool) {
        match self.smallest_hungry {
            Some(rows) if !found_some => {
                let most = (rows / 2).max(1);
                let words =
                    format!("too many at once for its memory: it is asked about {most} at a time");
                self.policy.portion = Some(Portion { most, answered: 0 });
                self.policy.say(&words);
            }
            Some(_) => {}
            None => self.policy.portion = self.policy.portion.take().map(Portion::answered),
        }
    }

    /// The next rows of which it is known that the plugin fails over one of them, and how.
    fn suspects(&self) -> Option<(BTreeSet<u64>, Option<Fault>)> {
        let mut before: &[u32] = &[];
        for part in self.waiting.iter().rev() {
            let (rows, fault) = match &part.fails {
                Fails::Surely(fault) => (&[][..], fault),
                // The part before this one was not asked about: it is in either.
                Fails::Unless { faults, fault } if *faults == self.faults => (before, fault),
                Fails::Unless { .. } | Fails::Unknown => {
                    before = &part.rows;
                    continue;
                }
            };
            let ids = rows.iter().chain(&part.rows).map(|row| self.ids[*row as usize]);
            return Some((ids.collect(), Some(fault.clone())));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_about_few_is_tried_with_more_after_a_while() {
        let mut portion = Portion { most: 512, answered: 0 };
        for answered in 1..TRY_MORE_AFTER {
            portion = portion.answered();
            assert_eq!(portion, Portion { most: 512, answered });
        }
        assert_eq!(portion.answered(), Portion { most: 1_024, answered: 0 });
    }
}
