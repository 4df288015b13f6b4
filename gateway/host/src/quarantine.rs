//! Sessions and rooms that a revision is not asked about any more, since it fails over them.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::Fault;

/// A revision that fails over more than so many is not asked around them: it is the one that is ill.
pub(crate) const HELD_MAX: usize = 256;

/// Those that failed alone, and may do so again; the one with the lowest number gives way.
const ACCUSED_MAX: usize = 64;

/// Who was not in any question for so long has left, and gives up its place where there is none.
const GONE_AFTER_US: u64 = 60_000_000;

/// Who is left out of questions to one revision.
#[derive(Default, Debug)]
pub(crate) struct Quarantine {
    held: BTreeMap<u64, Held>,
    /// Over one of these it fails, and there was no time to find which.
    suspects: BTreeSet<u64>,
    /// How it failed over them.
    suspected_of: Option<Fault>,
    /// Those that were alone when it failed, and how much it had answered by then.
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
    /// Whether nobody is left out and nobody suspected: questions are asked as they come.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.suspects.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// How the plugin failed over it, where it is left out.
    pub(crate) fn meets(&mut self, id: u64, now_us: u64) -> Option<Fault> {
        let held = self.held.get_mut(&id)?;
        held.seen_us = held.seen_us.max(now_us);
        Some(held.fault.clone())
    }

    /// How the plugin failed over it, or others with it, where it is suspected.
    pub(crate) fn suspects(&self, id: u64) -> Option<&Fault> {
        self.suspected_of.as_ref().filter(|_| self.suspects.contains(&id))
    }

    /// These are sought on with the next question that holds some of them, and nobody else.
    pub(crate) fn suspect(&mut self, (ids, fault): (BTreeSet<u64>, Option<Fault>)) {
        self.suspected_of = fault.filter(|fault| !ids.is_empty() && fault.is_of_question());
        self.suspects = if self.suspected_of.is_some() { ids } else { BTreeSet::new() };
    }

    /// The plugin answered something.
    pub(crate) fn note_answer(&mut self) {
        self.answers += 1;
    }

    /// The plugin failed over it alone, and nobody else was asked about who could tell whose fault that is. Whether it is
    /// this one's: it failed so before, and the plugin answered in between.
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

    /// It is left out from now on. `false`: there is no place left.
    pub(crate) fn hold(&mut self, id: u64, fault: Fault, now_us: u64) -> bool {
        if self.is_full(now_us) {
            return false;
        }
        self.accused.remove(&id);
        self.held.insert(id, Held { fault, seen_us: now_us });
        true
    }

    /// Whether nobody else can be left out.
    pub(crate) fn is_full(&mut self, now_us: u64) -> bool {
        if self.held.len() >= HELD_MAX {
            let gone = |held: &Held| now_us.saturating_sub(held.seen_us) > GONE_AFTER_US;
            self.held.retain(|_, held| !gone(held));
        }
        self.held.len() >= HELD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_those_that_left_make_place() {
        let mut quarantine = Quarantine::default();
        for id in 0..HELD_MAX as u64 {
            assert!(quarantine.hold(id, Fault::Deadline, 0));
        }
        assert!(!quarantine.hold(999, Fault::Deadline, GONE_AFTER_US));
        assert_eq!(quarantine.meets(3, GONE_AFTER_US), Some(Fault::Deadline));
        assert!(quarantine.hold(999, Fault::OutOfMemory, GONE_AFTER_US + 1));
        assert_eq!(quarantine.len(), 2, "the one that was asked about, and the new one");
        assert_eq!(quarantine.meets(4, 0), None);
    }

    #[test]
    fn who_fails_alone_is_to_blame_only_where_the_plugin_answered_others_in_between() {
        let mut quarantine = Quarantine::default();
        assert!(!quarantine.accuse(1));
        assert!(!quarantine.accuse(1), "a plugin that answers nobody is broken itself");
        quarantine.note_answer();
        assert!(!quarantine.accuse(2), "once is chance");
        assert!(quarantine.accuse(1));
        for id in 10..10 + ACCUSED_MAX as u64 {
            quarantine.accuse(id);
        }
        assert_eq!(quarantine.accused.len(), ACCUSED_MAX);
    }
}
