//! Values to try for a setting: valid and invalid ones.

use serde_json::{Map, Number, Value, json};

use crate::setting::SettingSchema;

/// A name that no setting has.
const NO_SETTING: &str = "no_such_setting";

/// A setting that the plugin treats differently than its schema says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SettingMismatch {
    #[error("{setting} is allowed by the schema, but refused: {said}")]
    Refused {
        /// `spares = 3`.
        setting: String,
        said: String,
    },
    #[error("{setting} is accepted, but should be refused")]
    Taken {
        /// `spares = 4`.
        setting: String,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct BoundsTrial {
    name: String,
    value: Value,
    pub(crate) fits: bool,
}

impl BoundsTrial {
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
pub(crate) fn trials(settings: &[SettingSchema]) -> Vec<BoundsTrial> {
    let plain = settings.iter().filter(|setting| !setting.name.contains(['.', '[']));
    let mut trials: Vec<BoundsTrial> = plain.flat_map(of).collect();
    trials.push(BoundsTrial { name: NO_SETTING.into(), value: json!(1), fits: false });
    trials
}

fn of(setting: &SettingSchema) -> Vec<BoundsTrial> {
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
            BoundsTrial { name: setting.name.clone(), value, fits }
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
mod tests;
