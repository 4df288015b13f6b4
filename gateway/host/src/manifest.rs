//! The manifest of a plugin, in the custom section `evenkeel:manifest`, and the grant of what it requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_model::{COMMON_REASONS_FROM, CommonReason, Hook, Metric, Op, Reasons, actions};
use serde::Deserialize;
use serde_json::Value;

use crate::limits::{
    DOCUMENTS_MAX, LINE_BYTES_MAX, MANIFEST_BYTES_MAX, NAME_BYTES_MAX, REASONS_MAX,
    VERSION_BYTES_MAX,
};
use crate::refusal::PluginRefusal;
use crate::schema::Schema;
use crate::store::one_line;

/// The version of the contract that this host implements.
pub const CONTRACT: &str = "0.1.1";

/// The manifest of a plugin.
///
/// Numbers of unknown metrics and actions are ignored: the plugin is not granted them.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// Lower-case letters, digits and hyphens. Revisions of one plugin share the name, and their
    /// states.
    pub name: Arc<str>,
    /// At most 64 printable ASCII characters; orders versions (`evenkeel_revisions::Version`).
    pub version: Box<str>,
    /// The version of the contract that the plugin was built for.
    pub contract: Box<str>,
    /// The hooks that the plugin implements; at least one.
    pub hooks: Vec<Hook>,
    /// Schema of the plugin's settings.
    pub settings: Schema,
    /// Schemas of the data documents in which the plugin looks up, by the documents' names.
    pub data: BTreeMap<Arc<str>, Schema>,
    /// The schema number of the plugin's states and memo.
    pub state_schema: u32,
    /// Metrics of sessions and rooms that the plugin reads, in the order of its columns.
    pub subject_metrics: Vec<Metric>,
    /// Metrics of nodes and regions that the plugin reads, in the order of its columns.
    pub node_metrics: Vec<Metric>,
    /// Requested actions.
    pub ops: Vec<Op>,
    /// Names of reasons by number: the plugin's own and the shared ones.
    pub(crate) reasons: Reasons,
    /// Declared cost by call: `tick`. Checked by author tools, not by gateways.
    pub cost: BTreeMap<Box<str>, CallCost>,
}

/// Upper bound on the cost of a call, in WebAssembly instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct CallCost {
    /// Cost independent of the rows.
    pub(crate) call: u64,
    /// Cost per row: regions of `admit`, nodes of `place`, rooms of `reroute`, sessions of `tick`.
    #[serde(default)]
    pub(crate) row: u64,
}

impl CallCost {
    /// The bound for a call about this many rows.
    pub fn of(self, rows: u32) -> u64 {
        self.call.saturating_add(self.row.saturating_mul(rows.into()))
    }
}

/// A reason of the plugin's own.
#[derive(Deserialize)]
struct ManifestReason {
    number: u32,
    name: String,
}

#[derive(Deserialize)]
struct ManifestText {
    name: String,
    version: Box<str>,
    contract: Box<str>,
    hooks: Vec<String>,
    settings: Value,
    #[serde(default)]
    data: BTreeMap<String, Value>,
    #[serde(default)]
    state_schema: u32,
    #[serde(default)]
    subject_metrics: Vec<u32>,
    #[serde(default)]
    node_metrics: Vec<u32>,
    #[serde(default)]
    ops: Vec<u32>,
    #[serde(default)]
    reasons: Vec<ManifestReason>,
    #[serde(default)]
    cost: BTreeMap<Box<str>, CallCost>,
}

impl Manifest {
    pub(crate) fn read(section: &[u8]) -> Result<Manifest, PluginRefusal> {
        if section.len() > MANIFEST_BYTES_MAX {
            let expected = format!("{MANIFEST_BYTES_MAX} bytes at most");
            return Err(wrong("(whole)", &expected, &format!("{} bytes", section.len())));
        }
        let text: ManifestText = serde_json::from_slice(section)
            .map_err(|error| wrong("(whole)", "the manifest's JSON", &error.to_string()))?;
        if !same_contract(&text.contract) {
            return Err(PluginRefusal::Contract {
                found: one_line(&text.contract, NAME_BYTES_MAX),
                spoken: CONTRACT,
            });
        }
        if !is_name(&text.name) {
            return Err(wrong("name", NAME, &format!("{:?}", text.name)));
        }
        let is_printable = text.version.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.version.len() > VERSION_BYTES_MAX || !is_printable {
            let expected = format!("{VERSION_BYTES_MAX} printable ASCII characters at most");
            return Err(wrong("version", &expected, &format!("{:?}", text.version)));
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
        let data = documents(text.data)?;
        let metrics =
            |numbers: Vec<u32>| numbers.into_iter().filter_map(Metric::from_number).collect();
        Ok(Manifest {
            name: text.name.into(),
            version: text.version,
            contract: text.contract,
            hooks,
            settings,
            data,
            state_schema: text.state_schema,
            subject_metrics: metrics(text.subject_metrics),
            node_metrics: metrics(text.node_metrics),
            ops: text.ops.into_iter().filter_map(Op::from_number).collect(),
            reasons,
            cost: text.cost,
        })
    }

    /// The name of a reason, own or shared.
    pub fn reason(&self, number: u32) -> Option<&str> {
        let at = self.reasons.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        Some(&self.reasons[at].1)
    }
}

/// Limits set by the operator for a policy's plugins. Default: none.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct GrantLimits {
    /// Actions that the plugin may take; an empty list allows none. `None`: all but those that need to be listed.
    pub ops: Option<Vec<Op>>,
    /// Metrics that the plugin may read, for any kind of row. `None`: all.
    pub metrics: Option<Vec<Metric>>,
}

/// The requested and allowed metrics and actions of a plugin. A metric that is not granted has no
/// column, which the SDK shows as "not measured"; an action that is not granted is dropped and
/// counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginGrant {
    /// Metrics of sessions and rooms, in the order of the columns.
    pub subject_metrics: Vec<Metric>,
    /// Metrics of nodes and regions, in the order of the columns.
    pub node_metrics: Vec<Metric>,
    /// Actions that the plugin may take; others are dropped.
    pub ops: Vec<Op>,
}

impl PluginGrant {
    pub(crate) fn of(manifest: &Manifest, allowed: &GrantLimits) -> PluginGrant {
        let is_listed = |op: &Op| allowed.ops.is_some() || !actions::of(*op).needs_grant();
        let mut ops = intersection(&manifest.ops, allowed.ops.as_deref());
        ops.retain(is_listed);
        PluginGrant {
            subject_metrics: intersection(&manifest.subject_metrics, allowed.metrics.as_deref()),
            node_metrics: intersection(&manifest.node_metrics, allowed.metrics.as_deref()),
            ops,
        }
    }

    /// The grant equals the manifest's request.
    pub(crate) fn is_whole(&self, manifest: &Manifest) -> bool {
        *self == PluginGrant::of(manifest, &GrantLimits::default())
    }

    /// Encoded for a digest.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let metrics = [&self.subject_metrics, &self.node_metrics].map(|metrics| {
            metrics.iter().map(|&metric| metric as u32).chain([u32::MAX]).collect::<Vec<_>>()
        });
        let ops = self.ops.iter().map(|&op| op as u32);
        metrics.into_iter().flatten().chain(ops).flat_map(u32::to_le_bytes).collect()
    }
}

fn intersection<T: Copy + PartialEq>(asked: &[T], allowed: Option<&[T]>) -> Vec<T> {
    let is_allowed = |one: &T| allowed.is_none_or(|allowed| allowed.contains(one));
    asked.iter().copied().filter(is_allowed).collect()
}

const NAME: &str = "1 to 64 lower-case letters, digits and hyphens";

fn is_name(text: &str) -> bool {
    let named = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(named)
}

/// The schemas of data documents.
fn documents(
    schemas: BTreeMap<String, Value>,
) -> Result<BTreeMap<Arc<str>, Schema>, PluginRefusal> {
    if schemas.len() > DOCUMENTS_MAX {
        let expected = format!("{DOCUMENTS_MAX} documents at most");
        return Err(wrong("data", &expected, &format!("{} of them", schemas.len())));
    }
    let read = |(name, schema): (String, Value)| {
        if !is_name(&name) {
            let expected = format!("documents with names of {NAME}");
            return Err(wrong("data", &expected, &format!("{name:?}")));
        }
        let schema = Schema::in_field(&format!("data.{name}"), schema)
            .map_err(|unfit| wrong(&unfit.path, &unfit.expected, &unfit.found))?;
        Ok((name.into(), schema))
    };
    schemas.into_iter().map(read).collect()
}

/// The plugin's own reasons, validated, then the shared ones.
fn reasons(mut own: Vec<ManifestReason>) -> Result<Reasons, PluginRefusal> {
    let wrong = |expected: &str, found: &str| Err(wrong("reasons", expected, found));
    if own.len() > REASONS_MAX {
        return wrong(
            &format!("a list of {REASONS_MAX} at most"),
            &format!("{} of them", own.len()),
        );
    }
    own.sort_by_key(|reason| reason.number);
    for ManifestReason { number, name } in &own {
        if !(1..COMMON_REASONS_FROM).contains(number) {
            let expected = "reasons of its own, with numbers from 1 to 65535";
            return wrong(expected, &format!("{number} {name:?}"));
        }
        if !is_name(name) {
            return wrong(&format!("reasons with names of {NAME}"), &format!("{number} {name:?}"));
        }
    }
    if let Some(twice) = own.windows(2).find(|pair| pair[0].number == pair[1].number) {
        let found = format!("{} {:?} and {:?}", twice[0].number, twice[0].name, twice[1].name);
        return wrong("reasons with a number each", &found);
    }
    let own = own.into_iter().map(|ManifestReason { number, name }| (number, name.into()));
    let common = CommonReason::ALL.into_iter();
    Ok(own.chain(common.map(|common| (common as u32, common.key().into()))).collect())
}

/// True if plugins of this contract version run here. Before version 1 a change of the second number may break plugins;
/// the third never does.
pub(crate) fn same_contract(version: &str) -> bool {
    let line = |version: &str| version.rsplit_once('.').map(|(line, _)| line.to_owned());
    // Bounds the length, since a number may have any number of leading zeroes.
    let is_short = version.len() <= NAME_BYTES_MAX;
    let last = version.rsplit('.').next().and_then(|last| last.parse::<u16>().ok());
    is_short && last.is_some() && line(version).is_some() && line(version) == line(CONTRACT)
}

/// Manifest text goes to logs and terminals: cut to a line without control characters.
fn wrong(field: &str, expected: &str, found: &str) -> PluginRefusal {
    let [field, expected, found] =
        [field, expected, found].map(|text| one_line(text, LINE_BYTES_MAX));
    PluginRefusal::Manifest { field, expected, found }
}

#[cfg(test)]
mod tests;
