//! Settings of a plugin, read from the JSON Schema in its manifest.

use serde::Serialize;
use serde_json::Value;

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct SettingSchema {
    /// Path of the setting: `cap`, `tiers[].cap`.
    pub(crate) name: String,
    /// `integer`, `number`, `boolean`, `string`, `duration`, or `array of` one of those.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    /// `None` if the setting is required, or may be omitted.
    pub(crate) default: Option<Value>,
    pub(crate) minimum: Option<Value>,
    pub(crate) maximum: Option<Value>,
    /// Allowed values; empty if not enumerated.
    pub(crate) choices: Vec<Value>,
    pub(crate) required: bool,
    /// The author's description.
    pub(crate) doc: Option<String>,
}

impl SettingSchema {
    /// All settings of a schema, by name; empty for an invalid schema.
    pub(crate) fn all(schema: &Value) -> Vec<SettingSchema> {
        let mut all = Vec::new();
        properties(schema, "", &mut all);
        all
    }

    /// `1 to 500`, `at least 1`, or the allowed values; none if unrestricted.
    pub(crate) fn bounds(&self) -> Option<String> {
        if !self.choices.is_empty() {
            let choices: Vec<String> = self.choices.iter().map(Value::to_string).collect();
            return Some(format!("one of {}", choices.join(", ")));
        }
        match (&self.minimum, &self.maximum) {
            (Some(min), Some(max)) => Some(format!("{min} to {max}")),
            (Some(min), None) => Some(format!("at least {min}")),
            (None, Some(max)) => Some(format!("at most {max}")),
            (None, None) => None,
        }
    }
}

fn properties(schema: &Value, path: &str, all: &mut Vec<SettingSchema>) {
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return };
    let required = |name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|key| key == name))
    };
    for (key, field) in fields {
        let name = format!("{path}{key}");
        let items = field.get("items");
        // Type and bounds of a list are those of its items.
        let one = items.unwrap_or(field);
        let text =
            |from: &Value, word: &str| from.get(word).and_then(Value::as_str).map(str::to_owned);
        all.push(SettingSchema {
            kind: if items.is_some() { format!("array of {}", kind(one)) } else { kind(one) },
            unit: text(field, "unit"),
            default: field.get("default").cloned(),
            minimum: one.get("minimum").cloned(),
            maximum: one.get("maximum").cloned(),
            choices: one.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            required: required(key),
            doc: text(field, "description"),
            name: name.clone(),
        });
        properties(one, &format!("{name}{}.", if items.is_some() { "[]" } else { "" }), all);
    }
}

/// A string with a pattern is shown as a duration, because most patterns are those of durations.
fn kind(schema: &Value) -> String {
    match (schema.get("type").and_then(Value::as_str), schema.get("pattern")) {
        (Some("string"), Some(_)) => "duration".into(),
        (Some(kind), _) => kind.into(),
        (None, _) => "any".into(),
    }
}

#[cfg(test)]
mod tests;
