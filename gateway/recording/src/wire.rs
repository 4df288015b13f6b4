//! Encoding of integers and byte strings, whose counts are checked when read; the string table of a chunk, in which
//! repeated texts, label sets and states are written once; and frames, the compressed, checksummed pieces of a recording:
//! its header, chunks and end.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_model::{AskId, Labels, NodeId, PluginState};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// First bytes of every recording. The first byte is not ASCII, and the line ends reveal a transfer as text.
pub(crate) const MAGIC: [u8; 8] = *b"\x89EKR\r\n\x1a\n";

/// The written format. Older formats can be read.
pub const FORMAT: u16 = 1;

/// Limit of an uncompressed frame, which bounds the memory of readers. A question about 4,096 sessions with typical
/// states takes 1 MB.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Kind, compressed length, uncompressed length, checksum.
const HEAD_BYTES: usize = 1 + 4 + 4 + 4;

/// Fastest compression, because the gateway compresses during operation.
const LEVEL: u8 = 1;

/// Limit of bytes that one chunk may decode into. Rows in the file may share one state of 4 KiB, which is copied for
/// each row: 4,096 sessions with full states, in and out, are 32 MiB, and a chunk has few such calls.
const DECODED_BYTES_MAX: usize = 256 << 20;

/// A well-formed frame with invalid content.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{part}: {found}")]
pub struct InvalidFrame {
    /// The part being read: `question`.
    pub(crate) part: &'static str,
    pub(crate) found: Box<str>,
}

pub(crate) fn malformed(part: &'static str, found: impl Into<Box<str>>) -> InvalidFrame {
    InvalidFrame { part, found: found.into() }
}

/// Appends an unsigned number as LEB128.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number, zigzag-encoded.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) struct FrameInput<'a> {
    rest: &'a [u8],
    decoded: usize,
}

impl<'a> FrameInput<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> FrameInput<'a> {
        FrameInput { rest: bytes, decoded: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self, part: &'static str) -> Result<u8, InvalidFrame> {
        let (&byte, rest) =
            self.rest.split_first().ok_or_else(|| malformed(part, "unexpected end"))?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn number(&mut self, part: &'static str) -> Result<u64, InvalidFrame> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(part)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(malformed(part, "number exceeds 64 bits"))
    }

    pub(crate) fn small(&mut self, part: &'static str) -> Result<u32, InvalidFrame> {
        let number = self.number(part)?;
        u32::try_from(number).map_err(|_| malformed(part, format!("{number} exceeds 32 bits")))
    }

    pub(crate) fn signed(&mut self, part: &'static str) -> Result<i64, InvalidFrame> {
        let number = self.number(part)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn fixed<const N: usize>(
        &mut self,
        part: &'static str,
    ) -> Result<[u8; N], InvalidFrame> {
        let (bytes, rest) =
            self.rest.split_first_chunk().ok_or_else(|| malformed(part, "unexpected end"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Reads a count of items with at least one byte each.
    pub(crate) fn count(&mut self, part: &'static str) -> Result<usize, InvalidFrame> {
        let count = self.number(part)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(malformed(part, format!("{count} items in {} bytes", self.rest.len()))),
        }
    }

    pub(crate) fn bytes(&mut self, part: &'static str) -> Result<&'a [u8], InvalidFrame> {
        let count = self.count(part)?;
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, part: &'static str) -> Result<&'a str, InvalidFrame> {
        let bytes = self.bytes(part)?;
        std::str::from_utf8(bytes).map_err(|_| malformed(part, "invalid UTF-8"))
    }

    pub(crate) fn flag(&mut self, part: &'static str) -> Result<bool, InvalidFrame> {
        match self.byte(part)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(malformed(part, format!("{other} is not a boolean"))),
        }
    }

    /// Reads a counted list. Its memory is charged before it is allocated.
    pub(crate) fn list<T>(
        &mut self,
        part: &'static str,
        mut next: impl FnMut(&mut FrameInput<'a>) -> Result<T, InvalidFrame>,
    ) -> Result<Vec<T>, InvalidFrame> {
        let count = self.count(part)?;
        self.charge(part, count * size_of::<T>())?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(next(self)?);
        }
        Ok(list)
    }

    /// Charges memory before its allocation: one stored state may be copied many times.
    pub(crate) fn charge(&mut self, part: &'static str, bytes: usize) -> Result<(), InvalidFrame> {
        self.decoded = self.decoded.saturating_add(bytes);
        if self.decoded > DECODED_BYTES_MAX {
            let found = format!("more than {DECODED_BYTES_MAX} bytes when decoded");
            return Err(malformed(part, found));
        }
        Ok(())
    }
}

/// The table of a chunk being filled.
#[derive(Default)]
pub(crate) struct ChunkTable {
    numbers: HashMap<Box<[u8]>, u64>,
    pub(crate) bytes: Vec<u8>,
    /// Label sets of the current question, by pointer: rows share them.
    labels: HashMap<usize, u64>,
}

impl ChunkTable {
    /// Starts a question. Label pointers of the last one are now invalid.
    pub(crate) fn begin(&mut self) {
        self.labels.clear();
    }

    fn number_of(&mut self, bytes: &[u8]) -> u64 {
        if let Some(&number) = self.numbers.get(bytes) {
            return number;
        }
        let number = self.numbers.len() as u64;
        self.numbers.insert(bytes.into(), number);
        put_bytes(&mut self.bytes, bytes);
        number
    }

    pub(crate) fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let number = self.number_of(bytes);
        put(out, number);
    }

    pub(crate) fn put_labels(&mut self, out: &mut Vec<u8>, labels: &Labels) {
        let pointer = labels.as_ptr() as usize;
        let number = match self.labels.get(&pointer) {
            // All empty label sets share one dangling pointer.
            Some(&number) if !labels.is_empty() => number,
            _ => {
                let mut written = Vec::new();
                write_labels(&mut written, labels);
                let number = self.number_of(&written);
                self.labels.insert(pointer, number);
                number
            }
        };
        put(out, number);
    }

    /// Appends a state: 0 for none; otherwise the number of the plugin's name plus 1, the schema and the bytes.
    pub(crate) fn put_state(&mut self, out: &mut Vec<u8>, state: Option<&PluginState>) {
        let Some(PluginState { plugin, schema, bytes }) = state else {
            put(out, 0);
            return;
        };
        let plugin = self.number_of(plugin.as_bytes());
        put(out, plugin + 1);
        put(out, u64::from(*schema));
        self.put(out, bytes);
    }

    /// Returns the current size, for [`ChunkTable::truncate`].
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.numbers.len(), self.bytes.len())
    }

    /// Removes the entries added since [`ChunkTable::mark`].
    pub(crate) fn truncate(&mut self, (count, bytes): (usize, usize)) {
        self.numbers.retain(|_, number| *number < count as u64);
        self.bytes.truncate(bytes);
        self.labels.clear();
    }

    /// Writes the table, which precedes the records.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put(out, self.numbers.len() as u64);
        out.extend_from_slice(&self.bytes);
    }
}

pub(crate) fn write_labels(out: &mut Vec<u8>, labels: &[(Box<str>, Box<str>)]) {
    put(out, labels.len() as u64);
    for (key, value) in labels {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

type LabelPairs = Vec<(Box<str>, Box<str>)>;

pub(crate) fn read_labels(read: &mut FrameInput<'_>) -> Result<LabelPairs, InvalidFrame> {
    read.list("labels", |read| Ok((read.text("label")?.into(), read.text("label")?.into())))
}

/// The table of a chunk being read.
pub(crate) struct TableReader<'a> {
    all: Vec<&'a [u8]>,
    texts: HashMap<u64, Arc<str>>,
    labels: HashMap<u64, Labels>,
}

impl<'a> TableReader<'a> {
    pub(crate) fn read(read: &mut FrameInput<'a>) -> Result<TableReader<'a>, InvalidFrame> {
        let all = read.list("table", |read| read.bytes("table"))?;
        Ok(TableReader { all, texts: HashMap::new(), labels: HashMap::new() })
    }

    fn at(&self, number: u64, part: &'static str) -> Result<&'a [u8], InvalidFrame> {
        let index = usize::try_from(number).ok();
        index.and_then(|index| self.all.get(index)).copied().ok_or_else(|| {
            malformed(part, format!("number {number} of a table of {}", self.all.len()))
        })
    }

    fn bytes(
        &self,
        read: &mut FrameInput<'_>,
        part: &'static str,
    ) -> Result<Box<[u8]>, InvalidFrame> {
        let bytes = self.at(read.number(part)?, part)?;
        read.charge(part, bytes.len())?;
        Ok(bytes.into())
    }

    /// Returns a text that all references share.
    pub(crate) fn text(
        &mut self,
        read: &mut FrameInput<'_>,
        part: &'static str,
    ) -> Result<Arc<str>, InvalidFrame> {
        let number = read.number(part)?;
        self.text_at(number, part)
    }

    fn text_at(&mut self, number: u64, part: &'static str) -> Result<Arc<str>, InvalidFrame> {
        if let Some(text) = self.texts.get(&number) {
            return Ok(Arc::clone(text));
        }
        let bytes = self.at(number, part)?;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed(part, "invalid UTF-8"))?;
        let text: Arc<str> = text.into();
        self.texts.insert(number, Arc::clone(&text));
        Ok(text)
    }

    pub(crate) fn own_text(
        &mut self,
        read: &mut FrameInput<'_>,
        part: &'static str,
    ) -> Result<Box<str>, InvalidFrame> {
        let text = self.text(read, part)?;
        read.charge(part, text.len())?;
        Ok((*text).into())
    }

    pub(crate) fn labels(&mut self, read: &mut FrameInput<'_>) -> Result<Labels, InvalidFrame> {
        let number = read.number("labels")?;
        if let Some(labels) = self.labels.get(&number) {
            return Ok(Arc::clone(labels));
        }
        let mut inside = FrameInput::new(self.at(number, "labels")?);
        let labels: Labels = read_labels(&mut inside)?.into();
        if !inside.is_empty() {
            return Err(malformed("labels", "bytes after the labels"));
        }
        self.labels.insert(number, Arc::clone(&labels));
        Ok(labels)
    }

    pub(crate) fn state(
        &mut self,
        read: &mut FrameInput<'_>,
    ) -> Result<Option<PluginState>, InvalidFrame> {
        let Some(plugin) = read.number("state")?.checked_sub(1) else { return Ok(None) };
        let plugin = self.text_at(plugin, "state")?;
        let schema = read.small("state")?;
        let bytes = self.bytes(read, "state")?;
        Ok(Some(PluginState { plugin, schema, bytes: bytes.into() }))
    }

    pub(crate) fn some_state(
        &mut self,
        read: &mut FrameInput<'_>,
    ) -> Result<PluginState, InvalidFrame> {
        self.state(read)?.ok_or_else(|| malformed("state", "missing"))
    }
}

/// A value in a record. `part` names it in errors.
pub(crate) trait Encoded: Sized {
    fn write(&self, table: &mut ChunkTable, out: &mut Vec<u8>);

    fn read(
        part: &'static str,
        table: &mut TableReader<'_>,
        read: &mut FrameInput<'_>,
    ) -> Result<Self, InvalidFrame>;
}

/// Encodes types by a function that writes a value and one that reads it.
macro_rules! encoded {
    ($($type:ty: $write:expr, $read:expr;)+) => {$(
        impl crate::wire::Encoded for $type {
            fn write(&self, table: &mut ChunkTable, out: &mut Vec<u8>) {
                let write: fn(&Self, &mut ChunkTable, &mut Vec<u8>) = $write;
                write(self, table, out);
            }

            fn read(
                part: &'static str,
                table: &mut TableReader<'_>,
                read: &mut FrameInput<'_>,
            ) -> Result<Self, InvalidFrame> {
                let from: fn(_, &mut TableReader<'_>, &mut FrameInput<'_>) -> _ = $read;
                from(part, table, read)
            }
        }
    )+};
}
pub(crate) use encoded;

/// Encodes the fields of a struct, in the order given.
macro_rules! encoded_struct {
    ($name:ident { $($field:ident),+ }) => {
        crate::wire::encoded! {
            $name: |it, table, out| { $(it.$field.write(table, out);)+ },
                |_, table, read| Ok($name {
                    $($field: Encoded::read(stringify!($field), table, read)?),+
                });
        }
    };
}
pub(crate) use encoded_struct;

encoded! {
    u32: |it, _, out| put(out, u64::from(*it)), |part, _, read| read.small(part);
    u64: |it, _, out| put(out, *it), |part, _, read| read.number(part);
    i64: |it, _, out| put_signed(out, *it), |part, _, read| read.signed(part);
    AskId: |it, _, out| put(out, it.0), |part, _, read| read.number(part).map(AskId);
    NodeId: |it, _, out| put(out, u64::from(it.0)), |part, _, read| read.small(part).map(NodeId);
    Box<str>: |it, table, out| table.put(out, it.as_bytes()),
        |part, table, read| table.own_text(read, part);
    PluginState: |it, table, out| table.put_state(out, Some(it)),
        |_, table, read| table.some_state(read);
    Option<PluginState>: |it, table, out| table.put_state(out, it.as_ref()),
        |_, table, read| table.state(read);
    (u32, PluginState): |(row, state), table, out| {
        row.write(table, out);
        state.write(table, out);
    }, |part, table, read| Ok((u32::read(part, table, read)?, table.some_state(read)?));
    (Box<str>, i64): |(key, value), table, out| {
        key.write(table, out);
        value.write(table, out);
    }, |part, table, read| Ok((table.own_text(read, part)?, read.signed(part)?));
}

impl<T: Encoded> Encoded for Vec<T> {
    fn write(&self, table: &mut ChunkTable, out: &mut Vec<u8>) {
        put(out, self.len() as u64);
        self.iter().for_each(|one| one.write(table, out));
    }

    fn read(
        part: &'static str,
        table: &mut TableReader<'_>,
        read: &mut FrameInput<'_>,
    ) -> Result<Self, InvalidFrame> {
        read.list(part, |read| T::read(part, table, read))
    }
}

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("file truncated")]
    CutOff,
    #[error("checksum mismatch")]
    Corrupted,
    /// The declared length exceeds the limit.
    #[error("frame larger than the limit")]
    TooLarge,
    /// The checksum matches, but the content is not a frame.
    #[error("invalid frame")]
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

#[cfg(test)]
mod tests;
