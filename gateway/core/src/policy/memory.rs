//! States that plugins wrote, kept for each revision that may still read them.

use std::sync::Arc;

use super::{Arm, Revision, Revisions};
use crate::State;

/// The states of one session or room: the newest and, if another kept revision cannot read it, the newest that this one
/// can. A third is not kept.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Memory {
    newest: Option<Arc<State>>,
    other: Option<Arc<State>>,
}

impl Memory {
    /// The state for this revision; the newest if the revision is unknown. The host checks its schema.
    pub(crate) fn read(&self, by: Option<&Revision>) -> Option<&Arc<State>> {
        let Some(revision) = by else {
            return self.newest.as_ref();
        };
        self.newest.iter().chain(&self.other).find(|state| revision.reads(state))
    }

    /// Keeps the new state, and an old one that only another kept revision can read.
    pub(crate) fn write(&mut self, state: Arc<State>, revisions: Option<&Revisions>) {
        let needed = |old: &Arc<State>| {
            let readers = || revisions.into_iter().flat_map(Revisions::readers);
            readers().any(|reader| reader.reads(old) && !reader.reads(&state))
        };
        let before = self.newest.take();
        self.other = before.filter(&needed).or_else(|| self.other.take().filter(&needed));
        self.newest = Some(state);
    }

    pub(crate) fn keeps_other(&self) -> bool {
        self.other.is_some()
    }

    /// The active revision is the only reader now: keeps the state that it reads, or the newest if it reads none.
    pub(crate) fn settle(&mut self, active: &Revision) {
        if let Some(other) = self.other.take()
            && !self.newest.as_ref().is_some_and(|newest| active.reads(newest))
            && active.reads(&other)
        {
            self.newest = Some(other);
        }
    }
}

/// States that plugins wrote about themselves, one for each revision, since active revision and candidate are asked at
/// the same time.
#[derive(Default, Debug)]
pub(crate) struct Memos {
    active: Option<State>,
    canary: Option<State>,
    previous: Option<State>,
}

impl Memos {
    pub(crate) fn read(&self, arm: Arm) -> Option<&State> {
        match arm {
            Arm::Standing => self.active.as_ref(),
            Arm::Canary => self.canary.as_ref().or(self.active.as_ref()),
        }
    }

    pub(crate) fn write(&mut self, arm: Arm, memo: State) {
        match arm {
            Arm::Standing => self.active = Some(memo),
            Arm::Canary => self.canary = Some(memo),
        }
    }

    /// Gives each revision its memo after a change of revisions.
    pub(crate) fn turn(&mut self, before: &Revisions, now: &Revisions) {
        let (Some(was), Some(active)) = (&before.active, &now.active) else { return };
        let name = |it: &Revisions| it.canary().map(|it| Arc::clone(&it.revision.name));
        let (had, has) = (name(before), name(now));
        let canary = self.canary.take();
        if was.name != active.name {
            if had.as_ref() == Some(&active.name) {
                let promoted = canary.clone().or_else(|| self.active.clone());
                self.previous = std::mem::replace(&mut self.active, promoted);
            } else if before.is_previous(&active.name) {
                // It resumes with the newest memo that it can read.
                let newest = self.active.take().filter(|memo| active.reads(memo));
                self.active = newest.or_else(|| self.previous.take());
            } else {
                self.previous = self.active.clone();
            }
        }
        self.canary = match (had, has) {
            (was, Some(is)) if was.as_ref() == Some(&is) => canary,
            (_, Some(_)) => self.active.clone(),
            (_, None) => None,
        };
        if now.previous.is_none() {
            self.previous = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{active, revision, with_canary, with_previous};
    use super::*;

    fn state(plugin: &str, schema: u32, byte: u8) -> Arc<State> {
        Arc::new(State { plugin: plugin.into(), schema, bytes: Box::new([byte]) })
    }

    #[test]
    fn each_revision_reads_its_state_after_rollback() {
        let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
        let both = with_canary(&old, &new, 50);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&both));
        assert_eq!(memory.read(Some(&new)), Some(&state("p", 1, 1)), "it migrates the older state");
        memory.write(state("p", 2, 2), Some(&both));
        memory.write(state("p", 2, 3), Some(&both));
        assert_eq!(memory.read(Some(&new)), Some(&state("p", 2, 3)));
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 1)));

        // Promoted, and rolled back: the old revision resumes with its last state.
        let promoted = with_previous(&new, &old);
        memory.write(state("p", 2, 4), Some(&promoted));
        let back = active(&old);
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 1)));
        memory.write(state("p", 1, 5), Some(&back));
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 5)));
        assert!(!memory.keeps_other(), "no other revision can return");
    }

    #[test]
    fn states_of_another_plugin_are_kept_for_it() {
        let (old, new) = (revision("a", "p", 1), revision("b", "q", 1));
        let both = with_canary(&old, &new, 50);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&both));
        assert_eq!(memory.read(Some(&new)), None, "no state of this plugin yet");
        memory.write(state("q", 1, 2), Some(&both));
        memory.write(state("p", 1, 3), Some(&both));
        assert_eq!(memory.read(Some(&new)), Some(&state("q", 1, 2)), "both ways");
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 3)));
    }

    #[test]
    fn revisions_of_one_schema_share_a_state() {
        let both = with_canary(&revision("a", "p", 1), &revision("b", "p", 1), 50);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&both));
        memory.write(state("p", 1, 2), Some(&both));
        assert!(!memory.keeps_other());
    }

    #[test]
    fn settling_keeps_the_active_revisions_state() {
        let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
        let open = with_previous(&new, &old);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&open));
        memory.write(state("p", 2, 2), Some(&open));
        let mut back = memory.clone();
        memory.settle(&new);
        back.settle(&old);
        assert!(!memory.keeps_other() && !back.keeps_other());
        assert_eq!(memory.read(None), Some(&state("p", 2, 2)));
        assert_eq!(back.read(None), Some(&state("p", 1, 1)));
    }

    #[test]
    fn each_revision_has_its_memo_after_rollback() {
        let memo =
            |byte| State { plugin: "p".into(), schema: u32::from(byte), bytes: Box::new([byte]) };
        let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
        let alone = active(&old);
        let both = with_canary(&old, &new, 50);
        let promoted = with_previous(&new, &old);
        let mut memos = Memos::default();
        memos.turn(&Revisions::default(), &alone);
        memos.write(Arm::Standing, memo(1));
        memos.turn(&alone, &both);
        assert_eq!(memos.read(Arm::Canary), Some(&memo(1)), "it begins with the active memo");
        memos.write(Arm::Canary, memo(2));
        assert_eq!(
            (memos.read(Arm::Standing), memos.read(Arm::Canary)),
            (Some(&memo(1)), Some(&memo(2)))
        );
        memos.turn(&both, &promoted);
        assert_eq!(memos.read(Arm::Standing), Some(&memo(2)));
        memos.turn(&promoted, &alone);
        assert_eq!(memos.read(Arm::Standing), Some(&memo(1)));
        memos.turn(&alone, &both);
        memos.write(Arm::Canary, memo(2));
        memos.turn(&both, &alone);
        assert_eq!(memos.read(Arm::Standing), Some(&memo(1)), "the canary's memo went with it");
    }
}
