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

    /// Rows name files, which the store keeps beside the database while a row names them. A kind with files has [`FollowerCopy::None`],
    /// since the store sends rows without their files.
    const HAS_FILES: bool = false;

    /// A file of a version without a database replaces the rows of the disk, if it is newer. Otherwise its rows are added to them.
    const EARLIER_REPLACES: bool = matches!(Self::KIND.copy, FollowerCopy::Replaces);

    /// The names of the files that this row names: the SHA-256 of their bytes in hexadecimal digits. `None` for a row that cannot be
    /// read, and may name any.
    fn file_names(&self) -> Option<Vec<Arc<str>>> {
        Some(Vec::new())
    }

    /// The row that holds if the disk answers only after this process put its own row with the same key.
    fn merge(_kept: Self, own: Self) -> Self {
        own
    }

    /// The files of versions without a database, in the folder of the cache. `name` is that of the gateway's files.
    fn earlier_files(_name: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Reads such a file, oldest row first. By default it is one document in JSON, with the empty key.
    ///
    /// # Errors
    /// If the file is damaged.
    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<EarlierDocument>> {
        Ok(vec![EarlierDocument { key: Box::default(), value: serde_json::from_slice(bytes)? }])
    }
}

/// A row in a file of an earlier version.
#[derive(Clone, PartialEq, Debug)]
pub struct EarlierDocument {
    /// The key of the row.
    pub key: Box<str>,
    /// The document as this version reads it.
    pub value: Value,
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
    /// None: the store does not send them. Rows that the follower gets otherwise are added to its own.
    None,
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

/// A row in JSON. The caller encodes it, so that the thread that puts it need not.
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
        Encoded::of(key, value)
    }

    /// Encodes a row from a value of another type that has the JSON of the document.
    ///
    /// # Panics
    /// As [`Encoded::new`].
    pub fn of(key: &str, value: &impl Serialize) -> Encoded<D> {
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
    /// If another version wrote it, or if it is damaged.
    pub fn decode(&self) -> Result<D, NotDecoded> {
        decode(self.version, &self.value)
    }
}

/// Reads the JSON of a row.
pub(crate) fn decode<D: Document>(version: u32, value: &str) -> Result<D, NotDecoded> {
    let known = D::KIND.version;
    if version != known {
        return Err(NotDecoded::Version { found: version, known });
    }
    serde_json::from_str(value).map_err(|error| NotDecoded::Malformed(error.to_string().into()))
}
