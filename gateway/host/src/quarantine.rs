//! Sessions and rooms left out of questions to a revision that fails on them.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::Fault;

/// A revision that fails on more rows is broken itself, and no longer bisected.
pub(crate) const HELD_MAX: usize = 256;

/// Rows that failed alone and may do so again; the one with the lowest id is dropped.
const ACCUSED_MAX: usize = 64;

/// A row in no question for this long has left, and frees its place if the quarantine is full.
const GONE_AFTER_US: u64 = 60_000_000;

/// Rows left out of questions to one revision.
#[derive(Default, Debug)]
pub(crate) struct Quarantine {
    held: BTreeMap<u64, Held>,
    /// The revision fails on one of these, which was not isolated in time.
    suspects: BTreeSet<u64>,
    /// Its fault on them.
    suspected_of: Option<Fault>,
    /// Rows that were alone when it failed, with its answers up to then.
    accused: BTreeMap<u64, u64>,
    /// Questions, or parts of one, that it answered.
    answers: u64,
}

#[derive(Debug)]
struct Held {
    fault: Fault,
    /// When it was last in a question.
    seen_us: u64,
}

impl Quarantine {
    /// True if no row is quarantined or suspected: questions are asked as they are.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.suspects.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The fault on this row, if it is quarantined.
    pub(crate) fn check(&mut self, id: u64, now_us: u64) -> Option<Fault> {
        let held = self.held.get_mut(&id)?;
        held.seen_us = held.seen_us.max(now_us);
        Some(held.fault.clone())
    }

    /// The fault on this row or its group, if it is suspected.
    pub(crate) fn suspects(&self, id: u64) -> Option<&Fault> {
        self.suspected_of.as_ref().filter(|_| self.suspects.contains(&id))
    }

    /// Marks rows as suspects; the next question with some of them continues the search.
    pub(crate) fn suspect(&mut self, (ids, fault): (BTreeSet<u64>, Option<Fault>)) {
        self.suspected_of = fault.filter(|fault| !ids.is_empty() && fault.is_of_question());
        self.suspects = if self.suspected_of.is_some() { ids } else { BTreeSet::new() };
    }

    pub(crate) fn note_answer(&mut self) {
        self.answers += 1;
    }

    /// The plugin failed on this row alone, without other rows that could tell which is at fault.
    /// Returns true if it failed on it before and answered others in between.
    pub(crate) fn accuse(&mut self, id: u64) -> bool {
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
    pub(crate) fn hold(&mut self, id: u64, fault: Fault, now_us: u64) -> bool {
        if self.is_full(now_us) {
            return false;
        }
        self.accused.remove(&id);
        self.held.insert(id, Held { fault, seen_us: now_us });
        true
    }

    pub(crate) fn is_full(&mut self, now_us: u64) -> bool {
        if self.held.len() >= HELD_MAX {
            let gone = |held: &Held| now_us.saturating_sub(held.seen_us) > GONE_AFTER_US;
            self.held.retain(|_, held| !gone(held));
        }
        self.held.len() >= HELD_MAX
    }
}

#[cfg(test)]
mod tests;
