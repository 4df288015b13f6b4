//! Isolates rows on which a plugin fails, by bisecting the batch, and leaves them out of later questions.
//!
//! Parts are asked one after the other, each with the memo that the previous part returned. Within a question they come
//! in row order, with earlier suspects last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenkeel_model::{
    DecisionNote, HookAnswer, IsolatedRows, PluginFault, PluginState, Poisoned, PolicyQuestion,
};

use crate::guest::{GuestReply, SupervisedGuest};
use crate::limits::NOTES_MAX;

/// Maximum parts asked per question: enough to find two rows among thousands. A larger search continues with the next
/// question.
const CALLS_MAX: usize = 64;

/// Minimum budget of a part: the engine's clock tick.
const SHARE_MIN: Duration = Duration::from_millis(1);

/// Questions answered in smaller batches before the batch size is doubled: 17 minutes at one question per second.
const GROW_AFTER: u32 = 1_000;

/// Maximum quarantined rows. A revision that fails on more rows is itself broken, and no longer bisected.
const HELD_MAX: usize = 256;

/// Maximum rows that failed alone once; the one with the lowest id is dropped.
const ACCUSED_MAX: usize = 64;

/// A row that was in no question for this long is gone, and frees its place if the quarantine is full.
const GONE_AFTER_US: u64 = 60_000_000;

/// Rows that one revision is not asked about, and the size of its batches.
#[derive(Default, Debug)]
pub(crate) struct BatchIsolation {
    pub(crate) quarantine: RowQuarantine,
    /// Set if a whole batch exceeded the plugin's memory.
    limit: Option<BatchLimit>,
    /// The session or room at which the next batch starts, if the last one ran out of time.
    first: Option<u64>,
}

impl BatchIsolation {
    /// Returns whether a batch of this size may be asked as a whole.
    pub(crate) fn takes_whole(&self, rows: usize) -> bool {
        self.limit.is_none_or(|limit| rows <= limit.most) && self.quarantine.is_idle()
    }
}

/// Batch size of a plugin with too little memory for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BatchLimit {
    most: usize,
    /// Questions answered at this batch size.
    answered: u32,
}

impl BatchLimit {
    fn answered(self) -> BatchLimit {
        match self.answered + 1 {
            GROW_AFTER => BatchLimit { most: self.most.saturating_mul(2), answered: 0 },
            answered => BatchLimit { answered, ..self },
        }
    }
}

/// Rows left out of questions to one revision.
#[derive(Default, Debug)]
pub(crate) struct RowQuarantine {
    rows: BTreeMap<u64, QuarantinedRow>,
    /// Rows of which the revision fails on at least one, which was not isolated in time.
    suspects: BTreeSet<u64>,
    suspected_of: Option<PluginFault>,
    /// Rows that were alone in a question when the revision failed, with `answers` at that time.
    accused: BTreeMap<u64, u64>,
    /// Questions, or parts of one, that the revision answered.
    pub(crate) answers: u64,
}

#[derive(Debug)]
struct QuarantinedRow {
    fault: PluginFault,
    /// The last time the row was in a question.
    seen_us: u64,
}

impl RowQuarantine {
    /// No row is quarantined or suspected, so questions need no filtering.
    pub(crate) fn is_idle(&self) -> bool {
        self.rows.is_empty() && self.suspects.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The fault on this row, if the row is quarantined.
    pub(crate) fn check(&mut self, id: u64, now_us: u64) -> Option<PluginFault> {
        let held = self.rows.get_mut(&id)?;
        held.seen_us = held.seen_us.max(now_us);
        Some(held.fault.clone())
    }

    /// The fault on this row or its group, if the row is suspected.
    pub(crate) fn suspects(&self, id: u64) -> Option<&PluginFault> {
        self.suspected_of.as_ref().filter(|_| self.suspects.contains(&id))
    }

    /// Marks rows as suspects. The next question that contains some of them continues the search.
    pub(crate) fn suspect(&mut self, (ids, fault): (BTreeSet<u64>, Option<PluginFault>)) {
        self.suspected_of = fault.filter(|fault| !ids.is_empty() && fault.is_of_question());
        self.suspects = if self.suspected_of.is_some() { ids } else { BTreeSet::new() };
    }

    /// Notes a failure on this row alone, with no other row to show whether the row or the plugin is at fault. Returns
    /// true if the plugin failed on it before and answered other questions in between.
    pub(crate) fn note_alone(&mut self, id: u64) -> bool {
        let answers = self.answers;
        if self.accused.get(&id).is_some_and(|before| *before < answers) {
            return true;
        }
        if self.accused.len() == ACCUSED_MAX {
            self.accused.pop_first();
        }
        self.accused.entry(id).or_insert(answers);
        false
    }

    /// Quarantines a row. Returns false if the quarantine is full.
    pub(crate) fn hold(&mut self, id: u64, fault: PluginFault, now_us: u64) -> bool {
        if self.is_full(now_us) {
            return false;
        }
        self.accused.remove(&id);
        self.rows.insert(id, QuarantinedRow { fault, seen_us: now_us });
        true
    }

    pub(crate) fn is_full(&mut self, now_us: u64) -> bool {
        if self.rows.len() >= HELD_MAX {
            let gone = |held: &QuarantinedRow| now_us.saturating_sub(held.seen_us) > GONE_AFTER_US;
            self.rows.retain(|_, held| !gone(held));
        }
        self.rows.len() >= HELD_MAX
    }
}

struct RowRange {
    /// Row numbers in ascending order; not empty.
    rows: Vec<u32>,
    evidence: FailureEvidence,
    /// The part contains rows suspected before this question.
    suspected: bool,
}

/// Evidence that the plugin fails on a part, before the part is asked.
enum FailureEvidence {
    Unknown,
    /// The part was asked, and the plugin failed.
    Certainly(PluginFault),
    /// The plugin failed on this part and the previous one together. If it does not fail on the previous one alone, it
    /// fails on this one.
    Unless {
        faults: usize,
        fault: PluginFault,
    },
}

pub(crate) struct Bisection<'a> {
    guest: &'a mut SupervisedGuest,
    isolation: &'a mut BatchIsolation,
    question: &'a PolicyQuestion,
    ids: Vec<u64>,
    now_us: u64,
    began: Instant,
    /// `None`: no deadline.
    until: Option<Instant>,
    /// Stack of parts; the next one is last.
    waiting: Vec<RowRange>,
    asks: usize,
    faults: usize,
    answers: usize,
    /// Rows of the smallest part that exceeded the plugin's memory.
    smallest_oom_batch: Option<usize>,
    /// Rows on which the plugin fails alone.
    found: Vec<(u32, PluginFault)>,
    last: Option<PluginFault>,
    isolated: IsolatedRows,
    answer: HookAnswer,
    memo: Option<PluginState>,
    notes: Vec<DecisionNote>,
    ungranted: u32,
}

impl<'a> Bisection<'a> {
    /// Starts with a batch of the sessions or rooms `ids` that failed as a whole, is too large for the plugin, or
    /// contains quarantined or suspected rows.
    pub(crate) fn new(
        guest: &'a mut SupervisedGuest,
        isolation: &'a mut BatchIsolation,
        question: &'a PolicyQuestion,
        ids: Vec<u64>,
        failed: Option<PluginFault>,
        now_us: u64,
        (began, until): (Instant, Option<Instant>),
    ) -> Bisection<'a> {
        let (answer, memo) = match question {
            PolicyQuestion::Reroute { memo, .. } => (
                HookAnswer::Moves { moves: Vec::new(), states: Vec::new(), memo: None },
                memo.clone(),
            ),
            PolicyQuestion::Tick { memo, .. } => {
                let (actions, states) = (Vec::new(), Vec::new());
                (HookAnswer::Actions { actions, states, memo: None }, memo.clone())
            }
            _ => (HookAnswer::Params(Vec::new()), None),
        };
        let smallest_oom_batch = (failed == Some(PluginFault::OutOfMemory)).then_some(ids.len());
        let mut bisection = Bisection {
            guest,
            isolation,
            question,
            ids,
            now_us,
            began,
            until,
            waiting: Vec::new(),
            asks: 0,
            faults: usize::from(failed.is_some()),
            answers: 0,
            smallest_oom_batch,
            found: Vec::new(),
            last: failed.clone(),
            isolated: IsolatedRows { fault: failed.clone(), ..IsolatedRows::default() },
            answer,
            memo,
            notes: Vec::new(),
            ungranted: 0,
        };
        bisection.sort_rows(failed);
        bisection
    }

    /// Sorts rows into quarantined, suspected and other rows. The others are asked first.
    fn sort_rows(&mut self, failed: Option<PluginFault>) {
        let (mut others, mut suspects, mut of) = (Vec::new(), Vec::new(), None);
        let quarantine = &mut self.isolation.quarantine;
        for (row, &id) in (0..).zip(&self.ids) {
            if let Some(fault) = quarantine.check(id, self.now_us) {
                self.isolated.poisoned.push(Poisoned { row, fault });
            } else if let Some(fault) = quarantine.suspects(id) {
                of = Some(fault.clone());
                suspects.push(row);
            } else {
                others.push(row);
            }
        }
        if let Some(fault) = of {
            let evidence = FailureEvidence::Certainly(fault);
            self.waiting.push(RowRange { rows: suspects, evidence, suspected: true });
        }
        match (&others[..], failed) {
            ([], _) => {}
            // The row was just asked alone, with the whole budget.
            (&[row], Some(fault)) => self.found.push((row, fault)),
            (_, Some(fault)) => {
                let evidence = FailureEvidence::Certainly(fault);
                self.waiting.push(RowRange { rows: others, evidence, suspected: false });
            }
            (_, None) => {
                // The next call resumes at the row that timed out.
                let first = self.isolation.first.take();
                let begin = first.and_then(|first| {
                    others.iter().position(|row| self.ids[*row as usize] == first)
                });
                others.rotate_left(begin.unwrap_or(0));
                let most = self.isolation.limit.as_ref().map_or(others.len(), |limit| limit.most);
                let parts = others.chunks(most).rev();
                self.waiting.extend(parts.map(|rows| RowRange {
                    rows: rows.to_vec(),
                    evidence: FailureEvidence::Unknown,
                    suspected: false,
                }));
            }
        }
    }

    /// Asks until all parts are done, or the time or the number of calls is used up.
    pub(crate) fn run(mut self) -> Result<(GuestReply, Option<Box<IsolatedRows>>), PluginFault> {
        while let Some(part) = self.waiting.pop() {
            let RowRange { rows, evidence, suspected } = part;
            let evidence = match evidence {
                FailureEvidence::Unless { faults, fault } if faults == self.faults => {
                    FailureEvidence::Certainly(fault)
                }
                FailureEvidence::Unless { .. } => FailureEvidence::Unknown,
                evidence => evidence,
            };
            if let (FailureEvidence::Certainly(fault), 2..) = (&evidence, rows.len()) {
                let fault = fault.clone();
                self.halve(rows, fault, suspected);
                continue;
            }
            let nobody_suspects = !suspected && matches!(evidence, FailureEvidence::Unknown);
            let budget = if self.is_first() && nobody_suspects {
                // The budget of a question that contains only these rows.
                self.guest.budget(self.question)
            } else {
                self.share(rows.len())
            };
            if !self.may_ask(budget) {
                self.waiting.push(RowRange { rows, evidence, suspected });
                break;
            }
            let until = self.until.filter(|_| !self.is_first());
            let cut = |fault: &PluginFault| {
                *fault == PluginFault::Deadline
                    && until.is_some_and(|until| Instant::now() >= until)
            };
            match self.ask(&rows, budget, until) {
                Ok(said) => self.merge_reply(&rows, said),
                Err(fault) if !fault.is_of_question() || cut(&fault) => {
                    // An absent plugin says nothing about these rows.
                    self.last.get_or_insert(fault);
                    self.waiting.push(RowRange { rows, evidence, suspected });
                    break;
                }
                Err(fault) => self.note_fault(rows, fault, suspected)?,
            }
        }
        self.conclude()
    }

    fn halve(&mut self, mut rows: Vec<u32>, fault: PluginFault, suspected: bool) {
        let rest = rows.split_off(rows.len().div_ceil(2));
        let evidence = match fault {
            // A smaller part may fit.
            PluginFault::OutOfMemory => FailureEvidence::Unknown,
            fault => FailureEvidence::Unless { faults: self.faults, fault },
        };
        self.waiting.push(RowRange { rows: rest, evidence, suspected });
        self.waiting.push(RowRange { rows, evidence: FailureEvidence::Unknown, suspected });
    }

    /// The budget of a call. A single row gets the budget of a whole batch, or half of the question's remaining time if
    /// that is less; but at least half a batch's budget, so that a slow machine quarantines no row.
    fn share(&self, rows: usize) -> Duration {
        let batch = self.guest.budget(self.question);
        let within = self.until.map_or(Duration::MAX, |until| until - self.began);
        let whole = (within / 2).clamp(batch / 2, batch);
        if rows == 1 {
            return whole;
        }
        let (rows, all) = (rows as u32, self.ids.len() as u32);
        (whole.saturating_mul(rows) / all.max(1)).max(SHARE_MIN).min(whole)
    }

    /// The first part is asked even if it is late, as for any question.
    fn is_first(&self) -> bool {
        self.faults + self.asks == 0
    }

    fn may_ask(&self, budget: Duration) -> bool {
        // The engine stops a call at a tick after its budget.
        let ends = || Instant::now().checked_add(budget + SHARE_MIN);
        let fits = |until: Instant| ends().is_some_and(|ends| ends <= until);
        self.asks < CALLS_MAX && (self.is_first() || self.until.is_none_or(fits))
    }

    fn ask(
        &mut self,
        rows: &[u32],
        budget: Duration,
        until: Option<Instant>,
    ) -> Result<GuestReply, PluginFault> {
        self.asks += 1;
        let (question, now_us, memo) = (self.question, self.now_us, self.memo.as_ref());
        self.guest.call_instance(|guest| {
            guest
                .ask(now_us, until, |guest| guest.answer_part(question, rows, memo, budget, now_us))
        })
    }

    fn note_fault(
        &mut self,
        rows: Vec<u32>,
        fault: PluginFault,
        suspected: bool,
    ) -> Result<(), PluginFault> {
        self.faults += 1;
        if fault == PluginFault::OutOfMemory {
            let rows = rows.len();
            self.smallest_oom_batch =
                Some(self.smallest_oom_batch.map_or(rows, |least| least.min(rows)));
        }
        self.last = Some(fault.clone());
        if !suspected {
            self.isolated.fault.get_or_insert_with(|| fault.clone());
        }
        if self.isolation.quarantine.is_full(self.now_us) {
            self.guest.warn(&format!(
                "quarantine full: held={HELD_MAX}; later failures fail the whole batch"
            ));
            return Err(fault);
        }
        match rows[..] {
            [row] => self.found.push((row, fault)),
            _ => self.waiting.push(RowRange {
                rows,
                evidence: FailureEvidence::Certainly(fault),
                suspected,
            }),
        }
        Ok(())
    }

    /// Merges an answer about some rows, with row numbers of the whole question.
    fn merge_reply(&mut self, rows: &[u32], said: GuestReply) {
        self.answers += 1;
        self.ungranted += said.ungranted;
        // A row number outside the part stays invalid in the whole question.
        let whole = |row: u32| rows.get(row as usize).copied().unwrap_or(u32::MAX);
        let room = NOTES_MAX.saturating_sub(self.notes.len());
        let notes = said.notes.into_iter().take(room);
        self.notes.extend(notes.map(|note| DecisionNote { row: whole(note.row), ..note }));
        let new_memo = match (&mut self.answer, said.answer) {
            (
                HookAnswer::Actions { actions, states, memo },
                HookAnswer::Actions { actions: more, states: written, memo: new },
            ) => {
                actions.extend(more.into_iter().map(|mut action| {
                    action.row = whole(action.row);
                    action
                }));
                states.extend(written.into_iter().map(|(row, state)| (whole(row), state)));
                new.inspect(|new| *memo = Some(new.clone()))
            }
            (
                HookAnswer::Moves { moves, states, memo },
                HookAnswer::Moves { moves: more, states: written, memo: new },
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

    /// If no row was answered, the plugin may be at fault rather than a row.
    fn conclude(mut self) -> Result<(GuestReply, Option<Box<IsolatedRows>>), PluginFault> {
        let mut alone = BTreeSet::new();
        let left_out_before = self.isolated.poisoned.len();
        for (row, fault) in std::mem::take(&mut self.found) {
            let id = self.ids[row as usize];
            let quarantine = &mut self.isolation.quarantine;
            if self.answers > 0 || quarantine.note_alone(id) {
                quarantine.hold(id, fault.clone(), self.now_us);
                self.isolated.poisoned.push(Poisoned { row, fault });
            } else {
                self.isolated.unasked.push(row);
                alone.insert(id);
            }
        }
        let suspects = self.suspects().unwrap_or((alone, self.last.clone()));
        self.isolation.quarantine.suspect(suspects);
        let found_some = self.isolated.poisoned.len() > left_out_before;
        self.reduce_batch_size(found_some);
        if let Some(fault) = self.last.filter(|_| self.answers == 0 && !found_some) {
            return Err(fault);
        }
        if self.answers > 0 {
            self.isolation.quarantine.answers += 1;
        }
        let in_order =
            |part: &&RowRange| !part.suspected && matches!(part.evidence, FailureEvidence::Unknown);
        let next = self.waiting.iter().rev().find(in_order).and_then(|part| part.rows.first());
        self.isolation.first = next.map(|row| self.ids[*row as usize]);
        let left = self.waiting.iter().flat_map(|part| &part.rows);
        self.isolated.unasked.extend(left);
        self.isolated.unasked.sort_unstable();
        self.isolated.poisoned.sort_unstable_by_key(|poisoned| poisoned.row);
        let reply = GuestReply {
            answer: self.answer,
            notes: self.notes,
            took: self.began.elapsed(),
            ungranted: self.ungranted,
        };
        let isolated = IsolatedRows { in_parts: self.asks > 1, ..self.isolated };
        let isolated =
            Some(isolated).filter(|isolated| *isolated != IsolatedRows::default()).map(Box::new);
        Ok((reply, isolated))
    }

    /// Halves the batch size of a plugin that ran out of memory without failing on a single row. If
    /// a row was found, memory was not the cause.
    fn reduce_batch_size(&mut self, found_some: bool) {
        match self.smallest_oom_batch {
            Some(rows) if !found_some => {
                let most = (rows / 2).max(1);
                let words = format!("out of memory: batch size reduced to {most} rows");
                self.isolation.limit = Some(BatchLimit { most, answered: 0 });
                self.guest.warn(&words);
            }
            Some(_) => {}
            None => self.isolation.limit = self.isolation.limit.take().map(BatchLimit::answered),
        }
    }

    /// Rows of which at least one makes the plugin fail, with the fault.
    fn suspects(&self) -> Option<(BTreeSet<u64>, Option<PluginFault>)> {
        let mut before: &[u32] = &[];
        for part in self.waiting.iter().rev() {
            let (rows, fault) = match &part.evidence {
                FailureEvidence::Certainly(fault) => (&[][..], fault),
                // The previous part was not asked, so the row is in one of the two.
                FailureEvidence::Unless { faults, fault } if *faults == self.faults => {
                    (before, fault)
                }
                FailureEvidence::Unless { .. } | FailureEvidence::Unknown => {
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
mod tests;
