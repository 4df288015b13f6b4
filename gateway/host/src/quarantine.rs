//! Sessions and rooms left out of questions to a revision that fails on them.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::PluginFault;

/// Maximum quarantined rows. A revision that fails on more rows is itself broken, and no longer bisected.
pub(crate) const HELD_MAX: usize = 256;

/// Maximum rows that failed alone once; the one with the lowest id is dropped.
const ACCUSED_MAX: usize = 64;

/// A row that was in no question for this long is gone, and frees its place if the quarantine is full.
const GONE_AFTER_US: u64 = 60_000_000;

/// Rows left out of questions to one revision.
#[derive(Default, Debug)]
pub(crate) struct RowQuarantine {
    held: BTreeMap<u64, QuarantinedRow>,
    /// Rows of which the revision fails on at least one, which was not isolated in time.
    suspects: BTreeSet<u64>,
    suspected_of: Option<PluginFault>,
    /// Rows that were alone in a question when the revision failed, with `answers` at that time.
    accused: BTreeMap<u64, u64>,
    /// Questions, or parts of one, that the revision answered.
    answers: u64,
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
        self.held.is_empty() && self.suspects.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The fault on this row, if the row is quarantined.
    pub(crate) fn check(&mut self, id: u64, now_us: u64) -> Option<PluginFault> {
        let held = self.held.get_mut(&id)?;
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

    pub(crate) fn note_answer(&mut self) {
        self.answers += 1;
    }

    /// Notes a failure on this row alone, with no other row to show whether the row or the plugin is at fault. Returns
    /// true if the plugin failed on it before and answered other questions in between.
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
    pub(crate) fn hold(&mut self, id: u64, fault: PluginFault, now_us: u64) -> bool {
        if self.is_full(now_us) {
            return false;
        }
        self.accused.remove(&id);
        self.held.insert(id, QuarantinedRow { fault, seen_us: now_us });
        true
    }

    pub(crate) fn is_full(&mut self, now_us: u64) -> bool {
        if self.held.len() >= HELD_MAX {
            let gone = |held: &QuarantinedRow| now_us.saturating_sub(held.seen_us) > GONE_AFTER_US;
            self.held.retain(|_, held| !gone(held));
        }
        self.held.len() >= HELD_MAX
    }
}

#[cfg(test)]
mod tests;
