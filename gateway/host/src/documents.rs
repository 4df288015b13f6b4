//! Data documents: facts that a plugin looks up, given beside its settings and checked by schemas of its manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::limits::{DOCUMENT_BYTES_MAX, LINE_BYTES_MAX};
use crate::lookup::DocumentTable;
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

/// Checks documents by the schemas of the manifest, and fills in defaults.
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
    Ok(DocumentTable::of(checked.collect::<Result<_, PluginRefusal>>()?))
}

#[cfg(test)]
mod tests;
