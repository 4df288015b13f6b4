use serde_json::json;

use super::*;

#[test]
fn setting_has_all_fields_of_its_schema() {
    let schema = json!({"type": "object", "required": ["region"], "properties": {
        "jitter": {"type": "integer", "minimum": 1, "maximum": 500, "default": 30, "unit": "ms",
            "description": "From here on it is restless."},
        "region": {"type": "string"},
        "wait": {"type": "string", "pattern": "^[0-9]+", "default": "8s"},
        "steps": {"type": "array", "items": {"type": "string", "enum": ["cap", "voice-only"]}},
        "tiers": {"type": "array", "items": {"type": "object", "properties": {
            "cap": {"type": "integer", "minimum": 16}}}}
    }});
    let all = SettingSchema::all(&schema);
    let named = |name: &str| all.iter().find(|setting| setting.name == name).unwrap();
    let jitter = named("jitter");
    assert_eq!((jitter.kind.as_str(), jitter.unit.as_deref()), ("integer", Some("ms")));
    assert_eq!(
        (jitter.default.clone(), jitter.bounds()),
        (Some(json!(30)), Some("1 to 500".into()))
    );
    assert_eq!(jitter.doc.as_deref(), Some("From here on it is restless."));
    assert!(named("region").required && !jitter.required);
    assert_eq!(named("wait").kind, "duration");
    assert_eq!(named("steps").kind, "array of string");
    assert_eq!(named("steps").bounds().unwrap(), r#"one of "cap", "voice-only""#);
    assert_eq!(named("tiers[].cap").bounds().unwrap(), "at least 16");
    assert_eq!(all.len(), 6);
}

#[test]
fn invalid_schema_has_no_settings() {
    for odd in [json!(null), json!([1]), json!({"properties": 3})] {
        assert_eq!(SettingSchema::all(&odd), []);
    }
}
