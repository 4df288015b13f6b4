//! Other settings of a plugin, within the bounds of its schema.

use fastrand::Rng;
use serde_json::{Value, json};

/// The factors by which a setting may change.
const FACTORS: [f64; 6] = [0.4, 0.6, 0.8, 1.25, 1.6, 2.5];

/// The most settings that change at once.
const CHANGED_MAX: usize = 3;

/// Milliseconds of the units of durations, the longer names first.
const UNITS: [(&str, f64); 4] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3)];

/// Settings of which one to three numbers or durations differ. `schema` is the schema of settings in the plugin's manifest.
pub(crate) fn redraw(schema: &Value, settings: &Value, rng: &mut Rng) -> Value {
    let mut drawn = settings.clone();
    let Some(properties) = schema["properties"].as_object() else { return drawn };
    let mut changes: Vec<(&String, Value)> = Vec::new();
    for (key, property) in properties {
        let standing = settings.get(key).unwrap_or(&property["default"]);
        let factor = FACTORS[rng.usize(..FACTORS.len())];
        if let Some(other) = other(property, standing, factor).filter(|other| other != standing) {
            changes.push((key, other));
        }
    }
    rng.shuffle(&mut changes);
    changes.truncate(rng.usize(1..=CHANGED_MAX));
    for (key, value) in changes {
        drawn[key.as_str()] = value;
    }
    drawn
}

/// The value times the factor, within the property's bounds; `None` if it is neither number nor duration.
fn other(property: &Value, standing: &Value, factor: f64) -> Option<Value> {
    if let Some(text) = standing.as_str() {
        let (digits, of_unit) =
            UNITS.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)))?;
        let ms = digits.parse::<f64>().ok()? * of_unit * factor;
        return Some(json!(format!("{}ms", ms.round())));
    }
    let bound = |key: &str| property[key].as_f64();
    let least = bound("minimum").unwrap_or(f64::MIN);
    let most = bound("maximum").unwrap_or(f64::MAX);
    let number = (standing.as_f64()? * factor).clamp(least, most);
    Some(if property["type"] == "integer" { json!(number.round() as i64) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {
            "spares": {"type": "integer", "minimum": 1, "maximum": 3, "default": 2},
            "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.9},
            "stay": {"type": "string", "default": "30s"},
            "roles": {"type": "array", "default": []},
            "mode": {"type": "string", "default": "none"},
        }})
    }

    #[test]
    fn few_settings_differ_within_their_bounds() {
        for seed in 0..200 {
            let drawn = redraw(&schema(), &json!({}), &mut Rng::with_seed(seed));
            let drawn = drawn.as_object().unwrap();
            assert!((1..=CHANGED_MAX).contains(&drawn.len()), "{drawn:?}");
            for (key, value) in drawn {
                match key.as_str() {
                    "spares" => assert!([1, 3].contains(&value.as_i64().unwrap()), "{value}"),
                    "share" => assert!((0.0..=1.0).contains(&value.as_f64().unwrap()), "{value}"),
                    "stay" => assert!(value.as_str().unwrap().ends_with("00ms"), "{value}"),
                    other => panic!("{other} is neither number nor duration"),
                }
            }
        }
    }

    #[test]
    fn same_seed_draws_the_same() {
        let drawn = |seed| redraw(&schema(), &json!({"share": 0.5}), &mut Rng::with_seed(seed));
        assert_eq!(drawn(3), drawn(3));
        assert!((0..20).any(|seed| drawn(seed) != drawn(3)));
    }
}
