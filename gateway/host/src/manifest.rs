//! What a plugin says of itself, in the custom section `evenkeel:manifest`.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::{COMMON_REASONS_FROM, CommonReason, Hook, Metric, Op, Reasons};
use serde::Deserialize;
use serde_json::Value;

use crate::refused::Refused;
use crate::schema::Schema;

/// The contract this host speaks.
pub const CONTRACT: &str = "0.1.0";

/// A name is a word in metrics, logs and file names.
const NAME_BYTES_MAX: usize = 64;

/// What a plugin says of itself.
///
/// Numbers of metrics and actions that this gateway does not know are left out: the plugin is not granted them.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// Its name: lower-case letters, digits and hyphens. Revisions of one plugin share it, and their states.
    pub name: Arc<str>,
    /// Its version, for people, and to tell which of two is newer: see [`Version`](crate::Version).
    pub version: Box<str>,
    /// The version of the contract that it was built for.
    pub contract: Box<str>,
    /// The hooks it answers; at least one.
    pub hooks: Vec<Hook>,
    /// The schema of its settings.
    pub settings: Schema,
    /// The schema number of the states and the memo that it writes.
    pub state_schema: u32,
    /// Metrics it reads of sessions and rooms, in the order of its columns.
    pub subject_metrics: Vec<Metric>,
    /// Metrics it reads of nodes and regions, in the order of its columns.
    pub node_metrics: Vec<Metric>,
    /// Actions it takes.
    pub ops: Vec<Op>,
    /// Words for the reasons that its decisions carry: its own and those that all plugins share, in the order of their numbers.
    pub reasons: Reasons,
    /// What it promises that its answers take, by call: `tick`. Authors are held to it by their tools, not by gateways.
    pub cost: BTreeMap<Box<str>, Cost>,
}

/// What a call takes at most, in WebAssembly instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Cost {
    /// However few rows it is about.
    pub call: u64,
    /// For each of its rows: regions of `admit`, nodes of `place`, rooms of `reroute`, sessions of `tick`.
    #[serde(default)]
    pub row: u64,
}

impl Cost {
    /// What a call about so many rows takes at most.
    pub fn of(self, rows: u32) -> u64 {
        self.call.saturating_add(self.row.saturating_mul(rows.into()))
    }
}

/// A reason of a plugin's own.
#[derive(Deserialize)]
struct Reason {
    number: u32,
    name: String,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    version: Box<str>,
    contract: Box<str>,
    hooks: Vec<String>,
    settings: Value,
    #[serde(default)]
    state_schema: u32,
    #[serde(default)]
    subject_metrics: Vec<u32>,
    #[serde(default)]
    node_metrics: Vec<u32>,
    #[serde(default)]
    ops: Vec<u32>,
    #[serde(default)]
    reasons: Vec<Reason>,
    #[serde(default)]
    cost: BTreeMap<Box<str>, Cost>,
}

impl Manifest {
    pub(crate) fn read(section: &[u8]) -> Result<Manifest, Refused> {
        let text: Text = serde_json::from_slice(section)
            .map_err(|error| wrong("(whole)", "the manifest's JSON", &error.to_string()))?;
        if !same_contract(&text.contract) {
            return Err(Refused::Contract { found: text.contract, spoken: CONTRACT });
        }
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.name.is_empty() || text.name.len() > NAME_BYTES_MAX || !text.name.chars().all(named)
        {
            let expected = "1 to 64 lower-case letters, digits and hyphens";
            return Err(wrong("name", expected, &format!("{:?}", text.name)));
        }
        let hooks =
            Hook::ALL.into_iter().filter(|hook| text.hooks.iter().any(|name| name == hook.name()));
        let hooks: Vec<Hook> = hooks.collect();
        if hooks.is_empty() {
            let expected = "one or more of admission, routing, degradation, scenario";
            return Err(wrong("hooks", expected, &format!("{:?}", text.hooks)));
        }
        let reasons = reasons(text.reasons)?;
        let settings = Schema::new(text.settings)
            .map_err(|unfit| wrong(&unfit.path, &unfit.expected, &unfit.found))?;
        let metrics =
            |numbers: Vec<u32>| numbers.into_iter().filter_map(Metric::from_number).collect();
        Ok(Manifest {
            name: text.name.into(),
            version: text.version,
            contract: text.contract,
            hooks,
            settings,
            state_schema: text.state_schema,
            subject_metrics: metrics(text.subject_metrics),
            node_metrics: metrics(text.node_metrics),
            ops: text.ops.into_iter().filter_map(Op::from_number).collect(),
            reasons,
            cost: text.cost,
        })
    }

    /// The name of a reason that a decision carries: the plugin's own, or one that all plugins share.
    pub fn reason(&self, number: u32) -> Option<&str> {
        let at = self.reasons.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        Some(&self.reasons[at].1)
    }
}

/// A plugin's own reasons, each checked, and after them those that all plugins share.
fn reasons(mut own: Vec<Reason>) -> Result<Reasons, Refused> {
    let wrong = |expected: &str, found: &str| Err(wrong("reasons", expected, found));
    own.sort_by_key(|reason| reason.number);
    for Reason { number, name } in &own {
        if !(1..COMMON_REASONS_FROM).contains(number) {
            let expected = "reasons of its own, with numbers from 1 to 65535";
            return wrong(expected, &format!("{number} {name:?}"));
        }
    }
    if let Some(twice) = own.windows(2).find(|pair| pair[0].number == pair[1].number) {
        let found = format!("{} {:?} and {:?}", twice[0].number, twice[0].name, twice[1].name);
        return wrong("reasons with a number each", &found);
    }
    let own = own.into_iter().map(|Reason { number, name }| (number, name.into()));
    let common = CommonReason::ALL.into_iter();
    Ok(own.chain(common.map(|common| (common as u32, common.key().into()))).collect())
}

/// Before version 1 a change of the second number may break plugins; the third never does.
pub(crate) fn same_contract(version: &str) -> bool {
    let line = |version: &str| version.rsplit_once('.').map(|(line, _)| line.to_owned());
    // It is a number, and no longer than one.
    let last = version.rsplit('.').next().and_then(|last| last.parse::<u16>().ok());
    last.is_some() && line(version).is_some() && line(version) == line(CONTRACT)
}

fn wrong(field: &str, expected: &str, found: &str) -> Refused {
    Refused::Manifest { field: field.into(), expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest() -> Value {
        json!({
            "name": "nearest", "version": "1.2.0", "contract": "0.1.0", "hooks": ["routing"],
            "settings": {"type": "object"}, "state_schema": 2, "subject_metrics": [13, 9_999],
            "node_metrics": [32, 35], "ops": [1, 77], "reasons": [{"number": 1, "name": "nearest"}]
        })
    }

    fn read(manifest: &Value) -> Result<Manifest, Refused> {
        Manifest::read(manifest.to_string().as_bytes())
    }

    #[test]
    fn numbers_from_a_newer_registry_are_left_out() {
        let manifest = read(&manifest()).unwrap();
        assert_eq!(manifest.subject_metrics, [Metric::Sessions]);
        assert_eq!(manifest.node_metrics, [Metric::Delay, Metric::Load]);
        assert_eq!(manifest.ops, [Op::Cap]);
        assert_eq!(manifest.state_schema, 2);
    }

    #[test]
    fn a_hook_from_a_newer_contract_is_left_out_but_one_must_remain() {
        let mut value = manifest();
        value["hooks"] = json!(["recording", "routing"]);
        assert_eq!(read(&value).unwrap().hooks, [Hook::Routing]);
        value["hooks"] = json!(["recording"]);
        assert!(matches!(read(&value), Err(Refused::Manifest { field, .. }) if &*field == "hooks"));
    }

    #[test]
    fn another_contract_is_refused_with_both_versions() {
        let mut value = manifest();
        value["contract"] = json!("0.1.7");
        assert!(read(&value).is_ok());
        for other in ["0.2.0", "1.1.0", "0", "", "0.1.", "0.1.x", "0.1.65536"] {
            value["contract"] = json!(other);
            assert_eq!(
                read(&value),
                Err(Refused::Contract { found: other.into(), spoken: "0.1.0" })
            );
        }
    }

    #[test]
    fn a_reason_is_the_plugins_own_or_one_that_all_share() {
        let mut value = manifest();
        let named = read(&value).unwrap();
        assert_eq!(named.reason(1), Some("nearest"));
        assert_eq!(named.reason(65_537), Some("loss"));
        assert_eq!((named.reason(0), named.reason(2)), (None, None));
        for (number, own) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
            value["reasons"] = json!([{"number": number, "name": "own"}]);
            assert_eq!(read(&value).is_ok(), own, "{number}");
        }
    }

    #[test]
    fn a_name_is_one_word() {
        let mut value = manifest();
        for bad in ["", "Nearest", "a/b", &"a".repeat(65)] {
            value["name"] = json!(bad);
            assert!(
                matches!(read(&value), Err(Refused::Manifest { field, .. }) if &*field == "name")
            );
        }
        value["name"] = json!("a".repeat(64));
        assert!(read(&value).is_ok());
    }

    #[test]
    fn every_reason_that_all_plugins_share_has_its_key() {
        let manifest = read(&manifest()).unwrap();
        for common in CommonReason::ALL {
            assert_eq!(manifest.reason(common as u32), Some(common.key()));
        }
        assert!(manifest.reasons.is_sorted_by(|(one, _), (next, _)| one < next));
    }
}
