//! The exchange with a follower: the standby of a group, or the process that replaces this one.

use std::sync::Arc;
use std::time::SystemTime;

use evenkeel_process::unix_us;
use serde::{Deserialize, Serialize};

use super::document::{Document, Encoded, Kind, decode};

/// The rows that a follower has.
#[derive(Clone, Default, Debug)]
pub struct Follower {
    /// The table of which it has rows.
    pub(crate) generation: u64,
    /// It has the rows up to this change.
    pub(crate) change: u64,
    /// It has had all rows.
    pub(crate) is_whole: bool,
}

impl Follower {
    /// It has had all rows, and gets changes only.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// The next rows for a follower.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptPart {
    /// Earlier parts are void: all rows follow.
    pub(crate) first: bool,
    /// The rows up to this part are all rows.
    pub(crate) whole: bool,
    /// In the order of their changes.
    pub(crate) rows: Vec<KeptRow>,
}

/// A row in a part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptRow {
    pub(crate) kind: Box<str>,
    pub(crate) key: Arc<str>,
    pub(crate) change: u64,
    pub(crate) at_us: u64,
    pub(crate) version: u32,
    pub(crate) value: Arc<str>,
}

impl KeptPart {
    /// Rows of an owner that sends them otherwise.
    pub fn of_rows<D: Document>(rows: impl IntoIterator<Item = Encoded<D>>) -> KeptPart {
        let at_us = unix_us(SystemTime::now());
        let row = |Encoded { key, value, .. }: Encoded<D>| {
            let Kind { name, version, .. } = D::KIND;
            KeptRow { kind: name.into(), key, change: 0, at_us, version, value }
        };
        KeptPart { first: false, whole: false, rows: rows.into_iter().map(row).collect() }
    }

    /// The part may change rows of this kind.
    pub fn changes<D: Document>(&self) -> bool {
        // Rows that a whole copy lacks are gone.
        self.whole || self.rows.iter().any(|row| *row.kind == *D::KIND.name)
    }

    /// The row of this kind with this key, if the part has it.
    pub fn document<D: Document>(&self, key: &str) -> Option<D> {
        let is_it = |row: &&KeptRow| *row.kind == *D::KIND.name && *row.key == *key;
        let row = self.rows.iter().rfind(is_it)?;
        decode(row.version, &row.value).ok()
    }
}
