use super::*;

fn tried(schema: &Value) -> Vec<(Value, bool)> {
    let all = SettingSchema::all(&json!({"properties": {"x": schema}}));
    let trials = trials(&all).into_iter().filter(|trial| trial.name == "x");
    trials.map(|trial| (trial.value, trial.fits)).collect()
}

#[test]
fn number_is_tried_at_and_beyond_its_bounds() {
    let whole = tried(&json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}));
    let expected = [(json!(0), true), (json!(u64::MAX), true), (json!(-1), false)];
    assert_eq!(whole, expected, "JSON has no larger number");
    let real = tried(&json!({"type": "number", "minimum": 0.1, "maximum": 0.95}));
    assert_eq!(real[2..], [(json!(-0.9), false), (json!(1.95), false)]);
}

#[test]
fn each_choice_and_an_unknown_one_are_tried() {
    let one = tried(&json!({"type": "string", "enum": ["a", "b"]}));
    assert_eq!(one, [(json!("a"), true), (json!("b"), true), (json!("no-such-choice"), false)]);
    let list = tried(&json!({"type": "array", "items": {"type": "string", "enum": ["a"]}}));
    assert_eq!(list, [(json!(["a"]), true), (json!(["no-such-choice"]), false)]);
}

#[test]
fn other_types_are_tried_as_far_as_declared() {
    assert_eq!(tried(&json!({"type": "boolean"})), [(json!(true), true), (json!(false), true)]);
    assert_eq!(tried(&json!({"type": "string", "pattern": "x"})), [(json!("soon"), false)]);
    assert_eq!(tried(&json!({"type": "string"})), []);
    assert_eq!(trials(&[]).len(), 1, "an unknown setting is always tried");
}

#[test]
fn trial_keeps_other_settings() {
    let trial = BoundsTrial { name: "x".into(), value: json!(1), fits: true };
    assert_eq!(trial.within(&json!({"x": 3, "y": 2})), json!({"x": 1, "y": 2}));
    assert_eq!((trial.within(&Value::Null), trial.words()), (json!({"x": 1}), "x = 1".into()));
}
