//! Settings against their schema: the part of JSON Schema that settings need, and nothing that is silently ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};

/// The schema of a plugin's settings.
///
/// Understood: `type` (one of object, array, string, boolean, integer, number), `properties`, `required`,
/// `additionalProperties` (true or false), `items`, `enum`, `minimum`, `maximum`, `default`. Words that explain
/// (`title`, `description`, `unit`, `examples`, anything with `$` or `x-` before it) are kept and not read.
/// Any other keyword is refused, since a bound that nobody holds is worse than none.
#[derive(Clone, PartialEq, Debug)]
pub struct Schema {
    json: Value,
    root: Node,
}

/// Where a value, or the schema itself, is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unfit {
    pub(crate) path: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Object,
    Array,
    String,
    Boolean,
    Integer,
    Number,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Node {
    kind: Option<Kind>,
    properties: BTreeMap<String, Node>,
    required: BTreeSet<String>,
    closed: bool,
    items: Option<Box<Node>>,
    choices: Option<Vec<Value>>,
    minimum: Option<Number>,
    maximum: Option<Number>,
    default: Option<Value>,
}

impl Schema {
    pub(crate) fn new(json: Value) -> Result<Schema, Unfit> {
        let root = Node::read(&json, "settings")?;
        if root.kind != Some(Kind::Object) {
            return Err(unfit("settings.type", "\"object\"", json.get("type")));
        }
        Ok(Schema { json, root })
    }

    /// The schema as the plugin gave it.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// The settings with defaults in the place of what was not given. `null` stands for none given.
    pub(crate) fn complete(&self, settings: Value) -> Result<Value, Unfit> {
        let settings = if settings.is_null() { Value::Object(Map::new()) } else { settings };
        self.root.complete(settings, "$")
    }
}

impl Node {
    fn read(json: &Value, path: &str) -> Result<Node, Unfit> {
        let Value::Object(keywords) = json else {
            return Err(unfit(path, "a schema", Some(json)));
        };
        let mut node = Node::default();
        for (keyword, value) in keywords {
            let path = format!("{path}.{keyword}");
            match keyword.as_str() {
                "type" => node.kind = Some(Kind::read(value, &path)?),
                "properties" => node.properties = properties(value, &path)?,
                "required" => node.required = required(value, &path)?,
                "additionalProperties" => {
                    let open = value
                        .as_bool()
                        .ok_or_else(|| unfit(&path, "true or false", Some(value)))?;
                    node.closed = !open;
                }
                "items" => node.items = Some(Box::new(Node::read(value, &path)?)),
                "enum" => {
                    let choices = value.as_array().filter(|choices| !choices.is_empty());
                    let choices =
                        choices.ok_or_else(|| unfit(&path, "a list of values", Some(value)))?;
                    node.choices = Some(choices.clone());
                }
                "minimum" => node.minimum = Some(number(value, &path)?),
                "maximum" => node.maximum = Some(number(value, &path)?),
                "default" => node.default = Some(value.clone()),
                "title" | "description" | "unit" | "examples" | "format" | "deprecated" => {}
                word if word.starts_with('$') || word.starts_with("x-") => {}
                _ => return Err(unfit(&path, "a keyword this gateway holds", Some(value))),
            }
        }
        if let Some(default) = &node.default {
            let completed = node.complete(default.clone(), &format!("{path}.default"))?;
            node.default = Some(completed);
        }
        Ok(node)
    }

    fn complete(&self, value: Value, path: &str) -> Result<Value, Unfit> {
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
            Value::Object(given) => self.complete_object(given, path),
            Value::Array(given) => self.complete_array(given, path),
            plain => Ok(plain),
        }
    }

    fn complete_object(&self, given: Map<String, Value>, path: &str) -> Result<Value, Unfit> {
        let mut whole = Map::new();
        for (key, value) in given {
            let path = format!("{path}.{key}");
            let value = match self.properties.get(&key) {
                Some(node) => node.complete(value, &path)?,
                None if self.closed => {
                    let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
                    let expected = format!("one of the settings {}", known.join(", "));
                    return Err(unfit(&path, &expected, Some(&value)));
                }
                None => value,
            };
            whole.insert(key, value);
        }
        for (key, node) in &self.properties {
            if let Some(default) = &node.default
                && !whole.contains_key(key)
            {
                whole.insert(key.clone(), default.clone());
            }
        }
        match self.required.iter().find(|&key| !whole.contains_key(key)) {
            Some(key) => {
                let kind = self.properties.get(key).and_then(|node| node.kind);
                Err(unfit(&format!("{path}.{key}"), kind.map_or("given", Kind::words), None))
            }
            None => Ok(Value::Object(whole)),
        }
    }

    fn complete_array(&self, given: Vec<Value>, path: &str) -> Result<Value, Unfit> {
        let Some(items) = &self.items else { return Ok(Value::Array(given)) };
        let whole = given.into_iter().enumerate();
        whole.map(|(i, value)| items.complete(value, &format!("{path}[{i}]"))).collect()
    }
}

impl Kind {
    fn read(value: &Value, path: &str) -> Result<Kind, Unfit> {
        Ok(match value.as_str() {
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("boolean") => Kind::Boolean,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            _ => return Err(unfit(path, "the name of one type", Some(value))),
        })
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::String => value.is_string(),
            Kind::Boolean => value.is_boolean(),
            Kind::Integer => value.is_i64() || value.is_u64(),
            Kind::Number => value.is_number(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Object => "an object",
            Kind::Array => "a list",
            Kind::String => "a text",
            Kind::Boolean => "true or false",
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
        }
    }
}

fn properties(value: &Value, path: &str) -> Result<BTreeMap<String, Node>, Unfit> {
    let of = value.as_object().ok_or_else(|| unfit(path, "an object of schemas", Some(value)))?;
    let read = |(key, json)| Ok((String::clone(key), Node::read(json, &format!("{path}.{key}"))?));
    of.iter().map(read).collect()
}

fn required(value: &Value, path: &str) -> Result<BTreeSet<String>, Unfit> {
    let keys = value.as_array().and_then(|keys| {
        keys.iter().map(|key| key.as_str().map(str::to_owned)).collect::<Option<BTreeSet<_>>>()
    });
    keys.ok_or_else(|| unfit(path, "a list of names", Some(value)))
}

fn number(value: &Value, path: &str) -> Result<Number, Unfit> {
    value.as_number().cloned().ok_or_else(|| unfit(path, "a number", Some(value)))
}

/// Whole numbers are compared exactly.
fn less(a: &Number, b: &Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64() < b.as_f64(),
    }
}

fn unfit(path: &str, expected: &str, found: Option<&Value>) -> Unfit {
    let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let end = found.floor_char_boundary(80);
    let found = if end < found.len() { format!("{}…", &found[..end]) } else { found };
    Unfit { path: path.into(), expected: expected.into(), found }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::new(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["mode"],
            "properties": {
                "jitter": {"type": "integer", "minimum": 1, "maximum": 500, "default": 30, "unit": "ms"},
                "mode": {"type": "string", "enum": ["calm", "brisk"]},
                "share": {"type": "number", "minimum": 0.0, "maximum": 1.0},
                "tiers": {"type": "array", "items": {
                    "type": "object", "additionalProperties": false,
                    "properties": {"cap": {"type": "integer", "default": 64}, "name": {"type": "string"}}
                }}
            }
        }))
        .unwrap()
    }

    fn path_of(settings: Value) -> String {
        schema().complete(settings).unwrap_err().path
    }

    #[test]
    fn what_was_not_given_has_its_default() {
        let whole = schema().complete(json!({"mode": "calm", "tiers": [{}, {"cap": 5}]})).unwrap();
        assert_eq!(
            whole,
            json!({"jitter": 30, "mode": "calm", "tiers": [{"cap": 64}, {"cap": 5}]})
        );
    }

    #[test]
    fn bounds_are_held_on_both_sides() {
        for good in [1, 500] {
            assert!(schema().complete(json!({"mode": "calm", "jitter": good})).is_ok());
        }
        for bad in [0, 501] {
            assert_eq!(path_of(json!({"mode": "calm", "jitter": bad})), "$.jitter");
        }
        assert!(schema().complete(json!({"mode": "calm", "share": 1})).is_ok());
        assert_eq!(path_of(json!({"mode": "calm", "share": 1.01})), "$.share");
    }

    #[test]
    fn large_whole_numbers_are_compared_exactly() {
        let schema = Schema::new(json!({
            "type": "object", "properties": {"n": {"type": "integer", "maximum": 9_007_199_254_740_992_u64}}
        }))
        .unwrap();
        assert!(schema.complete(json!({"n": 9_007_199_254_740_992_u64})).is_ok());
        assert!(schema.complete(json!({"n": 9_007_199_254_740_993_u64})).is_err());
    }

    #[test]
    fn an_error_names_the_place_what_is_right_and_what_was_found() {
        let wrong = schema().complete(json!({"mode": "calm", "tiers": [{}, {"cap": "64"}]}));
        let wrong = wrong.unwrap_err();
        assert_eq!(wrong.path, "$.tiers[1].cap");
        assert_eq!(wrong.expected, "a whole number");
        assert_eq!(wrong.found, "\"64\"");
        assert_eq!(path_of(json!({"mode": "wild"})), "$.mode");
        assert_eq!(path_of(json!({"mode": "calm", "jiter": 3})), "$.jiter");
        assert_eq!(path_of(json!({"mode": "calm", "jitter": 3.5})), "$.jitter");
        assert_eq!(path_of(json!([])), "$");
    }

    #[test]
    fn what_is_required_and_has_no_default_must_be_given() {
        assert_eq!(path_of(json!({})), "$.mode");
        assert_eq!(path_of(Value::Null), "$.mode");
    }

    #[test]
    fn a_keyword_that_is_not_held_is_refused() {
        let bad =
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a"}}});
        assert_eq!(Schema::new(bad).unwrap_err().path, "settings.properties.a.pattern");
        let bad = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "default": 1}}});
        assert_eq!(Schema::new(bad).unwrap_err().path, "settings.properties.a.default");
        assert_eq!(Schema::new(json!({})).unwrap_err().path, "settings.type");
    }
}
