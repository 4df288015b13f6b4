//! The part of JSON Schema that `/openapi.json` uses; another keyword is a panic, so that none is ignored.

use serde_json::{Map, Value};

/// The description of the API, as the gateway answers it.
pub(crate) struct ApiDescription(pub(crate) Value);

impl ApiDescription {
    /// The schema of the type of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Value> {
        self.0["components"]["schemas"].get(name)
    }

    /// The schema of the body of a request: `POST`, `/v1/sessions`.
    pub(crate) fn body(&self, method: &str, path: &str) -> Option<&Value> {
        let body = &self.0["paths"][path][method.to_lowercase()]["requestBody"];
        body["content"]["application/json"].get("schema")
    }

    /// The schema of the body of an answer with this status, which is JSON.
    pub(crate) fn answer(&self, method: &str, path: &str, status: u16) -> Option<&Value> {
        let answers = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let answer = answers.get(status.to_string()).or_else(|| answers.get("default"))?;
        let answer = match answer.get("$ref").and_then(Value::as_str) {
            Some(shared) => self.0.pointer(shared.strip_prefix('#')?)?,
            None => answer,
        };
        answer["content"]["application/json"].get("schema")
    }

    /// Checks that the value has this schema. The error names the place.
    pub(crate) fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Value::Object(keywords) = schema else {
            return if *schema == Value::Bool(true) { Ok(()) } else { Err("has no place".into()) };
        };
        keywords
            .iter()
            .try_for_each(|(keyword, right)| self.check_keyword(keywords, keyword, right, value))
    }

    fn check_keyword(
        &self,
        keywords: &Map<String, Value>,
        keyword: &str,
        right: &Value,
        value: &Value,
    ) -> Result<(), String> {
        let fails = |schema: &Value| self.check(schema, value).is_err();
        let all = || right.as_array().unwrap().iter();
        let holds = match keyword {
            "$ref" => {
                let name = right.as_str().unwrap().rsplit('/').next().unwrap();
                return self.check(self.named(name).unwrap(), value);
            }
            "type" => match right {
                Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                kind => is_of(kind, value),
            },
            "const" => value == right,
            "enum" => all().any(|choice| choice == value),
            "anyOf" => all().any(|schema| !fails(schema)),
            "oneOf" => all().filter(|schema| !fails(schema)).count() == 1,
            "minimum" => value.as_f64().is_none_or(|value| Some(value) >= right.as_f64()),
            "maximum" => value.as_f64().is_none_or(|value| Some(value) <= right.as_f64()),
            "minItems" => {
                value.as_array().is_none_or(|all| all.len() as u64 >= right.as_u64().unwrap())
            }
            "maxItems" => {
                value.as_array().is_none_or(|all| all.len() as u64 <= right.as_u64().unwrap())
            }
            "uniqueItems" | "format" | "title" | "description" | "default" => true,
            "required" => {
                let missing = all().find(|key| value.get(key.as_str().unwrap()).is_none());
                return missing.map_or(Ok(()), |key| Err(format!("lacks {key}")));
            }
            "properties" => {
                let members = value.as_object().into_iter().flatten();
                return members
                    .filter_map(|(key, value)| Some((key, right.get(key)?, value)))
                    .try_for_each(|(key, schema, value)| {
                        self.check(schema, value).map_err(|why| format!("{key}: {why}"))
                    });
            }
            "additionalProperties" => {
                let known = keywords.get("properties");
                let members = value.as_object().into_iter().flatten();
                let mut others =
                    members.filter(|(key, _)| known.is_none_or(|all| all.get(key).is_none()));
                return others.try_for_each(|(key, value)| {
                    self.check(right, value).map_err(|why| format!("{key}: {why}"))
                });
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                return items.enumerate().try_for_each(|(at, item)| {
                    self.check(right, item).map_err(|why| format!("[{at}]: {why}"))
                });
            }
            other => panic!("{other}: no test of this keyword"),
        };
        if holds { Ok(()) } else { Err(format!("{value} is not of {keyword} {right}")) }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}: no type"),
    }
}
