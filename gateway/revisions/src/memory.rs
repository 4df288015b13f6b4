//! States that plugins wrote, kept for each revision that may still read them.

use std::sync::Arc;

use evenkeel_model::{Arm, PluginState};
use serde::{Deserialize, Serialize};

use super::{Revision, Revisions};

/// The states of one session or room: the newest and, if another kept revision cannot read it, the newest that this
/// revision can read. No third state is kept.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct StateVersions {
    newest: Option<Arc<PluginState>>,
    other: Option<Arc<PluginState>>,
}

impl StateVersions {
    /// The state for this revision; the newest if the revision is unknown. The host checks its schema.
    pub fn read(&self, by: Option<&Revision>) -> Option<&Arc<PluginState>> {
        let Some(revision) = by else {
            return self.newest.as_ref();
        };
        self.newest.iter().chain(&self.other).find(|state| revision.reads(state))
    }

    /// Keeps the new state, and an old one that only another kept revision can read.
    pub fn write(&mut self, state: Arc<PluginState>, revisions: Option<&Revisions>) {
        let needed = |old: &Arc<PluginState>| {
            let readers = || revisions.into_iter().flat_map(Revisions::readers);
            readers().any(|reader| reader.reads(old) && !reader.reads(&state))
        };
        let before = self.newest.take();
        self.other = before.filter(&needed).or_else(|| self.other.take().filter(&needed));
        self.newest = Some(state);
    }

    pub fn keeps_other(&self) -> bool {
        self.other.is_some()
    }

    /// The active revision is the only reader now: keeps the state that it reads, or the newest if it reads none.
    pub fn settle(&mut self, active: &Revision) {
        if let Some(other) = self.other.take()
            && !self.newest.as_ref().is_some_and(|newest| active.reads(newest))
            && active.reads(&other)
        {
            self.newest = Some(other);
        }
    }
}

/// Memos of plugins, one for each revision, since active revision and candidate are asked at the same time.
#[derive(Default, Debug)]
pub struct Memos {
    active: Option<PluginState>,
    canary: Option<PluginState>,
    previous: Option<PluginState>,
}

impl Memos {
    pub fn read(&self, arm: Arm) -> Option<&PluginState> {
        match arm {
            Arm::Standing => self.active.as_ref(),
            Arm::Canary => self.canary.as_ref().or(self.active.as_ref()),
        }
    }

    pub fn write(&mut self, arm: Arm, memo: PluginState) {
        match arm {
            Arm::Standing => self.active = Some(memo),
            Arm::Canary => self.canary = Some(memo),
        }
    }

    /// Gives each revision its memo after a change of revisions.
    pub fn turn(&mut self, before: &Revisions, now: &Revisions) {
        let (Some(was), Some(active)) = (&before.active, &now.active) else { return };
        let name = |it: &Revisions| it.canary().map(|it| Arc::clone(&it.revision.name));
        let (had, has) = (name(before), name(now));
        let canary = self.canary.take();
        if was.name != active.name {
            if had.as_ref() == Some(&active.name) {
                let promoted = canary.clone().or_else(|| self.active.clone());
                self.previous = std::mem::replace(&mut self.active, promoted);
            } else if before.is_previous(&active.name) {
                // The revision resumes with the newest memo that it can read.
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
mod tests;
