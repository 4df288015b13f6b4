//! Chunks: some records with all that they speak of, so that each stands by itself.

use std::sync::Arc;

use evenkeel_core::AskId;

use crate::frame::{self, Kind, PAYLOAD_BYTES_MAX, framed};
use crate::record::{Call, Decided, Record};
use crate::revision::{Catalog, Revision};
use crate::table::{Table, Words};
use crate::wire::{In, Malformed, malformed, put};
use crate::{answer, question};

const CALL: u8 = 0;
const DECIDED: u8 = 1;
const MISSED: u8 = 2;

/// What the counts before each part may take.
const COUNTS_BYTES: usize = 64;

/// Records that are no calls, a few words each, are taken until a chunk has so many bytes.
const SMALL_UNTIL: usize = PAYLOAD_BYTES_MAX - 4_096;

/// The bit of a call that says that an address was taken out of it; there are no others.
const REDACTED: u8 = 1;

/// A record does not fit into a chunk any more; where that is empty, it fits into none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Records that are being written down.
#[derive(Default)]
pub struct Chunk {
    table: Table,
    revisions: Vec<Arc<Revision>>,
    catalogs: Vec<Arc<Catalog>>,
    /// What revisions and catalogs are.
    known: (Vec<u8>, Vec<u8>),
    records: Vec<u8>,
    count: u64,
}

impl Chunk {
    /// Writes one record down.
    ///
    /// # Errors
    /// [`Full`]; nothing of the record was written.
    pub fn push(&mut self, record: &Record) -> Result<(), Full> {
        match record {
            Record::Call(call) => self.call(call),
            Record::Decided(_) | Record::Missed(_) if self.bytes() > SMALL_UNTIL => Err(Full),
            Record::Decided(decided) => {
                self.decided(decided);
                Ok(())
            }
            Record::Missed(calls) => {
                self.count += 1;
                self.records.push(MISSED);
                put(&mut self.records, *calls);
                Ok(())
            }
        }
    }

    fn call(&mut self, call: &Call) -> Result<(), Full> {
        let (table, records) = (self.table.mark(), self.records.len());
        let known = (self.revisions.len(), self.catalogs.len());
        let written = (self.known.0.len(), self.known.1.len());
        self.records.push(CALL);
        let revision = self.revision(&call.revision);
        let catalog = self.catalog(&call.catalog);
        let out = &mut self.records;
        put(out, revision);
        put(out, catalog);
        put(out, call.ask.0);
        put(out, call.now_us);
        out.push(if call.redacted { REDACTED } else { 0 });
        question::write(&call.question, &call.revision.grant, &mut self.table, out);
        answer::write(&call.result, &mut self.table, out);
        if self.bytes() > PAYLOAD_BYTES_MAX - COUNTS_BYTES {
            self.table.go_back(table);
            self.records.truncate(records);
            self.revisions.truncate(known.0);
            self.catalogs.truncate(known.1);
            self.known.0.truncate(written.0);
            self.known.1.truncate(written.1);
            return Err(Full);
        }
        self.count += 1;
        Ok(())
    }

    fn decided(&mut self, decided: &Decided) {
        let Decided { ask, outcome, detail, differs } = decided;
        self.count += 1;
        let (table, out) = (&mut self.table, &mut self.records);
        out.push(DECIDED);
        put(out, ask.0);
        table.put(out, outcome.as_bytes());
        table.put(out, detail.as_bytes());
        out.push(match differs {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
    }

    /// The number of a revision, written down where it was not yet.
    fn revision(&mut self, revision: &Arc<Revision>) -> u64 {
        let known = |one: &Arc<Revision>| Arc::ptr_eq(one, revision) || one == revision;
        if let Some(place) = self.revisions.iter().position(known) {
            return place as u64;
        }
        revision.write(&mut self.table, &mut self.known.0);
        self.revisions.push(Arc::clone(revision));
        self.revisions.len() as u64 - 1
    }

    fn catalog(&mut self, catalog: &Arc<Catalog>) -> u64 {
        let known = |one: &Arc<Catalog>| Arc::ptr_eq(one, catalog) || one == catalog;
        if let Some(place) = self.catalogs.iter().position(known) {
            return place as u64;
        }
        catalog.write(&mut self.table, &mut self.known.1);
        self.catalogs.push(Arc::clone(catalog));
        self.catalogs.len() as u64 - 1
    }

    /// How many bytes it has, before it is packed.
    pub fn bytes(&self) -> usize {
        self.table.len() + self.known.0.len() + self.known.1.len() + self.records.len()
    }

    /// Whether nothing was written down.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its bytes in a recording; it begins anew.
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
        framed(Kind::Records, &payload)
    }
}

/// The records of one chunk, as [`Chunk::close`] wrote it.
///
/// # Errors
/// Where the bytes are none.
pub fn records(chunk: &[u8]) -> Result<Vec<Record>, Malformed> {
    match frame::read(chunk) {
        Ok((Kind::Records, payload, [])) => unpacked(&payload),
        Ok((kind, ..)) => Err(malformed("chunk", format!("{kind:?} or more"))),
        Err(broken) => Err(malformed("chunk", format!("{broken:?}"))),
    }
}

pub(crate) fn unpacked(payload: &[u8]) -> Result<Vec<Record>, Malformed> {
    let mut read = In::new(payload);
    let mut words = Words::read(&mut read)?;
    let count = read.count("revisions")?;
    let revisions = (0..count).map(|_| Revision::read(&mut words, &mut read).map(Arc::new));
    let revisions = revisions.collect::<Result<Vec<_>, _>>()?;
    let count = read.count("catalogs")?;
    let catalogs = (0..count).map(|_| Catalog::read(&mut words, &mut read).map(Arc::new));
    let catalogs = catalogs.collect::<Result<Vec<_>, _>>()?;
    let count = read.count("records")?;
    read.weigh("records", count * size_of::<Record>())?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(match read.byte("record")? {
            CALL => {
                read.weigh("call", size_of::<Call>())?;
                Record::Call(Box::new(read_call(&revisions, &catalogs, &mut words, &mut read)?))
            }
            DECIDED => Record::Decided(read_decided(&mut words, &mut read)?),
            MISSED => Record::Missed(read.number("missed")?),
            other => return Err(malformed("record", format!("kind {other}"))),
        });
    }
    if read.is_empty() { Ok(records) } else { Err(malformed("chunk", "more than its records")) }
}

fn read_call(
    revisions: &[Arc<Revision>],
    catalogs: &[Arc<Catalog>],
    words: &mut Words<'_>,
    read: &mut In<'_>,
) -> Result<Call, Malformed> {
    let revision = read.small("revision")? as usize;
    let revision = revisions
        .get(revision)
        .ok_or_else(|| malformed("revision", format!("{revision} of {}", revisions.len())))?;
    let catalog = read.small("catalog")? as usize;
    let catalog = catalogs
        .get(catalog)
        .ok_or_else(|| malformed("catalog", format!("{catalog} of {}", catalogs.len())))?;
    let (ask, now_us) = (AskId(read.number("call")?), read.number("call")?);
    let redacted = match read.byte("call")? {
        0 => false,
        REDACTED => true,
        other => return Err(malformed("call", format!("{other} for its marks"))),
    };
    let question = question::read(&revision.grant, words, read)?;
    let result = answer::read(revision, words, read)?;
    let (revision, catalog) = (Arc::clone(revision), Arc::clone(catalog));
    Ok(Call { revision, catalog, ask, now_us, question: Arc::new(question), result, redacted })
}

fn read_decided(words: &mut Words<'_>, read: &mut In<'_>) -> Result<Decided, Malformed> {
    Ok(Decided {
        ask: AskId(read.number("decided")?),
        outcome: words.own_text(read, "decided")?,
        detail: words.own_text(read, "decided")?,
        differs: match read.byte("decided")? {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            other => return Err(malformed("decided", format!("{other} for whether it differs"))),
        },
    })
}
