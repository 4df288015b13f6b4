//! Sessions that are open, in a table: a process that is killed writes no record of their ends, so the next one does.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_kept::{Column, ColumnType, Record, RecordBatch, RecordTable};
use evenkeel_model::SessionId;
use serde::{Deserialize, Serialize};

/// Maximum number of changes that wait while the disk takes none: 50,000 sessions have 16 MiB.
const CHANGES_MAX: usize = 50_000;

/// A session that is open.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct OpenSession {
    pub(crate) id: Box<str>,
    pub(crate) gateway: Box<str>,
    pub(crate) room: Box<str>,
    pub(crate) scenario: Box<str>,
    pub(crate) ingress: Box<str>,
    pub(crate) mode: Box<str>,
    pub(crate) offered_us: u64,
    pub(crate) admitted_by: Box<str>,
}

impl Record for OpenSession {
    type Value = OpenSession;

    /// As long as the sessions that the gateway may have.
    const TABLE: RecordTable = RecordTable {
        name: "open-sessions",
        version: 1,
        columns: &[
            Column::new("id", ColumnType::Text),
            Column::new("gateway", ColumnType::Text),
            Column::new("room", ColumnType::Text),
            Column::new("scenario", ColumnType::Text),
            Column::new("ingress", ColumnType::Text),
            Column::new("mode", ColumnType::Text),
            Column::new("offered_us", ColumnType::Integer),
            Column::new("admitted_by", ColumnType::Text),
        ],
        rows_max: usize::MAX,
        bytes_max: usize::MAX,
        notes_life: true,
    };
}

/// Sessions that were open when the last process of this gateway ended without closing them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftSessions {
    /// They ended with it.
    Ended,
    /// This process has them.
    Continue,
    /// The other gateway of the group may have them.
    Elsewhere,
}

/// The number of a session's id; 0 for another text.
pub(super) fn number(id: &str) -> u64 {
    SessionId::parse(id).map_or(0, |session| session.0)
}

/// Changes of the table that the disk lacks.
#[derive(Debug)]
pub(super) struct OpenChanges {
    /// The table has sessions that are not open.
    must_clear_table: bool,
    /// By number, and so in the order in which they opened.
    opened: BTreeMap<u64, OpenSession>,
    /// The ids of sessions that may be in the table.
    ended: BTreeSet<Box<str>>,
    changes_max: usize,
}

impl Default for OpenChanges {
    fn default() -> OpenChanges {
        OpenChanges {
            must_clear_table: false,
            opened: BTreeMap::new(),
            ended: BTreeSet::new(),
            changes_max: CHANGES_MAX,
        }
    }
}

impl OpenChanges {
    pub(super) fn open(&mut self, session: OpenSession) {
        self.opened.insert(number(&session.id), session);
        self.drop_beyond();
    }

    pub(super) fn end(&mut self, id: &str) {
        if self.opened.remove(&number(id)).is_none() {
            self.ended.insert(id.into());
            self.drop_beyond();
        }
    }

    /// Gives up the sessions that are open now, once too many changes wait.
    fn drop_beyond(&mut self) {
        if self.opened.len() + self.ended.len() > self.changes_max {
            self.give_up();
        }
    }

    /// Forgets the sessions that are open now: which of them have ended is unknown.
    pub(super) fn give_up(&mut self) {
        tracing::warn!("sessions that are open now leave no record if the process is killed");
        self.opened.clear();
        // The next process would end sessions that this one has ended.
        self.clear_table();
    }

    /// Has the table forget the sessions that it has.
    pub(super) fn clear_table(&mut self) {
        self.must_clear_table = true;
        self.ended.clear();
    }

    /// Adds sessions of the process before this one that the table lacks.
    pub(super) fn add_continued(&mut self, sessions: Vec<OpenSession>) {
        for session in sessions {
            if !self.ended.remove(&session.id) {
                self.opened.insert(number(&session.id), session);
            }
        }
        self.changes_max = CHANGES_MAX + self.opened.len();
    }

    pub(super) fn has_some(&self) -> bool {
        self.must_clear_table || !self.opened.is_empty() || !self.ended.is_empty()
    }

    /// Adds the next changes: up to this many of each kind.
    pub(super) fn add_to(&self, batch: &mut RecordBatch, at_most: usize) {
        if self.must_clear_table {
            batch.clear::<OpenSession>();
        }
        self.opened.values().take(at_most).for_each(|session| batch.insert::<OpenSession>(session));
        self.ended.iter().take(at_most).for_each(|id| batch.remove::<OpenSession>(id));
    }

    /// The table has the changes that [`OpenChanges::add_to`] added.
    pub(super) fn note_written(&mut self, at_most: usize) {
        self.must_clear_table = false;
        for _ in 0..at_most {
            self.opened.pop_first();
            self.ended.pop_first();
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
