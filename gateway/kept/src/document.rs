//! Kinds of documents, and the encoding of their rows.

use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A row of a kind of documents. It is kept as JSON.
pub trait Document: Serialize + DeserializeOwned {
    /// Name, version and bound.
    const KIND: Kind;

    /// Translates a row of an earlier version.
    ///
    /// # Errors
    /// If this version cannot read it.
    fn migrate(version: u32, _row: Value) -> Result<Value, NotDecoded> {
        Err(NotDecoded::Version { found: version, known: Self::KIND.version })
    }

    /// The row that holds if the disk answers only after this process put its own row with the same key.
    fn merge(_kept: Self, own: Self) -> Self {
        own
    }

    /// The files of versions without a database, in the folder of the cache. `name` is that of the gateway's files.
    fn earlier_files(_name: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Reads such a file: keys and values, oldest first. By default it is one document in JSON, with the empty key.
    ///
    /// # Errors
    /// If the file is damaged.
    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<(Box<str>, Value)>> {
        Ok(vec![(Box::default(), serde_json::from_slice(bytes)?)])
    }
}

/// A kind of documents.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in the database, in metrics and in warnings.
    pub name: &'static str,
    /// The version of its rows.
    pub version: u32,
    /// Maximum number of rows. Beyond it the row that changed first is dropped.
    pub rows_max: usize,
    /// The meaning of a follower's copy.
    pub copy: FollowerCopy,
}

/// The effect of an owner's rows on those of the gateway that follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FollowerCopy {
    /// They replace them.
    Replaces,
    /// They are added to them.
    Adds,
}

/// A row that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotDecoded {
    /// Another version wrote it.
    #[error("it has version {found}, this gateway reads version {known}")]
    Version {
        /// The version of the row.
        found: u32,
        /// The version of this gateway.
        known: u32,
    },
    /// It is no such document.
    #[error("{0}")]
    Malformed(Box<str>),
}

/// A row in JSON. Its owner encodes it on a thread of its own, if another thread puts it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded<D> {
    pub(crate) key: Arc<str>,
    pub(crate) value: Arc<str>,
    document: PhantomData<fn() -> D>,
}

impl<D: Document> Encoded<D> {
    /// Encodes a row.
    ///
    /// # Panics
    /// If the type has maps with keys that are no text, which JSON lacks.
    pub fn new(key: &str, value: &D) -> Encoded<D> {
        let text = serde_json::to_string(value).expect("a document is JSON");
        Encoded { key: key.into(), value: text.into(), document: PhantomData }
    }
}

/// A row as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row<D> {
    /// Its key.
    pub key: Arc<str>,
    /// The Unix time of its last change in microseconds.
    pub at_us: u64,
    pub(crate) version: u32,
    pub(crate) value: Arc<str>,
    pub(crate) document: PhantomData<fn() -> D>,
}

impl<D: Document> Row<D> {
    /// Reads the row.
    ///
    /// # Errors
    /// If another version wrote it that this one cannot read, or if it is damaged.
    pub fn decode(&self) -> Result<D, NotDecoded> {
        decode(self.version, &self.value)
    }
}

/// Reads the JSON of a row.
pub(crate) fn decode<D: Document>(version: u32, value: &str) -> Result<D, NotDecoded> {
    let malformed = |error: serde_json::Error| NotDecoded::Malformed(error.to_string().into());
    if version == D::KIND.version {
        return serde_json::from_str(value).map_err(malformed);
    }
    if version > D::KIND.version {
        return Err(NotDecoded::Version { found: version, known: D::KIND.version });
    }
    let migrated = D::migrate(version, serde_json::from_str(value).map_err(malformed)?)?;
    serde_json::from_value(migrated).map_err(malformed)
}
