//! Validates settings and data documents by the part of JSON Schema that they need; nothing is silently ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::limits::{DEFAULTS_BYTES_MAX, LINE_BYTES_MAX};
use crate::store::one_line;

/// The schema of a plugin's settings, or of a data document.
///
/// Supported: `type` (one of object, array, string, boolean, integer, number), `properties`,
/// `required`, `additionalProperties` (true, false or a schema), `items`, `enum`, `minimum`, `maximum`, `default`, and
/// `pattern` for durations and bit rates. Annotations (`title`, `description`, `unit`, `examples`, any keyword that starts
/// with `$` or `x-`) are kept and ignored. Any other keyword is refused, since a bound that is not enforced is worse than
/// none.
#[derive(Clone, PartialEq, Debug)]
pub struct Schema {
    /// The schema as JSON.
    pub json: Value,
    root: SchemaNode,
}

/// The form of a text that holds a number with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quantity {
    Duration,
    BitRate,
}

impl Quantity {
    fn of_pattern(pattern: &Value) -> Option<Quantity> {
        match pattern.as_str()? {
            "^[0-9]+([.][0-9]+)?(ms|s|m|h)$" => Some(Quantity::Duration),
            "^[0-9]+([.][0-9]+)? (kbit/s|Mbit/s|Gbit/s)$" => Some(Quantity::BitRate),
            _ => None,
        }
    }

    fn fits(self, text: &str) -> bool {
        let (units, between) = match self {
            Quantity::Duration => (&["ms", "s", "m", "h"][..], ""),
            Quantity::BitRate => (&["kbit/s", "Mbit/s", "Gbit/s"][..], " "),
        };
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        unit.strip_prefix(between).is_some_and(|unit| units.contains(&unit))
            && number
                .split_once('.')
                .map_or(digits(number), |(whole, part)| digits(whole) && digits(part))
    }

    /// The expected form, with the number that was given without a unit.
    fn words(self, given: &Value) -> String {
        let number = given.as_number().filter(|number| number.as_f64() >= Some(0.0));
        match (self, number) {
            (Quantity::Duration, Some(number)) => format!("a duration such as \"{number}s\""),
            (Quantity::Duration, None) => "a duration such as 250ms, 30s, 5m or 1h".into(),
            (Quantity::BitRate, Some(number)) => format!("a bit rate such as \"{number} kbit/s\""),
            (Quantity::BitRate, None) => "a bit rate such as 300 kbit/s or 1.5 Mbit/s".into(),
        }
    }
}

/// An invalid value, or an invalid part of the schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InvalidValue {
    pub(crate) path: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ValueKind {
    Object,
    Array,
    String,
    Boolean,
    Integer,
    Number,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct SchemaNode {
    kind: Option<ValueKind>,
    properties: BTreeMap<String, SchemaNode>,
    required: BTreeSet<String>,
    closed: bool,
    /// The schema of members that are not among the properties.
    rest: Option<Box<SchemaNode>>,
    quantity: Option<Quantity>,
    items: Option<Box<SchemaNode>>,
    choices: Option<Vec<Value>>,
    minimum: Option<Number>,
    maximum: Option<Number>,
    default: Option<Value>,
}

impl Schema {
    /// The schema of settings.
    pub(crate) fn new(json: Value) -> Result<Schema, InvalidValue> {
        Schema::in_field("settings", json)
    }

    /// The schema in this field of a manifest.
    pub(crate) fn in_field(field: &str, json: Value) -> Result<Schema, InvalidValue> {
        let root = SchemaNode::read(&json, field, &mut DefaultsBudget::default())?;
        if root.kind != Some(ValueKind::Object) {
            return Err(unfit(format!("{field}.type"), "\"object\"", json.get("type")));
        }
        Ok(Schema { json, root })
    }

    /// Validates settings and fills in defaults. `null` means empty settings.
    pub(crate) fn complete(&self, settings: Value) -> Result<Value, InvalidValue> {
        self.complete_at(settings, &ValuePath::Setting("$"))
    }

    /// Validates a data document and fills in defaults. `null` means an empty document.
    pub(crate) fn complete_document(&self, document: Value) -> Result<Value, InvalidValue> {
        self.complete_at(document, &ValuePath::Document)
    }

    fn complete_at(&self, value: Value, path: &ValuePath<'_>) -> Result<Value, InvalidValue> {
        let value = if value.is_null() { Value::Object(Map::new()) } else { value };
        self.root.complete(value, path, &mut DefaultsBudget::default())
    }
}

/// The place of a value.
#[derive(Clone, Copy)]
enum ValuePath<'a> {
    /// The beginning of a setting's path: `$`.
    Setting(&'a str),
    /// A data document, whose places are JSON pointers (RFC 6901).
    Document,
    Member(&'a ValuePath<'a>, &'a str),
    Item(&'a ValuePath<'a>, usize),
}

impl ValuePath<'_> {
    fn is_pointer(&self) -> bool {
        match self {
            ValuePath::Setting(_) => false,
            ValuePath::Document => true,
            ValuePath::Member(of, _) | ValuePath::Item(of, _) => of.is_pointer(),
        }
    }
}

impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValuePath::Setting(root) => f.write_str(root),
            ValuePath::Document => Ok(()),
            ValuePath::Member(of, key) if of.is_pointer() => {
                write!(f, "{of}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            ValuePath::Member(of, key) => write!(f, "{of}.{key}"),
            ValuePath::Item(of, at) if of.is_pointer() => write!(f, "{of}/{at}"),
            ValuePath::Item(of, at) => write!(f, "{of}[{at}]"),
        }
    }
}

/// JSON bytes that defaults may still add.
struct DefaultsBudget(usize);

impl Default for DefaultsBudget {
    fn default() -> DefaultsBudget {
        DefaultsBudget(DEFAULTS_BYTES_MAX)
    }
}

impl DefaultsBudget {
    fn take(
        &mut self,
        key: &str,
        default: &Value,
        path: &ValuePath<'_>,
    ) -> Result<(), InvalidValue> {
        let added = format!("{}:{default},", Value::from(key));
        let Some(rest) = self.0.checked_sub(added.len()) else {
            let expected =
                format!("settings to which defaults add {DEFAULTS_BYTES_MAX} bytes at most");
            let path = cut(&path.to_string());
            return Err(InvalidValue { path, expected, found: "more".to_owned() });
        };
        self.0 = rest;
        Ok(())
    }
}

impl SchemaNode {
    fn read(
        json: &Value,
        path: &str,
        room: &mut DefaultsBudget,
    ) -> Result<SchemaNode, InvalidValue> {
        let Value::Object(keywords) = json else {
            return Err(unfit(path, "a schema", Some(json)));
        };
        let mut node = SchemaNode::default();
        for (keyword, value) in keywords {
            let path = format!("{path}.{keyword}");
            match keyword.as_str() {
                "type" => node.kind = Some(ValueKind::read(value, &path)?),
                "properties" => node.properties = properties(value, &path, room)?,
                "required" => node.required = required(value, &path)?,
                "additionalProperties" => match value {
                    Value::Bool(open) => node.closed = !open,
                    Value::Object(_) => {
                        node.rest = Some(Box::new(SchemaNode::read(value, &path, room)?));
                    }
                    _ => return Err(unfit(&path, "true, false or a schema", Some(value))),
                },
                "items" => node.items = Some(Box::new(SchemaNode::read(value, &path, room)?)),
                "enum" => {
                    let choices = value.as_array().filter(|choices| !choices.is_empty());
                    let choices =
                        choices.ok_or_else(|| unfit(&path, "a list of values", Some(value)))?;
                    node.choices = Some(choices.clone());
                }
                "minimum" => node.minimum = Some(number(value, &path)?),
                "maximum" => node.maximum = Some(number(value, &path)?),
                "pattern" if Quantity::of_pattern(value).is_some() => {
                    node.quantity = Quantity::of_pattern(value);
                }
                "default" => node.default = Some(value.clone()),
                "title" | "description" | "unit" | "examples" | "format" | "deprecated" => {}
                word if word.starts_with('$') || word.starts_with("x-") => {}
                _ => return Err(unfit(&path, "a keyword this gateway holds", Some(value))),
            }
        }
        if let Some(default) = &node.default {
            let path = format!("{path}.default");
            let completed = node.complete(default.clone(), &ValuePath::Setting(&path), room)?;
            node.default = Some(completed);
        }
        Ok(node)
    }

    fn complete(
        &self,
        value: Value,
        path: &ValuePath<'_>,
        room: &mut DefaultsBudget,
    ) -> Result<Value, InvalidValue> {
        if let Some(quantity) = self.quantity
            && !value.as_str().is_some_and(|text| quantity.fits(text))
        {
            return Err(unfit(path, &quantity.words(&value), Some(&value)));
        }
        if let Some(kind) = self.kind
            && !kind.fits(&value)
        {
            return Err(unfit(path, kind.words(), Some(&value)));
        }
        if let Some(choices) = &self.choices
            && !choices.contains(&value)
        {
            let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
            return Err(unfit(path, &format!("one of {}", choices.join(", ")), Some(&value)));
        }
        if let Value::Number(given) = &value {
            if let Some(minimum) = self.minimum.as_ref().filter(|minimum| less(given, minimum)) {
                return Err(unfit(path, &format!("at least {minimum}"), Some(&value)));
            }
            if let Some(maximum) = self.maximum.as_ref().filter(|maximum| less(maximum, given)) {
                return Err(unfit(path, &format!("at most {maximum}"), Some(&value)));
            }
        }
        match value {
            Value::Object(given) => self.complete_object(given, path, room),
            Value::Array(given) => self.complete_array(given, path, room),
            plain => Ok(plain),
        }
    }

    fn complete_object(
        &self,
        given: Map<String, Value>,
        path: &ValuePath<'_>,
        room: &mut DefaultsBudget,
    ) -> Result<Value, InvalidValue> {
        let mut whole = Map::new();
        for (key, value) in given {
            let path = ValuePath::Member(path, &key);
            let value = match self.properties.get(&key).or(self.rest.as_deref()) {
                Some(node) => node.complete(value, &path, room)?,
                None if self.closed => {
                    let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
                    let of = if path.is_pointer() { "members" } else { "settings" };
                    let expected = match nearest(&key, known.iter().copied()) {
                        _ if known.is_empty() => format!("left out, since there are no {of}"),
                        Some(meant) => format!("one of the {of} {} ({meant})", known.join(", ")),
                        None => format!("one of the {of} {}", known.join(", ")),
                    };
                    return Err(unfit(path, &expected, Some(&Value::from(key.as_str()))));
                }
                None => value,
            };
            whole.insert(key, value);
        }
        for (key, node) in &self.properties {
            if let Some(default) = &node.default
                && !whole.contains_key(key)
            {
                room.take(key, default, path)?;
                whole.insert(key.clone(), default.clone());
            }
        }
        match self.required.iter().find(|&key| !whole.contains_key(key)) {
            Some(key) => {
                let kind = self.properties.get(key).and_then(|node| node.kind);
                let expected = kind.map_or("given", ValueKind::words);
                Err(unfit(ValuePath::Member(path, key), expected, None))
            }
            None => Ok(Value::Object(whole)),
        }
    }

    fn complete_array(
        &self,
        given: Vec<Value>,
        path: &ValuePath<'_>,
        room: &mut DefaultsBudget,
    ) -> Result<Value, InvalidValue> {
        let Some(items) = &self.items else { return Ok(Value::Array(given)) };
        let whole = given.into_iter().enumerate();
        whole.map(|(at, value)| items.complete(value, &ValuePath::Item(path, at), room)).collect()
    }
}

impl ValueKind {
    fn read(value: &Value, path: &str) -> Result<ValueKind, InvalidValue> {
        Ok(match value.as_str() {
            Some("object") => ValueKind::Object,
            Some("array") => ValueKind::Array,
            Some("string") => ValueKind::String,
            Some("boolean") => ValueKind::Boolean,
            Some("integer") => ValueKind::Integer,
            Some("number") => ValueKind::Number,
            _ => return Err(unfit(path, "the name of one type", Some(value))),
        })
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            ValueKind::Object => value.is_object(),
            ValueKind::Array => value.is_array(),
            ValueKind::String => value.is_string(),
            ValueKind::Boolean => value.is_boolean(),
            ValueKind::Integer => value.is_i64() || value.is_u64(),
            ValueKind::Number => value.is_number(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            ValueKind::Object => "an object",
            ValueKind::Array => "a list",
            ValueKind::String => "a text",
            ValueKind::Boolean => "true or false",
            ValueKind::Integer => "a whole number",
            ValueKind::Number => "a number",
        }
    }
}

fn properties(
    value: &Value,
    path: &str,
    room: &mut DefaultsBudget,
) -> Result<BTreeMap<String, SchemaNode>, InvalidValue> {
    let of = value.as_object().ok_or_else(|| unfit(path, "an object of schemas", Some(value)))?;
    let read = |(key, json): (&String, &Value)| {
        Ok((key.clone(), SchemaNode::read(json, &format!("{path}.{key}"), room)?))
    };
    of.iter().map(read).collect()
}

fn required(value: &Value, path: &str) -> Result<BTreeSet<String>, InvalidValue> {
    let keys = value.as_array().and_then(|keys| {
        keys.iter().map(|key| key.as_str().map(str::to_owned)).collect::<Option<BTreeSet<_>>>()
    });
    keys.ok_or_else(|| unfit(path, "a list of names", Some(value)))
}

fn number(value: &Value, path: &str) -> Result<Number, InvalidValue> {
    value.as_number().cloned().ok_or_else(|| unfit(path, "a number", Some(value)))
}

/// Compares whole numbers exactly.
fn less(a: &Number, b: &Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64() < b.as_f64(),
    }
}

fn unfit(path: impl fmt::Display, expected: &str, found: Option<&Value>) -> InvalidValue {
    let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let end = found.floor_char_boundary(80);
    let found = if end < found.len() { format!("{}…", &found[..end]) } else { found };
    InvalidValue { path: cut(&path.to_string()), expected: cut(expected), found: cut(&found) }
}

/// A suggestion: the closest of the known words, if at most a third of its letters differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (distance, best) =
        known.into_iter().map(|known| (strsim::levenshtein(word, known), known)).min()?;
    (distance <= best.chars().count().div_ceil(3)).then(|| format!("did you mean `{best}`?"))
}

/// Shortens a key for messages, since keys are the plugin's text and go to logs and terminals.
fn cut(text: &str) -> String {
    one_line(text, LINE_BYTES_MAX).into()
}

#[cfg(test)]
mod tests;
