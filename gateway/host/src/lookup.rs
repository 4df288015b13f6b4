//! Lookups in the data documents of a revision.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use serde_json::Value;

use crate::limits::{LOOKUP_BYTES_MAX, LOOKUP_PARTS_MAX, LOOKUP_PATH_BYTES_MAX};

/// The documents in which an instance looks up, with defaults filled in. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct DocumentTable(Arc<BTreeMap<Arc<str>, Value>>);

impl DocumentTable {
    pub(crate) fn of(documents: BTreeMap<Arc<str>, Value>) -> DocumentTable {
        DocumentTable(Arc::new(documents))
    }

    /// The value at a path of a document as JSON; `None` if there is none.
    pub(crate) fn lookup(
        &self,
        document: &str,
        path: &[String],
    ) -> Result<Option<String>, InvalidLookup> {
        let root = self.0.get(document);
        let root = root.ok_or_else(|| InvalidLookup::Undeclared(document.into()))?;
        let found = path.iter().try_fold(root, |value, part| match value {
            Value::Object(members) => members.get(part),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        });
        let Some(value) = found else { return Ok(None) };
        let mut text = BoundedText(String::new());
        match write!(text, "{value}") {
            Ok(()) => Ok(Some(text.0)),
            Err(fmt::Error) => Err(InvalidLookup::TooLong(document.into())),
        }
    }
}

/// A lookup that is the fault of the plugin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidLookup {
    #[error("lookup in `{0}`: the plugin's manifest declares no document of this name")]
    Undeclared(Box<str>),
    #[error("lookup: a path has {0} parts, expected {LOOKUP_PARTS_MAX} at most")]
    Parts(usize),
    #[error("lookup: the parts of a path have more than {LOOKUP_PATH_BYTES_MAX} bytes")]
    PathBytes,
    #[error(
        "lookup in `{0}`: the value has more than {LOOKUP_BYTES_MAX} bytes; look up a part of it"
    )]
    TooLong(Box<str>),
}

impl InvalidLookup {
    /// Checks a path before its parts are copied or compared.
    pub(crate) fn check(parts: usize, bytes: usize) -> Result<(), InvalidLookup> {
        if parts > LOOKUP_PARTS_MAX {
            return Err(InvalidLookup::Parts(parts));
        }
        if bytes > LOOKUP_PATH_BYTES_MAX { Err(InvalidLookup::PathBytes) } else { Ok(()) }
    }
}

/// The text of a value up to [`LOOKUP_BYTES_MAX`].
struct BoundedText(String);

impl Write for BoundedText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len() + part.len() > LOOKUP_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}
