//! Frames, the compressed, checksummed pieces of a recording: its header, chunks and end. A chunk holds records together
//! with everything they refer to, so that each can be read alone.

use std::sync::Arc;

use evenkeel_model::AskId;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::call::{read_question, read_result, write_question, write_result};
use crate::record::{
    RecordedCall, RecordedCatalog, RecordedDecision, RecordedRevision, RecordingEntry,
};
use crate::wire::{ChunkTable, FrameInput, InvalidFrame, TableReader, malformed, put, put_bytes};

/// First bytes of every recording. The first byte is not ASCII, and the line ends reveal a transfer as text.
pub(crate) const MAGIC: [u8; 8] = *b"\x89EKR\r\n\x1a\n";

/// The written format. Older formats can be read.
pub const FORMAT: u16 = 1;

/// Limit of an uncompressed frame, which bounds the memory of readers. A question about 4,096 sessions with typical
/// states takes 1 MB.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Kind, compressed length, uncompressed length, checksum.
const HEAD_BYTES: usize = 1 + 4 + 4 + 4;

/// Fastest compression, because the gateway compresses during operation.
const LEVEL: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// First frame, with the origin of the recording.
    Header = 1,
    Records = 2,
    /// Empty frame that marks a complete recording.
    End = 3,
}

impl FrameKind {
    fn of(number: u8) -> Option<FrameKind> {
        [FrameKind::Header, FrameKind::Records, FrameKind::End]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// Encodes a frame. `payload` is at most [`PAYLOAD_BYTES_MAX`] long.
pub(crate) fn framed(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let packed = compress_to_vec(payload, LEVEL);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + packed.len());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = checksum(&bytes, &packed);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&packed);
    bytes
}

fn checksum(head: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(packed);
    hasher.finalize()
}

/// Reason why a frame cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameError {
    CutOff,
    /// The checksum does not match.
    Corrupted,
    /// The declared length exceeds the limit.
    TooLarge,
    /// The checksum matches, but the content is not a frame.
    Invalid,
}

/// Decodes the next frame. Returns its kind and payload, and the bytes after it.
pub(crate) fn read_frame(bytes: &[u8]) -> Result<(FrameKind, Vec<u8>, &[u8]), FrameError> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(FrameError::CutOff)?;
    let number = |at: usize| {
        let four = head[at..at + 4].try_into().expect("four bytes of thirteen");
        u32::from_le_bytes(four)
    };
    let (packed, unpacked) = (number(1) as usize, number(5) as usize);
    // Compression makes incompressible data slightly longer.
    if unpacked > PAYLOAD_BYTES_MAX || packed > PAYLOAD_BYTES_MAX + PAYLOAD_BYTES_MAX / 8 {
        return Err(FrameError::TooLarge);
    }
    let (packed, rest) = rest.split_at_checked(packed).ok_or(FrameError::CutOff)?;
    if checksum(&head[..9], packed) != number(9) {
        return Err(FrameError::Corrupted);
    }
    let kind = FrameKind::of(head[0]).ok_or(FrameError::Invalid)?;
    let payload =
        decompress_to_vec_with_limit(packed, unpacked).map_err(|_| FrameError::Invalid)?;
    if payload.len() != unpacked {
        return Err(FrameError::Invalid);
    }
    Ok((kind, payload, rest))
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

const CALL: u8 = 0;
const DECIDED: u8 = 1;
const MISSED: u8 = 2;

/// Upper bound of the bytes of the counts before each part.
const COUNTS_BYTES: usize = 64;

/// Small records (all except calls) are accepted until a chunk has this size.
const SMALL_UNTIL: usize = PAYLOAD_BYTES_MAX - 4_096;

/// The only flag of a call: an address was removed from the call.
const REDACTED: u8 = 1;

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
            RecordingEntry::Call(call) => self.call(call),
            RecordingEntry::Decided(_) | RecordingEntry::Missed(_)
                if self.bytes() > SMALL_UNTIL =>
            {
                Err(ChunkFull)
            }
            RecordingEntry::Decided(decided) => {
                self.decided(decided);
                Ok(())
            }
            RecordingEntry::Missed(calls) => {
                self.count += 1;
                self.records.push(MISSED);
                put(&mut self.records, *calls);
                Ok(())
            }
        }
    }

    fn call(&mut self, call: &RecordedCall) -> Result<(), ChunkFull> {
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
        self.count += 1;
        Ok(())
    }

    fn decided(&mut self, decided: &RecordedDecision) {
        let RecordedDecision { ask, outcome, detail, differs } = decided;
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

    /// Returns the number of a revision and adds the revision if it is new.
    fn revision(&mut self, revision: &Arc<RecordedRevision>) -> u64 {
        let known = |one: &Arc<RecordedRevision>| Arc::ptr_eq(one, revision) || one == revision;
        if let Some(index) = self.revisions.iter().position(known) {
            return index as u64;
        }
        revision.write(&mut self.table, &mut self.known.0);
        self.revisions.push(Arc::clone(revision));
        self.revisions.len() as u64 - 1
    }

    fn catalog(&mut self, catalog: &Arc<RecordedCatalog>) -> u64 {
        let known = |one: &Arc<RecordedCatalog>| Arc::ptr_eq(one, catalog) || one == catalog;
        if let Some(index) = self.catalogs.iter().position(known) {
            return index as u64;
        }
        catalog.write(&mut self.table, &mut self.known.1);
        self.catalogs.push(Arc::clone(catalog));
        self.catalogs.len() as u64 - 1
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
            DECIDED => RecordingEntry::Decided(read_decided(&mut table, &mut read)?),
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
        other => return Err(malformed("call", format!("unknown flags {other}"))),
    };
    let question = read_question(&revision.grant, table, read)?;
    let result = read_result(revision, table, read)?;
    let (revision, catalog) = (Arc::clone(revision), Arc::clone(catalog));
    Ok(RecordedCall {
        revision,
        catalog,
        ask,
        now_us,
        question: Arc::new(question),
        result,
        redacted,
    })
}

fn read_decided(
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<RecordedDecision, InvalidFrame> {
    Ok(RecordedDecision {
        ask: AskId(read.number("decided")?),
        outcome: table.own_text(read, "decided")?,
        detail: table.own_text(read, "decided")?,
        differs: match read.byte("decided")? {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            other => return Err(malformed("decided", format!("unknown value {other}"))),
        },
    })
}
