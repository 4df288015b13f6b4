//! Values to try for a setting: valid and invalid ones.

use serde_json::{Map, Number, Value, json};

use crate::setting::Setting;

/// A name that no setting has.
const NO_SETTING: &str = "no_such_setting";

/// A setting that the plugin treats differently than its schema says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// A value that the schema allows.
    #[error("{setting} is allowed by the schema, but refused: {said}")]
    Refused {
        /// `spares = 3`.
        setting: String,
        said: String,
    },
    /// A value that should be refused.
    #[error("{setting} is accepted, but should be refused")]
    Taken {
        /// `spares = 4`.
        setting: String,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Trial {
    name: String,
    value: Value,
    /// The value is valid.
    pub(crate) fits: bool,
}

impl Trial {
    /// The settings with this value.
    pub(crate) fn within(&self, settings: &Value) -> Value {
        let mut whole = settings.as_object().cloned().unwrap_or_else(Map::new);
        whole.insert(self.name.clone(), self.value.clone());
        Value::Object(whole)
    }

    /// `spares = 3`.
    pub(crate) fn words(&self) -> String {
        format!("{} = {}", self.name, self.value)
    }
}

/// Trials of these settings; nested ones are left to the plugin's own tests.
pub(crate) fn trials(settings: &[Setting]) -> Vec<Trial> {
    let plain = settings.iter().filter(|setting| !setting.name.contains(['.', '[']));
    let mut trials: Vec<Trial> = plain.flat_map(of).collect();
    trials.push(Trial { name: NO_SETTING.into(), value: json!(1), fits: false });
    trials
}

fn of(setting: &Setting) -> Vec<Trial> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for bound in [&setting.minimum, &setting.maximum].into_iter().flatten() {
        good.push(bound.clone());
    }
    bad.extend(setting.minimum.as_ref().and_then(|bound| past(bound, -1)));
    bad.extend(setting.maximum.as_ref().and_then(|bound| past(bound, 1)));
    good.extend(setting.choices.clone());
    match setting.kind.trim_start_matches("array of ") {
        "boolean" => good.extend([json!(true), json!(false)]),
        "duration" => bad.push(json!("soon")),
        "string" if !setting.choices.is_empty() => bad.push(json!("no-such-choice")),
        _ => {}
    }
    let is_list = setting.kind.starts_with("array of ");
    let trial = |fits| {
        move |value: Value| {
            let value = if is_list { json!([value]) } else { value };
            Trial { name: setting.name.clone(), value, fits }
        }
    };
    good.into_iter().map(trial(true)).chain(bad.into_iter().map(trial(false))).collect()
}

/// A number just beyond a bound, if JSON has one.
fn past(bound: &Value, step: i8) -> Option<Value> {
    let bound = bound.as_number()?;
    match bound.as_i128() {
        Some(whole) => {
            let past = whole.checked_add(step.into())?;
            let signed = i64::try_from(past).map(Number::from);
            signed.or_else(|_| u64::try_from(past).map(Number::from)).ok().map(Value::Number)
        }
        None => Number::from_f64(bound.as_f64()? + f64::from(step)).map(Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(schema: &Value) -> Vec<(Value, bool)> {
        let all = Setting::all(&json!({"properties": {"x": schema}}));
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
        let trial = Trial { name: "x".into(), value: json!(1), fits: true };
        assert_eq!(trial.within(&json!({"x": 3, "y": 2})), json!({"x": 1, "y": 2}));
        assert_eq!((trial.within(&Value::Null), trial.words()), (json!({"x": 1}), "x = 1".into()));
    }
}
