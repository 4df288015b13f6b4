//! Records: calls and decisions, and the revisions and catalogs that they refer to. A chunk holds records together with
//! everything that they refer to, so that each can be read alone.

use std::sync::Arc;

use evenkeel_model::{
    AskId, CatalogEntry, DecisionOutcome, EntryKind, Hook, Metric, Op, PluginFault, PolicyName,
    PolicyQuestion, RevisionAnswer,
};

use crate::call::{RecordedGrant, read_question, read_result, write_question, write_result};
use crate::wire::{
    ChunkTable, Encoded, FORMAT, FrameInput, FrameKind, InvalidFrame, MAGIC, PAYLOAD_BYTES_MAX,
    TableReader, encoded, encoded_struct, framed, malformed, put, put_bytes, read_frame,
    read_labels, write_labels,
};

const CALL: u8 = 0;
const DECIDED: u8 = 1;
const MISSED: u8 = 2;

/// Upper bound of the bytes of the counts before each part.
const COUNTS_BYTES: usize = 64;

/// Small records (all except calls) are accepted until a chunk has this size.
const SMALL_UNTIL: usize = PAYLOAD_BYTES_MAX - 4_096;

/// The only flag of a call, and a flag of a revision: an address was removed.
const REDACTED: u8 = 1;

/// A flag of a revision: names and digests of data documents follow. Other revisions are written as before there were
/// documents.
const DOCUMENTS: u8 = 2;

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
    /// Names of the data documents that it was given, and SHA-256 of each. A recording has no content of documents.
    pub documents: Vec<(Arc<str>, [u8; 32])>,
    /// True if an address was removed from the settings.
    pub redacted: bool,
}

/// Names and labels of the entities that questions refer to by number.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecordedCatalog {
    /// Entries in the order sent to the plugin.
    pub entries: Vec<CatalogEntry>,
    /// True if an address was removed from the catalog.
    pub redacted: bool,
}

impl RecordedRevision {
    pub(crate) fn write(&self, table: &mut ChunkTable, out: &mut Vec<u8>) {
        table.put(out, self.policy.set.as_bytes());
        out.push(self.policy.hook as u8);
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
        let documents = if self.documents.is_empty() { 0 } else { DOCUMENTS };
        out.push(documents | if self.redacted { REDACTED } else { 0 });
        if documents != 0 {
            put(out, self.documents.len() as u64);
            for (name, digest) in &self.documents {
                table.put(out, name.as_bytes());
                out.extend_from_slice(digest);
            }
        }
    }

    pub(crate) fn read(
        table: &mut TableReader<'_>,
        read: &mut FrameInput<'_>,
    ) -> Result<RecordedRevision, InvalidFrame> {
        let set = table.text(read, "policy")?;
        let number = read.byte("hook")?;
        let hook = Hook::ALL.get(usize::from(number)).copied();
        let hook = hook.ok_or_else(|| malformed("hook", format!("number {number}")))?;
        let mut revision = RecordedRevision {
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
            documents: Vec::new(),
            redacted: false,
        };
        let flags = read.byte("revision")?;
        if flags & !(REDACTED | DOCUMENTS) != 0 {
            return Err(malformed("revision", format!("unknown flags {flags}")));
        }
        revision.redacted = flags & REDACTED != 0;
        if flags & DOCUMENTS != 0 {
            revision.documents = read.list("documents", |read| {
                Ok((table.text(read, "document")?, read.fixed("document")?))
            })?;
        }
        Ok(revision)
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
    let found = EntryKind::ALL.into_iter().find(|&kind| kind as u32 == number);
    found.ok_or_else(|| malformed("catalog", format!("unknown entry kind {number}")))
}

/// Origin of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingHeader {
    /// Version of the gateway: `0.1.0`.
    pub gateway: Box<str>,
    /// Version of the plugin contract: `0.1.0`.
    pub contract: Box<str>,
    /// Unix time at which gateway time (`now_us`) was 0, microseconds.
    pub started_us: u64,
    /// The gateway's region.
    pub region: Box<str>,
    /// True if addresses were recorded, on request.
    pub addresses: bool,
}

/// Encodes the first bytes of a recording.
pub fn head(header: &RecordingHeader) -> Vec<u8> {
    let mut payload = Vec::new();
    put_bytes(&mut payload, header.gateway.as_bytes());
    put_bytes(&mut payload, header.contract.as_bytes());
    put(&mut payload, header.started_us);
    put_bytes(&mut payload, header.region.as_bytes());
    payload.push(u8::from(header.addresses));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend(framed(FrameKind::Header, &payload));
    bytes
}

/// Encodes the last bytes of a complete recording.
pub fn tail() -> Vec<u8> {
    framed(FrameKind::End, &[])
}

impl RecordingHeader {
    pub(crate) fn read(payload: &[u8]) -> Result<RecordingHeader, InvalidFrame> {
        let mut read = FrameInput::new(payload);
        let header = RecordingHeader {
            gateway: read.text("header")?.into(),
            contract: read.text("header")?.into(),
            started_us: read.number("header")?,
            region: read.text("header")?.into(),
            addresses: read.flag("header")?,
        };
        if read.is_empty() {
            Ok(header)
        } else {
            Err(malformed("header", "bytes after the header"))
        }
    }
}

/// The record does not fit into this chunk. If the chunk is empty, the record fits into none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkFull;

/// A chunk being filled.
#[derive(Default)]
pub struct Chunk {
    table: ChunkTable,
    revisions: Vec<Arc<RecordedRevision>>,
    catalogs: Vec<Arc<RecordedCatalog>>,
    /// Encoded revisions and catalogs.
    known: (Vec<u8>, Vec<u8>),
    records: Vec<u8>,
    count: u64,
}

impl Chunk {
    /// Appends one record.
    ///
    /// # Errors
    /// Returns [`ChunkFull`] and leaves the chunk unchanged.
    pub fn push(&mut self, record: &RecordingEntry) -> Result<(), ChunkFull> {
        match record {
            RecordingEntry::Call(call) => self.call(call)?,
            RecordingEntry::Decided(_) | RecordingEntry::Missed(_)
                if self.bytes() > SMALL_UNTIL =>
            {
                return Err(ChunkFull);
            }
            RecordingEntry::Decided(decided) => {
                self.records.push(DECIDED);
                decided.write(&mut self.table, &mut self.records);
            }
            RecordingEntry::Missed(calls) => {
                self.records.push(MISSED);
                put(&mut self.records, *calls);
            }
        }
        self.count += 1;
        Ok(())
    }

    fn call(&mut self, call: &RecordedCall) -> Result<(), ChunkFull> {
        let (table, records) = (self.table.mark(), self.records.len());
        let known = (self.revisions.len(), self.catalogs.len());
        let written = (self.known.0.len(), self.known.1.len());
        self.records.push(CALL);
        let Chunk { table: texts, known: (revisions, catalogs), .. } = self;
        let revision = number_of(&mut self.revisions, &call.revision, |new| {
            new.write(texts, revisions);
        });
        let catalog = number_of(&mut self.catalogs, &call.catalog, |new| {
            new.write(texts, catalogs);
        });
        let out = &mut self.records;
        put(out, revision);
        put(out, catalog);
        put(out, call.ask.0);
        put(out, call.now_us);
        out.push(if call.redacted { REDACTED } else { 0 });
        write_question(&call.question, &call.revision.grant, &mut self.table, out);
        write_result(&call.result, &mut self.table, out);
        if self.bytes() > PAYLOAD_BYTES_MAX - COUNTS_BYTES {
            self.table.truncate(table);
            self.records.truncate(records);
            self.revisions.truncate(known.0);
            self.catalogs.truncate(known.1);
            self.known.0.truncate(written.0);
            self.known.1.truncate(written.1);
            return Err(ChunkFull);
        }
        Ok(())
    }

    /// Returns the uncompressed size.
    pub fn bytes(&self) -> usize {
        self.table.bytes.len() + self.known.0.len() + self.known.1.len() + self.records.len()
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Encodes the chunk and resets it.
    pub fn close(&mut self) -> Vec<u8> {
        let chunk = std::mem::take(self);
        let mut payload = Vec::with_capacity(chunk.bytes() + COUNTS_BYTES);
        chunk.table.write(&mut payload);
        put(&mut payload, chunk.revisions.len() as u64);
        payload.extend(chunk.known.0);
        put(&mut payload, chunk.catalogs.len() as u64);
        payload.extend(chunk.known.1);
        put(&mut payload, chunk.count);
        payload.extend(chunk.records);
        framed(FrameKind::Records, &payload)
    }
}

/// Returns the number of an entry, which is written if it is new.
fn number_of<T: PartialEq>(known: &mut Vec<Arc<T>>, entry: &Arc<T>, write: impl FnOnce(&T)) -> u64 {
    let is_it = |one: &Arc<T>| Arc::ptr_eq(one, entry) || one == entry;
    let index = known.iter().position(is_it).unwrap_or_else(|| {
        write(entry);
        known.push(Arc::clone(entry));
        known.len() - 1
    });
    index as u64
}

/// Returns the records of a chunk written by [`Chunk::close`].
///
/// # Errors
/// Fails if the bytes are malformed.
pub fn records(chunk: &[u8]) -> Result<Vec<RecordingEntry>, InvalidFrame> {
    match read_frame(chunk) {
        Ok((FrameKind::Records, payload, [])) => decode(&payload),
        Ok((kind, ..)) => Err(malformed("chunk", format!("{kind:?} or more"))),
        Err(error) => Err(malformed("chunk", format!("{error:?}"))),
    }
}

pub(crate) fn decode(payload: &[u8]) -> Result<Vec<RecordingEntry>, InvalidFrame> {
    let mut read = FrameInput::new(payload);
    let mut table = TableReader::read(&mut read)?;
    let count = read.count("revisions")?;
    let revisions = (0..count).map(|_| RecordedRevision::read(&mut table, &mut read).map(Arc::new));
    let revisions = revisions.collect::<Result<Vec<_>, _>>()?;
    let count = read.count("catalogs")?;
    let catalogs = (0..count).map(|_| RecordedCatalog::read(&mut table, &mut read).map(Arc::new));
    let catalogs = catalogs.collect::<Result<Vec<_>, _>>()?;
    let count = read.count("records")?;
    read.charge("records", count * size_of::<RecordingEntry>())?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(match read.byte("record")? {
            CALL => {
                read.charge("call", size_of::<RecordedCall>())?;
                RecordingEntry::Call(Box::new(read_call(
                    &revisions, &catalogs, &mut table, &mut read,
                )?))
            }
            DECIDED => RecordingEntry::Decided(Encoded::read("decided", &mut table, &mut read)?),
            MISSED => RecordingEntry::Missed(read.number("missed")?),
            other => return Err(malformed("record", format!("kind {other}"))),
        });
    }
    if read.is_empty() { Ok(records) } else { Err(malformed("chunk", "bytes after the records")) }
}

fn read_call(
    revisions: &[Arc<RecordedRevision>],
    catalogs: &[Arc<RecordedCatalog>],
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<RecordedCall, InvalidFrame> {
    let revision = read_known(revisions, "revision", read)?;
    let catalog = read_known(catalogs, "catalog", read)?;
    let (ask, now_us) = (AskId(read.number("call")?), read.number("call")?);
    let redacted = match read.byte("call")? {
        0 => false,
        REDACTED => true,
        other => return Err(malformed("call", format!("unknown flags {other}"))),
    };
    let question = read_question(&revision.grant, table, read)?;
    let result = read_result(&revision.revision, table, read)?;
    let question = Arc::new(question);
    Ok(RecordedCall { revision, catalog, ask, now_us, question, result, redacted })
}

/// Reads the number of an entry.
fn read_known<T>(
    known: &[Arc<T>],
    part: &'static str,
    read: &mut FrameInput<'_>,
) -> Result<Arc<T>, InvalidFrame> {
    let number = read.small(part)? as usize;
    let wrong = || malformed(part, format!("{number} of {}", known.len()));
    known.get(number).cloned().ok_or_else(wrong)
}

encoded_struct!(RecordedDecision { ask, outcome, detail, differs });

encoded! {
    Option<bool>: |it, _, out| out.push(it.map_or(0, |it| 1 + u8::from(it))),
        |part, _, read| match read.byte(part)? {
            0 => Ok(None),
            1 => Ok(Some(false)),
            2 => Ok(Some(true)),
            other => Err(malformed(part, format!("unknown value {other}"))),
        };
}
