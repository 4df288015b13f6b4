//! A recording on its way to who asked for it: only what was asked for, and without addresses unless they were.

use std::collections::BTreeSet;

use evenkeel_core::{AskId, PolicyName};
use evenkeel_recording::{Chunk, Full, Header, Record, Redactor, head, records, tail};

/// Questions of one policy whose outcomes are looked for; it is asked some thousand times a second at most, and outcomes
/// come within milliseconds.
const ASKED_MAX: usize = 65_536;

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wish {
    /// With addresses.
    pub(crate) addresses: bool,
    /// Of this policy alone.
    pub(crate) policy: Option<PolicyName>,
}

/// Turns chunks as the recorder keeps them into those of one recording.
pub(crate) struct Export {
    header: Header,
    redactor: Option<Redactor>,
    policy: Option<PolicyName>,
    /// Questions of the policy that was asked for.
    asked: BTreeSet<AskId>,
}

impl Export {
    pub(crate) fn new(header: Header, wish: Wish) -> Export {
        let Wish { addresses, policy } = wish;
        let mut redactor = (!addresses).then(Redactor::default);
        let region = redactor.as_mut().and_then(|redactor| redactor.redact(&header.region));
        let region = region.unwrap_or_else(|| header.region.clone());
        let header = Header { region, addresses, ..header };
        Export { header, redactor, policy, asked: BTreeSet::new() }
    }

    pub(crate) fn head(&self) -> Vec<u8> {
        head(&self.header)
    }

    pub(crate) fn tail(&self) -> Vec<u8> {
        tail()
    }

    /// What of the chunk was asked for, after the word that so many calls are missing before it. Nothing, where that is
    /// nothing. It takes milliseconds.
    pub(crate) fn pass(&mut self, missed: u64, chunk: &[u8]) -> Vec<u8> {
        // They are the recorder's own, and never left this process.
        let all = records(chunk).expect("a chunk that was just written is one");
        let missed = (missed > 0).then_some(Record::Missed(missed));
        let (mut out, mut bytes) = (Chunk::default(), Vec::new());
        for record in missed.into_iter().chain(all) {
            let Some(record) = self.wanted(record) else { continue };
            if let Err(Full) = out.push(&record) {
                bytes.extend(out.close());
                // Tokens are a little longer than some addresses: what filled a chunk may not fit any more.
                if let Err(Full) = out.push(&record) {
                    let _ = out.push(&Record::Missed(1));
                }
            }
        }
        if !out.is_empty() {
            bytes.extend(out.close());
        }
        bytes
    }

    fn wanted(&mut self, record: Record) -> Option<Record> {
        match record {
            Record::Call(call) => {
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
                Some(Record::Call(call))
            }
            Record::Decided(decided) => {
                let is_wanted = self.policy.is_none() || self.asked.remove(&decided.ask);
                is_wanted.then_some(Record::Decided(decided))
            }
            Record::Missed(calls) => Some(Record::Missed(calls)),
        }
    }
}
