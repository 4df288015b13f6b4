//! Data documents: facts that a plugin looks up, given beside its settings and checked by schemas of its manifest.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use serde_json::Value;

use crate::limits::{DOCUMENT_BYTES_MAX, LINE_BYTES_MAX, LOOKUP_BYTES_MAX, NAME_BYTES_MAX};
use crate::manifest::Manifest;
use crate::plugin_file::sha256;
use crate::refusal::PluginRefusal;
use crate::store::one_line;

/// Documents by name, as they were given.
pub type DataDocuments = BTreeMap<Arc<str>, DataDocument>;

/// A document as compact JSON with sorted members, so that its digest depends on its content only. Clones share the text.
#[derive(Clone, Debug)]
pub struct DataDocument {
    text: Arc<[u8]>,
    digest: [u8; 32],
}

impl DataDocument {
    /// Reads the document of this name in JSON (RFC 8259).
    ///
    /// # Errors
    /// The text is longer than 1 MiB, or is not JSON.
    pub fn read(name: &str, text: &[u8]) -> Result<DataDocument, PluginRefusal> {
        check_size(name, text.len())?;
        let value = serde_json::from_slice(text);
        let value: Value = value.map_err(|error| refused(name, "JSON", &error.to_string()))?;
        DataDocument::of(name, &value)
    }

    /// The document of this name with this content.
    ///
    /// # Errors
    /// Its text would be longer than 1 MiB.
    pub fn of(name: &str, value: &Value) -> Result<DataDocument, PluginRefusal> {
        let text = value.to_string().into_bytes();
        check_size(name, text.len())?;
        let digest = sha256(&text);
        Ok(DataDocument { text: text.into(), digest })
    }

    /// The compact JSON.
    pub fn text(&self) -> &Arc<[u8]> {
        &self.text
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for DataDocument {
    fn eq(&self, other: &DataDocument) -> bool {
        self.digest == other.digest
    }
}

impl Eq for DataDocument {}

/// The settings and data documents of a plugin.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct PluginInputs {
    /// A JSON object, or `null` if everything has a default.
    pub settings: Value,
    /// A document that the manifest declares and that is missing here is `{}`.
    pub documents: DataDocuments,
}

impl From<Value> for PluginInputs {
    fn from(settings: Value) -> PluginInputs {
        PluginInputs { settings, documents: DataDocuments::new() }
    }
}

fn check_size(name: &str, bytes: usize) -> Result<(), PluginRefusal> {
    if bytes <= DOCUMENT_BYTES_MAX {
        return Ok(());
    }
    let expected = format!("{DOCUMENT_BYTES_MAX} bytes at most");
    Err(refused(name, &expected, &format!("{bytes} bytes")))
}

/// The whole document is refused.
fn refused(name: &str, expected: &str, found: &str) -> PluginRefusal {
    let [document, expected, found] =
        [name, expected, found].map(|text| one_line(text, LINE_BYTES_MAX));
    PluginRefusal::Document { document, pointer: "".into(), expected, found }
}

/// The documents in which an instance looks up, with defaults filled in. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct DocumentTable(Arc<BTreeMap<Arc<str>, Value>>);

impl DocumentTable {
    /// Checks documents by the schemas of the manifest.
    pub(crate) fn check(
        manifest: &Manifest,
        given: &DataDocuments,
    ) -> Result<DocumentTable, PluginRefusal> {
        if let Some(unknown) = given.keys().find(|name| !manifest.data.contains_key(*name)) {
            let known: Vec<&str> = manifest.data.keys().map(|name| &**name).collect();
            let expected = match &known[..] {
                [] => "none: the plugin's manifest declares no documents".to_owned(),
                known => format!("one of the declared documents {}", known.join(", ")),
            };
            return Err(refused(unknown, &expected, "an undeclared document"));
        }
        let checked = manifest.data.iter().map(|(name, schema)| {
            let value = match given.get(name) {
                Some(document) => serde_json::from_slice(&document.text)
                    .map_err(|error| refused(name, "JSON", &error.to_string()))?,
                None => Value::Null,
            };
            let whole = schema.complete_document(value).map_err(|invalid| {
                let (pointer, expected, found) =
                    (invalid.path.into(), invalid.expected.into(), invalid.found.into());
                PluginRefusal::Document { document: (**name).into(), pointer, expected, found }
            })?;
            Ok((Arc::clone(name), whole))
        });
        Ok(DocumentTable(Arc::new(checked.collect::<Result<_, PluginRefusal>>()?)))
    }

    /// The value at a path of a document as JSON; `None` if there is none.
    pub(crate) fn lookup(
        &self,
        document: &str,
        path: &[String],
    ) -> Result<Option<String>, InvalidLookup> {
        let name = || one_line(document, NAME_BYTES_MAX);
        let root = self.0.get(document).ok_or_else(|| InvalidLookup::Undeclared(name()))?;
        let found = path.iter().try_fold(root, |value, part| match value {
            Value::Object(members) => members.get(part),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        });
        let Some(value) = found else { return Ok(None) };
        let mut text = BoundedText(String::new());
        match write!(text, "{value}") {
            Ok(()) => Ok(Some(text.0)),
            Err(fmt::Error) => Err(InvalidLookup::TooLong(name())),
        }
    }
}

/// A lookup that is the fault of the plugin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidLookup {
    #[error("lookup in `{0}`: the plugin's manifest declares no document of this name")]
    Undeclared(Box<str>),
    #[error(
        "lookup in `{0}`: the value has more than {LOOKUP_BYTES_MAX} bytes; look up a part of it"
    )]
    TooLong(Box<str>),
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

#[cfg(test)]
mod tests;
