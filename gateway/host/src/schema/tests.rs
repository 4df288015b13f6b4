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
fn omitted_settings_have_defaults() {
    let whole = schema().complete(json!({"mode": "calm", "tiers": [{}, {"cap": 5}]})).unwrap();
    assert_eq!(whole, json!({"jitter": 30, "mode": "calm", "tiers": [{"cap": 64}, {"cap": 5}]}));
}

#[test]
fn bounds_hold_on_both_sides() {
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
fn error_names_path_expected_and_found() {
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
fn required_setting_without_default_must_be_given() {
    assert_eq!(path_of(json!({})), "$.mode");
    assert_eq!(path_of(Value::Null), "$.mode");
}

#[test]
fn unsupported_keyword_is_refused() {
    let bad = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a"}}});
    assert_eq!(Schema::new(bad).unwrap_err().path, "settings.properties.a.pattern");
    let bad = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "default": 1}}});
    assert_eq!(Schema::new(bad).unwrap_err().path, "settings.properties.a.default");
    assert_eq!(Schema::new(json!({})).unwrap_err().path, "settings.type");
}

#[test]
fn duration_is_a_number_with_a_unit() {
    let pattern = "^[0-9]+([.][0-9]+)?(ms|s|m|h)$";
    let duration = json!({"type": "string", "pattern": pattern, "default": "30s"});
    let schema = json!({"type": "object", "properties": {"stay": duration}});
    let schema = Schema::new(schema).unwrap();
    for good in ["30s", "0ms", "1.5m", "12h"] {
        assert!(schema.complete(json!({"stay": good})).is_ok(), "{good}");
    }
    for bad in ["30", "s", "", "-1s", "1.s", ".5s", "1.5.5s", "1 s", "1d", "1sm"] {
        let wrong = schema.complete(json!({"stay": bad})).unwrap_err();
        assert_eq!(wrong.expected, "a duration such as 250ms, 30s, 5m or 1h", "{bad}");
    }
    for (bare, expected) in [(json!(5), "\"5s\""), (json!(0.5), "\"0.5s\""), (json!(-5), "250ms")] {
        let wrong = schema.complete(json!({"stay": bare})).unwrap_err();
        assert!(wrong.expected.starts_with(&format!("a duration such as {expected}")), "{wrong:?}");
    }
}

#[test]
fn bit_rate_is_a_number_a_space_and_a_unit() {
    let pattern = "^[0-9]+([.][0-9]+)? (kbit/s|Mbit/s|Gbit/s)$";
    let rate = json!({"type": "string", "pattern": pattern, "default": "300 kbit/s"});
    let schema = Schema::new(json!({"type": "object", "properties": {"cap": rate}})).unwrap();
    for good in ["300 kbit/s", "1.5 Mbit/s", "0 Gbit/s"] {
        assert!(schema.complete(json!({"cap": good})).is_ok(), "{good}");
    }
    for bad in ["300", "300kbit/s", "300  kbit/s", "-1 kbit/s", "1. Mbit/s", "1 kbps", "1 s", ""] {
        let wrong = schema.complete(json!({"cap": bad})).unwrap_err();
        assert_eq!(wrong.expected, "a bit rate such as 300 kbit/s or 1.5 Mbit/s", "{bad}");
    }
    let bare = schema.complete(json!({"cap": 64})).unwrap_err();
    assert_eq!(bare.expected, "a bit rate such as \"64 kbit/s\"");
}

#[test]
fn nested_defaults_are_bounded() {
    // Each list item has the defaults of all lists inside it.
    let nested = |levels: usize| {
        let mut schema = json!({"type": "object", "properties": {"a": {"default": 1_234}}});
        for _ in 0..levels {
            let list = json!({"type": "array", "items": schema, "default": [{}, {}, {}, {}]});
            schema = json!({"type": "object", "properties": {"a": list}});
        }
        schema
    };
    let completed = Schema::new(nested(3)).unwrap().complete(Value::Null).unwrap();
    assert_eq!(completed.to_string().matches("1234").count(), 4 * 4 * 4);
    let endless = Schema::new(nested(20)).unwrap_err();
    assert_eq!(endless.expected, "settings to which defaults add 1048576 bytes at most");
    assert_eq!(endless.found, "more");
}

#[test]
fn defaults_are_bounded_but_given_settings_are_not() {
    // A thousand bytes of JSON with the comma after it.
    let pairs = [("name".to_owned(), json!("x".repeat(990))), ("k".repeat(995), json!(1))];
    for (key, default) in pairs {
        let item = json!({"type": "object", "properties": {&key: {"default": default}}});
        let list = json!({"type": "array", "items": item});
        let schema = json!({"type": "object", "properties": {"tiers": list}});
        let schema = Schema::new(schema).unwrap();
        let most = DEFAULTS_BYTES_MAX / 1_000;
        for (tiers, fits) in [(most, true), (most + 1, false)] {
            let complete = || schema.complete(json!({"tiers": vec![json!({}); tiers]}));
            assert_eq!((complete().is_ok(), complete().is_ok()), (fits, fits), "{tiers}");
        }
        let given = json!({"tiers": vec![json!({&key: default}); most + 1]});
        assert_eq!(schema.complete(given.clone()), Ok(given));
    }
}

#[test]
fn schema_errors_have_no_control_characters() {
    let schema = |settings: Value| {
        let mut schema = json!({"type": "object", "additionalProperties": false});
        schema.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Schema::new(schema).unwrap()
    };
    let required = schema(json!({"required": ["\u{1b}[31m"]}));
    assert_eq!(required.complete(json!({})).unwrap_err().path, "$. [31m");
    let known = schema(json!({"properties": {"\u{9b}31m": {}, "long": {"enum": ["a\u{9b}"]}}}));
    let unknown = known.complete(json!({"other": 1})).unwrap_err();
    assert_eq!(
        (&*unknown.found, &*unknown.expected),
        ("\"other\"", "one of the settings long,  31m")
    );
    assert_eq!(known.complete(json!({"long": 1})).unwrap_err().expected, "one of \"a \"");
    let long = schema(json!({"properties": {"l".repeat(5_000): {"type": "string"}}}));
    assert_eq!(long.complete(json!({"other": 1})).unwrap_err().expected.len(), LINE_BYTES_MAX);
}

#[test]
fn unknown_setting_is_refused_with_the_closest() {
    let expected = |settings: Value| schema().complete(settings).unwrap_err().expected;
    let all = "one of the settings jitter, mode, share, tiers";
    assert_eq!(expected(json!({"jiter": 1})), format!("{all} (did you mean `jitter`?)"));
    assert_eq!(expected(json!({"nothing": 1})), all);
    let none = Schema::new(json!({"type": "object", "additionalProperties": false})).unwrap();
    let refused = none.complete(json!({"jitter": 1})).unwrap_err();
    assert_eq!(refused.expected, "left out, since there are no settings");
}

#[test]
fn only_a_close_word_is_suggested() {
    assert_eq!(nearest("eats", ["east", "west"]).as_deref(), Some("did you mean `east`?"));
    assert_eq!(nearest("nowhere", ["east", "west"]), None);
    let weight = nearest("load_wieght", ["loss_weight", "load_weight", "delay_weight"]);
    assert_eq!(weight.as_deref(), Some("did you mean `load_weight`?"));
}

#[test]
fn members_beyond_the_properties_have_a_schema() {
    let schema = Schema::new(json!({
        "type": "object", "properties": {"on": {"type": "boolean", "default": true}},
        "additionalProperties": {"type": "object", "properties": {"cap": {"type": "integer", "default": 9}}}
    }))
    .unwrap();
    let whole = schema.complete(json!({"acme": {}})).unwrap();
    assert_eq!(whole, json!({"acme": {"cap": 9}, "on": true}));
    assert_eq!(schema.complete(json!({"on": {}})).unwrap_err().path, "$.on");
    assert_eq!(schema.complete(json!({"acme": {"cap": ""}})).unwrap_err().path, "$.acme.cap");
    let bad = Schema::new(json!({"type": "object", "additionalProperties": "none"}));
    assert_eq!(bad.unwrap_err().expected, "true, false or a schema");
}
