//! The body of a push in JSON. A [`Value`] takes up to 90 times the memory of its text, so that only values within their limit are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_host::limits::{BINARY_BYTES_MAX, DOCUMENT_BYTES_MAX, DOCUMENTS_MAX};
use evenkeel_host::{DataDocument, DataDocuments};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::request::strict;

/// Settings as JSON: as many as facts in a data document. A plugin reads them within its memory of 16 MiB.
const SETTINGS_BYTES_MAX: usize = DOCUMENT_BYTES_MAX;

/// Base64 of the largest plugin (RFC 4648, section 4).
const PLUGIN_TEXT_MAX: usize = BINARY_BYTES_MAX.div_ceil(3) * 4;

/// The new parts of a revision.
#[derive(Default)]
pub(super) struct PushedParts {
    pub(super) plugin: Option<Vec<u8>>,
    pub(super) settings: Option<Value>,
    pub(super) documents: DataDocuments,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushBody {
    /// In Base64; without it the plugin of the active revision stays.
    plugin: Option<PluginText>,
    settings: Option<PushedSettings>,
    /// Data documents by name.
    #[serde(default)]
    documents: PushedDocuments,
}

impl PushedParts {
    /// Reads a body in JSON.
    pub(super) fn read(body: &[u8]) -> Result<PushedParts, ApiError> {
        let PushBody { plugin, settings, documents } = strict(body)?;
        let plugin = match plugin {
            None => None,
            Some(PluginText::Decoded(bytes)) if bytes.len() <= BINARY_BYTES_MAX => Some(bytes),
            Some(PluginText::Decoded(_) | PluginText::TooLarge) => {
                let message = format!("the plugin is larger than {BINARY_BYTES_MAX} bytes");
                return Err(ApiError::new(ErrorCode::TooLarge, message));
            }
        };
        let (settings, documents) = (settings.map(|settings| settings.0), documents.0);
        if plugin.is_none() && settings.is_none() && documents.is_empty() {
            let message =
                "found neither `plugin`, `settings` nor `documents`, expected one of them";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        Ok(PushedParts { plugin, settings, documents })
    }
}

enum PluginText {
    Decoded(Vec<u8>),
    /// Not decoded.
    TooLarge,
}

impl<'de> Deserialize<'de> for PluginText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PluginText, D::Error> {
        struct OfText;

        impl Visitor<'_> for OfText {
            type Value = PluginText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plugin in Base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PluginText, E> {
                if text.len() > PLUGIN_TEXT_MAX {
                    return Ok(PluginText::TooLarge);
                }
                let decoded = BASE64.decode(text.as_bytes()).map(PluginText::Decoded);
                decoded.map_err(|error| E::custom(format!("expected Base64: {error}")))
            }
        }

        deserializer.deserialize_str(OfText)
    }
}

struct PushedSettings(Value);

impl<'de> Deserialize<'de> for PushedSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PushedSettings, D::Error> {
        match BoundedValue::read(deserializer, SETTINGS_BYTES_MAX)? {
            Some(settings) => Ok(PushedSettings(settings)),
            None => {
                let right = format!("found more, expected at most {SETTINGS_BYTES_MAX} bytes");
                Err(D::Error::custom(right))
            }
        }
    }
}

#[derive(Default)]
struct PushedDocuments(DataDocuments);

impl<'de> Deserialize<'de> for PushedDocuments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PushedDocuments, D::Error> {
        struct OfMap;

        impl<'de> Visitor<'de> for OfMap {
            type Value = PushedDocuments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PushedDocuments, A::Error> {
                let mut documents = BTreeMap::new();
                while let Some(name) = map.next_key::<Arc<str>>()? {
                    if documents.len() == DOCUMENTS_MAX && !documents.contains_key(&name) {
                        let right =
                            format!("found more, expected at most {DOCUMENTS_MAX} documents");
                        return Err(A::Error::custom(right));
                    }
                    let document = map.next_value_seed(PushedDocument(&name))?;
                    documents.insert(name, document);
                }
                Ok(PushedDocuments(documents))
            }
        }

        deserializer.deserialize_map(OfMap)
    }
}

/// A document of this name. Only its text outlives its reading.
struct PushedDocument<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for PushedDocument<'_> {
    type Value = DataDocument;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DataDocument, D::Error> {
        match BoundedValue::read(deserializer, DOCUMENT_BYTES_MAX)? {
            Some(value) => DataDocument::of(self.0, &value).map_err(D::Error::custom),
            None => {
                let right = format!("found more, expected at most {DOCUMENT_BYTES_MAX} bytes");
                Err(D::Error::custom(right))
            }
        }
    }
}

/// Reads a value as long as its text, without blanks between its parts, is within a limit.
struct BoundedValue<'a> {
    /// Bytes that the text may still have. `None` beyond the limit, from where on values are not kept.
    left: &'a mut Option<usize>,
}

impl BoundedValue<'_> {
    /// Returns `None` if the text has more bytes.
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        bytes_max: usize,
    ) -> Result<Option<Value>, D::Error> {
        // No comma or bracket follows the whole value.
        let mut left = Some(bytes_max + 1);
        let value = BoundedValue { left: &mut left }.deserialize(deserializer)?;
        Ok(left.map(|_| value))
    }

    fn part(&mut self) -> BoundedValue<'_> {
        BoundedValue { left: self.left }
    }

    /// Counts bytes of the text, with the comma or bracket behind them. Returns whether the value is within its limit.
    fn count(&mut self, bytes: usize) -> bool {
        *self.left = self.left.and_then(|left| left.checked_sub(bytes + 1));
        self.left.is_some()
    }

    /// A value that is short.
    fn plain<E>(mut self, value: impl Into<Value>) -> Result<Value, E> {
        self.count(1);
        Ok(value.into())
    }
}

impl<'de> DeserializeSeed<'de> for BoundedValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BoundedValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.plain(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.plain(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.plain(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.plain(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.plain(value)
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<Value, E> {
        Ok(if self.count(value.len() + 2) { value.into() } else { Value::Null })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        self.count(1);
        while let Some(item) = seq.next_element_seed(self.part())? {
            if self.left.is_some() {
                items.push(item);
            }
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        self.count(1);
        while let Some(name) = map.next_key::<String>()? {
            // Two quotation marks and a colon.
            let is_within = self.count(name.len() + 2);
            let value = map.next_value_seed(self.part())?;
            if is_within && self.left.is_some() {
                members.insert(name, value);
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
