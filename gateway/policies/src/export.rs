//! Filters recorded chunks for one export: by policy, and without addresses unless the request includes them.

use std::collections::BTreeSet;

use evenkeel_model::{AskId, PolicyName};
use evenkeel_recording::{
    Chunk, ChunkFull, RecordingEntry, RecordingHeader, Redactor, head, records, tail,
};

/// Questions of the exported policy that have no outcome yet. A policy is asked a few thousand times a second at most,
/// and outcomes follow within milliseconds.
const ASKED_MAX: usize = 65_536;

/// Options of an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportOptions {
    /// Addresses are kept. Default: they are redacted.
    pub addresses: bool,
    /// Export only this policy.
    pub policy: Option<PolicyName>,
}

/// Turns the recorder's chunks into the chunks of one recording.
pub struct Export {
    header: RecordingHeader,
    redactor: Option<Redactor>,
    policy: Option<PolicyName>,
    /// Questions of the exported policy without an outcome yet.
    asked: BTreeSet<AskId>,
}

impl Export {
    /// The header gives the origin of the recording.
    pub fn new(header: RecordingHeader, wish: ExportOptions) -> Export {
        let ExportOptions { addresses, policy } = wish;
        let mut redactor = (!addresses).then(Redactor::default);
        let region = redactor.as_mut().and_then(|redactor| redactor.redact(&header.region));
        let region = region.unwrap_or_else(|| header.region.clone());
        let header = RecordingHeader { region, addresses, ..header };
        Export { header, redactor, policy, asked: BTreeSet::new() }
    }

    /// The first bytes of the file.
    pub fn head(&self) -> Vec<u8> {
        head(&self.header)
    }

    /// The last bytes of the file, which mark it complete.
    pub fn tail(&self) -> Vec<u8> {
        tail()
    }

    /// The exported part of a chunk, preceded by the number of missed calls; empty if nothing is left. Takes
    /// milliseconds.
    pub fn pass(&mut self, missed: u64, chunk: &[u8]) -> Vec<u8> {
        // The chunk was written by this process.
        let all = records(chunk).expect("a chunk that was just written is one");
        let missed = (missed > 0).then_some(RecordingEntry::Missed(missed));
        let (mut out, mut bytes) = (Chunk::default(), Vec::new());
        for record in missed.into_iter().chain(all) {
            let Some(record) = self.wanted(record) else { continue };
            if let Err(ChunkFull) = out.push(&record) {
                bytes.extend(out.close());
                // Tokens are slightly longer than some addresses, so a record that filled its chunk may not fit now.
                if let Err(ChunkFull) = out.push(&record) {
                    let _ = out.push(&RecordingEntry::Missed(1));
                }
            }
        }
        if !out.is_empty() {
            bytes.extend(out.close());
        }
        bytes
    }

    fn wanted(&mut self, record: RecordingEntry) -> Option<RecordingEntry> {
        match record {
            RecordingEntry::Call(call) => {
                if let Some(policy) = &self.policy {
                    if call.revision.policy != *policy {
                        return None;
                    }
                    if self.asked.len() == ASKED_MAX {
                        self.asked.pop_first();
                    }
                    self.asked.insert(call.ask);
                }
                let call = match &mut self.redactor {
                    Some(redactor) => Box::new(redactor.call(*call)),
                    None => call,
                };
                Some(RecordingEntry::Call(call))
            }
            RecordingEntry::Decided(decided) => {
                let is_wanted = self.policy.is_none() || self.asked.remove(&decided.ask);
                is_wanted.then_some(RecordingEntry::Decided(decided))
            }
            RecordingEntry::Missed(calls) => Some(RecordingEntry::Missed(calls)),
        }
    }
}
