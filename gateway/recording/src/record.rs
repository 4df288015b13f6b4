//! Records: calls and decisions, and the revisions and catalogs that they refer to.

use std::sync::Arc;

use evenkeel_model::{
    AskId, CatalogEntry, DecisionOutcome, EntryKind, Hook, Metric, Op, PluginFault, PolicyName,
    PolicyQuestion, RevisionAnswer,
};

use crate::wire::{
    ChunkTable, FrameInput, InvalidFrame, TableReader, malformed, put, read_labels, write_labels,
};

/// A record. Records keep the order in which they were written.
#[derive(Clone, PartialEq, Debug)]
pub enum RecordingEntry {
    /// A question to a plugin, and its answer.
    Call(Box<RecordedCall>),
    /// The decision that followed an answer, which is known later.
    Decided(RecordedDecision),
    /// This number of calls is missing here, because they arrived faster than they could be written.
    Missed(u64),
}

/// A question to a plugin and its answer.
#[derive(Clone, PartialEq, Debug)]
pub struct RecordedCall {
    /// The asked revision.
    pub revision: Arc<RecordedRevision>,
    /// Nodes, zones and regions known to the plugin.
    pub catalog: Arc<RecordedCatalog>,
    /// Identifies the call in its [`RecordedDecision`].
    pub ask: AskId,
    /// Gateway time, microseconds since its start.
    pub now_us: u64,
    /// The question. Measures that were not granted are recorded as unmeasured.
    pub question: Arc<PolicyQuestion>,
    /// The answer with states, memo, notes and time, or the fault.
    pub result: Result<RevisionAnswer, PluginFault>,
    /// True if an address was removed from the call. A replay may then answer differently.
    pub redacted: bool,
}

/// The core's decision about an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedDecision {
    /// The question that the decision answers.
    pub ask: AskId,
    /// Name of the outcome in metrics and records: `applied`.
    pub(crate) outcome: Box<str>,
    /// The guard that rejected the answer, or the fault; empty for other outcomes.
    pub(crate) detail: Box<str>,
    /// For an applied answer: true if the native default differs from it. The default's answer is not recorded.
    pub(crate) differs: Option<bool>,
}

impl RecordedDecision {
    /// Takes name and reason of the outcome.
    pub fn of(ask: AskId, outcome: &DecisionOutcome) -> RecordedDecision {
        let (detail, differs) = match outcome {
            DecisionOutcome::Applied { differs } => ("", Some(*differs)),
            DecisionOutcome::Guarded(guard) => (guard.name(), None),
            DecisionOutcome::Faulted(fault) => (fault.name(), None),
            DecisionOutcome::Abstained | DecisionOutcome::Kept | DecisionOutcome::Stale => {
                ("", None)
            }
        };
        RecordedDecision { ask, outcome: outcome.name().into(), detail: detail.into(), differs }
    }
}

/// A plugin with its settings, as a policy ran it. A recording contains the plugin's digest but not its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedRevision {
    /// The policy: `call/routing`.
    pub policy: PolicyName,
    /// The gateway's identifier of the revision: 12 hexadecimal digits.
    pub revision: Arc<str>,
    /// The plugin's name in its manifest.
    pub plugin: Arc<str>,
    /// Version of the plugin, from its manifest.
    pub version: Box<str>,
    /// SHA-256 of the plugin's bytes.
    pub digest: [u8; 32],
    /// Settings with defaults filled in, as JSON.
    pub settings: Box<str>,
    /// Seed of the plugin's random numbers.
    pub seed: u64,
    /// The granted columns and actions.
    pub grant: RecordedGrant,
    /// True if an address was removed from the settings.
    pub redacted: bool,
}

/// Grants of `init`, in the order of the plugin's columns.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecordedGrant {
    /// Metrics of sessions and rooms.
    pub subject_metrics: Vec<Metric>,
    /// Metrics of nodes and regions.
    pub node_metrics: Vec<Metric>,
    /// Actions that the plugin may take.
    pub ops: Vec<Op>,
}

/// Names and labels of the entities that questions refer to by number.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecordedCatalog {
    /// Entries in the order sent to the plugin.
    pub entries: Vec<CatalogEntry>,
    /// True if an address was removed from the catalog.
    pub redacted: bool,
}

fn hook_number(hook: Hook) -> u8 {
    match hook {
        Hook::Admission => 0,
        Hook::Routing => 1,
        Hook::Degradation => 2,
        Hook::Scenario => 3,
    }
}

impl RecordedRevision {
    pub(crate) fn write(&self, table: &mut ChunkTable, out: &mut Vec<u8>) {
        table.put(out, self.policy.set.as_bytes());
        out.push(hook_number(self.policy.hook));
        table.put(out, self.revision.as_bytes());
        table.put(out, self.plugin.as_bytes());
        table.put(out, self.version.as_bytes());
        out.extend_from_slice(&self.digest);
        table.put(out, self.settings.as_bytes());
        out.extend_from_slice(&self.seed.to_le_bytes());
        for metrics in [&self.grant.subject_metrics, &self.grant.node_metrics] {
            put(out, metrics.len() as u64);
            metrics.iter().for_each(|&metric| put(out, metric as u64));
        }
        put(out, self.grant.ops.len() as u64);
        self.grant.ops.iter().for_each(|&op| put(out, op as u64));
        out.push(u8::from(self.redacted));
    }

    pub(crate) fn read(
        table: &mut TableReader<'_>,
        read: &mut FrameInput<'_>,
    ) -> Result<RecordedRevision, InvalidFrame> {
        let set = table.text(read, "policy")?;
        let number = read.byte("hook")?;
        let hook = Hook::ALL.into_iter().find(|&hook| hook_number(hook) == number);
        let hook = hook.ok_or_else(|| malformed("hook", format!("number {number}")))?;
        Ok(RecordedRevision {
            policy: PolicyName { set, hook },
            revision: table.text(read, "revision")?,
            plugin: table.text(read, "plugin")?,
            version: table.own_text(read, "version")?,
            digest: read.fixed("digest")?,
            settings: table.own_text(read, "settings")?,
            seed: u64::from_le_bytes(read.fixed("seed")?),
            grant: RecordedGrant {
                subject_metrics: granted(read, "metric", Metric::from_number)?,
                node_metrics: granted(read, "metric", Metric::from_number)?,
                ops: granted(read, "action", Op::from_number)?,
            },
            redacted: read.flag("flag")?,
        })
    }
}

/// Reads the numbers of metrics or actions.
fn granted<T>(
    read: &mut FrameInput<'_>,
    what: &str,
    known: fn(u32) -> Option<T>,
) -> Result<Vec<T>, InvalidFrame> {
    read.list("grant", |read| {
        let number = read.small("grant")?;
        known(number).ok_or_else(|| malformed("grant", format!("unknown {what} {number}")))
    })
}

impl RecordedCatalog {
    pub(crate) fn write(&self, table: &mut ChunkTable, out: &mut Vec<u8>) {
        out.push(u8::from(self.redacted));
        put(out, self.entries.len() as u64);
        for CatalogEntry { kind, id, parent, name, labels } in &self.entries {
            put(out, *kind as u64);
            put(out, *id);
            put(out, *parent);
            table.put(out, name.as_bytes());
            write_labels(out, labels);
        }
    }

    pub(crate) fn read(
        table: &mut TableReader<'_>,
        read: &mut FrameInput<'_>,
    ) -> Result<RecordedCatalog, InvalidFrame> {
        let redacted = read.flag("flag")?;
        let entries = read.list("catalog", |read| {
            Ok(CatalogEntry {
                kind: kind(read.small("catalog")?)?,
                id: read.number("catalog")?,
                parent: read.number("catalog")?,
                name: table.own_text(read, "catalog")?,
                labels: read_labels(read)?,
            })
        })?;
        Ok(RecordedCatalog { entries, redacted })
    }
}

fn kind(number: u32) -> Result<EntryKind, InvalidFrame> {
    let all = [EntryKind::Region, EntryKind::Zone, EntryKind::Node, EntryKind::Home];
    let found = all.into_iter().find(|&kind| kind as u32 == number);
    found.ok_or_else(|| malformed("catalog", format!("unknown entry kind {number}")))
}
