//! What a plugin promises that its answers cost: `cost` in its manifest, instructions per row of each call.

use std::collections::BTreeMap;

use evenkeel_host::Glance;
use serde_json::Value;

use super::Call;

/// What a plugin promises, by call. Empty where it promises nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cost(BTreeMap<String, u64>);

/// A promise that a call does not keep.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{call} about {rows} rows takes {found} instructions per row; its manifest promises at most {promised}"
)]
pub struct Exceeded {
    /// The call.
    pub call: &'static str,
    /// Its rows.
    pub rows: u32,
    /// Instructions per row, rounded up.
    pub found: u64,
    /// The most that was promised.
    pub promised: u64,
}

impl Cost {
    /// Of a plugin's file.
    pub(crate) fn of(bytes: &[u8]) -> Cost {
        let manifest = Glance::at(bytes).manifest.unwrap_or_default();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap_or(Value::Null);
        let promises = manifest.get("cost").and_then(Value::as_object).into_iter().flatten();
        Cost(promises.filter_map(|(call, most)| Some((call.clone(), most.as_u64()?))).collect())
    }

    /// Promises that are not kept. A call is held to its promise at the largest size: what it takes however few rows there
    /// are is spread over most of them there.
    pub(crate) fn exceeded(&self, calls: &[Call]) -> Vec<Exceeded> {
        let mut largest: BTreeMap<&str, &Call> = BTreeMap::new();
        for call in calls {
            let kept = largest.entry(call.name).or_insert(call);
            *kept = if call.rows > kept.rows { call } else { kept };
        }
        let broken = largest.values().filter_map(|call| {
            let promised = *self.0.get(call.name)?;
            let found = call.instructions.div_ceil(u64::from(call.rows.max(1)));
            let (call, rows) = (call.name, call.rows);
            (found > promised).then_some(Exceeded { call, rows, found, promised })
        });
        broken.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Spread;
    use super::*;

    fn call(name: &'static str, rows: u32, instructions: u64) -> Call {
        Call { name, rows, ns: Spread::default(), instructions }
    }

    fn promised(most: u64) -> Cost {
        Cost(BTreeMap::from([("tick".to_owned(), most)]))
    }

    #[test]
    fn a_promise_is_held_at_the_largest_size() {
        let calls = [call("tick", 1, 9_000), call("tick", 100, 40_001), call("open", 9, 9_999_999)];
        assert_eq!(promised(401).exceeded(&calls), []);
        let broken = Exceeded { call: "tick", rows: 100, found: 401, promised: 400 };
        assert_eq!(promised(400).exceeded(&calls), [broken]);
        assert_eq!(Cost::default().exceeded(&calls), []);
    }

    #[test]
    fn what_is_no_plugin_promises_nothing() {
        assert_eq!(Cost::of(b"no plugin"), Cost::default());
    }
}
