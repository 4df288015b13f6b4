//! Comparison of an answer with what a case expects of it.

use serde_json::Value;

/// The expectation of no decision about a subject.
const UNCHANGED: &str = "unchanged";

/// The differences between an answer and the expectation, each with its place. Members of an answer that the expectation
/// does not name may have any value.
///
/// An expectation is the value itself, a text such as `">= 100"` for a number, or a table with one of these keys: `any`, a list
/// of expectations of which one holds; `includes` and `excludes`, values of a list; `count`, the length of a list.
pub(super) fn differences(place: &str, expected: &Value, found: Option<&Value>) -> Vec<String> {
    let differs = || {
        let found = found.map_or_else(|| UNCHANGED.to_owned(), Value::to_string);
        vec![format!("{place}: expected {expected}, found {found}")]
    };
    let Some(found) = found else {
        return if expected == UNCHANGED { Vec::new() } else { differs() };
    };
    match (expected, found) {
        (Value::Object(wanted), _)
            if !wanted.is_empty() && wanted.keys().all(|key| is_property(key)) =>
        {
            let holds = wanted.iter().all(|(key, value)| has_property(key, value, found));
            if holds { Vec::new() } else { differs() }
        }
        (Value::Object(wanted), Value::Object(there)) => wanted
            .iter()
            .flat_map(|(key, value)| differences(&format!("{place}.{key}"), value, there.get(key)))
            .collect(),
        (Value::Array(wanted), Value::Array(there)) if wanted.len() == there.len() => {
            let pairs = wanted.iter().zip(there).enumerate();
            pairs
                .flat_map(|(at, (wanted, there))| {
                    differences(&format!("{place}[{at}]"), wanted, Some(there))
                })
                .collect()
        }
        (Value::String(bound), Value::Number(number)) => {
            let holds = number.as_f64().and_then(|number| is_within(bound, number));
            if holds == Some(true) { Vec::new() } else { differs() }
        }
        (expected, found) if expected == found => Vec::new(),
        _ => differs(),
    }
}

fn is_property(key: &str) -> bool {
    matches!(key, "any" | "includes" | "excludes" | "count")
}

fn has_property(key: &str, wanted: &Value, found: &Value) -> bool {
    let is = |wanted: &Value, found: &Value| differences("", wanted, Some(found)).is_empty();
    let items = found.as_array();
    let holds_one =
        |wanted: &Value| items.is_some_and(|items| items.iter().any(|item| is(wanted, item)));
    let values = wanted.as_array().map_or(&[][..], Vec::as_slice);
    match key {
        "any" => values.iter().any(|wanted| is(wanted, found)),
        "includes" => values.iter().all(holds_one),
        "excludes" => items.is_some() && !values.iter().any(holds_one),
        _ => items.is_some_and(|items| is(wanted, &Value::from(items.len()))),
    }
}

/// True if a number is within a bound such as `">= 100"`; `None` if the text is no bound.
fn is_within(bound: &str, number: f64) -> Option<bool> {
    let (compare, rest): (fn(&f64, &f64) -> bool, &str) = [
        (">=", f64::ge as fn(&f64, &f64) -> bool),
        ("<=", f64::le),
        (">", f64::gt),
        ("<", f64::lt),
    ]
    .into_iter()
    .find_map(|(sign, compare)| Some((compare, bound.strip_prefix(sign)?)))?;
    let limit: f64 = rest.trim().parse().ok()?;
    Some(compare(&number, &limit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differ(expected: &Value, found: &Value) -> Vec<String> {
        differences("s1", expected, Some(found))
    }

    #[test]
    fn named_members_are_compared() {
        let found = json!({"hops": ["a", "b"], "ttl_ms": 500, "reason": "nearest"});
        assert!(differ(&json!({"hops": ["a", "b"], "reason": "nearest"}), &found).is_empty());
        assert_eq!(
            differ(&json!({"hops": ["a", "c"], "reason": "better"}), &found),
            [
                "s1.hops[1]: expected \"c\", found \"b\"",
                "s1.reason: expected \"better\", found \"nearest\""
            ]
        );
        let shorter = differ(&json!({"hops": ["a"]}), &found);
        assert_eq!(shorter, ["s1.hops: expected [\"a\"], found [\"a\",\"b\"]"]);
        let missing = differ(&json!({"notes": []}), &found);
        assert_eq!(missing, ["s1.notes: expected [], found unchanged"]);
    }

    #[test]
    fn numbers_have_bounds() {
        for (bound, holds) in [
            (json!(">= 300"), true),
            (json!("> 300"), false),
            (json!("<= 300"), true),
            (json!("<300"), false),
            (json!("about 300"), false),
            (json!(300), true),
        ] {
            assert_eq!(differ(&bound, &json!(300)).is_empty(), holds, "{bound}");
        }
    }

    #[test]
    fn lists_have_properties() {
        let hops = json!(["a", "b"]);
        for (expected, holds) in [
            (json!({"includes": ["b"]}), true),
            (json!({"includes": ["b", "c"]}), false),
            (json!({"excludes": ["c"]}), true),
            (json!({"excludes": ["a", "c"]}), false),
            (json!({"count": 2}), true),
            (json!({"count": "> 2"}), false),
            (json!({"any": [["b", "a"], ["a", "b"]]}), true),
            (json!({"any": [["b"]]}), false),
            (json!({"count": 2, "excludes": ["a"]}), false),
        ] {
            assert_eq!(differ(&expected, &hops).is_empty(), holds, "{expected}");
        }
    }

    #[test]
    fn subject_without_a_decision_is_unchanged() {
        assert!(differences("s1", &json!("unchanged"), None).is_empty());
        let acted = differences("s1", &json!("unchanged"), Some(&json!({"actions": []})));
        assert_eq!(acted, ["s1: expected \"unchanged\", found {\"actions\":[]}"]);
        let idle = differences("s1", &json!({"actions": []}), None);
        assert_eq!(idle, ["s1: expected {\"actions\":[]}, found unchanged"]);
    }
}
